"""The Inspect tab: the dimensions of one input, the overlap of two, and explanations of ranks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image
from pydantic.dataclasses import dataclass

from sieve.explorer.components import component
from sieve.explorer.json_validation import Line, check_text, read_object, validate
from sieve.explorer.serialize import (
    concept_row,
    describe_difference,
    format_number,
    item_summaries,
    notes_view,
    query_rows,
    regions_json,
    results_view,
)
from sieve.explorer.tabs.search import SearchHandlers, SearchRequest
from sieve.explorer.view_state import ItemId, ViewState
from sieve.model.encoded_query import EncodedQuery, sum_embeddings
from sieve.model.engine import SearchEngine
from sieve.model.explain import (
    ItemComparison,
    OccludedCodes,
    Standing,
    concept_regions,
    cosine,
    encode_occluded,
    explain,
    overlap,
    sum_by_concept,
)

N_RETRIEVED = 12
N_CHOICES = 24
MAX_CACHED_REGIONS = 64


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


class RegionHandlers:
    """Request handlers that locate the concepts of an item in its image. Thread-safe."""

    def __init__(self, handlers: SearchHandlers) -> None:
        self._handlers = handlers
        self._occluded = lru_cache(MAX_CACHED_REGIONS)(self._encode_occluded)

    def regions(self, item_id: str) -> dict[str, Any]:
        """Locate the concepts of an item in its image."""
        engine = self._handlers.engine
        occluded = self._occluded(check_text("item ID", item_id))
        return regions_json(concept_regions(engine, occluded))

    def _encode_occluded(self, item_id: str) -> OccludedCodes:
        engine = self._handlers.engine
        with Image.open(engine.thumbnail(item_id)) as image:
            return encode_occluded(engine, image, lock=self._handlers.model)


def inspect_tab(handlers: SearchHandlers) -> None:
    """Add the tab's components; call inside a `gr.Tab`."""

    def inspect(payload: Any) -> dict[str, Any]:
        return inspect_view(handlers, payload)

    def why(payload: Any) -> dict[str, Any]:
        return why_view(handlers, payload)

    component("inspect", inspect)
    component("ranking_explanation", why)


def inspect_view(handlers: SearchHandlers, payload: Any) -> dict[str, Any]:
    """Return the dimensions and results of one slot, or the overlap of two.

    The payload has `left` and `right`: slots; `off`: all dimensions that are off, or null for those
    that "without" in a text proposes; `where`: a filter of the results; `list`: whether to include
    the rows of dimensions. Raises a ValueError of one line if it is invalid.
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
    view = {"slots": shown, **notes_view(*queries.values())}
    if len(queries) == 2:
        return view | {"pair": _pair_view(engine, *queries.values())}
    (query,) = queries.values()
    state = ViewState.from_payload({"off": given.get("off"), "where": given.get("where") or ""})
    off = state.off
    one = results_view(engine.search(query, off, top=N_RETRIEVED, where=state.where), None)
    one["proposed"] = list(query.proposed)
    if given.get("list") is True:
        one |= query_rows(engine, query, off)
    return view | {"one": one}


def _pair_view(engine: SearchEngine, left: EncodedQuery, right: EncodedQuery) -> dict[str, Any]:
    shared = overlap(left.code, right.code)
    names, grouped = engine.names(), engine.concepts.grouped

    def summed(parts: tuple[tuple[int, float], ...]) -> list[dict[str, Any]]:
        value = dict(parts)
        rows = [
            {"d": leading, "name": names(leading), "value": sum(value[j] for j in members)}
            for leading, members in grouped(value).items()
        ]
        return sorted(rows, key=lambda row: -row["value"])

    by_dimension = {part.dimension: part for part in shared.shared}
    rows = []
    for leading, members in grouped(by_dimension).items():
        parts = [by_dimension[j] for j in members]
        rows.append(
            {
                **concept_row(engine, leading, members),
                "product": sum(part.product for part in parts),
                "share": sum(part.share for part in parts),
                "parts": [
                    {
                        "d": part.dimension,
                        "name": names.in_concept(part.dimension),
                        "left": part.left,
                        "right": part.right,
                        "product": part.product,
                    }
                    for part in parts
                ],
            }
        )
    return {
        "cosine": round(shared.cosine, 6),
        "backbone": cosine(_embedding(left), _embedding(right)),
        "shared": sorted(rows, key=lambda row: -row["product"]),
        "left": summed(shared.left),
        "right": summed(shared.right),
        "dimensions": {
            "shared": len(shared.shared),
            "left": len(shared.shared) + len(shared.left),
            "right": len(shared.shared) + len(shared.right),
        },
    }


def _embedding(query: EncodedQuery) -> np.ndarray:
    """Return the embedding that matches the code: A alone if the query is "A without B"."""
    return sum_embeddings([one for one in query.terms if not one.excluded])


def why_view(handlers: SearchHandlers, payload: Any) -> dict[str, Any]:
    """Explain why one item outranks another, as a `WhyRequest` asks."""
    request = validate(WhyRequest, payload, "a view")
    settings = (request.off, request.level)
    a, b = request.a, request.b
    engine = handlers.engine
    query = handlers.encode(request.q, request.without, request.item, request.upload)
    outcome = engine.search(query, *settings, N_CHOICES, where=request.where)
    ids = [result.id for result in outcome.results]
    if not (a or b) and ids and outcome.left:
        a, b = ids[0], outcome.left[0].id
    a = a or (ids[0] if ids else "")
    b = b or _next_result(ids, a)
    view = {
        "q": query.text,
        "without": query.without,
        "item": query.item,
        **notes_view(query),
        "off": [part.dimension for part in outcome.off],
        "proposed": list(query.proposed),
        "choices": [
            {**item_summaries(engine, [result.row])[0], "rank": result.rank}
            for result in (*outcome.results, *outcome.left)
        ],
    }
    if not (a and b):
        return view | {"why": None}
    explained = explain(engine, query, a, b, *settings, request.where)
    comparison = sum_by_concept(explained, engine.concepts)
    return view | {"why": _why(engine, comparison, query)}


def _next_result(ids: list[str], item: str) -> str:
    """Return the result after an item, the one before if it is last, or the top one if absent."""
    at = ids.index(item) if item in ids else -1
    after = ids[at + 1 :] or ids[:at][-1:]
    return after[0] if after else ""


def _why(engine: SearchEngine, comparison: ItemComparison, query: EncodedQuery) -> dict[str, Any]:
    itself = engine.query_rows(query)
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


def _standing(engine: SearchEngine, standing: Standing, itself: tuple[int, ...]) -> dict[str, Any]:
    text = describe_rank(standing, itself)
    if any(standing.row in engine.copies.of(row) for row in itself):
        text = "the same picture as the query image, which is not a result"
    return {
        **item_summaries(engine, [standing.row])[0],
        "rank": standing.rank,
        "score": round(standing.score, 6),
        "removed": standing.removed,
        "rank_text": text,
    }


def describe_rank(standing: Standing, itself: Sequence[int]) -> str:
    """Describe the rank of an item, for example `number 3 with a score of 0.62`."""
    if standing.row in itself:
        return "the query image itself, which is not a result"
    if standing.filtered:
        return "not a result: it does not pass the filter"
    if standing.removed:
        rank = standing.rank_if_kept
        return "hidden by “never”" + (f"; otherwise number {rank:,}" if rank else "")
    if standing.rank is None:
        return "not a result: it shares no dimension with the query"
    return f"number {standing.rank:,} with a score of {format_number(standing.score)}"
