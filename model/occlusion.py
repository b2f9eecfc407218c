"""Regions of an image that activate a concept, by occlusion.

Each part of the image in turn is replaced by a blurred copy (Zeiler and Fergus 2014, arXiv
1311.2901). A part belongs to the region of a concept if the concept's activation falls without it.
This needs neither gradients nor patch tokens, so it works with every backbone.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter
from scipy.sparse import csr_array, vstack

from sieve.model.engine import SearchEngine

GRID = 7
"""Default number of cells along each side of an image."""
_COVER = 3
"""Side of an occluded part in cells: most objects are larger than a cell."""
_BLUR = 0.1
"""Radius of the blur, relative to the shorter side of the image."""
_SOFT = 0.25
"""Blur of the border of an occluded part, relative to a cell: a sharp border would be content."""
_BATCH = 10


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
