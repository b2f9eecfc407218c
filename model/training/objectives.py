"""What a training step asks of the encoder: our own losses, and those of two published peers.

`compact` is Sieve's own (`sieve.model.training.objectives`). `paper` follows what is public of J,
Bhatia & Bedathur 2025 (arXiv 2504.03184). `vocabulary` follows VDR (Zhou et al. 2024,
"Retrieval-based disentangled representation learning with natural language supervision"): each
dimension is a word.

One step's losses: what a batch of pairs says about the encoder.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container
from typing import ClassVar, Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sieve.model.encoder import IMAGE, MODALITIES, TEXT, SparseEncoder, keep_top
from sieve.model.training.data import Batch, TrainingData
from sieve.model.training.distributed import ALONE, World
from sieve.model.training.losses import (
    balance,
    exclusion,
    info_nce,
    info_nce_share,
    presence,
    reconstruction,
    revive,
    soft_contrast,
)

WIDE = 4
"""k is annealed from this many times k, and reconstruction is also asked at it."""
NARROW = 1
"""So many of a word's strongest dimensions must tell its presence by themselves."""

LOSSES = frozenset(
    {"contrast", "reconstruct", "cross", "presence", "narrow", "exclude", "balance", "revive"}
)


class TrainingModule(nn.Module):
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
    learner: TrainingModule,
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
    learner : TrainingModule
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
    learner: TrainingModule, images: Tensor, texts: Tensor, words: Tensor, stands: Tensor
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


def _exclude(learner: TrainingModule, batch: Batch, images: Tensor, words: Tensor) -> Tensor:
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
        self,
        learner: TrainingModule,
        batch: Batch,
        k: int,
        dead: Tensor | None,
        world: World = ALONE,
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
    """Contrast, reconstruction, presence: see `sieve.model.training.objectives`."""

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
        self,
        learner: TrainingModule,
        batch: Batch,
        k: int,
        dead: Tensor | None,
        world: World = ALONE,
    ) -> StepLosses:
        """See `sieve.model.training.objectives.training_losses`."""
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
        learner: TrainingModule,
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
        learner: TrainingModule,
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
