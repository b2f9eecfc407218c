"""The state of the page, and its link: `?q=a+dog&without=a+beach&off=17,203&strictness=1`.

`off` is the complete set of dimensions that are off, so a link shows the same results even if the
proposals for "without" change. Links are untrusted: each value is validated alone, and an invalid
one is left out with a note, so that the rest of the link still works.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import filterfalse
from typing import Annotated, Any, Literal, get_args
from urllib.parse import parse_qs, urlencode

from pydantic import AfterValidator, Field, PlainValidator
from pydantic.dataclasses import dataclass

from sieve.explorer.json_validation import (
    Storable,
    Strictness,
    read_dimension,
    read_limit,
    read_off,
    read_strictness,
    short_repr,
    split_list,
    validate,
)
from sieve.model.hyperparameters import PRESENCE_LIMIT
from sieve.model.item_filter import ItemFilter
from sieve.model.query_parser import ParsedQuery, Term, parse_query

Tab = Literal["search", "dimensions", "inspect", "compare", "figure", "benchmark", "train"]
TABS = get_args(Tab)
TAB_TEXTS = ("atlas", "inspect", "versus", "figure", "benchmark")
"""Fields of single tabs: text that the tab parses and validates itself."""
MAX_LINK_CHARACTERS = 20_000
MAX_TEXT_CHARACTERS = 10_000

Text = Annotated[str, Field(max_length=MAX_TEXT_CHARACTERS), Storable]
ItemId = Annotated[str, Field(pattern="^([0-9a-f]{16})?$")]
Dimension = Annotated[int, PlainValidator(read_dimension)]
Where = Annotated[Text, AfterValidator(lambda text: str(ItemFilter.parse(text)))]
"""A filter of items as `ItemFilter` prints it."""
Off = Annotated[tuple[int, ...], PlainValidator(read_off)]


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
        parts["strictness"] = str(Strictness(state.strictness, state.never, state.limit))
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
    named = values.keys() & {"off", "dimension", "atlas"}
    for name in named:
        del values[name]
    where = ItemFilter.parse(values.get("where", ""))
    facets = tuple(one for one in where.facets if not one.of_checkpoint)
    if facets != where.facets:
        values["where"] = str(ItemFilter(facets))
        named |= {"where"}
    query = parse_query(values.get("q", ""), values.get("without", ""))
    find, exclude = (tuple(filterfalse(_is_numbered, t)) for t in (query.find, query.exclude))
    kept = ParsedQuery(find, exclude)
    if kept != ParsedQuery(query.find, query.exclude):
        values |= {"q": kept.find_field, "without": kept.without_field}
        named |= {"q"}
    texts = {name: values[name] for name in _WITH_DIMENSIONS if name in values}
    values |= {name: _WITH_DIMENSIONS[name](text) for name, text in texts.items()}
    return bool(named) or any(values[name] != text for name, text in texts.items())


def _is_numbered(term: Term) -> bool:
    """Return whether a term identifies a concept by a dimension number."""
    return term.kind == "concept" and term.value.isdecimal()


def _drop_off(text: str) -> str:
    """Remove the dimensions that are off from the state of a tab, `q:a dog,off:3 17,…`."""
    parts = (part.partition(":") for part in text.split(","))
    return ",".join("".join(part) for part in parts if part[0] not in ("off", "why-off"))


def _drop_from_figure(text: str) -> str:
    """Remove rows of dimensions, and the `off` of other rows, from the recipe of a figure."""
    try:
        recipe = json.loads(text)
        rows = list(recipe["rows"])
        searches = (row for row in rows if "dimension" not in row)
        kept = [{name: row[name] for name in row if name != "off"} for row in searches]
        if kept == rows:
            return text
        return json.dumps({**recipe, "rows": kept}, ensure_ascii=False) if kept else ""
    except (ValueError, KeyError, TypeError, RecursionError):
        return text  # the Figure tab shows the error


_WITH_DIMENSIONS = {"inspect": _drop_off, "versus": _drop_off, "figure": _drop_from_figure}
"""Functions that remove the dimensions from the fields of tabs."""
