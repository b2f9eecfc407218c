"""One step's losses: what a batch of pairs says about the encoder."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.encoder import IMAGE, MODALITIES, TEXT, SparseEncoder
from model.losses import info_nce, presence, reconstruction, revive
from model.training_data import Batch

WIDE = 4
"""k is annealed from this many times k, and reconstruction is also asked at it."""


class Learner(nn.Module):
    """The encoder with the scalars that only training needs."""

    def __init__(self, encoder: SparseEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.contrast_scale = nn.Parameter(torch.tensor(math.log(15.0)))
        self.presence_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.presence_bias = nn.Parameter(torch.tensor(-5.0))


def training_losses(
    learner: Learner, batch: Batch, k: int, dead: Tensor
) -> tuple[dict[str, Tensor], Tensor]:
    """Compute every unweighted loss of a batch.

    Parameters
    ----------
    learner : Learner
    batch : Batch
    k : int
        Active dimensions at this step.
    dead : (m,) bool

    Returns
    -------
    losses : dict of str to () float
        Keyed as their weights in `TrainingConfig`.
    fired : (m,) bool
        Dimensions that some row of the batch has.
    """
    encoder = learner.encoder
    wide = min(WIDE * encoder.config.k, encoder.config.m)
    directions = functional.normalize(encoder.decode_md, dim=1)
    target, code, raw = {}, {}, {}
    rebuilt = batch.images.new_zeros(())
    for modality, embeddings in ((IMAGE, batch.images), (TEXT, batch.texts)):
        target[modality] = encoder.centred(embeddings, modality)
        raw[modality] = encoder.activations(target[modality], modality)
        code[modality] = encoder.keep(raw[modality], k)
        rebuilt = rebuilt + reconstruction(code[modality] @ directions, target[modality]) / 2
        wide_code = encoder.keep(raw[modality], wide)
        rebuilt = rebuilt + reconstruction(wide_code @ directions, target[modality]) / 16
    losses = {
        "contrast": info_nce(code[IMAGE], code[TEXT], batch.items, learner.contrast_scale),
        "reconstruct": rebuilt,
        "cross": (
            reconstruction(code[IMAGE] @ directions, target[TEXT])
            + reconstruction(code[TEXT] @ directions, target[IMAGE])
        )
        / 2,
    }
    if len(batch.words):
        words = encoder.keep(encoder.activations(encoder.centred(batch.words, TEXT), TEXT), k)
        scale, bias = learner.presence_scale, learner.presence_bias
        losses["presence"] = sum(
            (presence(code[name], words, batch.stands, scale, bias) / 2 for name in MODALITIES),
            start=rebuilt.new_zeros(()),
        )
    if dead.any():
        linear = functional.linear(target[IMAGE], encoder.encode_md)
        residual = target[IMAGE] - code[IMAGE] @ directions
        losses["revive"] = revive(linear, residual, dead, directions)
    fired = (code[IMAGE] > 0).any(0) | (code[TEXT] > 0).any(0)
    return losses, fired
