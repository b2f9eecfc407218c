"""Layout of a figure, in inches from its top left corner.

A column of labels is at the left, tiles of equal size at the right. Tiles are aligned to a grid of
1/150 inch, so that image pixels are not blurred in a PNG at 300 dpi or a preview at 150 dpi.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from sieve.explorer.figures.content import Content
from sieve.explorer.figures.fonts import LINE, POINTS_PER_INCH, FontMetrics
from sieve.explorer.figures.recipe import CM_PER_INCH, Recipe

GRID = 150
"""Grid lines per inch."""
MIN_TILE = 0.28
MAX_HEIGHT_CM = 60.0
_GAP, _ROW_GAP, _LABEL_GAP = 0.04, 0.1, 0.1
_EDGE = 0.02
_UNDER = 0.03
"""Gap between a tile and the text under it."""
_CAPTION_LINES, _TITLE_LINES, _SMALL_LINES = 2, 4, 4
INK, QUIET = "#000000", "#555555"


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


class _Box(NamedTuple):
    """Left edge of the tiles, and size of a tile."""

    left: float
    width: float
    height: float


def lay_out(
    recipe: Recipe, rows: Sequence[Content], face: FontMetrics, shape: float = 1.0
) -> Layout:
    """Place tiles, labels and marks.

    Parameters
    ----------
    recipe : Recipe
    rows : sequence of Content
    face : FontMetrics
    shape : float
        Ratio of height to width of a tile, in (0, 1].

    Raises
    ------
    ValueError
        If the columns do not fit into the width, or the rows into 60 cm.
    """
    width = round(recipe.width_cm / CM_PER_INCH, 4)
    labels = [_label(row, recipe, face, width) for row in rows]
    widths = [face.width(text, size) for label in labels for text, size, _ in label.lines]
    if any(row.image is not None for row in rows):
        widths.append(5 * _leading(recipe.font_size))
    side = _side(recipe, width - max(widths, default=0) - _LABEL_GAP)
    left = _on_grid(width - recipe.columns * side - (recipe.columns - 1) * _GAP)
    box = _Box(left, side, max(_on_grid(side * shape), 1 / GRID))
    pictures: list[Picture] = []
    words: list[TextLine] = []
    y = _on_grid(_EDGE)
    for row, label in zip(rows, labels, strict=True):
        y = _place_row(row, label, recipe, face, box, y, pictures, words)
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


def _place_row(
    row: Content,
    label: _Block,
    recipe: Recipe,
    face: FontMetrics,
    box: _Box,
    y: float,
    pictures: list[Picture],
    words: list[TextLine],
) -> float:
    """Place one row, and return the top of the next."""
    block = label.height
    query_width = _on_grid(min(box.width, 5 * _leading(recipe.font_size)))
    query_height = max(_on_grid(query_width * box.height / box.width), 1 / GRID)
    if row.image is not None:
        block += query_height + _UNDER
    top = _on_grid(y + max((box.height - block) / 2, 0))  # centred on the tiles
    if row.image is not None:
        pictures.append(Picture(0.0, top, query_width, query_height, row.image, False))
        top += query_height + _UNDER
    words += label.at(0.0, top)
    lowest = y + max(box.height, block)
    frames = "violations" in recipe.marks
    for column, tile in enumerate(row.tiles):
        x = _on_grid(box.left + column * (box.width + _GAP))
        framed = tile.violates and frames
        pictures.append(Picture(x, y, box.width, box.height, tile.row, framed))
        under = _under(tile.score, tile.caption, recipe, face, box.width)
        words += under.at(x, y + box.height + _UNDER)
        lowest = max(lowest, y + box.height + _UNDER + under.height)
    if not row.tiles:
        words += _Block((("nothing found", face.small, QUIET),)).at(box.left, y)
    return _on_grid(lowest + _ROW_GAP)


def _label(row: Content, recipe: Recipe, face: FontMetrics, width: float) -> _Block:
    """Break the label of a row into lines; it gets a larger share of a narrow figure."""
    room = min(0.26 * width, max(0.19 * width, 1.0))
    names = "names" in recipe.marks
    title = row.title if row.image is None else "like this"
    parts = [
        (title, face.size, INK, _TITLE_LINES),
        (f"without {row.without}" if row.without else "", face.size, INK, _TITLE_LINES),
        *((line, face.small, QUIET, _SMALL_LINES) for line in row.small if names),
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
        lines.append((_decimal(score), face.small, INK))
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


def _decimal(value: float) -> str:
    return f"{value:.2f}".replace("-", "−").replace("0.", ".", 1)


def _leading(size: float) -> float:
    """Return the height of a line, in inches."""
    return LINE * size / POINTS_PER_INCH


def _on_grid(inches: float) -> float:
    return round(inches * GRID) / GRID
