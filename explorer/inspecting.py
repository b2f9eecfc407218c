"""What the Inspect tab asks, answered as JSON: one thing, two things, two items of a ranking."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from sieve.explorer.json_fields import read_object, read_text, shown
from sieve.explorer.links import Place
from sieve.explorer.reasons import tell_reasons, tell_standing
from sieve.explorer.views import dimension_row, dimension_rows, glance, results_view
from sieve.model.explaining import ItemComparison, Standing, cosine, explain, overlap

if TYPE_CHECKING:
    import numpy as np

    from sieve.explorer.desk import Desk
    from sieve.model.engine import EncodedQuery, Engine

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
            raise ValueError(f"an item's id is 16 hex digits; got {shown(slot.item)}")
        return slot if any(slot) else None


def inspect_view(desk: Desk, payload: Any) -> dict[str, Any]:
    """Tell what one or two things are made of.

    Parameters
    ----------
    desk : Desk
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
    off = Place.from_payload({"off": given.get("off")}).off
    outcome = engine.search(query, off, top=N_RETRIEVED)
    told = {**results_view(outcome, None), "proposed": list(query.proposed)}
    if given.get("list") is True:
        told["dimensions"] = dimension_rows(engine, query, off)
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


def why_view(desk: Desk, payload: Any) -> dict[str, Any]:
    """Tell why one item stands before another.

    Parameters
    ----------
    desk : Desk
    payload : dict
        The fields of `Place`, `upload`, and `a` and `b`: ids of two items. By default they are the
        best result and the best of those that switching off took from the results; beside a
        given `a` stands the result that follows it.

    Raises
    ------
    ValueError
        In one line.
    """
    place = Place.from_payload(payload)
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
