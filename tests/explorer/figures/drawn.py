"""Draw small figures and read the content of their files."""

from __future__ import annotations

import re
import zlib
from typing import Any
from xml.etree import ElementTree

from sieve.explorer.figures import Recipe
from sieve.explorer.figures.drawing import draw_figure

SVG = "{http://www.w3.org/2000/svg}"
ALL = ["violations", "names", "captions", "scores"]
ROWS = [{"query": "a circle"}, {"query": "a circle", "without": "the snow", "strictness": 0}]


def recipe(**fields: Any) -> Recipe:
    return Recipe.from_json({"rows": ROWS, "columns": 5, "width_cm": 12, **fields})


def streams(pdf: bytes) -> list[bytes]:
    found = []
    for part in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.DOTALL):
        try:
            found.append(zlib.decompress(part))
        except zlib.error:
            found.append(part)
    return found


def pdf_text(pdf: bytes) -> str:
    """Return the text of a PDF whose TrueType character codes are Unicode."""
    page = next(stream for stream in streams(pdf) if b" Tf\n" in stream and b"BT\n" in stream)
    shown = re.findall(rb"BT\n(.*?)ET\n", page, re.DOTALL)
    pieces = (b"".join(re.findall(rb"\(((?:\\.|[^\\)])*)\)", part)) for part in shown)
    return "\n".join(piece.replace(b"\0", b"").decode("latin-1") for piece in pieces)


def svg_of(engine: Any, **fields: Any) -> ElementTree.Element:
    return ElementTree.fromstring(draw_figure(engine, recipe(**fields), "svg").data)


def lines_of(svg: ElementTree.Element) -> list[str]:
    return ["".join(text.itertext()).strip() for text in svg.iter(f"{SVG}text")]
