"""The state of the page, and its link: `?q=a+dog&without=a+beach&off=17,203&strictness=1`.

`off` is the complete set of dimensions that are off, so a link shows the same results even if the
proposals for "without" change. Links are untrusted: each value is validated alone, and an invalid
one is left out with a note, so that the rest of the link still works.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import filterfalse
from typing import Annotated, Any, Literal, get_args
from urllib.parse import parse_qs, quote, unquote, urlencode

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator
from pydantic.dataclasses import dataclass

from sieve.explorer.json_validation import (
    Storable,
    read_dimension,
    read_limit,
    read_off,
    read_strictness,
    short_repr,
    split_list,
    validate,
)
from sieve.model.exclusion import PRESENCE_LIMIT, Strictness
from sieve.model.files import matching
from sieve.model.item_filter import ItemFilter
from sieve.model.query_parser import ParsedQuery, Term, parse_query

Tab = Literal["search", "dimensions", "inspect", "compare", "figure", "benchmark", "train"]
TABS = get_args(Tab)
TAB_TEXTS = ("atlas", "inspect", "versus", "figure", "benchmark")
"""Fields of single tabs: text that the tab parses and validates itself."""
MAX_LINK_CHARACTERS = 20_000
MAX_TEXT_CHARACTERS = 10_000

Text = Annotated[str, Field(max_length=MAX_TEXT_CHARACTERS), Storable]
ItemId = Annotated[
    str,
    matching(
        "([0-9a-f]{16})?",
        "must be the ID of an image, 16 digits and letters from a to f, such as 00c0ffee00c0ffee",
    ),
]
Dimension = Annotated[int, PlainValidator(read_dimension)]
Where = Annotated[Text, AfterValidator(lambda text: str(ItemFilter.parse(text)))]
"""A filter of items as `ItemFilter` prints it."""
Off = Annotated[tuple[int, ...], BeforeValidator(read_off)]


@dataclass(frozen=True)
class ViewState:
    """The state of the page that a link restores; every field is validated."""

    q: Text = ""
    """Query: a text or a sum of terms; see `sieve.model.query_parser`."""
    without: Text = ""
    """Terms to exclude."""
    where: Where = ""
    """Filter of the items; see `sieve.model.item_filter`."""
    item: ItemId = ""
    """Id of an item whose image is the query, or is added to `q`."""
    off: Off | None = None
    """The complete set of dimensions that are off; None for those proposed for "without"."""
    strictness: Annotated[float, PlainValidator(lambda value: read_strictness(value).value)] = 1.0
    """In [0, 1]."""
    never: Annotated[bool, Field(strict=True)] = False
    limit: Annotated[float, PlainValidator(read_limit)] = PRESENCE_LIMIT
    """Probability from which `never` hides an image."""
    compare: Annotated[bool, Field(strict=True)] = False
    """Whether the results of the dense baseline are shown beside the others."""
    tab: Tab = "search"
    dimension: Dimension | None = None
    """The dimension whose page is open."""
    inspect: Text = ""
    """State of the Inspect tab, such as `left:a dog,right:snow`."""
    versus: Text = ""
    """State of the Compare tab, such as `q:a dog,without:snow,method:literal`."""
    figure: Text = ""
    """Recipe of the figure as JSON."""
    atlas: Text = ""
    """State of the Dimensions tab, such as `map:agreement images:0.01..0.2 only:3,17-20`."""
    benchmark: Text = ""
    """State of the Benchmark tab: evaluation,track,pair,baseline."""

    @property
    def level(self) -> Strictness:
        """How strongly off dimensions count."""
        return Strictness(self.strictness, self.never, self.limit)

    @classmethod
    def from_payload(cls, payload: Any) -> ViewState:
        """Validate a payload from the browser; unknown keys are ignored.

        Raises a ValueError that names the first field with a wrong type or out of range.
        """
        return validate(cls, payload, "a view")


def write_link(state: ViewState, collection: str, checkpoint: str) -> str:
    """Return a state as a query string, `?…`; empty for the initial state.

    `collection` and `checkpoint` are the names of what is open; dimensions are specific to a
    checkpoint.
    """
    parts: dict[str, str] = {}
    if state.item:
        parts["item"] = state.item
    if state.q:
        parts["q"] = state.q
    if state.without:
        parts["without"] = state.without
    if state.where:
        parts["where"] = state.where
    searches = bool(state.q or state.item)
    if searches and state.off is not None:
        parts["off"] = ",".join(map(str, state.off))
    if searches and (state.off or state.never or state.strictness != 1):
        parts["strictness"] = str(state.level)
    if state.compare:
        parts["compare"] = "1"
    if state.tab != TABS[0]:
        parts["tab"] = state.tab
    if state.dimension is not None:
        parts["dimension"] = str(state.dimension)
    parts |= {name: getattr(state, name) for name in TAB_TEXTS if getattr(state, name)}
    if not parts:
        return ""
    return "?" + urlencode({**parts, "collection": collection, "checkpoint": checkpoint}, safe=",:")


def read_link(
    query: str, collection: str, checkpoint: str, m: int
) -> tuple[ViewState, tuple[str, ...]]:
    """Parse and validate the query string of a link, with or without the question mark.

    `collection` and `checkpoint` are the names of what is open, `m` the number of dimensions.
    Returns the state with all valid values, and one line for each value that was left out.
    """
    if len(query) > MAX_LINK_CHARACTERS:
        most = f"{MAX_LINK_CHARACTERS:,} characters"
        return ViewState(), (f"The link was not read: it is longer than {most}.",)
    try:
        found = parse_qs(query.lstrip("?"), keep_blank_values=True, max_num_fields=100)
    except ValueError:
        return ViewState(), ("The link was not read: it has more than 100 parts.",)
    given = {name: values[-1] for name, values in found.items()}
    values: dict[str, Any] = {}
    notes: list[str] = []
    for name, parse in _PARSERS.items():
        if name not in given:
            continue
        try:
            found = parse(given[name])
            fields = found if isinstance(found, dict) else {name: found}
            state = validate(ViewState, fields, "a link")
            for j in (*(state.off or ()), state.dimension or 0):
                if j >= m:
                    raise ValueError(f"there is no dimension {j}; there are 0 to {m - 1}")
        except ValueError as error:
            notes.append(f"Left out of the link: {error}.")
        else:
            values |= {field: getattr(state, field) for field in fields}
    notes += _check_origin(given, values, collection, checkpoint)
    return ViewState(**values), tuple(notes)


def _parse_strictness(text: str) -> dict[str, Any]:
    """Return the fields of the strictness that differ from the defaults."""
    strictness, never, limit = read_strictness(text)
    return {"never": True, "limit": limit} if never else {"strictness": strictness}


_PARSERS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("q", "without", "where", "item", "tab", "dimension", *TAB_TEXTS), str),
    "off": split_list,
    "strictness": _parse_strictness,
    "compare": lambda text: text == "1",
}


def _check_origin(
    given: dict[str, str], values: dict[str, Any], collection: str, checkpoint: str
) -> list[str]:
    """Remove values that belong to another checkpoint, and return notes for the user."""
    notes = []
    made_with = given.get("checkpoint", checkpoint)
    foreign = made_with != checkpoint
    if foreign and _drop_dimensions(values):
        notes.append(
            f"This link was made with checkpoint {short_repr(made_with)}; its dimensions do not "
            f"exist in {checkpoint!r} and were left out."
        )
    made_for = given.get("collection", collection)
    if made_for != collection:
        named = short_repr(made_for)
        notes.append(f"This link is for collection {named}, but {collection!r} is open.")
    return notes


def _drop_dimensions(values: dict[str, Any]) -> bool:
    """Remove all references to dimensions; return whether there were any."""
    kept = _drop_numbers(values)
    for name, drop in _WITH_DIMENSIONS.items():
        if name in kept:
            kept[name] = drop(kept[name])
    changed = kept != values
    values.clear()
    values |= kept
    return changed


def _drop_numbers(fields: dict[str, Any]) -> dict[str, Any]:
    """Return fields of a link, a tab or a figure's row without references to dimensions."""
    kept = {name: value for name, value in fields.items() if name not in _NUMBERS}
    for name in _FILTERS & kept.keys():
        kept[name] = _drop_facets(kept[name])
    if isinstance(kept.get("difference"), list):
        kept["difference"] = list(map(_drop_facets, kept["difference"]))
    for find in ("left", "right"):
        if rest := _drop_terms(kept.get(find, "")):
            kept[find] = str(rest)
    for find in ("q", "query"):
        if rest := _drop_terms(kept.get(find, ""), kept.get("without", "")):
            kept |= {find: rest.find_field, "without": rest.without_field}
    return kept


def _drop_terms(text: Any, without: Any = "") -> ParsedQuery | None:
    """Return a query without concepts that are identified by a number; None if it has none."""
    if not (isinstance(text, str) and isinstance(without, str)):
        return None
    query = parse_query(text, without)
    find, exclude = (tuple(filterfalse(_is_numbered, t)) for t in (query.find, query.exclude))
    return None if (find, exclude) == (query.find, query.exclude) else ParsedQuery(find, exclude)


def _is_numbered(term: Term) -> bool:
    """Return whether a term identifies a concept by a dimension number."""
    return term.kind == "concept" and term.value.isdecimal()


def _drop_facets(text: Any) -> Any:
    """Return a filter without facets of dimensions and of the map; unchanged if it is invalid."""
    try:
        facets = ItemFilter.parse(text).facets
    except (ValueError, TypeError):
        return text
    kept = tuple(
        one
        for one in facets
        if not (one.of_checkpoint or (one.kind == "search" and _drop_terms(one.value)))
    )
    return text if kept == facets else str(ItemFilter(kept))


def _drop_from_tab(text: str) -> str:
    """Remove the dimensions from the state of a tab, `q:a dog,off:3 17,…`."""
    parts = {name: value for name, _, value in (part.partition(":") for part in text.split(","))}
    given = {name: unquote(value) for name, value in parts.items()}
    kept = _drop_numbers(given)
    if kept == given:
        return text
    packed = {name: re.sub("[%,:]", lambda sign: quote(sign[0]), kept[name]) for name in kept}
    return ",".join(f"{name}:{value}" for name, value in packed.items() if value)


def _drop_from_figure(text: str) -> str:
    """Remove rows of dimensions, and the dimensions of other rows, from the recipe of a figure."""
    try:
        recipe = json.loads(text)
        rows = [(row, _drop_numbers(row)) for row in recipe["rows"]]
        names = recipe.pop("names", None)
        if not names and all(row == rest for row, rest in rows):
            return text
        kept = [rest for _, rest in rows if _has_content(rest)]
        return json.dumps({**recipe, "rows": kept}, ensure_ascii=False) if kept else ""
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return text  # the Figure tab shows the error


def _has_content(row: dict[str, Any]) -> bool:
    """Return whether a row of a figure still shows something."""
    sets = row.get("difference")
    return bool(sets[0]) if sets else bool(row.keys() & {"image", "sample"} or row.get("query"))


_NUMBERS = {"off", "why-off", "dimension", "dimensions", "atlas"}
"""Fields that hold dimensions."""
_FILTERS = {"where", "set", "other"}
"""Fields that hold a filter of items."""
_WITH_DIMENSIONS = {
    "inspect": _drop_from_tab, "versus": _drop_from_tab, "figure": _drop_from_figure,
}  # fmt: skip
"""Functions that remove the dimensions from the fields of tabs."""
