"""One step's losses: what a batch of pairs says about the encoder."""

from __future__ import annotations

import math
from collections.abc import Container

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.encoder import IMAGE, MODALITIES, TEXT, SparseEncoder
from model.losses import balance, exclusion, info_nce, presence, reconstruction, revive
from model.training_data import Batch

WIDE = 4
"""k is annealed from this many times k, and reconstruction is also asked at it."""


class Learner(nn.Module):
    """The encoder with the scalars that only training needs."""

    def __init__(self, encoder: SparseEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.contrast_scale = nn.Parameter(torch.tensor(math.log(15.0)))
        self.exclude_scale = nn.Parameter(torch.tensor(math.log(15.0)))
        self.presence_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.presence_bias = nn.Parameter(torch.tensor(-5.0))


LOSSES = frozenset({"contrast", "reconstruct", "cross", "presence", "exclude", "balance", "revive"})


def training_losses(
    learner: Learner, batch: Batch, k: int, dead: Tensor, wanted: Container[str] = LOSSES
) -> tuple[dict[str, Tensor], Tensor]:
    """Compute the unweighted losses of a batch.

    Parameters
    ----------
    learner : Learner
    batch : Batch
    k : int
        Active dimensions at this step.
    dead : (m,) bool
    wanted : container of str
        Losses to compute; those of weight 0 would only take time.

    Returns
    -------
    losses : dict of str to () float
        Keyed as their weights in `TrainingConfig`.
    fired : (m,) bool
        Dimensions that some row of the batch has.
    """
    encoder = learner.encoder
    directions = functional.normalize(encoder.decode_md, dim=1)
    target, code, raw, decoded = {}, {}, {}, {}
    active = {
        name: round(k * encoder.config.active(name) / encoder.config.k) for name in MODALITIES
    }
    for modality, embeddings in ((IMAGE, batch.images), (TEXT, batch.texts)):
        target[modality] = encoder.centred(embeddings, modality)
        raw[modality] = encoder.activations(target[modality], modality)
        code[modality] = encoder.keep(raw[modality], active[modality])
        decoded[modality] = code[modality] @ directions
    losses = {}
    if "contrast" in wanted:
        losses["contrast"] = info_nce(code[IMAGE], code[TEXT], batch.items, learner.contrast_scale)
    if "reconstruct" in wanted:
        losses["reconstruct"] = sum(
            (
                reconstruction(decoded[name], target[name]) / 2
                + reconstruction(_decode_wide(encoder, raw[name], directions), target[name]) / 16
                for name in MODALITIES
            ),
            start=directions.new_zeros(()),
        )
    if "cross" in wanted:
        there = reconstruction(decoded[IMAGE], target[TEXT])
        losses["cross"] = (there + reconstruction(decoded[TEXT], target[IMAGE])) / 2
    asked = encoder.activations(encoder.centred(batch.words, TEXT), TEXT)
    words = encoder.keep(asked, active[TEXT])
    if "presence" in wanted and len(words):
        scale, bias = learner.presence_scale, learner.presence_bias
        losses["presence"] = sum(
            (presence(code[name], words, batch.stands, scale, bias) / 2 for name in MODALITIES),
            start=directions.new_zeros(()),
        )
    if "exclude" in wanted and len(batch.exclusions):
        a, b = batch.exclusions.unbind(1)
        answers = (batch.stands[:, a] > 0) & (batch.stands[:, b] == 0)
        queries = push_away(words[a], words[b])
        losses["exclude"] = exclusion(code[IMAGE], queries, answers.T, learner.exclude_scale)
    if "balance" in wanted:
        losses["balance"] = balance(code[IMAGE], code[TEXT])
    if "revive" in wanted and dead.any():
        linear = functional.linear(target[IMAGE], encoder.encode_md)
        losses["revive"] = revive(linear, target[IMAGE] - decoded[IMAGE], dead, directions)
    fired = (code[IMAGE] > 0).any(0) | (code[TEXT] > 0).any(0)
    return losses, fired


def push_away(a: Tensor, b: Tensor) -> Tensor:
    """Write "A without B" as one signed query, as search does at strictness 1: (P, m).

    Dimensions stronger in B than in A are off and push by B's strength; the others are A's own.
    """
    a, b = functional.normalize(a, dim=1), functional.normalize(b, dim=1)
    return torch.where(b > a, -b, a)


def _decode_wide(encoder: SparseEncoder, raw: Tensor, directions: Tensor) -> Tensor:
    """Reconstruct from four times as many active dimensions: (B, m) → (B, d)."""
    wide = min(WIDE * encoder.config.k, encoder.config.m)
    return encoder.keep(raw, wide) @ directions
