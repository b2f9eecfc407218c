"""Losses of the sparse encoder, as pure functions.

Most compare unit codes: rows of Euclidean norm 1, or 0 where no dimension is active. To add one,
write a function here, add its name and weight to `sieve.model.hyperparameters`, and its term to
`Compact.losses` in `sieve.model.training.objectives`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_LEAST_SHARE, _ENOUGH_SHARE = 1e-3, 0.8
"""Limits of the share of energy that `concentration` acts on."""


def info_nce(images: Tensor, texts: Tensor, items: Tensor, log_scale: Tensor) -> Tensor:
    r"""Return the symmetric InfoNCE loss; all captions of one image are positives.

        L = -½ mean_i log Σ_{j ∈ P(i)} p_ij - ½ mean_j log Σ_{i ∈ P(j)} p_ji,
        p_i· = softmax(e^t u_i · v_·)

    (InfoNCE: van den Oord et al. 2018, arXiv 1807.03748; CLIP's symmetric form.) u, v: (B, m)
    unit codes of pairs. `items` : (B,) int64; equal items are positives of each other. t: (),
    learned.
    """
    logits = log_scale.exp() * images @ texts.T
    positive = items[:, None] == items[None, :]
    return (_negative_log_share(logits, positive, 1) + _negative_log_share(logits, positive, 0)) / 2


def info_nce_share(
    images: Tensor,
    texts: Tensor,
    items: Tensor,
    all_images: Tensor,
    all_texts: Tensor,
    all_items: Tensor,
    log_scale: Tensor,
) -> Tensor:
    """Return the InfoNCE loss of a share of b pairs against the whole batch of B.

    The mean over equal shares is the `info_nce` of the batch.
    """
    positive = items[:, None] == all_items[None, :]
    scale = log_scale.exp()
    of_images = _negative_log_share(scale * images @ all_texts.T, positive, 1)
    of_texts = _negative_log_share(scale * texts @ all_images.T, positive, 1)
    return (of_images + of_texts) / 2


def _negative_log_share(logits: Tensor, positive: Tensor, dim: int) -> Tensor:
    """Mean negative log of the softmax mass of the positives along a dimension."""
    only_positive = logits.masked_fill(~positive, -torch.inf)
    return (torch.logsumexp(logits, dim) - torch.logsumexp(only_positive, dim)).mean()


def soft_contrast(images: Tensor, texts: Tensor) -> Tensor:
    r"""Return contrastive cross-entropy with soft targets from within-modality similarity.

        L = ½ CE(T, softmax(Z_I Z_Tᵀ)) + ½ CE(Tᵀ, softmax(Z_T Z_Iᵀ)),
        T = softmax((Z_I Z_Iᵀ + Z_T Z_Tᵀ) / 2)

    Z: (B, m) codes of pairs, not normalised: their lengths set the temperature.
    """
    logits = images @ texts.T
    similarity = ((images @ images.T + texts @ texts.T) / 2).detach()
    rows = functional.cross_entropy(logits, similarity.softmax(1))
    # The target's matrix of similarities is symmetric, so its rows serve the other way too.
    return (rows + functional.cross_entropy(logits.T, similarity.softmax(1))) / 2


def reconstruction(decoded: Tensor, target: Tensor) -> Tensor:
    """Return the squared reconstruction error: mean_i |x̂_i - x_i|², of (B, d) and (B, d)."""
    return (decoded - target).square().sum(1).mean()


def presence(cosines: Tensor, targets: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Return the word presence loss: L = mean_{i,w} BCE(σ(e^s c_iw + b), y_iw).

    c: (B, W) cosines of the codes of images or captions with those of words in prompts. y: (B, W),
    1 if a caption of the item has w, else 0. s, b: learned, ().
    """
    return functional.binary_cross_entropy_with_logits(scale.exp() * cosines + bias, targets)


def assigned_presence(
    activations: Tensor,
    dimensions: Tensor,
    targets: Tensor,
    omitted: Tensor,
    log_odds: Tensor,
    log_scale: Tensor,
) -> Tensor:
    """Return the word presence loss by one dimension per word.

        L = mean_{i,w} u_iw BCE(σ(e^s a_iw + o_w), y_iw), over words w with a dimension

    An activation is thus proportional to the evidence for the word: 0 if the image does not change
    the odds that the word has in the collection.

    Parameters
    ----------
    activations : (B, F) float
        a: of each word's dimension, before ReLU and TopK, so that inactive dimensions learn too.
    dimensions : (F,) int64
        -1 for a word without a dimension.
    targets : (B, F) float
        y: 1 if a caption of the item has the word, else 0.
    omitted : (B, F) bool
        1 - u: words that the captions may omit, which count neither as present nor as absent.
    log_odds : (F,) float
        o: log odds of each word in the collection.
    log_scale : () float
        s: learned.
    """
    logits = log_scale.exp() * activations + log_odds
    each = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return _mean_of_assigned(each.masked_fill(omitted, 0.0).mean(0), dimensions)


def concentration(words: Tensor, dimensions: Tensor) -> Tensor:
    """Return how little of the energy of a word's code is in its assigned dimension.

        L = mean_w -log(z̄²_w,j(w)), over words w with a dimension j(w)

    The share of the energy is limited to [`_LEAST_SHARE`, `_ENOUGH_SHARE`], so that a word may keep
    related dimensions. z̄: unit codes of words, (W, m). `dimensions` : (W,) int64, or -1 for none.
    """
    share = words.gather(1, dimensions.clamp(min=0)[:, None]).squeeze(1).square()
    return _mean_of_assigned(-share.clamp(_LEAST_SHARE, _ENOUGH_SHARE).log(), dimensions)


def _mean_of_assigned(values: Tensor, dimensions: Tensor) -> Tensor:
    """Return the mean of the values (W,) of words with a dimension; 0 if no word has one."""
    has_one = dimensions >= 0
    return torch.where(has_one, values, 0.0).sum() / has_one.sum().clamp(min=1)


def exclusion(images: Tensor, queries: Tensor, relevant: Tensor, scale: Tensor) -> Tensor:
    r"""Return the listwise loss that ranks items with A and without B first.

        L = -mean_p mean_{i ∈ P(p)} log softmax_i(e^s u_p · z̄_i)

    z̄: (B, m) unit codes of images. u: (P, m), "A without B" as a signed query: see
    `sieve.model.training.objectives`. `relevant` : (P, B) bool, whether the captions of the image
    have A and not B; at least one per row. s: learned, ().
    """
    logits = scale.exp() * queries @ images.T
    share = relevant.float() / relevant.sum(1, keepdim=True)
    return -(functional.log_softmax(logits.float(), 1) * share).sum(1).mean()


def balance(images: Tensor, texts: Tensor) -> Tensor:
    """Return the imbalance between the use of dimensions by images and by texts.

    L = |ū - v̄|² / (|ū|² + |v̄|²), in [0, 1]; ū and v̄: means of the unit codes of a batch, (B, m)
    """
    image, text = images.mean(0), texts.mean(0)
    return (image - text).square().sum() / (image.square().sum() + text.square().sum() + 1e-12)


def revive(activations: Tensor, residual: Tensor, dead: Tensor, directions: Tensor) -> Tensor:
    """Return the residual that dead dimensions fail to explain: mean_i |e_i - W_dec a_i,dead|².

    The auxiliary loss of Gao et al. 2024 (arXiv 2406.04093), over all dead dimensions, (m,) bool.
    a: (B, m), before TopK and ReLU. e: (B, d), target minus reconstruction, without gradient.
    W_dec: `directions`, (m, d) unit rows.
    """
    guess = torch.where(dead, activations, 0.0) @ directions
    return (guess - residual.detach()).square().sum(1).mean()
