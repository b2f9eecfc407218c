"""What the Inspect tab asks, answered as JSON: one thing, two things, two items of a ranking.

Reasons in plain words: where an item stands, and what puts one before another.

The Inspect tab: what one thing is made of, what two share, and why one result beats another.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from sieve.explorer.components import piece
from sieve.explorer.errors import json_errors
from sieve.explorer.json_validation import read_object, read_text, short_repr
from sieve.explorer.serialize import dimension_row, glance, query_dimension_rows, results_view
from sieve.explorer.view_state import ViewState
from sieve.model.explain import ItemComparison, Part, Standing, cosine, explain, overlap

if TYPE_CHECKING:
    import numpy as np

    from sieve.explorer.tabs.search import SearchHandlers
    from sieve.model.engine import EncodedQuery, Engine

Name = Callable[[int], str]


def tell_standing(standing: Standing, itself: int | None = None) -> str:
    """Say where an item stands: `number 3 with .62`."""
    if standing.row == itself:
        return "is what you search with, so no result"
    if standing.removed:
        kept = standing.rank_if_kept
        return "removed by “never”" + (f"; it would be number {kept:,}" if kept else "")
    if standing.rank is None:
        return "no result: it shares nothing with the query"
    return f"number {standing.rank:,} with {decimal(standing.score)}"


def tell_reasons(found: ItemComparison, name_of: Name) -> str:
    """Say in a sentence what mainly puts one item before the other.

    Parameters
    ----------
    found : ItemComparison
    name_of : callable
        Gives a dimension's name.
    """
    if found.left.row == found.right.row:
        return "Left and right are the same item: choose another for one of them."
    removed = _removal(found, name_of)
    if not found.reasons:
        return removed or "Both have the same score: no dimension tells them apart."
    told = "; ".join(_reason(part, name_of(part.dimension)) for part in found.reasons)
    gap = abs(found.left.score - found.right.score)
    ahead = "left" if found.left.score >= found.right.score else "right"
    return f"{removed}The {ahead} is {decimal(gap)} ahead: {told}{_rest(found.reasons, gap)}."


def _rest(reasons: tuple[Part, ...], gap: float) -> str:
    """Say how much of the gap the reasons make up, where it is not all."""
    total = sum(abs(part.difference) for part in reasons)
    if abs(total - gap) < max(0.005, gap / 10):
        return ""
    together = f", together {decimal(total)}" if len(reasons) > 1 else ""
    if total < gap:
        return f"{together}; smaller differences make up the rest"
    return f"{together}; others take some of it back"


def _removal(found: ItemComparison, name_of: Name) -> str:
    told = []
    for side, standing in (("left", found.left), ("right", found.right)):
        if not standing.removed:
            continue
        had = [(part, getattr(part, side)) for part in found.parts if part.off]
        had = sorted((pair for pair in had if pair[1]), key=lambda pair: pair[1])
        names = " and ".join(_named(part.dimension, name_of(part.dimension)) for part, _ in had[:2])
        told.append(f"“Never” removes the {side}, as it has {names}. ")
    return "".join(told)


def _reason(part: Part, name: str) -> str:
    """Tell a dimension's part: `#4 “snow” counts .21 for the left, nothing for the right`."""
    named = _named(part.dimension, name)
    more, less = ("left", "right") if abs(part.left) >= abs(part.right) else ("right", "left")
    much, little = decimal(abs(getattr(part, more))), decimal(abs(getattr(part, less)))
    if part.off:
        rest = (
            f"only {little} from the {less}" if getattr(part, less) else f"nothing from the {less}"
        )
        return f"{named} is off and takes {much} from the {more}, {rest}"
    rest = f"only {little} for the {less}" if getattr(part, less) else f"nothing for the {less}"
    return f"{named} counts {much} for the {more}, {rest}"


def _named(dimension: int, name: str) -> str:
    return f"#{dimension} “{name.split(' · ')[0]}”"


def decimal(value: float) -> str:
    """Write a number as the screen does: `.21`, `−.04`, `.004`."""
    size = abs(value)
    digits = 3 if 0 < size < 0.0095 else 2
    text = f"{size:.{digits}f}"
    return ("−" if value < 0 else "") + (text[1:] if text.startswith("0") else text)


N_RETRIEVED = 12
N_CHOICES = 24
_HEX = re.compile(r"[0-9a-f]{16}")


class Slot(NamedTuple):
    """What lies in one of the two slots: a text, an item of the collection or an uploaded image."""

    text: str = ""
    item: str = ""
    upload: str = ""

    @classmethod
    def from_payload(cls, value: Any) -> Slot | None:
        """Read a slot; None where nothing lies in it.

        Raises
        ------
        ValueError
            Where it is no slot.
        """
        given = read_object(value or {}, "a slot")
        slot = cls(*(read_text(name, given.get(name, "")) for name in cls._fields))
        if slot.item and not _HEX.fullmatch(slot.item):
            raise ValueError(f"an item's id is 16 hex digits; got {short_repr(slot.item)}")
        return slot if any(slot) else None


def inspect_view(desk: SearchHandlers, payload: Any) -> dict[str, Any]:
    """Tell what one or two things are made of.

    Parameters
    ----------
    desk : SearchHandlers
    payload : dict
        `left`, `right`: slots; `off`: the complete set of dimensions that are off, or null for
        those that "without" in a text proposes; `list`: whether the rows are wanted too.

    Raises
    ------
    ValueError
        In one line.
    """
    given = read_object(payload, "what to inspect")
    slots = {side: Slot.from_payload(given.get(side)) for side in ("left", "right")}
    filled = {side: slot for side, slot in slots.items() if slot is not None}
    if not filled:
        raise ValueError("nothing to inspect: give a text, an image or an item")
    queries = {
        side: desk.encode(slot.text, "", slot.item, slot.upload) for side, slot in filled.items()
    }
    told = {
        "slots": {side: _slot_view(desk.engine, query) for side, query in queries.items()},
        "notes": list(dict.fromkeys(note for query in queries.values() for note in query.notes)),
    }
    if len(queries) == 2:
        return told | {"pair": _pair_view(desk.engine, *queries.values())}
    (query,) = queries.values()
    return told | {"one": _one_view(desk.engine, query, given)}


def _slot_view(engine: Engine, query: EncodedQuery) -> dict[str, Any]:
    item = glance(engine, [engine.row_of(query.item)])[0] if query.item else None
    return {"text": query.text, "without": query.without, "item": item}


def _one_view(engine: Engine, query: EncodedQuery, given: Any) -> dict[str, Any]:
    off = ViewState.from_payload({"off": given.get("off")}).off
    outcome = engine.search(query, off, top=N_RETRIEVED)
    told = {**results_view(outcome, None), "proposed": list(query.proposed)}
    if given.get("list") is True:
        told["dimensions"] = query_dimension_rows(engine, query, off)
    return told


def _pair_view(engine: Engine, left: EncodedQuery, right: EncodedQuery) -> dict[str, Any]:
    found = overlap(left.code, right.code)
    return {
        "cosine": round(found.cosine, 6),
        "backbone": cosine(_embedding(engine, left), _embedding(engine, right)),
        "shared": [
            {
                **dimension_row(engine, part.dimension),
                "left": part.left,
                "right": part.right,
                "product": part.product,
                "share": part.share,
            }
            for part in found.shared
        ],
        "left": _values(engine, found.left),
        "right": _values(engine, found.right),
    }


def _embedding(engine: Engine, query: EncodedQuery) -> np.ndarray:
    """Choose the embedding of what the code is of: A alone, where a text says "A without B"."""
    if query.text and not query.item:
        return engine.encode_text(query.text).embedding
    return query.embedding


def _values(engine: Engine, parts: tuple[tuple[int, float], ...]) -> list[dict[str, Any]]:
    return [{"d": j, "name": engine.name_of(j), "value": value} for j, value in parts]


def why_view(desk: SearchHandlers, payload: Any) -> dict[str, Any]:
    """Tell why one item stands before another.

    Parameters
    ----------
    desk : SearchHandlers
    payload : dict
        The fields of `ViewState`, `upload`, and `a` and `b`: ids of two items. By default they
        are the best result and the best result that the off dimensions removed; if only `a` is
        given, `b` is the result after it.

    Raises
    ------
    ValueError
        In one line.
    """
    place = ViewState.from_payload(payload)
    upload, a, b = (read_text(name, payload.get(name, "")) for name in ("upload", "a", "b"))
    engine = desk.engine
    query = desk.encode(place.q, place.without, place.item, upload)
    outcome = engine.search(query, place.off, place.strictness, never=place.never, top=N_CHOICES)
    ids = [result.id for result in outcome.results]
    if not (a or b) and ids and outcome.left:
        a, b = ids[0], outcome.left[0].id
    a = a or (ids[0] if ids else "")
    b = b or _follower(ids, a)
    told = {
        "q": query.text,
        "without": query.without,
        "item": query.item,
        "notes": list(query.notes),
        "off": [part.dimension for part in outcome.off],
        "proposed": list(query.proposed),
        "choices": [
            {**glance(engine, [result.row])[0], "rank": result.rank}
            for result in (*outcome.results, *outcome.left)
        ],
    }
    if not (a and b):
        return told | {"why": None}
    found = explain(engine, query, a, b, place.off, place.strictness, place.never)
    return told | {"why": _why(engine, found, query)}


def _follower(ids: list[str], item: str) -> str:
    """Find the result after an item; before it where it is the last, the best where it is none."""
    at = ids.index(item) if item in ids else -1
    after = ids[at + 1 :] or ids[:at][-1:]
    return after[0] if after else ""


def _why(engine: Engine, found: ItemComparison, query: EncodedQuery) -> dict[str, Any]:
    itself = engine.row_of(query.item) if query.item else None
    return {
        "left": _standing(engine, found.left, itself),
        "right": _standing(engine, found.right, itself),
        "ranked": found.ranked,
        "difference": round(found.left.score - found.right.score, 6),
        "sentence": tell_reasons(found, engine.name_of),
        "parts": [
            {
                "d": part.dimension,
                "name": engine.name_of(part.dimension),
                "left": round(part.left, 6),
                "right": round(part.right, 6),
                "off": part.off,
            }
            for part in found.parts
        ],
    }


def _standing(engine: Engine, standing: Standing, itself: int | None) -> dict[str, Any]:
    said = tell_standing(standing, itself)
    if itself is not None and standing.row in engine.copies.of(itself):
        said = "shows the same picture as what you search with, so no result"
    return {
        **glance(engine, [standing.row])[0],
        "rank": standing.rank,
        "score": round(standing.score, 6),
        "removed": standing.removed,
        "said": said,
    }


def inspect_tab(desk: SearchHandlers) -> None:
    """Lay out the tab; call inside a `gr.Tab`."""

    def inspect(payload: Any) -> dict[str, Any]:
        return inspect_view(desk, payload)

    def why(payload: Any) -> dict[str, Any]:
        return why_view(desk, payload)

    piece("inspect", json_errors(inspect))
    piece("why", json_errors(why))
