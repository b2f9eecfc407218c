"""A straightforward version of `sieve.model.training.objectives`, the baseline of `training`.

Float32, `nn.Linear`, a dense 0/1 mask for the top-k selection, each term of the loss computed
separately: the usual way to write it, neither slowed down nor tuned.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sieve.model.hyperparameters import TrainingConfig
from sieve.model.training.data import Batch


class PlainModel(nn.Module):
    """A TopK autoencoder shared by images and texts, with the scalars of the losses."""

    def __init__(self, d: int, m: int, centre: Tensor) -> None:
        super().__init__()
        self.encode = nn.Linear(d, m, bias=False)
        self.bias = nn.Parameter(torch.zeros(2, m))
        self.decode = nn.Linear(m, d, bias=False)
        self.centre = nn.Parameter(centre, requires_grad=False)
        self.contrast_scale = nn.Parameter(torch.tensor(15.0).log())
        self.exclude_scale = nn.Parameter(torch.tensor(15.0).log())
        self.presence_scale = nn.Parameter(torch.tensor(10.0).log())
        self.presence_bias = nn.Parameter(torch.tensor(-5.0))
        self.narrow_scale = nn.Parameter(torch.tensor(10.0).log())
        self.narrow_bias = nn.Parameter(torch.tensor(-5.0))
        self.assign_scale = nn.Parameter(torch.tensor(10.0).log())

    def centred(self, x: Tensor, modality: int) -> Tensor:
        """Subtract the modality's mean."""
        return F.normalize(x - self.centre[modality], dim=-1)

    def code(self, x: Tensor, modality: int, k: int) -> Tensor:
        """Encode and select the k largest activations."""
        active = F.relu(self.encode(self.centred(x, modality)) + self.bias[modality])
        return active * top_mask(active, k)

    def rebuild(self, code: Tensor) -> Tensor:
        """Decode with unit-norm columns."""
        return code @ F.normalize(self.decode.weight, dim=0).T


def top_mask(x: Tensor, k: int) -> Tensor:
    """Return a mask of the k largest entries of each row."""
    mask = torch.zeros_like(x)
    mask.scatter_(1, x.topk(k, dim=1).indices, 1.0)
    return mask


def squared_error(x: Tensor, y: Tensor) -> Tensor:
    """Return the squared distance, averaged over rows."""
    return ((x - y) ** 2).sum(1).mean()


def contrast_loss(images: Tensor, texts: Tensor, items: Tensor, scale: Tensor) -> Tensor:
    """Return the symmetric InfoNCE loss; all captions of an image are positives."""
    logits = scale.exp() * F.normalize(images, dim=1) @ F.normalize(texts, dim=1).T
    positive = (items[:, None] == items[None, :]).float()
    loss = torch.zeros((), device=images.device)
    for scores in (logits, logits.T):
        share = (scores.softmax(1) * positive).sum(1)
        loss = loss - share.clamp(min=1e-30).log().mean() / 2
    return loss


def presence_loss(codes: Tensor, words: Tensor, stands: Tensor, scale: Tensor, bias: Tensor):
    """Return the binary cross-entropy of a word's cosine and its presence in the captions."""
    cosine = F.normalize(codes, dim=1) @ F.normalize(words, dim=1).T
    return F.binary_cross_entropy_with_logits(scale.exp() * cosine + bias, stands)


def assigned_loss(model: PlainModel, batch: Batch, word_dimension: Tensor) -> Tensor:
    """Return the presence loss by the dimensions of the frequent words that have one."""
    dimensions = word_dimension[batch.frequent_ids]
    has_one = dimensions >= 0
    if not has_one.any():
        return torch.zeros((), device=batch.images.device)
    rows = dimensions[has_one]
    images = model.centred(batch.images, 0)
    linear = model.encode(images)[:, rows] + model.bias[0][rows]
    logits = model.assign_scale.exp() * linear + batch.frequent_log_odds[has_one]
    targets = batch.frequent_presence[:, has_one]
    similar = images @ batch.frequent_directions[has_one].T > batch.frequent_similarity[has_one]
    counted = 1 - (similar & (targets == 0)).float()
    return F.binary_cross_entropy_with_logits(logits, targets, counted)


def concentration_loss(words: Tensor, dimensions: Tensor) -> Tensor:
    """Return the mean negative log energy share of the dimensions of the words that have one."""
    has_one = dimensions >= 0
    if not has_one.any():
        return torch.zeros((), device=words.device)
    codes = F.normalize(words, dim=1)[has_one]
    share = codes[torch.arange(len(codes)), dimensions[has_one]] ** 2
    return -share.clamp(1e-3, 0.8).log().mean()


def exclusion_loss(images: Tensor, words: Tensor, batch: Batch, scale: Tensor) -> Tensor:
    """Return the loss that ranks items with A and without B above all others."""
    words = F.normalize(words, dim=1)
    a, b = words[batch.exclusions[:, 0]], words[batch.exclusions[:, 1]]
    queries = torch.where(b > a, -b, a)
    logits = scale.exp() * queries @ F.normalize(images, dim=1).T
    has_a, has_b = (
        batch.presence.T[batch.exclusions[:, 0]],
        batch.presence.T[batch.exclusions[:, 1]],
    )
    answers = has_a * (1 - has_b)
    target = answers / answers.sum(1, keepdim=True)
    return -(target * logits.log_softmax(1)).sum(1).mean()


def balance_loss(images: Tensor, texts: Tensor) -> Tensor:
    """Return the distance between the mean unit codes of the two modalities."""
    u, v = F.normalize(images, dim=1).mean(0), F.normalize(texts, dim=1).mean(0)
    return ((u - v) ** 2).sum() / ((u**2).sum() + (v**2).sum() + 1e-12)


def plain_losses(
    model: PlainModel, batch: Batch, config: TrainingConfig, k: int, word_dimension: Tensor
) -> dict[str, Tensor]:
    """Compute all losses of a batch in which no dimension is dead."""
    wide = min(4 * config.k, config.m)
    image, text = model.centred(batch.images, 0), model.centred(batch.texts, 1)
    image_code, text_code = model.code(batch.images, 0, k), model.code(batch.texts, 1, k)
    word_code = model.code(batch.words, 1, k)
    narrow = word_code * top_mask(word_code, 1)
    dimensions = word_dimension[batch.word_ids]
    image_rebuilt, text_rebuilt = model.rebuild(image_code), model.rebuild(text_code)
    image_wide = model.rebuild(model.code(batch.images, 0, wide))
    text_wide = model.rebuild(model.code(batch.texts, 1, wide))
    presence = (model.presence_scale, model.presence_bias)
    return {
        "contrast": contrast_loss(image_code, text_code, batch.items, model.contrast_scale),
        "reconstruct": squared_error(image_rebuilt, image) / 2
        + squared_error(text_rebuilt, text) / 2
        + squared_error(image_wide, image) / 16
        + squared_error(text_wide, text) / 16,
        "cross": (squared_error(image_rebuilt, text) + squared_error(text_rebuilt, image)) / 2,
        "presence": presence_loss(image_code, word_code, batch.presence, *presence) / 2
        + presence_loss(text_code, word_code, batch.text_presence, *presence) / 2,
        "narrow": presence_loss(
            image_code, narrow, batch.presence, model.narrow_scale, model.narrow_bias
        ),
        "assign": assigned_loss(model, batch, word_dimension),
        "concentrate": concentration_loss(word_code, dimensions),
        "exclude": exclusion_loss(image_code, word_code, batch, model.exclude_scale),
        "balance": balance_loss(image_code, text_code),
    }
