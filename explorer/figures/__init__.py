"""Paper figures, and their recipes: JSON documents that fully describe them.

    {"collection": "scenes", "rows": [{"query": "a dog"}, {"query": "a dog", "without": "a beach"}],
     "columns": 6, "width_cm": 17}

All other fields have defaults. The recipe that is written with a figure also records the hashes of
collection and checkpoint and the version of Sieve, so that the figure can be reproduced.

Matplotlib is not imported here: only drawing needs it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, PlainValidator, TypeAdapter
from pydantic.dataclasses import dataclass

from sieve.explorer.json_validation import (
    MAX_OFF,
    Line,
    check_choice,
    parse_json,
    read_number,
    read_strictness,
    validate,
)
from sieve.explorer.view_state import Dimension, ItemId, Off, Where
from sieve.model.exclusion import Strictness
from sieve.model.files import matching

CM_PER_INCH = 2.54
WIDTHS = {"one column": 8.46, "two columns": 17.78}
"""Presets of `width`, in cm: 3.33 and 7 inches, common for two-column pages such as ACM's."""
STYLES: dict[str, dict[str, Any]] = {
    name: {"width_cm": width, "font": "serif", "font_size": 8.0}
    for name, width in {
        "acl column": 7.7, "acl page": 16.0, "neurips": 13.97, "cvpr column": 8.33,
        "cvpr page": 17.46, "acm column": 8.47, "acm page": 17.79,
    }.items()
}  # fmt: skip
"""Presets of `style`: width of a column or of the text block, and a font like that of the text."""
Mark = Literal["violations", "names", "captions", "scores", "regions"]
MARKS = get_args(Mark)
MAX_BYTES = 1 << 20
MAX_ROWS = 40

_Number = Field(strict=True, allow_inf_nan=False)
_Hash = Annotated[
    Line,
    matching(
        "([0-9a-f]{8,64})?",
        "must be a hash, or at least its first 8 digits, such as 5f3a09c1",
    ),
]
_STRICT = ConfigDict(extra="forbid", validate_default=True)


def _check_pair(value: Any) -> Any:
    if isinstance(value, (list, tuple)) and len(value) != 2:
        raise ValueError("difference must be two sets of images, such as label:dog and label:cat")
    return value


@dataclass(frozen=True, config=_STRICT)
class Row:
    """One row of a figure: a query, an image of the collection to search by, or a dimension.

    A row with `dimensions` stands for a row of each, one with `sample` for several rows of random
    dimensions (a contact sheet), and one with `difference` for several concepts.
    """

    query: Line = ""
    """Text to search for."""
    image: ItemId = ""
    """Id of an item to search by, instead of `query`."""
    dimension: Dimension | None = None
    """Dimension whose top images are shown, instead of search results."""
    dimensions: (
        Annotated[tuple[Dimension, ...], Field(min_length=1, max_length=MAX_ROWS)] | None
    ) = None
    """Several dimensions, each with a row of its own, in this order."""
    sample: Annotated[int, Field(ge=1, le=MAX_ROWS)] | None = None
    """Number of live dimensions to draw at random. The complete recipe lists them instead."""
    difference: Annotated[tuple[Line, Line], BeforeValidator(_check_pair)] | None = None
    """Two sets of items, as for `sieve difference`: a row for each concept that distinguishes them
    most, with its strongest images in the set that has it more often. An empty second set is all
    other items."""
    concepts: Annotated[int, Field(ge=1, le=20)] = 4
    """Number of concepts of a difference."""
    seed: Annotated[int, Field(ge=0, le=2**31)] = 0
    """Seed of the sample."""
    without: Line = ""
    """Text to exclude."""
    off: Off | None = None
    """All dimensions to switch off; None for those that `without` proposes."""
    strictness: Annotated[
        float | str, PlainValidator(lambda value: read_strictness(value).as_json())
    ] = 1.0
    """From 0 to 1, "never", or "never:0.2" with another limit than the default."""
    where: Where = ""
    """Filter of the items; see `sieve.model.item_filter`."""

    def __post_init__(self) -> None:
        kinds = {
            "query": bool(self.query),
            "image": bool(self.image),
            "dimension": self.dimension is not None,
            "dimensions": self.dimensions is not None,
            "sample": self.sample is not None,
            "difference": self.difference is not None,
        }
        given = [kind for kind, is_given in kinds.items() if is_given]
        if len(given) != 1:
            raise ValueError(
                f"a row needs exactly one of {', '.join(kinds)}; got {', '.join(given) or 'none'}"
            )
        listed = self.dimensions or ()
        if twice := [j for j in listed if listed.count(j) > 1]:
            raise ValueError(f"dimensions must differ; {twice[0]} is listed twice")
        excludes = self.without or self.off is not None or self.strictness != 1
        if (excludes or self.where) and not self.searches:
            raise ValueError(
                f'a row with "{given[0]}" cannot have "without", "off", "strictness" or "where"'
            )

    @property
    def searches(self) -> bool:
        """Whether the row shows the results of a search."""
        return bool(self.query or self.image)

    @property
    def n_drawn(self) -> int:
        """Number of rows in print; a difference, whose concepts are not known yet, counts as 1."""
        return self.sample or len(self.dimensions or (0,))

    @property
    def level(self) -> Strictness:
        """The strictness as a number, with `never` and its limit."""
        return read_strictness(self.strictness)


_ROWS = TypeAdapter(tuple[Row, ...])


@dataclass(frozen=True, config=_STRICT)
class Recipe:
    """Content and appearance of a figure; immutable and validated."""

    collection: Line = ""
    """Name or path of the collection; in the explorer, empty for the open one."""
    rows: Annotated[tuple[Row, ...], Field(min_length=1, max_length=MAX_ROWS)] = ()
    columns: Annotated[int, Field(strict=True, ge=1, le=24)] = 6
    """Images per row."""
    width_cm: Annotated[float, _Number, Field(ge=3, le=42)] = WIDTHS["two columns"]
    """Width in print; JSON may have `width_in`, `width` with a preset, or `style` instead."""
    marks: Annotated[
        tuple[Mark, ...], AfterValidator(lambda marks: tuple(m for m in MARKS if m in marks))
    ] = ("violations", "names")
    """Elements to show: violations (framed), names of dimensions, captions, scores, and regions
    (images fade where they do not carry the row's concept; only in `sieve figure` and Python)."""
    labels: Literal["auto", "beside", "above"] = "auto"
    """Labels beside the images or above them; auto: above in a column narrower than 10 cm."""
    tiles: Literal["crop", "whole", "focus"] = "crop"
    """Images cropped to squares, or whole; focus: cropped around the region of the row's concept
    (only in `sieve figure` and Python)."""
    font: Line = "sans"
    """sans, serif, or the name of an installed TrueType family."""
    font_size: Annotated[float, _Number, Field(ge=4, le=24)] = 8.0
    """Font size of queries, in points; other text is slightly smaller."""
    caption: Line = ""
    """LaTeX caption; empty for a generated one."""
    label: Annotated[
        str,
        matching(
            "[A-Za-z0-9:._-]{1,80}",
            "must be 1 to 80 letters, digits or any of : . _ -, such as fig:dogs",
        ),
    ] = "fig:sieve"
    """LaTeX label."""
    collection_sha256: _Hash = ""
    """Hash of the collection, or at least its first 8 digits; verified."""
    checkpoint: _Hash = ""
    """Hash of the checkpoint, or at least its first 8 digits; empty for the default."""
    version: Line = ""
    """Version of Sieve that wrote the recipe."""
    names: Annotated[dict[Dimension, Line], Field(max_length=MAX_OFF)] | None = None
    """User's names of dimensions, which override the checkpoint's; None for the current ones."""

    def __post_init__(self) -> None:
        if (drawn := sum(row.n_drawn for row in self.rows)) > MAX_ROWS:
            raise ValueError(f"a figure has at most {MAX_ROWS} rows; got {drawn:,}")

    @property
    def needs_regions(self) -> bool:
        """Whether the regions of concepts are located, which takes seconds for each image."""
        return self.tiles == "focus" or "regions" in self.marks

    @classmethod
    def from_json(cls, value: Any) -> Recipe:
        """Read a recipe from parsed JSON; `width_in` or `width` may replace `width_cm`.

        `style`, one of `STYLES`, sets the fields of that style that are not given. Raises a
        ValueError that names the first invalid field.
        """
        given = _in_cm(_styled(value)) if isinstance(value, dict) else value
        return validate(cls, given, "a recipe")

    def as_json(self) -> dict[str, Any]:
        """Return all fields as JSON-compatible types, the inverse of `from_json`."""
        rows = _ROWS.dump_python(self.rows, mode="json", exclude_defaults=True)
        names = self.names and {str(j): name for j, name in sorted(self.names.items())}
        return asdict(self) | {"rows": rows, "marks": list(self.marks), "names": names}


_IDENTITY = {"collection", "rows", "collection_sha256", "checkpoint", "version"}
DEFAULTS = {field.name: field.default for field in fields(Recipe) if field.name not in _IDENTITY}
"""Default appearance of a figure."""


def _styled(given: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a recipe, with those of its style as defaults."""
    if "style" not in given:
        return given
    style = dict(STYLES[check_choice("style", given["style"], tuple(STYLES))])
    if {"width", "width_in"} & set(given):
        del style["width_cm"]
    return style | {name: value for name, value in given.items() if name != "style"}


def _in_cm(given: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a recipe with its width in cm."""
    named = [name for name in ("width_cm", "width_in", "width") if name in given]
    if len(named) > 1:
        raise ValueError(f"give one width, not both {named[0]} and {named[1]}")
    rest = {name: value for name, value in given.items() if name not in ("width_in", "width")}
    if named == ["width"]:
        rest["width_cm"] = WIDTHS[check_choice("width", given["width"], tuple(WIDTHS))]
    elif named == ["width_in"]:
        rest["width_cm"] = round(read_number("width_in", given["width_in"]) * CM_PER_INCH, 4)
    return rest


def read_recipe(path: Path) -> Recipe:
    """Read a recipe file; errors are FileNotFoundErrors and ValueErrors that name the file."""
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
    return Recipe.from_json(parse_json(text))


def write_recipe(recipe: Recipe) -> str:
    """Return a recipe as JSON text."""
    return json.dumps(recipe.as_json(), ensure_ascii=False, indent=1, allow_nan=False) + "\n"
