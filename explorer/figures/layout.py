"""Layout of a figure: text lines and images, in inches from its top left corner.

A column of labels is at the left, tiles of equal size at the right; in a narrow figure the labels
are above their tiles instead. Tiles are aligned to a grid of 1/150 inch, so that image pixels are
not blurred in a PNG at 300 dpi or a preview at 150 dpi.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sieve.explorer.figures import CM_PER_INCH, Recipe
from sieve.explorer.figures.content import Content
from sieve.explorer.figures.fonts import FontMetrics

GRID = 150
"""Grid lines per inch."""
MIN_TILE = 0.28
MAX_HEIGHT_CM = 60.0
_BESIDE_CM = 10.0
"""Width from which labels are beside the tiles by default."""
_GAP, _ROW_GAP, _LABEL_GAP = 0.04, 0.1, 0.1
_EDGE = 0.02
_UNDER = 0.03
"""Gap between a tile and the text under it."""
_CAPTION_LINES, _TITLE_LINES, _SMALL_LINES = 2, 4, 4
INK, QUIET = "#000000", "#555555"
POINTS_PER_INCH = 72
LINE = 1.25
"""Line height, relative to the font size."""


class TextLine(NamedTuple):
    """One line of text; `y` is its baseline."""

    x: float
    y: float
    text: str
    size: float
    """In points."""
    colour: str


class Picture(NamedTuple):
    """An image and its box."""

    x: float
    y: float
    width: float
    height: float
    row: int
    """Row of the collection."""
    violates: bool
    cells: np.ndarray | None = None
    """Region of a concept: see `Tile.cells`."""


class Layout(NamedTuple):
    """A whole figure."""

    width: float
    height: float
    pictures: tuple[Picture, ...]
    words: tuple[TextLine, ...]
    key: tuple[float, float] | None
    """Position of the legend of violation frames; None if there are none."""


class _Block(NamedTuple):
    """Consecutive lines of text."""

    lines: tuple[tuple[str, float, str], ...]
    """Text, size in points, colour"""

    @property
    def height(self) -> float:
        return sum(_leading(size) for _, size, _ in self.lines)

    def at(self, x: float, y: float) -> list[TextLine]:
        """Place the lines, the first just below `y`."""
        placed = []
        for text, size, colour in self.lines:
            placed.append(TextLine(x, y + 0.8 * _leading(size), text, size, colour))
            y += _leading(size)
        return placed


def lay_out(
    recipe: Recipe, rows: Sequence[Content], face: FontMetrics, shape: float = 1.0
) -> Layout:
    """Place tiles, labels and marks; `shape` is height / width of a tile, in (0, 1].

    Raises a ValueError if the columns do not fit into the width, or the rows into 60 cm.
    """
    width = round(recipe.width_cm / CM_PER_INCH, 4)
    above = recipe.labels == "above" or (recipe.labels == "auto" and recipe.width_cm < _BESIDE_CM)
    labels = [_label(row, recipe, face, width, above) for row in rows]
    widths = [face.width(text, size) for label in labels for text, size, _ in label.lines]
    if any(row.image is not None for row in rows):
        widths.append(5 * _leading(recipe.font_size))
    room = width if above else width - max(widths, default=0) - _LABEL_GAP
    side = _side(recipe, room)
    left = _on_grid(width - recipe.columns * side - (recipe.columns - 1) * _GAP)
    high = max(_on_grid(side * shape), 1 / GRID)
    query_width = _on_grid(min(side, (3 if above else 5) * _leading(recipe.font_size)))
    query_height = max(_on_grid(query_width * high / side), 1 / GRID)
    frames = "violations" in recipe.marks
    pictures: list[Picture] = []
    words: list[TextLine] = []
    y = _on_grid(_EDGE)
    for row, label in zip(rows, labels, strict=True):
        if above:
            indent = 0.0 if row.image is None else query_width + _LABEL_GAP
            if row.image is not None:
                pictures.append(Picture(left, y, query_width, query_height, row.image, False))
            words += label.at(left + indent, y)
            y = _on_grid(y + max(label.height, query_height if indent else 0) + _UNDER)
        block = 0.0 if above else label.height
        block += 0 if above or row.image is None else query_height + _UNDER
        top = _on_grid(y + max((high - block) / 2, 0))  # centred on the tiles
        if row.image is not None and not above:
            pictures.append(Picture(0.0, top, query_width, query_height, row.image, False))
            top += query_height + _UNDER
        words += () if above else label.at(0.0, top)
        lowest = y + max(high, block)
        for column, tile in enumerate(row.tiles):
            x = _on_grid(left + column * (side + _GAP))
            violates = tile.violates and frames
            pictures.append(Picture(x, y, side, high, tile.row, violates, tile.cells))
            under = _under(tile.score, tile.caption, recipe, face, side)
            words += under.at(x, y + high + _UNDER)
            lowest = max(lowest, y + high + _UNDER + under.height)
        if not row.tiles:
            words += _Block((("nothing found", face.small, QUIET),)).at(left, y)
        y = _on_grid(lowest + _ROW_GAP)
    key = None
    if any(picture.violates for picture in pictures):
        key = (left, y)
        y += _leading(face.small) + _ROW_GAP
    height = y - _ROW_GAP + _EDGE
    if height * CM_PER_INCH > MAX_HEIGHT_CM:
        raise ValueError(
            f"the figure would be {height * CM_PER_INCH:.0f} cm high, the maximum is "
            f"{MAX_HEIGHT_CM:.0f} cm; use fewer rows or more columns"
        )
    return Layout(width, _on_grid(height + 1 / GRID), tuple(pictures), tuple(words), key)


def _label(row: Content, recipe: Recipe, face: FontMetrics, width: float, above: bool) -> _Block:
    """Break the label of a row into lines; beside, it gets a larger share of a narrow figure."""
    room = min(0.26 * width, max(0.19 * width, 1.0))
    small = row.small if "names" in recipe.marks else ()
    title = row.title if row.image is None else "like this"
    for j in row.dimensions:
        if f"dimension {j}" in small:
            title = title.removeprefix(f"#{j}, ")
    without = f"without {row.without}" if row.without else ""
    if above:
        room = width - recipe.columns / GRID
        room -= 0 if row.image is None else 3 * _leading(recipe.font_size) + _LABEL_GAP
        title, without, small = f"{title} {without}".strip(), "", ("; ".join(small),)
    parts = [
        (title, face.size, INK, _TITLE_LINES),
        (without, face.size, INK, _TITLE_LINES),
        *((line, face.small, QUIET, _SMALL_LINES) for line in small),
    ]
    return _Block(
        tuple(
            (line, size, colour)
            for text, size, colour, most in parts
            for line in face.wrap(text, size, room, most)
        )
    )


def _under(score: float, caption: str, recipe: Recipe, face: FontMetrics, side: float) -> _Block:
    lines: list[tuple[str, float, str]] = []
    if "scores" in recipe.marks:
        shown = f"{score:.2f}".replace("-", "−").replace("0.", ".", 1)
        lines.append((shown, face.small, INK))
    if "captions" in recipe.marks:
        wrapped = face.wrap(caption, face.small, side, _CAPTION_LINES)
        lines += [(line, face.small, QUIET) for line in wrapped]
    return _Block(tuple(lines))


def _side(recipe: Recipe, room: float) -> float:
    exact = (room - (recipe.columns - 1) * _GAP) / recipe.columns
    side = math.floor(exact * GRID) / GRID
    if side < MIN_TILE:
        fit = math.floor((room + _GAP) / (MIN_TILE + _GAP))
        advice = f"use at most {fit} columns" if fit > 0 else "make the figure wider"
        raise ValueError(
            f"{recipe.columns} columns do not fit into {recipe.width_cm:g} cm: an image would be "
            f"{max(exact, 0) * CM_PER_INCH * 10:.0f} mm wide; {advice}"
        )
    return side


def _leading(size: float) -> float:
    """Return the height of a line, in inches."""
    return LINE * size / POINTS_PER_INCH


def _on_grid(inches: float) -> float:
    return round(inches * GRID) / GRID
