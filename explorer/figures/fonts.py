"""Type for figures: a family with fallbacks, measured, wrapped, and safe for any script.

Only fonts that Matplotlib brings stand behind the chosen one, so that a figure looks the same on
every machine. A character that none of them has becomes a box, and is told.
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
"""Distance of lines, in font sizes."""
_MISSING = "□"
_UNSEEN = {"Cf", "Mn", "Me", "Cc", "Cs", "Co", "Cn"}
_MEASURED_AT = 300


class FontMetrics:
    """One family of type at one size, with a smaller print.

    Parameters
    ----------
    family : str
        sans, serif, or an installed TrueType family.
    size : float
        In points.

    Raises
    ------
    ValueError
        If there is no such family; the message names some that there are.
    """

    def __init__(self, family: str, size: float) -> None:
        self.families = FAMILIES.get(family) or (_installed(family), *FAMILIES["sans"])
        self.size = size
        self.small = max(0.8 * size, 4.0)
        self.missing: set[str] = set()
        """Characters met that no font has."""
        figure = Figure(dpi=_MEASURED_AT)
        self._renderer = FigureCanvasAgg(figure).get_renderer()
        self._probe = Text(parse_math=False, figure=figure)
        self._width = lru_cache(maxsize=None)(self._measured)

    def properties(self, size: float) -> FontProperties:
        """Give the font at a size, for Matplotlib."""
        # The generic name is for those who open an SVG without our fonts.
        generic = "serif" if self.families == FAMILIES["serif"] else "sans-serif"
        return FontProperties(family=[*self.families, generic], size=size)

    def width(self, text: str, size: float) -> float:
        """Measure a line, in inches."""
        return self._width(text, size)

    def legible(self, text: str) -> str:
        """Put a box for each character that no font has; drop the unseen ones."""
        known = _characters(self.families)
        if all(ord(c) in known for c in text):
            return text
        lacking = [c for c in text if ord(c) not in known]
        self.missing |= {c for c in lacking if unicodedata.category(c) not in _UNSEEN}
        swap = {ord(c): None if unicodedata.category(c) in _UNSEEN else _MISSING for c in lacking}
        return text.translate(swap)

    def wrap(self, text: str, size: float, width: float, most: int) -> list[str]:
        """Break a text into lines.

        Parameters
        ----------
        text : str
        size : float
            In points.
        width : float
            In inches; a word that is wider is broken too.
        most : int
            Lines that there may be; where more were needed the last ends in an ellipsis.
        """
        lines: list[str] = []
        for word in self.legible(text).split():
            longer = f"{lines[-1]} {word}" if lines else word
            if lines and self.width(longer, size) <= width:
                lines[-1] = longer
                continue
            while self.width(word, size) > width and len(lines) <= most:
                head = self._fitting(word, size, width)
                lines.append(head)
                word = word[len(head) :]
            lines.append(word)
            if len(lines) > most:
                break
        if len(lines) <= most:
            return lines
        return [*lines[: most - 1], self._shortened(lines[most - 1], size, width)]

    def _fitting(self, word: str, size: float, width: float) -> str:
        """Give the longest beginning of a word that fits; one character at least."""
        low, high = 1, len(word)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (
                (middle, high) if self.width(word[:middle], size) <= width else (low, middle - 1)
            )
        return word[:low]

    def _shortened(self, line: str, size: float, width: float) -> str:
        while line and self.width(f"{line}…", size) > width:
            line = line[:-1].rstrip()
        return f"{line}…"

    def _measured(self, text: str, size: float) -> float:
        self._probe.set_fontproperties(self.properties(size))
        self._probe.set_text(text)
        return self._probe.get_window_extent(self._renderer).width / _MEASURED_AT


def _installed(family: str) -> str:
    """Find an installed family by its name, in any case."""
    known = {
        font.name.casefold(): font.name
        for font in fontManager.ttflist
        if Path(font.fname).suffix.lower() == ".ttf"  # others cannot be embedded as they are
    }
    found = known.get(family.casefold())
    if found is None:
        named = sorted(name for name in known.values() if not name.startswith("Last Resort"))
        some = ", ".join(dict.fromkeys([*FAMILIES, *named]))
        raise ValueError(
            f"font: no TrueType family {family[:60]!r} is installed; there are: {some[:300]}"
        )
    return found


@lru_cache(maxsize=16)
def _characters(families: tuple[str, ...]) -> frozenset[int]:
    """Code points that one of these families has."""
    found: set[int] = set()
    for family in families:
        path = fontManager.findfont(FontProperties(family=family), fallback_to_default=False)
        found |= get_font(path).get_charmap().keys()
    return frozenset(found)
