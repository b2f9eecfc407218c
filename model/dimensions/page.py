"""Description of one dimension: statistics, examples, words, neighbours and ablation.

The ablation of a dimension shows how search results change when it is off. The queries are captions
of the collection that have the dimension; their stored codes are used, so no model runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from sieve.model.checkpoint import Checkpoint
from sieve.model.codes import SparseCodes
from sieve.model.collection import Collection
from sieve.model.dimension_name import DimensionName
from sieve.model.dimensions.code_cache import CodeCache
from sieve.model.dimensions.concepts import Concepts, DimensionNames, check_dimension
from sieve.model.exclusion import Query, off_weights, search

N_EXAMPLES = 12
N_INTERVALS = 5
N_BINS = 24
N_PROBES = 100
TOP = 10
N_CHANGES = 4


class Example(NamedTuple):
    """An image that has a dimension."""

    id: str
    row: int
    value: float
    """Activation z̄_j, in [0, 1]"""
    captions: tuple[str, ...]
    file: str
    """Name of the original file in the source."""

    @classmethod
    def of(cls, collection: Collection, row: int, value: float) -> Example:
        """Create the example of a row."""
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
    """Images sampled from one interval of activations."""

    low: float
    high: float
    count: int
    examples: tuple[Example, ...]


class Neighbour(NamedTuple):
    """Another dimension and its similarity."""

    dimension: int
    name: str
    similarity: float
    name_in_concept: str
    """Name within its concept."""


class Histogram(NamedTuple):
    """Histogram of the positive activations by modality."""

    edges: np.ndarray
    """(b + 1,) float64"""
    images: np.ndarray
    """(b,) int64"""
    texts: np.ndarray
    """(b,) int64"""


@dataclass(frozen=True)
class DimensionPage:
    """Everything that the explorer shows about one dimension."""

    dimension: int
    name: str
    suggested: str
    """Name in the checkpoint, which a name from annotations overrides."""
    statistics: dict[str, float]
    """Finite numbers of its row in the dimension table."""
    naming: DimensionName | None
    """Source and alternatives of the suggested name."""
    label: str
    """Best label, or empty; `label_auc` has its AUC."""
    words: tuple[tuple[str, float], ...]
    """Associated caption words with scores in [0, 1], best first."""
    top_images: tuple[Example, ...]
    random_images: tuple[Example, ...]
    """Random sample of the images that have it."""
    intervals: tuple[ActivationInterval, ...]
    """From the highest to the lowest activations."""
    top_captions: tuple[CaptionExample, ...]
    histogram: Histogram
    name_in_concept: str
    """See `sieve.model.dimensions.concepts.DimensionNames.in_concept`."""
    concept_dimension: int
    """Leading dimension of its concept."""
    concept_name: str
    concept: tuple[Neighbour, ...]
    """The other dimensions of its concept, by cosine of activations over the images."""
    coactive: tuple[Neighbour, ...]
    """By cosine of activations over the images."""
    similar: tuple[Neighbour, ...]
    """By cosine of decoder directions; empty for external codes."""
    where: str = ""
    """Filter of the example images and captions; statistics cover all items."""
    passing: int | None = None
    """Number of images that have it and pass the filter; None without a filter."""


def describe_dimension(
    collection: Collection,
    checkpoint: Checkpoint,
    cache: CodeCache,
    concepts: Concepts,
    dimension: int,
    names: DimensionNames,
    measurements: pd.DataFrame,
    seed: int = 0,
    among: np.ndarray | None = None,
    where: str = "",
) -> DimensionPage:
    """Describe one dimension.

    `seed` draws the samples, and `measurements` are of all dimensions. Examples are taken only from
    the items `among`, (n,) bool, which pass the filter `where`.
    """
    rows, values = cache.image_codes.postings(dimension)
    order = np.argsort(-values, kind="stable")
    rows, values = rows[order], values[order]
    all_values = values
    if among is not None:
        rows, values = rows[among[rows]], values[among[rows]]

    def examples(ranks: np.ndarray) -> tuple[Example, ...]:
        return tuple(Example.of(collection, int(rows[i]), float(values[i])) for i in ranks)

    generator = np.random.default_rng([seed, dimension])
    sample = np.sort(generator.permutation(len(rows))[:N_EXAMPLES])
    table = pd.concat([cache.dimensions.iloc[dimension], measurements.iloc[dimension]])
    coactivation = cache.coactivation(dimension)
    leading, concept_name = names.concept(dimension)
    members = concepts.members(dimension)
    others = members[members != dimension]
    others = others[np.argsort(-coactivation[others], kind="stable")].tolist()
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
        words=cache.words_of(dimension),
        top_images=examples(np.arange(min(N_EXAMPLES, len(rows)))),
        random_images=examples(sample),
        intervals=_intervals(values, examples, generator),
        top_captions=_top_captions(collection, cache.text_codes, dimension, among),
        histogram=_histogram(all_values, cache.text_codes.postings(dimension)[1]),
        name_in_concept=names.in_concept(dimension),
        concept_dimension=leading,
        concept_name=concept_name,
        concept=tuple(
            Neighbour(j, names(j), float(coactivation[j]), names.in_concept(j)) for j in others
        ),
        coactive=_nearest(names, coactivation, dimension),
        similar=_similar(checkpoint, names, dimension),
        where=where,
        passing=None if among is None else len(rows),
    )


def _intervals(
    values: np.ndarray,
    examples: Callable[[np.ndarray], tuple[Example, ...]],
    generator: np.random.Generator,
) -> tuple[ActivationInterval, ...]:
    """Divide descending values into intervals of equal width, and sample each."""
    if not len(values):
        return ()
    edges = np.linspace(float(values[0]), 0.0, N_INTERVALS + 1)
    intervals = []
    for high, low in zip(edges[:-1], edges[1:], strict=True):
        inside = np.flatnonzero((values <= high) & (values > low))
        picked = np.sort(generator.permutation(inside)[:6])
        intervals.append(ActivationInterval(float(low), float(high), len(inside), examples(picked)))
    return tuple(intervals)


def _top_captions(
    collection: Collection, codes: SparseCodes, dimension: int, among: np.ndarray | None
) -> tuple[CaptionExample, ...]:
    captions, values = codes.postings(dimension)
    if among is not None:
        kept = among[collection.caption_item[captions]]
        captions, values = captions[kept], values[kept]
    found: dict[str, CaptionExample] = {}
    for place in np.argsort(-values, kind="stable"):
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
    checkpoint: Checkpoint, names: DimensionNames, dimension: int
) -> tuple[Neighbour, ...]:
    if checkpoint.codes:
        return ()
    directions = checkpoint.encoder.directions
    return _nearest(names, directions @ directions[dimension], dimension)


def _nearest(
    names: DimensionNames, similarity: np.ndarray, dimension: int, count: int = 8
) -> tuple[Neighbour, ...]:
    others = np.argsort(-similarity, kind="stable")
    others = [int(j) for j in others if j != dimension and similarity[j] > 0][:count]
    return tuple(Neighbour(j, names(j), float(similarity[j]), names.in_concept(j)) for j in others)


class Change(NamedTuple):
    """Change of the results of one query."""

    text: str
    strength: float
    """Activation of the dimension in the query, in [0, 1]."""
    before: tuple[Example, ...]
    """Top ten with every dimension on, with the activation of the dimension in each."""
    after: tuple[Example, ...]
    """Top ten with the dimension off."""

    @property
    def left(self) -> int:
        """Number of results that left the top ten."""
        return len({one.row for one in self.before} - {one.row for one in self.after})


@dataclass(frozen=True)
class Ablation:
    """Effect of switching a dimension off."""

    n_probes: int
    n_changed: int
    """Number of queries with results that left the top ten."""
    mean_left: float
    """Mean number of results that left the top ten."""
    changes: tuple[Change, ...]
    """Queries with the largest change, largest first."""


class _Ranked(NamedTuple):
    """Result rows of one query."""

    caption: int
    before: np.ndarray
    after: np.ndarray

    @property
    def change(self) -> tuple[int, int]:
        """Number of results that left, and the total change of rank of those that stayed."""
        _, was, now = np.intersect1d(self.before, self.after, return_indices=True)
        return len(self.before) - len(was), int(np.abs(was - now).sum())


def ablate_dimension(
    collection: Collection, checkpoint: Checkpoint, cache: CodeCache, dimension: int
) -> Ablation:
    """Switch a dimension off in up to 100 queries that have it, and measure the change.

    Raises a ValueError if the dimension does not exist.
    """
    check_dimension(dimension, cache.text_codes.m)
    captions = probe_captions(collection, cache, dimension)
    ranked = [_rank(checkpoint, cache, caption, dimension) for caption in captions.tolist()]
    most = sorted(ranked, key=lambda one: (*(-part for part in one.change), one.caption))
    lefts = [one.change[0] for one in ranked]
    return Ablation(
        n_probes=len(ranked),
        n_changed=sum(left > 0 for left in lefts),
        mean_left=sum(lefts) / max(len(lefts), 1),
        changes=tuple(
            _change(collection, cache, one, dimension)
            for one in most[:N_CHANGES]
            if any(one.change)
        ),
    )


def probe_captions(
    collection: Collection, cache: CodeCache, dimension: int, count: int = N_PROBES
) -> np.ndarray:
    """Return captions that have a dimension: distinct texts, evenly spaced over the collection.

    At most `count` indices of captions, ascending: (c,) int64.
    """
    having, _ = cache.text_codes.postings(dimension)
    texts = collection.caption_texts
    first = {texts[caption].strip().lower(): caption for caption in having[::-1].tolist()}
    distinct = np.sort(np.fromiter(first.values(), np.int64, len(first)))
    chosen = np.linspace(0, len(distinct) - 1, min(count, len(distinct)))
    return distinct[np.round(chosen).astype(int)]


def _rank(checkpoint: Checkpoint, cache: CodeCache, caption: int, dimension: int) -> _Ranked:
    code = cache.text_codes.dense(caption)
    off = np.array([dimension])
    weight = off_weights(code, np.zeros_like(code), off, cache.mean_positive)
    without = Query(code, (dimension,), (float(weight[0]),), calibration=checkpoint.calibration)
    found = [search(cache.image_codes, query, TOP) for query in (Query(code), without)]
    # As in every search, a score of 0 means no shared dimension.
    before, after = (hits.rows[hits.scores != 0] for hits in found)
    return _Ranked(caption, before, after)


def _change(collection: Collection, cache: CodeCache, ranked: _Ranked, dimension: int) -> Change:
    rows, values = cache.image_codes.postings(dimension)
    strengths = dict(zip(rows.tolist(), values.tolist(), strict=True))

    def examples(rows: np.ndarray) -> tuple[Example, ...]:
        return tuple(Example.of(collection, row, strengths.get(row, 0.0)) for row in rows.tolist())

    return Change(
        text=collection.caption_texts[ranked.caption],
        strength=float(cache.text_codes.dense(ranked.caption)[dimension]),
        before=examples(ranked.before),
        after=examples(ranked.after),
    )
