"""What a training step asks of the encoder: our own losses, and those of two published peers.

`compact` is Sieve's own (`sieve.model.training.learner`). `paper` follows what is public of J,
Bhatia & Bedathur 2025 (arXiv 2504.03184). `vocabulary` follows VDR (Zhou et al. 2024,
"Retrieval-based disentangled representation learning with natural language supervision"): each
dimension is a word.
"""

from __future__ import annotations

from collections.abc import Container
from typing import ClassVar, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from sieve.model.encoder import IMAGE, MODALITIES, TEXT, SparseEncoder, keep_top
from sieve.model.training.data import Batch, TrainingData
from sieve.model.training.distributed import ALONE, World
from sieve.model.training.learner import LOSSES, Learner, training_losses
from sieve.model.training.losses import info_nce, reconstruction, soft_contrast

ObjectiveName = Literal["compact", "paper", "vocabulary"]
StepLosses = tuple[dict[str, Tensor], Tensor]
_LEAST_PEAK = 1e-6
"""Maxima of a batch are not divided by less than this."""
_SILENT = 1e-4
"""A dimension whose maximum over the training items is no more than this is taken for silent."""


class Objective(Protocol):
    """The start, the steps and the end of a training."""

    asks: ClassVar[frozenset[str]]
    """Names of the losses that it has; the weights of others do nothing."""

    def begin(self, encoder: SparseEncoder) -> None:
        """Set the centres, and weights that do not start at random."""
        ...

    def losses(
        self, learner: Learner, batch: Batch, k: int, dead: Tensor | None, world: World = ALONE
    ) -> StepLosses:
        """Compute unweighted losses of a rank's share, and which dimensions fired: (m,) bool."""
        ...

    def finish(self, encoder: SparseEncoder, at_most: int | None = None) -> None:
        """Fold into the weights whatever encoding needs besides them.

        Parameters
        ----------
        encoder : SparseEncoder
        at_most : int, optional
            Look at about so many items and captions each, for a look in between.
        """
        ...


class Compact:
    """Contrast, reconstruction, presence: see `sieve.model.training.learner`."""

    asks: ClassVar[frozenset[str]] = LOSSES

    def __init__(
        self,
        data: TrainingData,
        m: int,  # noqa: ARG002
        wanted: Container[str] = LOSSES,
    ) -> None:
        self.data = data
        self.wanted = wanted

    def begin(self, encoder: SparseEncoder) -> None:
        """Centre each modality on its mean."""
        encoder.centre.copy_(self.data.centres())

    def losses(
        self, learner: Learner, batch: Batch, k: int, dead: Tensor | None, world: World = ALONE
    ) -> StepLosses:
        """See `sieve.model.training.learner.training_losses`."""
        return training_losses(learner, batch, k, dead, self.wanted, world)

    def finish(self, encoder: SparseEncoder, at_most: int | None = None) -> None:  # noqa: ARG002
        """Nothing is left to do."""


class Paper:
    """A linear layer with ReLU, normalised by its batch maxima; no centring.

    In training the k largest dimensions are kept, together with those that the captions mark. What
    is public does not say how captions mark dimensions; here the m most frequent words each own
    one, in order of frequency, and mark it where they stand in a caption of the item.
    """

    asks: ClassVar[frozenset[str]] = frozenset({"contrast", "reconstruct"})

    def __init__(self, data: TrainingData, m: int, wanted: Container[str] = ()) -> None:  # noqa: ARG002
        self.data = data
        frequent = np.argsort(-data.words.counts, kind="stable")[:m]
        self.marks = data.words.presence[:, frequent].tocsr()
        self.m = m

    @torch.no_grad()
    def begin(self, encoder: SparseEncoder) -> None:
        """Read the embeddings as they are."""
        encoder.centre.zero_()
        # Hundreds of codes near 1 add up: with unit columns the first reconstructions are far off.
        encoder.decode_md.mul_(encoder.config.k**-0.5)

    def losses(
        self,
        learner: Learner,
        batch: Batch,
        k: int,
        dead: Tensor | None,  # noqa: ARG002
        world: World = ALONE,
    ) -> StepLosses:
        """Reconstruction by a linear decoder, and contrast with soft targets."""
        encoder = learner.encoder
        embeddings = {IMAGE: batch.images, TEXT: batch.texts}
        given = {name: encoder.centred(embeddings[name], name) for name in MODALITIES}
        raw = {name: encoder.activations(given[name], name) for name in MODALITIES}
        peak = world.maximum(torch.maximum(raw[IMAGE].amax(0), raw[TEXT].amax(0)))
        peak = peak.clamp(min=_LEAST_PEAK)
        marked = self._marked(world.mine(batch.items))
        code = {}
        for name in MODALITIES:
            scaled = raw[name] / peak
            code[name] = torch.where(marked, scaled, keep_top(scaled, k))
        rebuilt = [reconstruction(code[n] @ encoder.decode_md, given[n]) / 2 for n in MODALITIES]
        losses = {
            "reconstruct": torch.stack(rebuilt).sum(),
            "contrast": soft_contrast(world.gather(code[IMAGE]), world.gather(code[TEXT])),
        }
        return losses, (code[IMAGE] > 0).any(0) | (code[TEXT] > 0).any(0)

    @torch.no_grad()
    def finish(self, encoder: SparseEncoder, at_most: int | None = None) -> None:
        """Divide by the maxima over the training items: ReLU lets them pass into the weights.

        A dimension that no training item has is silenced: it has no maximum to divide by, and
        dividing by next to nothing gives weights that no float16 holds.
        """
        collection = self.data.collection
        peak = torch.zeros(self.m)
        for name, embeddings, rows in (
            (IMAGE, collection.image_embeddings, self.data.rows),
            (TEXT, collection.text_embeddings, self.data.pairs),
        ):
            rows = rows[:: max(len(rows) // at_most, 1)] if at_most else rows
            for start in range(0, len(rows), 8192):
                part = np.asarray(embeddings[rows[start : start + 8192]], np.float32)
                active = encoder.activations(encoder.centred(torch.from_numpy(part), name), name)
                peak = torch.maximum(peak, active.amax(0))
        scale = torch.where(peak > _SILENT, 1 / peak.clamp(min=_SILENT), 0.0)
        encoder.encode_md.mul_(scale[:, None])
        encoder.bias.mul_(scale)

    def _marked(self, items: Tensor) -> Tensor:
        marks = np.zeros((len(items), self.m), bool)
        present = self.marks[items.cpu().numpy()].toarray() > 0
        marks[:, : present.shape[1]] = present
        return torch.from_numpy(marks).to(items.device)


class Vocabulary:
    """Each dimension is a word of the training captions; codes meet each other and word sets."""

    asks: ClassVar[frozenset[str]] = frozenset({"contrast"})

    def __init__(self, data: TrainingData, m: int, wanted: Container[str] = ()) -> None:  # noqa: ARG002
        n_words = len(data.words.words)
        if m != n_words:
            raise ValueError(
                f"a vocabulary code of {data.collection.name} needs a dimension for each of its "
                f"{n_words} words; got m={m}"
            )
        self.data = data

    @torch.no_grad()
    def begin(self, encoder: SparseEncoder) -> None:
        """Start each dimension as a detector of its word's embedding."""
        encoder.centre.copy_(self.data.centres())
        words = torch.from_numpy(self.data.word_embeddings())
        # ELU + 1 is flat around 0: cosines below 1 would hardly tell words apart.
        encoder.encode_md.copy_(5 * encoder.centred(words, TEXT))

    def losses(
        self,
        learner: Learner,
        batch: Batch,
        k: int,
        dead: Tensor | None,  # noqa: ARG002
        world: World = ALONE,
    ) -> StepLosses:
        """Contrast of image, text and the set of words that stand in the item's captions."""
        encoder = learner.encoder
        image, text = (
            encoder.keep(encoder.activations(encoder.centred(given, name), name), k)
            for name, given in ((IMAGE, batch.images), (TEXT, batch.texts))
        )
        present = self.data.words.presence[batch.items.cpu().numpy()].toarray()
        words = torch.from_numpy(present).to(image)
        scale = learner.contrast_scale
        fired = (image > 0).any(0) | (text > 0).any(0)
        image, text = world.gather(image), world.gather(text)
        pairs = ((image, text), (image, words), (text, words))
        terms = [info_nce(one, other, batch.items, scale) for one, other in pairs]
        return {"contrast": torch.stack(terms).mean()}, fired

    def finish(self, encoder: SparseEncoder, at_most: int | None = None) -> None:  # noqa: ARG002
        """Nothing is left to do."""


OBJECTIVES: dict[str, type[Compact] | type[Paper] | type[Vocabulary]] = {
    "compact": Compact,
    "paper": Paper,
    "vocabulary": Vocabulary,
}


def make_objective(
    name: ObjectiveName, data: TrainingData, m: int, wanted: Container[str]
) -> Objective:
    """Make the objective of a training.

    Parameters
    ----------
    name : str
    data : TrainingData
    m : int
    wanted : container of str
        Losses of a weight above 0.
    """
    return OBJECTIVES[name](data, m, wanted)
