"""The state of the page, and its link: `?q=a+dog&without=a+beach&off=17,203&strictness=1`.

`off` is the complete set of dimensions that are off, so a link shows the same results even if the
proposals for "without" change. Links are untrusted: each value is validated alone, and an invalid
one is left out with a note, so that the rest of the link still works.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import parse_qs, urlencode

from sieve.explorer.json_validation import (
    MAX_OFF,
    NEVER,
    check_text,
    read_dimension,
    read_off,
    read_strictness,
    short_repr,
    split_list,
)

TABS = ("search", "dimensions", "inspect", "compare", "figure", "benchmark", "train")
TAB_TEXTS = ("atlas", "inspect", "versus", "figure", "benchmark")
"""Fields of single tabs: text that the tab parses and validates itself."""
MAX_LINK_CHARACTERS = 20_000
MAX_TEXT_CHARACTERS = 10_000

_OF_CHECKPOINT = frozenset({"off", "dimension", "atlas"})
_ITEM_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class ViewState:
    """The state of the page that a link restores."""

    q: str = ""
    """Text of the query."""
    without: str = ""
    """Text to exclude."""
    item: str = ""
    """Id of an item whose image is the query instead of `q`."""
    off: tuple[int, ...] | None = None
    """The complete set of dimensions that are off; None for those proposed for "without"."""
    strictness: float = 1.0
    """In [0, 1]."""
    never: bool = False
    compare: bool = False
    """Whether the results of the dense baseline are shown beside the others."""
    tab: str = TABS[0]
    dimension: int | None = None
    """The dimension whose page is open."""
    inspect: str = ""
    """State of the Inspect tab, such as `left:a dog,right:snow`."""
    versus: str = ""
    """State of the Compare tab, such as `q:a dog,without:snow,method:literal`."""
    figure: str = ""
    """Recipe of the figure as JSON."""
    atlas: str = ""
    """State of the Dimensions tab, such as `map:agreement images:0.01..0.2 only:3,17-20`."""
    benchmark: str = ""
    """State of the Benchmark tab: evaluation,track,pair,baseline."""

    def __post_init__(self) -> None:
        for name in ("q", "without", "item", "tab", *TAB_TEXTS):
            check_text(name, getattr(self, name), MAX_TEXT_CHARACTERS)
        if self.item and not _ITEM_ID.fullmatch(self.item):
            raise ValueError(f"item must be 16 hex digits; got {short_repr(self.item)}")
        if self.off is not None and len(self.off) > MAX_OFF:
            raise ValueError(f"off may name {MAX_OFF} dimensions; got {len(self.off)}")
        if any(j < 0 for j in self.off or ()) or (self.dimension or 0) < 0:
            raise ValueError("a dimension is a whole number of at least 0")
        if not 0 <= self.strictness <= 1:
            raise ValueError(f"strictness must be from 0 to 1, or {NEVER}; got {self.strictness}")
        if self.tab not in TABS:
            raise ValueError(f"tab must be one of {', '.join(TABS)}; got {short_repr(self.tab)}")

    @classmethod
    def from_payload(cls, payload: dict[str, Any]) -> ViewState:
        """Validate a payload from the browser; unknown keys are ignored.

        Raises
        ------
        ValueError
            If a value has the wrong type or is out of range.
        """
        if not isinstance(payload, dict):
            raise ValueError(f"expected an object; got {short_repr(payload)}")
        known = {field.name for field in fields(cls)}
        values = {name: value for name, value in payload.items() if name in known}
        for name in ("never", "compare"):
            if not isinstance(values.get(name, False), bool):
                raise ValueError(f"{name} must be true or false; got {short_repr(values[name])}")
        if values.get("off") is not None:
            values["off"] = read_off(values["off"])
        if values.get("dimension") is not None:
            values["dimension"] = read_dimension(values["dimension"])
        if "strictness" in values:
            strictness = read_strictness(values["strictness"])
            values |= {"strictness": strictness.value}
            values |= {"never": True} if strictness.never else {}
        return cls(**values)


def write_link(state: ViewState, collection: str, checkpoint: str) -> str:
    """Return a state as a query string, `?…`; empty for the initial state.

    Parameters
    ----------
    state : ViewState
    collection, checkpoint : str
        Names of what is open; dimensions are specific to a checkpoint.
    """
    parts: dict[str, str] = {}
    if state.item:
        parts["item"] = state.item
    elif state.q:
        parts["q"] = state.q
    if state.without:
        parts["without"] = state.without
    searches = bool(state.q or state.item)
    if searches and state.off is not None:
        parts["off"] = ",".join(map(str, state.off))
    if searches and (state.off or state.never or state.strictness != 1):
        parts["strictness"] = NEVER if state.never else f"{state.strictness:g}"
    if state.compare:
        parts["compare"] = "1"
    if state.tab != TABS[0]:
        parts["tab"] = state.tab
    if state.dimension is not None:
        parts["dimension"] = str(state.dimension)
    parts |= {name: getattr(state, name) for name in TAB_TEXTS if getattr(state, name)}
    if not parts:
        return ""
    return "?" + urlencode({**parts, "collection": collection, "checkpoint": checkpoint}, safe=",")


def read_link(
    query: str, collection: str, checkpoint: str, m: int
) -> tuple[ViewState, tuple[str, ...]]:
    """Parse and validate the query string of a link.

    Parameters
    ----------
    query : str
        With or without the question mark.
    collection, checkpoint : str
        Names of what is open.
    m : int
        Number of dimensions.

    Returns
    -------
    state : ViewState
        With all valid values.
    notes : tuple of str
        One line for each value that was left out.
    """
    if len(query) > MAX_LINK_CHARACTERS:
        return ViewState(), (
            f"The link was not read: it is longer than {MAX_LINK_CHARACTERS:,} characters.",
        )
    try:
        found = parse_qs(query.lstrip("?"), keep_blank_values=True, max_num_fields=100)
    except ValueError:
        return ViewState(), ("The link was not read: it has more than 100 parts.",)
    given = {name: values[-1] for name, values in found.items()}
    values: dict[str, Any] = {}
    notes: list[str] = []
    for name, read in _READERS.items():
        if name not in given:
            continue
        try:
            read_values = read(given[name])
            ViewState(**read_values)
            _check_known(read_values, m)
        except ValueError as error:
            notes.append(f"Left out of the link: {error}.")
        else:
            values |= read_values
    notes += _check_origin(given, values, collection, checkpoint)
    return ViewState(**values), tuple(notes)


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
        notes.append(
            f"This link is for collection {short_repr(made_for)}, but {collection!r} is open."
        )
    return notes


def _drop_dimensions(values: dict[str, Any]) -> bool:
    """Remove all references to dimensions; return whether there were any."""
    named = values.keys() & _OF_CHECKPOINT
    for name in named:
        del values[name]
    # The page itself ignores the dimensions in these two.
    switched = any(re.search(r"\boff:", values.get(name, "")) for name in ("inspect", "versus"))
    figure = values.get("figure", "")
    values |= {"figure": _drop_from_figure(figure)} if figure else {}
    return bool(named) or switched or values.get("figure", "") != figure


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


def _read_strictness(text: str) -> dict[str, Any]:
    strictness = read_strictness(text)
    return {"never": True} if strictness.never else {"strictness": strictness.value}


def _read_off(text: str) -> dict[str, Any]:
    return {"off": read_off(split_list(text))}


def _read_dimension(text: str) -> dict[str, Any]:
    return {"dimension": read_dimension(text)}


def _read_text(name: str) -> Callable[[str], dict[str, Any]]:
    return lambda text: {name: text}


_READERS: dict[str, Callable[[str], dict[str, Any]]] = {
    **{name: _read_text(name) for name in ("q", "without", "item", "tab", *TAB_TEXTS)},
    "off": _read_off,
    "strictness": _read_strictness,
    "compare": lambda text: {"compare": text == "1"},
    "dimension": _read_dimension,
}


def _check_known(values: dict[str, Any], m: int) -> None:
    named = [*(values.get("off") or ()), *([values["dimension"]] if "dimension" in values else [])]
    for j in named:
        if j >= m:
            raise ValueError(f"there is no dimension {j}; there are 0 to {m - 1}")
