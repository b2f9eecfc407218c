"""The Inspect tab: the dimensions of one input, the overlap of two, and explanations of ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from pydantic.dataclasses import dataclass

from sieve.explorer.components import component
from sieve.explorer.json_validation import Line, read_object, validate
from sieve.explorer.serialize import (
    dimension_row,
    format_number,
    item_summaries,
    query_dimension_rows,
    results_view,
)
from sieve.explorer.tabs.search import SearchHandlers, SearchRequest
from sieve.explorer.view_state import ItemId, ViewState
from sieve.model.engine import EncodedQuery, SearchEngine
from sieve.model.explain import ItemComparison, Part, Standing, cosine, explain, overlap

N_RETRIEVED = 12
N_CHOICES = 24
Name = Callable[[int], str]


@dataclass(frozen=True)
class Slot:
    """Content of one of the two slots: a text, an item of the collection or an uploaded image."""

    text: Line = ""
    item: ItemId = ""
    upload: Line = ""


@dataclass(frozen=True)
class WhyRequest(SearchRequest):
    """A view with the IDs of two items to compare.

    By default these are the top result and the best item that the off dimensions removed; if only
    `a` is given, `b` is the next result.
    """

    a: Line = ""
    b: Line = ""


def inspect_tab(handlers: SearchHandlers) -> None:
    """Add the tab's components; call inside a `gr.Tab`."""

    def inspect(payload: Any) -> dict[str, Any]:
        return inspect_view(handlers, payload)

    def why(payload: Any) -> dict[str, Any]:
        return why_view(handlers, payload)

    component("inspect", inspect)
    component("why", why)


def describe_rank(standing: Standing, itself: int | None = None) -> str:
    """Describe the rank of an item, for example `number 3 with a score of 0.62`."""
    if standing.row == itself:
        return "the query image itself, which is not a result"
    if standing.removed:
        rank = standing.rank_if_kept
        return "removed by “never”" + (f"; otherwise number {rank:,}" if rank else "")
    if standing.rank is None:
        return "not a result: it shares no dimension with the query"
    return f"number {standing.rank:,} with a score of {format_number(standing.score)}"


def describe_difference(comparison: ItemComparison, name_of: Name) -> str:
    """Describe in one sentence which dimensions separate the scores of two items."""
    if comparison.left.row == comparison.right.row:
        return "Left and right are the same item. Choose another one."
    removed = _removal(comparison, name_of)
    if not comparison.reasons:
        return removed or "Both have the same score; no dimension separates them."
    reasons = "; ".join(_reason(part, name_of(part.dimension)) for part in comparison.reasons)
    gap = abs(comparison.left.score - comparison.right.score)
    ahead = "left" if comparison.left.score >= comparison.right.score else "right"
    rest = _rest(comparison.reasons, gap)
    return f"{removed}The {ahead} is {format_number(gap)} ahead: {reasons}{rest}."


def _rest(reasons: tuple[Part, ...], gap: float) -> str:
    """Describe how much of the gap the reasons explain, unless it is all of it."""
    total = sum(abs(part.difference) for part in reasons)
    if abs(total - gap) < max(0.005, gap / 10):
        return ""
    together = f", together {format_number(total)}" if len(reasons) > 1 else ""
    if total < gap:
        return f"{together}; smaller differences add up to the rest"
    return f"{together}; other dimensions partly offset this"


def _removal(comparison: ItemComparison, name_of: Name) -> str:
    sentences = []
    for side, standing in (("left", comparison.left), ("right", comparison.right)):
        if not standing.removed:
            continue
        had = [(part, getattr(part, side)) for part in comparison.parts if part.off]
        had = sorted((pair for pair in had if pair[1]), key=lambda pair: pair[1])
        names = " and ".join(_named(part.dimension, name_of(part.dimension)) for part, _ in had[:2])
        sentences.append(f"“Never” removes the {side} because it has {names}. ")
    return "".join(sentences)


def _reason(part: Part, name: str) -> str:
    """Describe a contribution: `#4 “snow” adds 0.21 to the left, nothing to the right`."""
    sides = {"left": part.left, "right": part.right}
    more, less = sorted(sides, key=lambda side: -abs(sides[side]))
    verb, to = ("is off and subtracts", "from") if part.off else ("adds", "to")
    little = f"only {format_number(abs(sides[less]))}" if sides[less] else "nothing"
    much = format_number(abs(sides[more]))
    return f"{_named(part.dimension, name)} {verb} {much} {to} the {more}, {little} {to} the {less}"


def _named(dimension: int, name: str) -> str:
    return f"#{dimension} “{name.split(' · ')[0]}”"


def inspect_view(handlers: SearchHandlers, payload: Any) -> dict[str, Any]:
    """Return the dimensions and results of one slot, or the overlap of two.

    The payload has `left` and `right`: slots; `off`: all dimensions that are off, or null for those
    that "without" in a text proposes; `list`: whether to include the rows of dimensions. Raises a
    ValueError of one line if it is invalid.
    """
    given = read_object(payload, "what to inspect")
    slots = {s: validate(Slot, given.get(s) or {}, "a slot") for s in ("left", "right")}
    queries = {
        side: handlers.encode(slot.text, "", slot.item, slot.upload)
        for side, slot in slots.items()
        if slot != Slot()
    }
    if not queries:
        raise ValueError("nothing to inspect: enter a text, an image or an item ID")
    engine = handlers.engine
    shown = {}
    for side, query in queries.items():
        item = item_summaries(engine, [engine.row_of(query.item)])[0] if query.item else None
        shown[side] = {"text": query.text, "without": query.without, "item": item}
    notes = dict.fromkeys(note for query in queries.values() for note in query.notes)
    view = {"slots": shown, "notes": list(notes)}
    if len(queries) == 2:
        return view | {"pair": _pair_view(engine, *queries.values())}
    (query,) = queries.values()
    off = ViewState.from_payload({"off": given.get("off")}).off
    one = results_view(engine.search(query, off, top=N_RETRIEVED), None)
    one["proposed"] = list(query.proposed)
    if given.get("list") is True:
        one["dimensions"] = query_dimension_rows(engine, query, off)
    return view | {"one": one}


def _pair_view(engine: SearchEngine, left: EncodedQuery, right: EncodedQuery) -> dict[str, Any]:
    def values(parts: tuple[tuple[int, float], ...]) -> list[dict[str, Any]]:
        return [{"d": j, "name": engine.name_of(j), "value": value} for j, value in parts]

    shared = overlap(left.code, right.code)
    return {
        "cosine": round(shared.cosine, 6),
        "backbone": cosine(_embedding(engine, left), _embedding(engine, right)),
        "shared": [
            {
                **dimension_row(engine, part.dimension),
                "left": part.left,
                "right": part.right,
                "product": part.product,
                "share": part.share,
            }
            for part in shared.shared
        ],
        "left": values(shared.left),
        "right": values(shared.right),
    }


def _embedding(engine: SearchEngine, query: EncodedQuery) -> np.ndarray:
    """Return the embedding that matches the code: A alone if the text is "A without B"."""
    if query.text and not query.item:
        return engine.encode_text(query.text).embedding
    return query.embedding


def why_view(handlers: SearchHandlers, payload: Any) -> dict[str, Any]:
    """Explain why one item outranks another, as a `WhyRequest` asks."""
    request = validate(WhyRequest, payload, "a view")
    settings = (request.off, request.strictness, request.never)
    a, b = request.a, request.b
    engine = handlers.engine
    query = handlers.encode(request.q, request.without, request.item, request.upload)
    outcome = engine.search(query, *settings, N_CHOICES)
    ids = [result.id for result in outcome.results]
    if not (a or b) and ids and outcome.left:
        a, b = ids[0], outcome.left[0].id
    a = a or (ids[0] if ids else "")
    b = b or _next_result(ids, a)
    view = {
        "q": query.text,
        "without": query.without,
        "item": query.item,
        "notes": list(query.notes),
        "off": [part.dimension for part in outcome.off],
        "proposed": list(query.proposed),
        "choices": [
            {**item_summaries(engine, [result.row])[0], "rank": result.rank}
            for result in (*outcome.results, *outcome.left)
        ],
    }
    if not (a and b):
        return view | {"why": None}
    comparison = explain(engine, query, a, b, *settings)
    return view | {"why": _why(engine, comparison, query)}


def _next_result(ids: list[str], item: str) -> str:
    """Return the result after an item, the one before if it is last, or the top one if absent."""
    at = ids.index(item) if item in ids else -1
    after = ids[at + 1 :] or ids[:at][-1:]
    return after[0] if after else ""


def _why(engine: SearchEngine, comparison: ItemComparison, query: EncodedQuery) -> dict[str, Any]:
    itself = engine.row_of(query.item) if query.item else None
    return {
        "left": _standing(engine, comparison.left, itself),
        "right": _standing(engine, comparison.right, itself),
        "ranked": comparison.ranked,
        "difference": round(comparison.left.score - comparison.right.score, 6),
        "sentence": describe_difference(comparison, engine.name_of),
        "parts": [
            {
                "d": part.dimension,
                "name": engine.name_of(part.dimension),
                "left": round(part.left, 6),
                "right": round(part.right, 6),
                "off": part.off,
            }
            for part in comparison.parts
        ],
    }


def _standing(engine: SearchEngine, standing: Standing, itself: int | None) -> dict[str, Any]:
    text = describe_rank(standing, itself)
    if itself is not None and standing.row in engine.copies.of(itself):
        text = "the same picture as the query image, which is not a result"
    return {
        **item_summaries(engine, [standing.row])[0],
        "rank": standing.rank,
        "score": round(standing.score, 6),
        "removed": standing.removed,
        "rank_text": text,
    }
