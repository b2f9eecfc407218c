"""One step's losses: what a batch of pairs says about the encoder."""

from __future__ import annotations

import math
from collections.abc import Callable, Container
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from sieve.model.encoder import IMAGE, TEXT, SparseEncoder, keep_top
from sieve.model.training.data import Batch
from sieve.model.training.distributed import ALONE, World
from sieve.model.training.losses import (
    balance,
    exclusion,
    info_nce,
    info_nce_share,
    presence,
    reconstruction,
    revive,
)

WIDE = 4
"""k is annealed from this many times k, and reconstruction is also asked at it."""
NARROW = 1
"""So many of a word's strongest dimensions must tell its presence by themselves."""

LOSSES = frozenset(
    {"contrast", "reconstruct", "cross", "presence", "narrow", "exclude", "balance", "revive"}
)


class Learner(nn.Module):
    """The encoder with the scalars that only training needs."""

    def __init__(self, encoder: SparseEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.contrast_scale = nn.Parameter(torch.tensor(math.log(15.0)))
        self.exclude_scale = nn.Parameter(torch.tensor(math.log(15.0)))
        self.presence_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.presence_bias = nn.Parameter(torch.tensor(-5.0))
        self.narrow_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.narrow_bias = nn.Parameter(torch.tensor(-5.0))


class Side(NamedTuple):
    """One modality of a batch on its way through the encoder."""

    target: Tensor
    """(B, d): centred embeddings"""
    raw: Tensor
    """(B, m): activations before any are dropped"""
    code: Tensor
    """(B, m)"""
    decoded: Tensor
    """(B, d): what the code rebuilds"""


def training_losses(
    learner: Learner,
    batch: Batch,
    k: int,
    dead: Tensor | None,
    wanted: Container[str] = LOSSES,
    world: World = ALONE,
) -> tuple[dict[str, Tensor], Tensor]:
    """Compute the unweighted losses of a batch, or of a rank's share of it.

    The mean of a loss over the ranks is the loss of the whole batch, and so are their gradients.

    Parameters
    ----------
    learner : Learner
    batch : Batch
    k : int
        Active dimensions of an image at this step.
    dead : (m,) bool, optional
        Dimensions to revive; None where all are live, as a compiler cannot look into a tensor.
    wanted : container of str
        Losses to compute; those of weight 0 would only take time.
    world : World
        Whose share the batch's images and texts are.

    Returns
    -------
    losses : dict of str to () float
        Keyed as their weights in `TrainingConfig`.
    fired : (m,) bool
        Dimensions that some row of the share has.
    """
    encoder = learner.encoder
    directions = functional.normalize(encoder.decode_md, dim=1)
    image = _encode(encoder, batch.images, IMAGE, k, directions)
    text = _encode(encoder, batch.texts, TEXT, k, directions)
    words = encoder.keep(
        encoder.activations(encoder.centred(batch.words, TEXT), TEXT), _active(encoder, TEXT, k)
    )
    all_images, all_texts = _whole(image.code, text.code, world)

    def contrast() -> Tensor:
        scale = learner.contrast_scale
        if world.size == 1:
            return info_nce(image.code, text.code, batch.items, scale)
        own = (image.code, text.code, world.mine(batch.items))
        return info_nce_share(*own, all_images, all_texts, batch.items, scale)

    terms: dict[str, Callable[[], Tensor]] = {
        "contrast": contrast,
        "reconstruct": lambda: (
            _rebuilding(encoder, image, directions) + _rebuilding(encoder, text, directions)
        ),
        "cross": lambda: (
            (
                reconstruction(image.decoded, text.target)
                + reconstruction(text.decoded, image.target)
            )
            / 2
        ),
        "balance": lambda: balance(all_images, all_texts),
    }
    if len(words):
        stands = world.mine(batch.stands)
        terms |= _word_terms(learner, image.code, text.code, words, stands)
        if len(batch.exclusions):
            terms["exclude"] = lambda: _exclude(learner, batch, all_images, words)
    if dead is not None:
        linear = functional.linear(image.target, encoder.encode_md)
        residual = image.target - image.decoded
        terms["revive"] = lambda: revive(linear, residual, dead, directions)
    losses = {name: term() for name, term in terms.items() if name in wanted}
    return losses, (image.code > 0).any(0) | (text.code > 0).any(0)


def _whole(images: Tensor, texts: Tensor, world: World) -> tuple[Tensor, Tensor]:
    """Codes of the whole batch's images and texts: twice (b, m) → twice (B, m)."""
    if world.size == 1:
        return images, texts
    # Both in one exchange: half the waiting, and its way back has one order only.
    both = world.gather(torch.cat([images, texts], 1))
    return both[:, : images.shape[1]], both[:, images.shape[1] :]


def _word_terms(
    learner: Learner, images: Tensor, texts: Tensor, words: Tensor, stands: Tensor
) -> dict[str, Callable[[], Tensor]]:
    """List the losses of word presence: codes of images, texts (b, m), words (W, m); (b, W)."""

    def present() -> Tensor:
        scale, bias = learner.presence_scale, learner.presence_bias
        return (
            presence(images, words, stands, scale, bias)
            + presence(texts, words, stands, scale, bias)
        ) / 2

    def narrow() -> Tensor:
        few = keep_top(words, NARROW)
        return presence(images, few, stands, learner.narrow_scale, learner.narrow_bias)

    return {"presence": present, "narrow": narrow}


def _exclude(learner: Learner, batch: Batch, images: Tensor, words: Tensor) -> Tensor:
    """Ask for A without B among all images of the batch: codes (B, m), of words (W, m)."""
    a, b = batch.exclusions.unbind(1)
    answers = (batch.stands[:, a] > 0) & (batch.stands[:, b] == 0)
    queries = exclusion_query(learner.encoder, words[a], words[b])
    return exclusion(images, queries, answers.T, learner.exclude_scale)


def exclusion_query(encoder: SparseEncoder, a: Tensor, b: Tensor) -> Tensor:
    """Write "A without B" as one signed query: (P, m).

    As search does at strictness 1: dimensions stronger in B than in A are off and push by B's
    strength, the others are A's own. A dense control has no dimension to switch; B is subtracted.
    """
    a, b = functional.normalize(a, dim=1), functional.normalize(b, dim=1)
    if encoder.config.activation == "dense":
        return a - b
    return torch.where(b > a, -b, a)


def _active(encoder: SparseEncoder, modality: str, k: int) -> int:
    """Active dimensions of a modality where images have k."""
    return round(k * encoder.config.active(modality) / encoder.config.k)


def _encode(
    encoder: SparseEncoder, embeddings: Tensor, modality: str, k: int, directions: Tensor
) -> Side:
    target = encoder.centred(embeddings, modality)
    raw = encoder.activations(target, modality)
    code = encoder.keep(raw, _active(encoder, modality, k))
    return Side(target, raw, code, code @ directions)


def _rebuilding(encoder: SparseEncoder, side: Side, directions: Tensor) -> Tensor:
    """Reconstruct from the code, and from four times as many active dimensions."""
    wide = min(WIDE * encoder.config.k, encoder.config.m)
    wide_decoded = encoder.keep(side.raw, wide) @ directions
    return (
        reconstruction(side.decoded, side.target) / 2
        + reconstruction(wide_decoded, side.target) / 16
    )
