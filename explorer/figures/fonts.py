"""Font metrics of figures: families with fallbacks, text width, and line breaking.

Fallbacks are fonts bundled with Matplotlib, so that a figure looks the same on every machine. A
character that no font has becomes a box and is reported.
"""

from __future__ import annotations

import unicodedata
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
POINTS_PER_INCH = 72
LINE = 1.25
"""Line height, relative to the font size."""
_MISSING = "□"
_INVISIBLE = {"Cf", "Mn", "Me", "Cc", "Cs", "Co", "Cn"}
_MEASURED_AT = 300


class FontMetrics:
    """Metrics of one font family at a base size and a smaller size.

    Parameters
    ----------
    family : str
        sans, serif, or the name of an installed TrueType family.
    size : float
        In points.

    Raises
    ------
    ValueError
        If the family is not installed; the message lists installed ones.
    """

    def __init__(self, family: str, size: float) -> None:
        self.families = FAMILIES.get(family) or (_installed(family), *FAMILIES["sans"])
        self.size = size
        self.small = max(0.8 * size, 4.0)
        self.missing: set[str] = set()
        """Characters in the texts so far that no font has."""
        figure = Figure(dpi=_MEASURED_AT)
        self._renderer = FigureCanvasAgg(figure).get_renderer()
        self._probe = Text(parse_math=False, figure=figure)
        self._width = lru_cache(maxsize=None)(self._measure)

    def properties(self, size: float) -> FontProperties:
        """Return Matplotlib's font properties for a size in points."""
        # The generic family applies if an SVG is opened on a machine without these fonts.
        generic = "serif" if self.families == FAMILIES["serif"] else "sans-serif"
        return FontProperties(family=[*self.families, generic], size=size)

    def width(self, text: str, size: float) -> float:
        """Return the width of a line, in inches."""
        return self._width(text, size)

    def replace_missing(self, text: str) -> str:
        """Replace characters that no font has by a box; drop invisible ones."""
        available = _characters(self.families)
        if all(ord(c) in available for c in text):
            return text
        missing = [c for c in text if ord(c) not in available]
        self.missing |= {c for c in missing if unicodedata.category(c) not in _INVISIBLE}
        replacements = {
            ord(c): None if unicodedata.category(c) in _INVISIBLE else _MISSING for c in missing
        }
        return text.translate(replacements)

    def wrap(self, text: str, size: float, width: float, most: int) -> list[str]:
        """Break a text into lines.

        Parameters
        ----------
        text : str
        size : float
            In points.
        width : float
            In inches; wider words are broken.
        most : int
            Maximum number of lines; if the text needs more, the last one ends in an ellipsis.
        """
        lines: list[str] = []
        for word in self.replace_missing(text).split():
            longer = f"{lines[-1]} {word}" if lines else word
            if lines and self.width(longer, size) <= width:
                lines[-1] = longer
                continue
            while self.width(word, size) > width and len(lines) <= most:
                head = self._fitting_prefix(word, size, width)
                lines.append(head)
                word = word[len(head) :]
            lines.append(word)
            if len(lines) > most:
                break
        if len(lines) <= most:
            return lines
        return [*lines[: most - 1], self._ellipsize(lines[most - 1], size, width)]

    def _fitting_prefix(self, word: str, size: float, width: float) -> str:
        """Return the longest prefix of a word that fits, at least one character."""
        low, high = 1, len(word)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (
                (middle, high) if self.width(word[:middle], size) <= width else (low, middle - 1)
            )
        return word[:low]

    def _ellipsize(self, line: str, size: float, width: float) -> str:
        while line and self.width(f"{line}…", size) > width:
            line = line[:-1].rstrip()
        return f"{line}…"

    def _measure(self, text: str, size: float) -> float:
        self._probe.set_fontproperties(self.properties(size))
        self._probe.set_text(text)
        return self._probe.get_window_extent(self._renderer).width / _MEASURED_AT


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
