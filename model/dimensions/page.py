"""The page of one dimension: its numbers, examples, words and neighbours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sieve.model.checkpoint import Checkpoint
from sieve.model.codes import SparseCodes
from sieve.model.collection import Collection
from sieve.model.dimension_name import DimensionName
from sieve.model.dimensions.cache import CodeCache

N_EXAMPLES = 12
N_INTERVALS = 5
N_BINS = 24


class Example(NamedTuple):
    """An image that has a dimension."""

    id: str
    row: int
    value: float
    """z̄_j, in [0, 1]"""
    captions: tuple[str, ...]
    file: str
    """Name of its original inside the source."""

    @classmethod
    def of(cls, collection: Collection, row: int, value: float) -> Example:
        """Look up the item of a row."""
        item = collection.items.iloc[row]
        return cls(item["id"], row, value, tuple(item["captions"]), collection.file_names[row])


class CaptionExample(NamedTuple):
    """A caption that has a dimension."""

    text: str
    value: float
    id: str
    """Id of the item that it belongs to."""


@dataclass(frozen=True)
class ActivationInterval:
    """Images sampled from one stretch of a dimension's values."""

    low: float
    high: float
    count: int
    examples: tuple[Example, ...]


class Neighbour(NamedTuple):
    """Another dimension, and how near it is."""

    dimension: int
    name: str
    similarity: float


class Histogram(NamedTuple):
    """Positive values of a dimension by modality."""

    edges: np.ndarray
    """(b + 1,) float64"""
    images: np.ndarray
    """(b,) int64"""
    texts: np.ndarray
    """(b,) int64"""


@dataclass(frozen=True)
class DimensionPage:
    """Everything that the explorer shows of one dimension."""

    dimension: int
    name: str
    suggested: str
    """The checkpoint's name, which a person's goes before."""
    statistics: dict[str, float]
    """The numbers of its row in the dimension table, those that could be measured."""
    naming: DimensionName | None
    """Where the suggested name is from, and what else it could be called."""
    label: str
    """The label that it stands for best, or nothing; `label_auc` says how well."""
    words: tuple[tuple[str, float], ...]
    """Words of captions that go with it, with their score in [0, 1], best first."""
    top_images: tuple[Example, ...]
    random_images: tuple[Example, ...]
    """A random sample of the images that have it, not only the flattering top."""
    intervals: tuple[ActivationInterval, ...]
    """From the strongest to the weakest values."""
    top_captions: tuple[CaptionExample, ...]
    histogram: Histogram
    similar: tuple[Neighbour, ...]
    """By cosine of decoder directions; none where the codes were made elsewhere."""
    coactive: tuple[Neighbour, ...]
    """By cosine of activations over the images."""


def describe_dimension(
    collection: Collection,
    checkpoint: Checkpoint,
    derived: CodeCache,
    dimension: int,
    names: Callable[[int], str],
    seed: int = 0,
) -> DimensionPage:
    """Gather everything about one dimension.

    Parameters
    ----------
    collection, checkpoint, derived
        As an `Engine` holds them.
    dimension : int
    names : callable
        Gives a dimension's name.
    seed : int
        Of the random sample.
    """
    rows, values = derived.image_codes.postings(dimension)
    order = np.argsort(-values, kind="stable")
    rows, values = rows[order], values[order]

    def examples(places: np.ndarray) -> tuple[Example, ...]:
        return tuple(Example.of(collection, int(rows[i]), float(values[i])) for i in places)

    generator = np.random.default_rng([seed, dimension])
    sample = np.sort(generator.permutation(len(rows))[:N_EXAMPLES])
    table = derived.dimensions.iloc[dimension]
    activations = derived.coactivation(dimension)
    return DimensionPage(
        dimension=dimension,
        name=names(dimension),
        suggested=checkpoint.name_of(dimension),
        statistics={
            str(name): float(value)
            for name, value in table.items()
            if name != "dimension" and isinstance(value, float | np.number) and np.isfinite(value)
        },
        naming=checkpoint.names.get(dimension),
        label=str(table["label"]),
        words=derived.words_of(dimension),
        top_images=examples(np.arange(min(N_EXAMPLES, len(rows)))),
        random_images=examples(sample),
        intervals=_intervals(values, examples, generator),
        top_captions=_top_captions(collection, derived.text_codes, dimension),
        histogram=_histogram(values, derived.text_codes.postings(dimension)[1]),
        similar=_similar(checkpoint, names, dimension),
        coactive=_nearest(names, activations, dimension),
    )


def _intervals(
    values: np.ndarray,
    examples: Callable[[np.ndarray], tuple[Example, ...]],
    generator: np.random.Generator,
) -> tuple[ActivationInterval, ...]:
    """Cut descending values into stretches of equal width, and sample each."""
    if not len(values):
        return ()
    edges = np.linspace(float(values[0]), 0.0, N_INTERVALS + 1)
    found = []
    for high, low in zip(edges[:-1], edges[1:], strict=True):
        inside = np.flatnonzero((values <= high) & (values > low))
        picked = np.sort(generator.permutation(inside)[:6])
        found.append(ActivationInterval(float(low), float(high), len(inside), examples(picked)))
    return tuple(found)


def _top_captions(
    collection: Collection, codes: SparseCodes, dimension: int
) -> tuple[CaptionExample, ...]:
    captions, values = codes.postings(dimension)
    order = np.argsort(-values, kind="stable")
    found: dict[str, CaptionExample] = {}
    for place in order:
        text = collection.caption_texts[captions[place]]
        item = int(collection.caption_item[captions[place]])
        example = CaptionExample(text, float(values[place]), collection.items["id"].iloc[item])
        found.setdefault(text.lower(), example)
        if len(found) == N_EXAMPLES:
            break
    return tuple(found.values())


def _histogram(images: np.ndarray, texts: np.ndarray) -> Histogram:
    highest = max(images.max(initial=0), texts.max(initial=0)) or 1.0
    edges = np.linspace(0, float(highest), N_BINS + 1)
    return Histogram(edges, np.histogram(images, edges)[0], np.histogram(texts, edges)[0])


def _similar(
    checkpoint: Checkpoint, names: Callable[[int], str], dimension: int
) -> tuple[Neighbour, ...]:
    if checkpoint.codes:
        return ()
    directions = checkpoint.encoder.directions
    return _nearest(names, directions @ directions[dimension], dimension)


def _nearest(
    names: Callable[[int], str], similarity: np.ndarray, dimension: int, count: int = 8
) -> tuple[Neighbour, ...]:
    others = np.argsort(-similarity, kind="stable")
    others = [int(j) for j in others if j != dimension and similarity[j] > 0][:count]
    return tuple(Neighbour(j, names(j), float(similarity[j])) for j in others)
