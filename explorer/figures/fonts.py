"""Fonts of figures: families, fallbacks for missing characters, and the measured size of text."""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from functools import lru_cache
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager, get_font
from matplotlib.text import Text

FAMILIES = {
    "sans": ("DejaVu Sans", "STIXGeneral"),
    "serif": ("STIXGeneral", "DejaVu Serif", "DejaVu Sans"),
}
"""Families by the value of `font` in a recipe, with fallbacks for missing characters."""
_MISSING = "□"
_INVISIBLE = {"Cf", "Mn", "Me", "Cc", "Cs", "Co", "Cn"}
"""Unicode categories of characters without a shape of their own."""
_DPI = 300


class FontMetrics:
    """Metrics of one font family at a base size and a smaller size, in points.

    `family` is sans, serif, or the name of an installed TrueType family; a ValueError lists the
    installed ones. Fallbacks are fonts bundled with Matplotlib, so that a figure looks the same on
    every machine.
    """

    def __init__(self, family: str, size: float) -> None:
        self.families = FAMILIES.get(family) or (_installed(family), *FAMILIES["sans"])
        self.size = size
        self.small = max(0.8 * size, 4.0)
        self.missing: set[str] = set()
        """Characters in the texts so far that no font has; each is shown as a box."""
        figure = Figure(dpi=_DPI)
        self._renderer = FigureCanvasAgg(figure).get_renderer()
        self._probe = Text(parse_math=False, figure=figure)
        self.width = lru_cache(maxsize=None)(self._measure)
        """Returns the width of a line at a size, in inches."""

    def properties(self, size: float) -> FontProperties:
        """Return Matplotlib's font properties for a size."""
        # The generic family applies if an SVG is opened on a machine without these fonts.
        generic = "serif" if self.families == FAMILIES["serif"] else "sans-serif"
        return FontProperties(family=[*self.families, generic], size=size)

    def _replace_missing(self, text: str) -> str:
        """Replace characters that no font has by a box; drop invisible ones."""
        missing = {c for c in text if ord(c) not in _characters(self.families)}
        visible = {c for c in missing if unicodedata.category(c) not in _INVISIBLE}
        self.missing |= visible
        return text.translate({ord(c): _MISSING if c in visible else None for c in missing})

    def wrap(self, text: str, size: float, width: float, most: int) -> list[str]:
        """Break a text into at most `most` lines; if it needs more, the last ends in an ellipsis.

        `width` is in inches; wider words are broken.
        """
        lines: list[str] = []
        for word in self._replace_missing(text).split():
            longer = f"{lines[-1]} {word}" if lines else word
            if lines and self.width(longer, size) <= width:
                lines[-1] = longer
                continue
            while self.width(word, size) > width and len(lines) <= most:
                lengths = range(1, len(word) + 1)
                fitting = bisect_right(lengths, width, key=lambda n: self.width(word[:n], size))
                lines.append(word[: max(fitting, 1)])
                word = word[max(fitting, 1) :]
            lines.append(word)
            if len(lines) > most:
                break
        if len(lines) > most:
            last = lines[most - 1]
            while last and self.width(f"{last}…", size) > width:
                last = last[:-1].rstrip()
            lines[most - 1 :] = [f"{last}…"]
        return lines

    def _measure(self, text: str, size: float) -> float:
        self._probe.set_fontproperties(self.properties(size))
        self._probe.set_text(text)
        return self._probe.get_window_extent(self._renderer).width / _DPI


def _installed(family: str) -> str:
    """Return the name of an installed family, matched without regard to case."""
    installed = {
        font.name.casefold(): font.name
        for font in fontManager.ttflist
        if Path(font.fname).suffix.lower() == ".ttf"  # other formats cannot be embedded
    }
    match = installed.get(family.casefold())
    if match is None:
        named = sorted(name for name in installed.values() if not name.startswith("Last Resort"))
        some = ", ".join(dict.fromkeys([*FAMILIES, *named]))
        raise ValueError(
            f"font: no TrueType family {family[:60]!r} is installed; choose one of: {some[:300]}"
        )
    return match


@lru_cache(maxsize=16)
def _characters(families: tuple[str, ...]) -> frozenset[int]:
    """Return the code points that at least one of the families has."""
    points: set[int] = set()
    for family in families:
        path = fontManager.findfont(FontProperties(family=family), fallback_to_default=False)
        points |= get_font(path).get_charmap().keys()
    return frozenset(points)
