"""Explanations: why codes are similar, why items rank as they do, where a concept is in an image.

The cosine Σ_j l_j r_j of two unit codes is a sum over the dimensions that both have. An item's
score is such a sum, too (`sieve.model.exclusion`), so the difference of two scores is a sum of
differences, one for each dimension. The largest ones are the reasons.

The region of a concept in an image is found by occlusion: each part of the image in turn is
replaced by a blurred copy (Zeiler and Fergus 2014, arXiv 1311.2901), and belongs to the region if
the concept's activation falls without it. This needs neither gradients nor patch tokens, so it
works with every backbone.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageFilter
from scipy.sparse import csr_array, vstack

from sieve.model.engine import SearchEngine
from sieve.model.exclusion import DEFAULT_STRICTNESS, Query, Strictness, contributions, scores

if TYPE_CHECKING:
    from sieve.model.codes import SparseCodes
    from sieve.model.dimensions.concepts import Concepts
    from sieve.model.encoded_query import EncodedQuery

_MAX_REASONS = 3
_ENOUGH = 0.5
"""No more reasons are added once they explain this share of the difference."""
GRID = 7
"""Default number of cells along each side of an image."""
_COVER = 3
"""Side of an occluded part in cells: most objects are larger than a cell."""
_BLUR = 0.1
"""Radius of the blur, relative to the shorter side of the image."""
_SOFT = 0.25
"""Blur of the border of an occluded part, relative to a cell: a sharp border would be content."""
_BATCH = 10


@dataclass(frozen=True)
class Shared:
    """A dimension that two codes have."""

    dimension: int
    left: float
    """l_j"""
    right: float
    """r_j"""
    product: float
    """l_j r_j"""
    share: float
    """Share of the cosine, in (0, 1]; the shares sum to 1."""


@dataclass(frozen=True)
class Overlap:
    """Dimensions that two codes share, and those that only one has."""

    cosine: float
    shared: tuple[Shared, ...]
    """Shared dimensions, the largest product first."""
    left: tuple[tuple[int, float], ...]
    """Dimensions that only the left code has, with their values, the largest first."""
    right: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Standing:
    """Rank of an item among all items of a collection."""

    row: int
    score: float
    """Sum of its contributions, even if it is removed."""
    rank: int | None
    """Rank in `search`, 1 for the best; None if the item is not returned."""
    removed: bool
    """Whether `never` leaves it out."""
    rank_if_kept: int | None
    """Rank if `never` removed nothing."""
    filtered: bool = False
    """Whether it does not pass the filter of the query."""


@dataclass(frozen=True)
class Part:
    """One dimension's contributions to the scores of two items; not positive if it is off."""

    dimension: int
    left: float
    right: float
    off: bool

    @property
    def difference(self) -> float:
        """Contribution to the left item minus contribution to the right one."""
        return self.left - self.right


@dataclass(frozen=True)
class ItemComparison:
    """Two items in one ranking."""

    left: Standing
    right: Standing
    parts: tuple[Part, ...]
    """All dimensions that contribute to either score, the largest absolute difference first."""
    reasons: tuple[Part, ...]
    """The few that explain most of the difference, all in favour of the higher-ranked item."""
    ranked: int
    """Number of results in the whole ranking."""


def overlap(left: np.ndarray, right: np.ndarray) -> Overlap:
    """Decompose the cosine of two codes, (m,) float32 of length 1 or all zero, into dimensions."""
    product = left.astype(np.float64) * right
    cosine = float(product.sum())
    shared = np.flatnonzero(product)
    shared = shared[np.argsort(-product[shared], kind="stable")]
    return Overlap(
        cosine,
        tuple(
            Shared(
                j, float(left[j]), float(right[j]), float(product[j]), float(product[j]) / cosine
            )
            for j in shared.tolist()
        ),
        _only(left, right),
        _only(right, left),
    )


def _only(code: np.ndarray, other: np.ndarray) -> tuple[tuple[int, float], ...]:
    alone = np.flatnonzero((code > 0) & (other == 0))
    order = alone[np.argsort(-code[alone], kind="stable")]
    return tuple((j, float(code[j])) for j in order.tolist())


def compare_items(
    codes: SparseCodes,
    query: Query,
    left: int,
    right: int,
    itself: tuple[int, ...] = (),
    groups: np.ndarray | None = None,
) -> ItemComparison:
    """Compare two items, by their rows, in the full ranking of a query.

    Parameters
    ----------
    codes : SparseCodes
        Of all items.
    itself : tuple of int
        Rows of the query's own items, which are not returned.
    groups : (n,) int64, optional
        Group of each item; a group shows the same picture and is one result: see
        `sieve.model.duplicates`. By default each item is its own group.
    """
    groups = np.arange(codes.n) if groups is None else groups
    total = scores(codes, query)
    kept = scores(codes, replace(query, strictness=1.0, hides=None)) if query.never else total
    rank = partial(_rank, itself=itself, groups=groups)
    sides, standings = [], []
    for row in (left, right):
        dimensions, values = contributions(codes, query, row)
        filtered = query.among is not None and not query.among[row]
        hidden = bool(np.isneginf(total[row]))
        score = float(values.sum()) if hidden else float(total[row])
        sides.append(dict(zip(dimensions.tolist(), values.tolist(), strict=True)))
        ranks = rank(total, row), hidden and not filtered, rank(kept, row)
        standings.append(Standing(row, score, *ranks, filtered))
    one, other = standings
    parts = [
        Part(j, sides[0].get(j, 0.0), sides[1].get(j, 0.0), j in query.off)
        for j in sorted({*sides[0], *sides[1]})
    ]
    parts = tuple(sorted(parts, key=lambda part: -abs(part.difference)))
    reasons = _reasons(parts, 1 if one.score >= other.score else -1)
    ranked = len(np.unique(groups[_is_result(total, itself, groups)]))
    return ItemComparison(one, other, parts, reasons, ranked)


def explain(
    engine: SearchEngine,
    query: EncodedQuery,
    left: str,
    right: str,
    off: tuple[int, ...] | None = None,
    strictness: Strictness = DEFAULT_STRICTNESS,
    where: str = "",
) -> ItemComparison:
    """Explain why one item is ranked before another, by their ids.

    For `off`, `strictness` and `where`, see `SearchEngine.search`. Raises a ValueError if there is
    no such item or dimension, the filter is malformed, or one of its facets selects no item.
    """
    weighted = engine.question(query, off, strictness)
    weighted = replace(weighted, among=engine.facets.mask(where))
    one, other = engine.row_of(left), engine.row_of(right)
    itself = engine.query_rows(query)
    return compare_items(engine.image_codes, weighted, one, other, itself, engine.copies.groups)


def sum_by_concept(comparison: ItemComparison, concepts: Concepts) -> ItemComparison:
    """Sum the parts of a comparison by concept, each identified by its leading dimension.

    A concept of which only some dimensions are off has two parts.
    """
    sums: dict[tuple[int, bool], Part] = {}
    for part in comparison.parts:
        leading = concepts.leading(part.dimension)
        total = sums.get((leading, part.off), Part(leading, 0.0, 0.0, part.off))
        left, right = total.left + part.left, total.right + part.right
        sums[leading, part.off] = replace(total, left=left, right=right)
    ordered = tuple(sorted(sums.values(), key=lambda part: -abs(part.difference)))
    ahead = 1 if comparison.left.score >= comparison.right.score else -1
    return replace(comparison, parts=ordered, reasons=_reasons(ordered, ahead))


def cosine(left: np.ndarray, right: np.ndarray) -> float | None:
    """Return the cosine of two embeddings, (d,) float; None if one is empty or zero."""
    norms = float(np.linalg.norm(left) * np.linalg.norm(right))
    return float(left @ right) / norms if norms else None


def _is_result(total: np.ndarray, itself: tuple[int, ...], groups: np.ndarray) -> np.ndarray:
    """Return which rows are results: (n,) bool; rows that share no dimension score 0."""
    shown = (total != 0) & (total > -np.inf)
    if itself:
        shown[np.isin(groups, groups[list(itself)])] = False
    return shown


def _rank(total: np.ndarray, row: int, itself: tuple[int, ...], groups: np.ndarray) -> int | None:
    shown = _is_result(total, itself, groups)
    if not shown[row]:
        return None
    before = (total > total[row]) | ((total == total[row]) & (np.arange(len(total)) < row))
    others = np.unique(groups[before & shown])
    return int((others != groups[row]).sum()) + 1


def _reasons(parts: tuple[Part, ...], ahead: int) -> tuple[Part, ...]:
    """Return the largest differences in favour of the higher-ranked item, until they suffice."""
    gap = ahead * sum(part.difference for part in parts)
    chosen: list[Part] = []
    explained = 0.0
    for part in parts:
        favour = ahead * part.difference
        if favour <= 0 or len(chosen) == _MAX_REASONS or (chosen and explained >= _ENOUGH * gap):
            continue
        chosen.append(part)
        explained += favour
    return tuple(chosen)


class ConceptRegion(NamedTuple):
    """Region of an image that activates a concept."""

    concept: int
    """Leading dimension."""
    name: str
    activation: float
    """Sum of its dimensions' activations in the image."""
    cells: np.ndarray
    """(g, g) float64, at most 1: relative fall of the activation without each cell, averaged over
    the occluded parts that contain it; negative if the activation rises."""


@dataclass(frozen=True)
class OccludedCodes:
    """Codes of an image and of its occluded copies."""

    grid: int
    codes: csr_array
    """(1 + g², m) float32: the image, then copies without the part around each cell, row by row"""

    def cells(self, dimensions: Sequence[int]) -> np.ndarray:
        """Return the `ConceptRegion.cells` of dimensions that are active in the image."""
        values = self.codes[:, list(dimensions)].sum(1)
        falls = 1 - values[1:].reshape(self.grid, self.grid) / values[0]
        covered = _cells(self.grid)
        return np.einsum("rcij,rc->ij", covered, falls) / covered.sum((0, 1))


def encode_occluded(
    engine: SearchEngine,
    image: Image.Image,
    grid: int = GRID,
    lock: AbstractContextManager[object] | None = None,
) -> OccludedCodes:
    """Encode an image and its occluded copies, a few at a time.

    Parameters
    ----------
    engine : SearchEngine
    image : PIL.Image.Image
    grid : int
        Number of cells along each side.
    lock : context manager, optional
        Entered for each batch, so that other requests can run in between.

    Raises
    ------
    ValueError
        If the engine cannot encode images.
    """
    if not engine.can.image_queries:
        why = engine.can.no_image.partition(";")[0]
        raise ValueError(f"concepts cannot be located in an image: {why}")
    image = image.convert("RGB")
    images = [image, *_occluded(image, grid)]
    parts = []
    for start in range(0, len(images), _BATCH):
        with lock or nullcontext():
            parts.append(engine.encode_images(images[start : start + _BATCH]).by_row)
    return OccludedCodes(grid, csr_array(vstack(parts)))


def item_regions(engine: SearchEngine, item_id: str) -> list[ConceptRegion]:
    """Return the regions of an item's concepts in its thumbnail; see `concept_regions`."""
    with Image.open(engine.thumbnail(item_id)) as image:
        return concept_regions(engine, encode_occluded(engine, image))


def concept_regions(engine: SearchEngine, occluded: OccludedCodes) -> list[ConceptRegion]:
    """Return the regions of the concepts of an image, strongest first."""
    names, row = engine.names(), occluded.codes[[0]]
    value = dict(zip(row.indices.tolist(), row.data.tolist(), strict=True))
    regions = [
        ConceptRegion(
            leading,
            names.concept(leading)[1],
            sum(value[j] for j in members),
            occluded.cells(members),
        )
        for leading, members in engine.concepts.grouped(value).items()
    ]
    return sorted(regions, key=lambda region: -region.activation)


def _cells(grid: int) -> np.ndarray:
    """Return which cells each covered part contains: (g, g, g, g) float64, parts then cells."""
    at = np.arange(grid)
    near = (np.abs(at[:, None] - at) <= _COVER // 2).astype(float)
    return np.einsum("ri,cj->rcij", near, near)


def _occluded(image: Image.Image, grid: int) -> list[Image.Image]:
    blurred = image.filter(ImageFilter.GaussianBlur(_BLUR * min(image.size)))
    width, height = image.width / grid, image.height / grid
    soft = ImageFilter.GaussianBlur(_SOFT * min(width, height))
    images = []
    for row, column in product(range(grid), repeat=2):
        left, top = (column - _COVER // 2) * width, (row - _COVER // 2) * height
        box = [round(x) for x in (left, top, left + _COVER * width, top + _COVER * height)]
        mask = Image.new("L", image.size)
        mask.paste(255, (box[0], box[1], box[2], box[3]))
        images.append(Image.composite(blurred, image, mask.filter(soft)))
    return images
