"""Placeholder images that show a caption, for items whose image is not on this machine."""

from __future__ import annotations

import textwrap
from functools import cache
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 320, 240
_PAPER, _INK, _RULE = "#eceae6", "#3d3b38", "#c9c5be"
_MARGIN, _SIZE, _LEADING = 22, 19, 26
_COLUMNS, _LINES, _LONGEST = 34, 7, 400


def draw_placeholder(text: str) -> Image.Image:
    """Draw wrapped text on a background that suits light and dark themes.

    Returns
    -------
    PIL.Image.Image
        (240, 320) RGB.
    """
    image = Image.new("RGB", (WIDTH, HEIGHT), _PAPER)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, WIDTH - 1, HEIGHT - 1), outline=_RULE, width=2)
    lines = _wrapped(text) or ["no caption"]
    top = (HEIGHT - _LEADING * len(lines)) / 2
    for line in lines:
        draw.text((_MARGIN, top), line, _INK, _font())
        top += _LEADING
    return image


def _wrapped(text: str) -> list[str]:
    """Break a text into lines that fit the width."""
    lines: list[str] = []
    for columns in range(_COLUMNS, 0, -1):
        lines = textwrap.wrap(text[:_LONGEST], columns, max_lines=_LINES, placeholder=" …")
        if max(map(_font().getlength, lines), default=0) <= WIDTH - 2 * _MARGIN:
            break
    return lines


@cache
def _font() -> ImageFont.FreeTypeFont:
    """Load matplotlib's DejaVu Sans, which covers most scripts except East Asian ones."""
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(path, _SIZE)
