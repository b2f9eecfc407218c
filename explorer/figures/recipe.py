"""Recipe of a paper figure: a JSON document that fully describes it.

    {"collection": "scenes", "rows": [{"query": "a dog"}, {"query": "a dog", "without": "a beach"}],
     "columns": 6, "width_cm": 17}

All other fields have defaults. The recipe that is written with a figure also records the hashes of
collection and checkpoint and the version of Sieve, so that the figure can be reproduced.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from sieve.explorer.json_validation import (
    MAX_OFF,
    NEVER,
    check_choice,
    check_number,
    read_dimension,
    read_number,
    read_object,
    read_off,
    read_strictness,
    read_text,
    read_whole,
    refuse_unknown,
    short_repr,
)

CM_PER_INCH = 2.54
WIDTHS = {"one column": 8.46, "two columns": 17.78}
"""Presets of `width`, in cm: 3.33 and 7 inches, common for two-column pages such as ACM's."""
MARKS = ("violations", "names", "captions", "scores")
TILES = ("crop", "whole")
MAX_COLUMNS = 24
MAX_ROWS = 40
MAX_BYTES = 1 << 20

_WIDTH_CM = (3.0, 42.0)
_HASH = re.compile(r"[0-9a-f]{8,64}")
_ITEM_ID = re.compile(r"[0-9a-f]{16}")
_LABEL = re.compile(r"[A-Za-z0-9:._-]{1,80}")


@dataclass(frozen=True)
class Row:
    """One row of a figure: a query, an image of the collection to search by, or a dimension."""

    query: str = ""
    """Text to search for."""
    image: str = ""
    """Id of an item to search by, instead of `query`."""
    dimension: int | None = None
    """Dimension whose top images are shown, instead of search results."""
    without: str = ""
    """Text to exclude."""
    off: tuple[int, ...] | None = None
    """All dimensions to switch off; None for those that `without` proposes."""
    strictness: float | str = 1.0
    """From 0 to 1, or "never"."""

    def __post_init__(self) -> None:
        given = [bool(self.query), bool(self.image), self.dimension is not None]
        if sum(given) != 1:
            raise ValueError('a row needs exactly one of "query", "image" and "dimension"')
        if self.image and not _ITEM_ID.fullmatch(self.image):
            raise ValueError(f"image must be 16 hex digits; got {short_repr(self.image)}")
        searches = self.dimension is None
        if not searches and (self.without or self.off is not None or self.strictness != 1):
            raise ValueError('a row with "dimension" cannot have "without", "off" or "strictness"')
        if self.strictness != NEVER:
            check_number("strictness", self.strictness, 0, 1, f'or "{NEVER}"')

    @property
    def never(self) -> bool:
        """Whether items with an off dimension are removed."""
        return self.strictness == NEVER

    @property
    def push(self) -> float:
        """Strictness as a number in [0, 1]."""
        return 1.0 if isinstance(self.strictness, str) else self.strictness


@dataclass(frozen=True)
class Recipe:
    """Content and appearance of a figure; immutable and validated."""

    collection: str = ""
    """Name or path of the collection; in the explorer, empty for the open one."""
    rows: tuple[Row, ...] = ()
    columns: int = 6
    """Images per row."""
    width_cm: float = WIDTHS["two columns"]
    """Width in print; JSON may have `width_in`, or `width` with a preset, instead."""
    marks: tuple[str, ...] = ("violations", "names")
    """Elements to show: violations (framed), names of dimensions, captions, scores."""
    tiles: str = "crop"
    """Images cropped to squares, or whole."""
    font: str = "sans"
    """sans, serif, or the name of an installed TrueType family."""
    font_size: float = 8.0
    """Font size of queries, in points; other text is slightly smaller."""
    caption: str = ""
    """LaTeX caption; empty for a generated one."""
    label: str = "fig:sieve"
    """LaTeX label."""
    collection_sha256: str = ""
    """Hash of the collection, or at least its first 8 digits; verified."""
    checkpoint: str = ""
    """Hash of the checkpoint, or at least its first 8 digits; empty for the default."""
    version: str = ""
    """Version of Sieve that wrote the recipe."""
    names: Mapping[int, str] | None = None
    """User's names of dimensions, which override the checkpoint's; None for the current ones."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.rows) <= MAX_ROWS:
            raise ValueError(f"a figure has 1 to {MAX_ROWS} rows; got {len(self.rows):,}")
        if not 1 <= self.columns <= MAX_COLUMNS:
            raise ValueError(f"columns must be from 1 to {MAX_COLUMNS}; got {self.columns:.6g}")
        check_number("width_cm", self.width_cm, *_WIDTH_CM)
        check_number("font_size", self.font_size, 4, 24)
        for mark in self.marks:
            check_choice("marks", mark, MARKS)
        check_choice("tiles", self.tiles, TILES)
        if not _LABEL.fullmatch(self.label):
            raise ValueError(
                "label must be letters, digits and : . _ -, at most 80; got "
                f"{short_repr(self.label)}"
            )
        for name in ("collection_sha256", "checkpoint"):
            value = getattr(self, name)
            if value and not _HASH.fullmatch(value):
                raise ValueError(f"{name} must be 8 to 64 hex digits; got {short_repr(value)}")

    @classmethod
    def from_json(cls, value: Any) -> Recipe:
        """Read a recipe from untrusted JSON.

        Parameters
        ----------
        value : object
            Parsed JSON: the fields; `width_in` or `width` may replace `width_cm`.

        Raises
        ------
        ValueError
            If a field is invalid; the message names the field.
        """
        given = dict(read_object(value, "a recipe"))
        refuse_unknown(given, {*_names(cls), "width", "width_in"}, "a recipe")
        rows = given.pop("rows", [])
        if not isinstance(rows, list):
            raise ValueError(f"rows must be a list; got {short_repr(rows)}")
        if len(rows) > MAX_ROWS:  # checked first: there may be millions
            raise ValueError(f"a figure has 1 to {MAX_ROWS} rows; got {len(rows):,}")
        width = _width_cm(given)
        values = {name: _FIELDS[name](name, value) for name, value in given.items()}
        return cls(rows=tuple(_row(i, row) for i, row in enumerate(rows, 1)), **width, **values)

    def as_json(self) -> dict[str, Any]:
        """Return all fields as JSON-compatible types, the inverse of `from_json`."""
        rows = [
            {name: value for name, value in asdict(row).items() if value != _ROW_DEFAULTS[name]}
            for row in self.rows
        ]
        names = self.names and {str(j): name for j, name in sorted(self.names.items())}
        return asdict(self) | {"rows": rows, "marks": list(self.marks), "names": names}


def read_recipe(path: Path) -> Recipe:
    """Read a recipe file.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If it is invalid; the message names the file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no recipe {path}; give the path of a JSON file")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} is larger than a recipe can be ({MAX_BYTES:,} bytes)")
    try:
        return parse_recipe(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def parse_recipe(text: str) -> Recipe:
    """Read a recipe from JSON text; raise ValueError if it is invalid."""
    if len(text) > MAX_BYTES:
        raise ValueError(f"a recipe has at most {MAX_BYTES:,} characters; got {len(text):,}")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"invalid JSON: {' '.join(str(error).split())[:120]}") from None
    return Recipe.from_json(value)


def write_recipe(recipe: Recipe) -> str:
    """Return a recipe as JSON text."""
    return json.dumps(recipe.as_json(), ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def _row(number: int, value: Any) -> Row:
    place = f"row {number}"
    try:
        given = read_object(value, "a row")
        refuse_unknown(given, _names(Row), "a row")
        return Row(**{name: _ROW_FIELDS[name](name, part) for name, part in given.items()})
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None


def _width_cm(given: dict[str, Any]) -> dict[str, float]:
    """Remove the width from the fields of a recipe, and convert it to cm."""
    names = [name for name in ("width_cm", "width_in", "width") if name in given]
    if len(names) > 1:
        raise ValueError(f"give one width, not both {names[0]} and {names[1]}")
    if not names:
        return {}
    name, value = names[0], given.pop(names[0])
    if name == "width":
        return {"width_cm": WIDTHS[check_choice(name, value, tuple(WIDTHS))]}
    number = read_number(name, value)
    if name == "width_in":
        low, high = _WIDTH_CM
        check_number(name, number, low / CM_PER_INCH, high / CM_PER_INCH)
        number = round(number * CM_PER_INCH, 4)
    return {"width_cm": number}


def _names(of: type) -> set[str]:
    return {field.name for field in fields(of)}


def _dimension(_: str, value: Any) -> int | None:
    return None if value is None else read_dimension(value)


def _off(_: str, value: Any) -> tuple[int, ...] | None:
    return None if value is None else read_off(value)


def _strictness(_: str, value: Any) -> float | str:
    strictness = read_strictness(value)
    return NEVER if strictness.never else strictness.value


def _marks(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError(f"{name} must be a list of {', '.join(MARKS)}; got {short_repr(value)}")
    chosen = {check_choice(name, mark, MARKS) for mark in value}
    return tuple(mark for mark in MARKS if mark in chosen)


def _given_names(name: str, value: Any) -> Mapping[int, str] | None:
    if value is None:
        return None
    given = read_object(value, name)
    if len(given) > MAX_OFF:
        raise ValueError(f"{name} may have {MAX_OFF:,} entries; got {len(given):,}")
    return {read_dimension(j): read_text(name, text) for j, text in given.items()}


_FIELDS = {
    **dict.fromkeys(
        ("collection", "tiles", "font", "caption", "label", "collection_sha256", "checkpoint",
         "version"), read_text,
    ),
    "columns": read_whole, "font_size": read_number, "marks": _marks,
    "names": _given_names,
}  # fmt: skip
_ROW_FIELDS = {
    **dict.fromkeys(("query", "image", "without"), read_text),
    "dimension": _dimension,
    "off": _off,
    "strictness": _strictness,
}
_ROW_DEFAULTS = {field.name: field.default for field in fields(Row)}
