"""Training objectives: the losses of Sieve, and those of two published baselines.

`compact` is Sieve's own. `paper` follows the public description of J, Bhatia & Bedathur 2025 (arXiv
2504.03184). `vocabulary` follows VDR (Zhou et al. 2024, "Retrieval-based disentangled
representation learning with natural language supervision"): each dimension is a word.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sieve.model.encoder import SparseEncoder, keep_top
from sieve.model.hyperparameters import IMAGE, LOSSES, MODALITIES, TEXT, TrainingConfig
from sieve.model.training.data import Batch, TrainingData, modality_means
from sieve.model.training.distributed import ALONE, World
from sieve.model.training.losses import (
    assigned_presence,
    balance,
    concentration,
    exclusion,
    info_nce,
    info_nce_share,
    presence,
    reconstruction,
    revive,
    soft_contrast,
)

WIDE = 4
"""k is annealed from `WIDE` * k, where reconstruction is also measured."""
ASSIGN_FROM = 0.15
"""Share of the steps before words are assigned to dimensions for the first time."""
ASSIGN_EVERY = 0.05
"""Share of the steps between two assignments."""
KEEP_ASSIGNED = 0.1
"""Advantage of the present dimension of a word in the next assignment."""
CONCENTRATED_FROM = 0.5
"""Share of the steps over which the weight of `concentrate` rises to its full value."""
_LEAST_PEAK = 1e-6
"""Lower bound of the batch maxima that activations are divided by."""
_SILENT = 1e-4
"""A dimension with at most this maximum over the training items counts as dead."""

StepLosses = tuple[dict[str, Tensor], Tensor]
"""Unweighted losses by the names of their weights, and which dimensions fired: (m,) bool."""


class TrainingModule(nn.Module):
    """The encoder, the learned scalars of the losses, and the dimension assigned to each word."""

    def __init__(self, encoder: SparseEncoder, n_words: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.contrast_scale = nn.Parameter(torch.tensor(math.log(15.0)))
        self.exclude_scale = nn.Parameter(torch.tensor(math.log(15.0)))
        self.presence_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.presence_bias = nn.Parameter(torch.tensor(-5.0))
        self.narrow_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.narrow_bias = nn.Parameter(torch.tensor(-5.0))
        self.assign_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.word_dimension: Tensor
        self.register_buffer("word_dimension", torch.full((n_words,), -1))


class Objective(ABC):
    """Initialisation, losses and finalisation of a training run."""

    def __init__(self, data: TrainingData, config: TrainingConfig) -> None:
        self.data = data
        self.config = config
        self.wanted = config.weighted()
        """Names of the losses to compute; those of weight 0 are skipped."""

    def begin(self, encoder: SparseEncoder) -> None:
        """Centre each modality at its mean, and set any non-random initial weights."""
        encoder.centre.copy_(torch.from_numpy(modality_means(self.data.collection)))

    def before_step(  # noqa: B027
        self, module: TrainingModule, step: int, n_steps: int, world: World = ALONE
    ) -> None:
        """Update what the losses use besides the encoder, if there is anything."""

    def weights(self, progress: float) -> dict[str, float]:  # noqa: ARG002
        """Return the weights of the losses after a share of the steps."""
        return self.config.weights()

    @abstractmethod
    def losses(
        self,
        module: TrainingModule,
        batch: Batch,
        k: int,
        dead: Tensor | None,
        world: World = ALONE,
    ) -> StepLosses:
        """Compute the unweighted losses of a batch, or of the share of a rank.

        The mean over the ranks is the loss of the whole batch; the same holds for gradients. k is
        the number of active dimensions of an image at this step. `dead`, (m,) bool, are the
        dimensions to revive; None if all are live (a compiled function cannot branch on values).
        """

    def finish(self, encoder: SparseEncoder, at_most: int | None = None) -> None:  # noqa: B027
        """Fold training-time normalisation into the weights, if there is any.

        `at_most` is the approximate number of items and captions to use, for a snapshot.
        """


class _Side(NamedTuple):
    """Encoder states of one modality of a batch."""

    target: Tensor
    """(B, d): centred embeddings"""
    linear: Tensor
    """(B, m): pre-activations"""
    active: Tensor
    """(B, m): activations before TopK"""
    code: Tensor
    """(B, m)"""
    unit: Tensor
    """(B, m): unit rows of `code`"""
    decoded: Tensor
    """(B, d): reconstruction"""


class Compact(Objective):
    """Sieve's own losses: see `sieve.model.training.losses`.

    Each frequent word is assigned to a dimension that must predict the word's presence alone, and
    that the word's code is concentrated on. The assignment maximises the sum of the activations of
    the words at their dimensions (the Hungarian algorithm), and is renewed during training. A word
    that the captions of an image do not mention counts as absent only if the backbone does not find
    the image similar to it, because captions omit much of what an image shows.
    """

    def before_step(
        self, module: TrainingModule, step: int, n_steps: int, world: World = ALONE
    ) -> None:
        """Assign words to dimensions again, if it is time."""
        period = max(round(ASSIGN_EVERY * n_steps), 1)
        is_time = step >= ASSIGN_FROM * n_steps and step % period == 0
        if is_time and self.wanted & {"assign", "concentrate"}:
            if world.is_main:
                self._assign_words(module)
            world.broadcast(module.word_dimension)

    @torch.no_grad()
    def _assign_words(self, module: TrainingModule) -> None:
        from scipy.optimize import linear_sum_assignment

        encoder, current = module.encoder, module.word_dimension
        words, embeddings = self.data.frequent, self.data.frequent_embeddings()
        codes_wm = np.zeros((len(words), encoder.config.m))
        for prompt in embeddings:
            centred = encoder.centred(torch.from_numpy(prompt).to(current.device), TEXT)
            code = encoder.keep(encoder.activations(centred, TEXT), encoder.config.active(TEXT))
            codes_wm += functional.normalize(code, dim=1).cpu().numpy() / len(embeddings)
        before = current.cpu().numpy()[words]
        has_one = np.flatnonzero(before >= 0)
        codes_wm[has_one, before[has_one]] += KEEP_ASSIGNED
        chosen, dimensions = linear_sum_assignment(codes_wm, maximize=True)
        assigned = np.full(len(current), -1)
        assigned[words[chosen]] = dimensions
        current.copy_(torch.from_numpy(assigned))

    def weights(self, progress: float) -> dict[str, float]:
        """Return the weights of the losses; that of `concentrate` rises linearly."""
        weights = self.config.weights()
        weights["concentrate"] *= min(progress / CONCENTRATED_FROM, 1.0)
        return weights

    def losses(
        self,
        module: TrainingModule,
        batch: Batch,
        k: int,
        dead: Tensor | None,
        world: World = ALONE,
    ) -> StepLosses:
        """Compute the losses of positive weight."""
        encoder = module.encoder
        directions = functional.normalize(encoder.decode_md, dim=1)
        image = _encode(encoder, batch.images, IMAGE, k, directions)
        text = _encode(encoder, batch.texts, TEXT, k, directions)
        words = functional.normalize(
            encoder.keep(
                encoder.activations(encoder.centred(batch.words, TEXT), TEXT),
                _active(encoder, TEXT, k),
            ).float(),
            dim=1,
        )
        all_images, all_texts = _whole(image.unit, text.unit, world)

        def contrast() -> Tensor:
            scale = module.contrast_scale
            if world.size == 1:
                return info_nce(image.unit, text.unit, batch.items, scale)
            own = (image.unit, text.unit, world.mine(batch.items))
            return info_nce_share(*own, all_images, all_texts, batch.items, scale)

        def cross() -> Tensor:
            to_text = reconstruction(image.decoded, text.target)
            return (to_text + reconstruction(text.decoded, image.target)) / 2

        def present() -> Tensor:
            learned = (module.presence_scale, module.presence_bias)
            of_images = presence(image.unit @ words.T, targets, *learned)
            return (of_images + presence(text.unit @ words.T, text_targets, *learned)) / 2

        def narrow() -> Tensor:
            # The cosine with a word of which only the strongest dimension is kept.
            largest, strongest = words.max(1)
            cosines = image.unit[:, strongest] * (largest > 0)
            return presence(cosines, targets, module.narrow_scale, module.narrow_bias)

        terms: dict[str, Callable[[], Tensor]] = {
            "contrast": contrast,
            "reconstruct": lambda: (
                _rebuilding(encoder, image, directions) + _rebuilding(encoder, text, directions)
            ),
            "cross": cross,
            "balance": lambda: balance(all_images, all_texts),
        }
        if len(words):
            targets, text_targets = world.mine(batch.presence), world.mine(batch.text_presence)
            dimensions = module.word_dimension[batch.word_ids]
            terms |= {
                "presence": present,
                "narrow": narrow,
                "concentrate": lambda: concentration(words, dimensions),
            }
            if len(batch.exclusions):
                terms["exclude"] = lambda: _exclude(module, batch, all_images, words)
        if len(batch.frequent_ids):
            terms["assign"] = lambda: _assign(module, batch, image, world)
        if dead is not None:
            linear = image.linear - encoder.bias[MODALITIES.index(IMAGE)]
            residual = image.target - image.decoded
            terms["revive"] = lambda: revive(linear, residual, dead, directions)
        assert terms.keys() <= LOSSES
        losses = {name: term() for name, term in terms.items() if name in self.wanted}
        return losses, (image.code > 0).any(0) | (text.code > 0).any(0)


def _whole(images: Tensor, texts: Tensor, world: World) -> tuple[Tensor, Tensor]:
    """Gather the codes of the whole batch: two (b, m) → two (B, m)."""
    if world.size == 1:
        return images, texts
    # One collective for both: half the latency, and a fixed order in the backward pass.
    both = world.gather(torch.cat([images, texts], 1))
    return both[:, : images.shape[1]], both[:, images.shape[1] :]


def _assign(module: TrainingModule, batch: Batch, image: _Side, world: World) -> Tensor:
    """Compute the presence loss of the frequent words from activations before ReLU and TopK."""
    dimensions = module.word_dimension[batch.frequent_ids]
    activations = image.linear[:, dimensions.clamp(min=0)]
    targets = world.mine(batch.frequent_presence)
    similar = image.target @ batch.frequent_directions.T > batch.frequent_similarity
    return assigned_presence(
        activations,
        dimensions,
        targets,
        similar & (targets == 0),
        batch.frequent_log_odds,
        module.assign_scale,
    )


def _exclude(module: TrainingModule, batch: Batch, images: Tensor, words: Tensor) -> Tensor:
    """Compute the exclusion loss over all images of the batch: unit codes (B, m), words (W, m).

    The signed query of "A without B" is as in search at strictness 1: a dimension stronger in B
    than in A gets the negative activation of B; the others keep the activation of A. For dense
    codes, B is subtracted.
    """
    a, b = batch.exclusions.unbind(1)
    relevant = (batch.presence[:, a] > 0) & (batch.presence[:, b] == 0)
    code_a, code_b = words[a], words[b]
    if module.encoder.config.activation == "dense":
        queries = code_a - code_b
    else:
        queries = torch.where(code_b > code_a, -code_b, code_a)
    return exclusion(images, queries, relevant.T, module.exclude_scale)


def _active(encoder: SparseEncoder, modality: str, k: int) -> int:
    """Return the k of a modality, given the k of images."""
    return round(k * encoder.config.active(modality) / encoder.config.k)


def _encode(
    encoder: SparseEncoder, embeddings: Tensor, modality: str, k: int, directions: Tensor
) -> _Side:
    target = encoder.centred(embeddings, modality)
    linear = encoder.linear(target, modality)
    active = encoder.activate(linear)
    code = encoder.keep(active, _active(encoder, modality, k))
    return _Side(target, linear, active, code, functional.normalize(code, dim=1), code @ directions)


def _rebuilding(encoder: SparseEncoder, side: _Side, directions: Tensor) -> Tensor:
    """Reconstruction loss at k and at `WIDE` * k."""
    wide_decoded = side.decoded
    if encoder.config.activation != "dense":  # which keeps all activations for any k
        wide = min(WIDE * encoder.config.k, encoder.config.m)
        wide_decoded = encoder.keep(side.active, wide) @ directions
    return (
        reconstruction(side.decoded, side.target) / 2
        + reconstruction(wide_decoded, side.target) / 16
    )


class Paper(Objective):
    """A linear layer with ReLU, normalised by its batch maxima, without centring.

    Training keeps the k largest activations and those that the captions mark. The paper does not
    say how captions mark dimensions; here dimension j belongs to the j-th most frequent word, which
    marks it for items whose captions have the word.
    """

    def __init__(self, data: TrainingData, config: TrainingConfig) -> None:
        super().__init__(data, config)
        frequent = np.argsort(-data.words.counts, kind="stable")[: config.m]
        self.marks = data.words.presence[:, frequent].tocsr()

    @torch.no_grad()
    def begin(self, encoder: SparseEncoder) -> None:
        """Use uncentred embeddings, and scale the decoder."""
        encoder.centre.zero_()
        # Hundreds of activations near 1 add up; unit columns would reconstruct far too large.
        encoder.decode_md.mul_(encoder.config.k**-0.5)

    def losses(
        self,
        module: TrainingModule,
        batch: Batch,
        k: int,
        dead: Tensor | None,  # noqa: ARG002
        world: World = ALONE,
    ) -> StepLosses:
        """Compute reconstruction by a linear decoder, and contrast with soft targets."""
        encoder = module.encoder
        embeddings = {IMAGE: batch.images, TEXT: batch.texts}
        targets = {name: encoder.centred(embeddings[name], name) for name in MODALITIES}
        raw = {name: encoder.activations(targets[name], name) for name in MODALITIES}
        peak = world.maximum(torch.maximum(raw[IMAGE].amax(0), raw[TEXT].amax(0)))
        peak = peak.clamp(min=_LEAST_PEAK)
        marked = self._marked(world.mine(batch.items))
        code = {}
        for name in MODALITIES:
            scaled = raw[name] / peak
            code[name] = torch.where(marked, scaled, keep_top(scaled, k))
        rebuilt = [reconstruction(code[n] @ encoder.decode_md, targets[n]) / 2 for n in MODALITIES]
        losses = {
            "reconstruct": torch.stack(rebuilt).sum(),
            "contrast": soft_contrast(world.gather(code[IMAGE]), world.gather(code[TEXT])),
        }
        return losses, (code[IMAGE] > 0).any(0) | (code[TEXT] > 0).any(0)

    @torch.no_grad()
    def finish(self, encoder: SparseEncoder, at_most: int | None = None) -> None:
        """Fold the division by the maxima over the training items into the weights.

        A dimension without a training item gets zero weights: division by a tiny maximum would
        overflow float16.
        """
        collection = self.data.collection
        peak = torch.zeros(encoder.config.m)
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
        marks = np.zeros((len(items), self.config.m), bool)
        present = self.marks[items.cpu().numpy()].toarray() > 0
        marks[:, : present.shape[1]] = present
        return torch.from_numpy(marks).to(items.device)


class Vocabulary(Objective):
    """One dimension per caption word; contrast between image, text and word-set codes."""

    def __init__(self, data: TrainingData, config: TrainingConfig) -> None:
        super().__init__(data, config)
        n_words = len(data.words.words)
        if config.m != n_words:
            raise ValueError(
                f"the vocabulary objective needs one dimension for each of the {n_words} words of "
                f"{data.collection.name}; got m={config.m}"
            )

    @torch.no_grad()
    def begin(self, encoder: SparseEncoder) -> None:
        """Initialise each dimension as a detector of the embedding of its word."""
        super().begin(encoder)
        words = torch.from_numpy(self.data.word_embeddings())
        # ELU + 1 is flat around 0, so unscaled cosines would hardly separate words.
        encoder.encode_md.copy_(5 * encoder.centred(words, TEXT))

    def losses(
        self,
        module: TrainingModule,
        batch: Batch,
        k: int,
        dead: Tensor | None,  # noqa: ARG002
        world: World = ALONE,
    ) -> StepLosses:
        """Compute contrast between image, text and the set of words of the captions."""
        encoder = module.encoder
        image, text = (
            functional.normalize(
                encoder.keep(encoder.activations(encoder.centred(embeddings, name), name), k), dim=1
            )
            for name, embeddings in ((IMAGE, batch.images), (TEXT, batch.texts))
        )
        present = self.data.words.presence[batch.items.cpu().numpy()].toarray()
        words = functional.normalize(torch.from_numpy(present).to(image), dim=1)
        fired = (image > 0).any(0) | (text > 0).any(0)
        image, text = world.gather(image), world.gather(text)
        pairs = ((image, text), (image, words), (text, words))
        terms = [info_nce(*pair, batch.items, module.contrast_scale) for pair in pairs]
        return {"contrast": torch.stack(terms).mean()}, fired


OBJECTIVES: dict[str, type[Objective]] = {
    "compact": Compact,
    "paper": Paper,
    "vocabulary": Vocabulary,
}
