"""The losses of the sparse encoder: one pure function each, its formula in the docstring."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def info_nce(images: Tensor, texts: Tensor, items: Tensor, log_scale: Tensor) -> Tensor:
    r"""Contrast pairs, both ways; all captions of one image are positive.

        L = -½ mean_i log Σ_{j ∈ P(i)} p_ij - ½ mean_j log Σ_{i ∈ P(j)} p_ji,
        p_i· = softmax(e^t cos(u_i, v_·))

    (InfoNCE: van den Oord et al. 2018, arXiv 1807.03748; CLIP's symmetric form.)

    Parameters
    ----------
    images, texts : (B, m) float
        Codes of pairs.
    items : (B,) int64
        Item of each pair; equal items are positives of each other.
    log_scale : () float
        t, learned.
    """
    logits = (
        log_scale.exp() * functional.normalize(images, dim=1) @ functional.normalize(texts, dim=1).T
    )
    positive = items[:, None] == items[None, :]
    return (_missed(logits, positive, 1) + _missed(logits, positive, 0)) / 2


def info_nce_share(
    images: Tensor,
    texts: Tensor,
    items: Tensor,
    all_images: Tensor,
    all_texts: Tensor,
    all_items: Tensor,
    log_scale: Tensor,
) -> Tensor:
    """Contrast a share of a batch's pairs with all of them.

    The mean over equal shares is `info_nce` of the batch.

    Parameters
    ----------
    images, texts : (b, m) float
        Codes of the share's pairs.
    items : (b,) int64
    all_images, all_texts : (B, m) float
    all_items : (B,) int64
    log_scale : () float
    """
    positive = items[:, None] == all_items[None, :]
    scale = log_scale.exp()
    missed = [
        _missed(
            scale * functional.normalize(own, dim=1) @ functional.normalize(others, dim=1).T,
            positive,
            1,
        )
        for own, others in ((images, all_texts), (texts, all_images))
    ]
    return (missed[0] + missed[1]) / 2


def _missed(logits: Tensor, positive: Tensor, dim: int) -> Tensor:
    """Mean of -log of the share that positives have of the softmax along a dimension."""
    only_positive = logits.masked_fill(~positive, -torch.inf)
    return (torch.logsumexp(logits, dim) - torch.logsumexp(only_positive, dim)).mean()


def soft_contrast(images: Tensor, texts: Tensor) -> Tensor:
    r"""Contrast pairs against soft targets: pairs that look or read alike are half positive.

        L = ½ CE(T, softmax(Z_I Z_Tᵀ)) + ½ CE(Tᵀ, softmax(Z_T Z_Iᵀ)),
        T = softmax((Z_I Z_Iᵀ + Z_T Z_Tᵀ) / 2)

    Parameters
    ----------
    images, texts : (B, m) float
        Codes of pairs, not normalised: their lengths set the temperature.
    """
    logits = images @ texts.T
    alike = ((images @ images.T + texts @ texts.T) / 2).detach()
    rows = functional.cross_entropy(logits, alike.softmax(1))
    # The target's matrix of similarities is symmetric, so its rows serve the other way too.
    return (rows + functional.cross_entropy(logits.T, alike.softmax(1))) / 2


def reconstruction(decoded: Tensor, target: Tensor) -> Tensor:
    """Squared error of a reconstruction: mean_i |x̂_i - x_i|², of (B, d) and (B, d)."""
    return (decoded - target).square().sum(1).mean()


def presence(codes: Tensor, words: Tensor, stands: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Teach what "has w" means: L = mean_{i,w} BCE(σ(e^s cos(z_i, z_w) + b), y_iw).

    Parameters
    ----------
    codes : (B, m) float
        Codes of images or captions.
    words : (W, m) float
        Codes of the words, asked for as people do.
    stands : (B, W) float
        1 where w stands in a caption of the pair's item, else 0.
    scale, bias : () float
        s and b, learned.
    """
    cosines = functional.normalize(codes, dim=1) @ functional.normalize(words, dim=1).T
    return functional.binary_cross_entropy_with_logits(scale.exp() * cosines + bias, stands)


def exclusion(images: Tensor, queries: Tensor, answers: Tensor, scale: Tensor) -> Tensor:
    r"""Rank what has A and not B above all else: a softmax over the batch's images.

        L = -mean_p mean_{i ∈ P(p)} log softmax_i(e^s u_p · z̄_i)

    Parameters
    ----------
    images : (B, m) float
        Codes of images.
    queries : (P, m) float
        u, "A without B" as a signed query: see `sieve.model.training.objectives.exclusion_query`.
    answers : (P, B) bool
        Where the image's captions have A and none has B; at least one a row.
    scale : () float
        s, learned.
    """
    logits = scale.exp() * queries @ functional.normalize(images, dim=1).T
    share = answers.float() / answers.sum(1, keepdim=True)
    return -(functional.log_softmax(logits.float(), 1) * share).sum(1).mean()


def balance(images: Tensor, texts: Tensor) -> Tensor:
    """Let each dimension be used as much by images as by texts.

        L = |ū - v̄|² / (|ū|² + |v̄|²), ū and v̄ the mean unit codes of the batch; in [0, 1]

    Parameters
    ----------
    images, texts : (B, m) float, non-negative
        Codes of pairs.
    """
    image, text = (functional.normalize(codes, dim=1).mean(0) for codes in (images, texts))
    return (image - text).square().sum() / (image.square().sum() + text.square().sum() + 1e-12)


def revive(activations: Tensor, residual: Tensor, dead: Tensor, directions: Tensor) -> Tensor:
    """Let dead dimensions explain what the others left: mean_i |e_i - W_dec a_i,dead|².

    The auxiliary loss of Gao et al. 2024 (arXiv 2406.04093), over all dead dimensions.

    Parameters
    ----------
    activations : (B, m) float
        Before TopK and ReLU.
    residual : (B, d) float
        Target minus reconstruction, without gradient.
    dead : (m,) bool
    directions : (m, d) float
        Decoder, unit rows.
    """
    guess = torch.where(dead, activations, 0.0) @ directions
    return (guess - residual.detach()).square().sum(1).mean()
