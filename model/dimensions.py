"""What is known of each dimension: statistics, examples, neighbours.

Everything is sparse algebra over codes of images and captions; nothing here runs a model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from model.codes import SparseCodes
from model.collection import Collection

if TYPE_CHECKING:
    from model.checkpoint import Checkpoint, DimensionName
    from model.derived import Derived

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


class CaptionExample(NamedTuple):
    """A caption that has a dimension."""

    text: str
    value: float
    id: str
    """Id of the item that it belongs to."""


@dataclass(frozen=True)
class Interval:
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
    statistics: dict[str, float]
    """The numbers of its row in the dimension table, those that could be measured."""
    naming: DimensionName | None
    """Where its name is from, and what else it could be called."""
    label: str
    """The label that it stands for best, or nothing; `label_auc` says how well."""
    words: tuple[tuple[str, float], ...]
    """Words of captions that go with it, with their score in [0, 1], best first."""
    top_images: tuple[Example, ...]
    random_images: tuple[Example, ...]
    """A random sample of the images that have it, not only the flattering top."""
    intervals: tuple[Interval, ...]
    """From the strongest to the weakest values."""
    top_captions: tuple[CaptionExample, ...]
    histogram: Histogram
    similar: tuple[Neighbour, ...]
    """By cosine of decoder directions."""
    coactive: tuple[Neighbour, ...]
    """By cosine of activations over the images."""


def mean_caption_codes(text_codes: SparseCodes, caption_item: np.ndarray, n: int) -> csr_array:
    """Mean code of each item's captions: (n, m) float32, zero rows where there is none."""
    items = np.asarray(caption_item)
    counts = np.bincount(items, minlength=n).astype(np.float32)
    weights = 1 / counts[items]
    average = csr_array((weights, (items, np.arange(len(items)))), shape=(n, len(items)))
    return csr_array(average @ text_codes.by_row)


def firing_rate(codes: SparseCodes) -> np.ndarray:
    """Share of the rows that have each dimension: (m,) float64."""
    return np.diff(codes.by_dimension.indptr) / max(codes.n, 1)


def mean_positive(codes: SparseCodes) -> np.ndarray:
    """Mean of each dimension over the rows that have it: (m,) float32, 0 where none has."""
    counts = np.diff(codes.by_dimension.indptr)
    total = np.asarray(codes.by_row.sum(0)).ravel()
    return (total / np.maximum(counts, 1)).astype(np.float32)


def agreement(images: csr_array, texts: csr_array) -> np.ndarray:
    """Image-text agreement of each dimension over items: (m,) float64 in [0, 1].

    The cosine between a dimension's activations on the images and its mean activations on their
    captions: 1 where both modalities fire on the same items in the same proportions.
    """
    shared = np.asarray((images * texts).sum(0)).ravel()
    norms = np.sqrt(np.asarray((images**2).sum(0)).ravel() * np.asarray((texts**2).sum(0)).ravel())
    return shared / np.maximum(norms, 1e-12)


def dimension_statistics(
    image_codes: SparseCodes, text_codes: SparseCodes, caption_item: np.ndarray
) -> pd.DataFrame:
    """One row a dimension.

    Returns
    -------
    pandas.DataFrame
        dimension, firing_images, firing_texts (shares of rows), agreement (cosine), mean (of the
        positive image values), max (over images).
    """
    texts = mean_caption_codes(text_codes, caption_item, image_codes.n)
    highest = image_codes.by_dimension.max(axis=0).toarray().ravel() if image_codes.n else 0.0
    return pd.DataFrame(
        {
            "dimension": np.arange(image_codes.m),
            "firing_images": firing_rate(image_codes),
            "firing_texts": firing_rate(text_codes),
            "agreement": agreement(image_codes.by_row, texts),
            "mean": mean_positive(image_codes),
            "max": highest,
        }
    )


def describe_dimension(
    collection: Collection, checkpoint: Checkpoint, derived: Derived, dimension: int, seed: int = 0
) -> DimensionPage:
    """Gather everything about one dimension.

    Parameters
    ----------
    collection, checkpoint, derived
        As an `Engine` holds them.
    dimension : int
    seed : int
        Of the random sample.
    """
    rows, values = derived.image_codes.postings(dimension)
    order = np.argsort(-values, kind="stable")
    rows, values = rows[order], values[order]

    def examples(places: np.ndarray) -> tuple[Example, ...]:
        return tuple(_example(collection, int(rows[i]), float(values[i])) for i in places)

    generator = np.random.default_rng([seed, dimension])
    sample = np.sort(generator.permutation(len(rows))[:N_EXAMPLES])
    table = derived.dimensions.iloc[dimension]
    directions = checkpoint.encoder.directions
    activations = derived.coactivation(dimension)
    return DimensionPage(
        dimension=dimension,
        name=checkpoint.name_of(dimension),
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
        similar=_nearest(checkpoint, directions @ directions[dimension], dimension),
        coactive=_nearest(checkpoint, activations, dimension),
    )


def _example(collection: Collection, row: int, value: float) -> Example:
    item = collection.items.iloc[row]
    return Example(item["id"], row, value, tuple(item["captions"]))


def _intervals(
    values: np.ndarray,
    examples: Callable[[np.ndarray], tuple[Example, ...]],
    generator: np.random.Generator,
) -> tuple[Interval, ...]:
    """Cut descending values into stretches of equal width, and sample each."""
    if not len(values):
        return ()
    edges = np.linspace(float(values[0]), 0.0, N_INTERVALS + 1)
    found = []
    for high, low in zip(edges[:-1], edges[1:], strict=True):
        inside = np.flatnonzero((values <= high) & (values > low))
        picked = np.sort(generator.permutation(inside)[:6])
        found.append(Interval(float(low), float(high), len(inside), examples(picked)))
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


def _nearest(
    checkpoint: Checkpoint, similarity: np.ndarray, dimension: int, count: int = 8
) -> tuple[Neighbour, ...]:
    others = np.argsort(-similarity, kind="stable")
    others = [int(j) for j in others if j != dimension and similarity[j] > 0][:count]
    return tuple(Neighbour(j, checkpoint.name_of(j), float(similarity[j])) for j in others)
