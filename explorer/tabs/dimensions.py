"""The Dimensions tab: a table and a map of all dimensions, and a page for each."""

from __future__ import annotations

import base64
from functools import cache
from threading import Lock
from typing import Annotated, Any

import gradio as gr
import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from sieve.explorer.components import component
from sieve.explorer.downloads import dimensions_bytes, download
from sieve.explorer.json_validation import Whole, read_object, validate
from sieve.explorer.serialize import facets_report, item_summaries, page_json, to_json
from sieve.explorer.tabs.annotations import AnnotationHandlers
from sieve.explorer.view_state import Dimension, Where
from sieve.model.dimensions.map import DimensionMap, dimension_map
from sieve.model.dimensions.page import Ablation, DimensionPage, ablate_dimension
from sieve.model.dimensions.table import COLUMNS, clearest_dimension
from sieve.model.engine import SearchEngine
from sieve.model.item_filter import ItemFilter


@dataclass(frozen=True)
class PageRequest:
    """A request for the page of a dimension."""

    dimension: Dimension
    seed: Annotated[Whole, Field(ge=0)] = 0
    """Seed of the random sample of images."""
    where: Where = ""
    """Filter of the examples."""


@dataclass(frozen=True)
class FilterRequest:
    """A filter of the images."""

    where: Where = ""


@dataclass(frozen=True)
class ItemRequest:
    """A row of the collection."""

    row: Annotated[Whole, Field(ge=0)]


def dimensions_tab(engine: SearchEngine, notes: AnnotationHandlers) -> None:
    """Add the tab's components; call inside a `gr.Tab`."""
    map_lock = Lock()
    opened = (engine.collection, engine.checkpoint, engine.derived)
    cached_map = cache(lambda: dimension_map(*opened))

    def table(_: Any) -> dict[str, Any]:
        shown = {one.key or one.name: one.page for one in COLUMNS if one.page}
        first = clearest_dimension(engine.dimension_table())
        return {**table_view(engine), "shown": shown, "first": first}

    def map(_: Any) -> dict[str, Any]:
        with map_lock:  # concurrent requests wait for the same map
            return map_view(cached_map())

    def page(payload: Any) -> dict[str, Any]:
        request = validate(PageRequest, payload, "a dimension")
        page = page_view(engine, engine.dimension(request.dimension, request.seed, request.where))
        return {**page, "annotations": notes.for_page(request.dimension)}

    def probe(payload: Any) -> dict[str, Any]:
        request = validate(PageRequest, payload, "a dimension")
        return probe_view(ablate_dimension(*opened, request.dimension))

    def export_dimensions(payload: Any) -> dict[str, Any]:
        kind = str(read_object(payload, "an export").get("kind"))
        return download("dimensions", kind, dimensions_bytes(engine, kind))

    def item_map(_: Any) -> dict[str, Any]:
        with map_lock:
            return item_map_view(engine.item_positions)

    def item_colours(payload: Any) -> dict[str, Any]:
        return colours_view(engine, validate(FilterRequest, payload, "a colour").where)

    def item_at(payload: Any) -> dict[str, Any]:
        row = validate(ItemRequest, payload, "an image").row
        if row >= engine.collection.n_items:
            raise ValueError(f"there is no image {row}; there are {engine.collection.n_items}")
        return item_summaries(engine, [row])[0]

    def facets(payload: Any) -> dict[str, Any]:
        return facets_report(engine, validate(FilterRequest, payload, "a filter").where)

    with gr.Row(elem_classes="sv-dimensions"):
        with gr.Column(elem_classes="sv-dimensions-list"):
            component("dimension_index", table, export_dimensions)
            component("dimension_map", map)
            component("item_map", item_map, item_colours, item_at, facets)
            component("dimension_table")
        component("dimension_page", page, probe)
    component("dimension_notes")


def table_view(engine: SearchEngine) -> dict[str, list[Any]]:
    """Serialise the table of all dimensions by column, at half the size of rows with keys."""
    table = engine.dimension_table()
    return {
        "id": table["dimension"].tolist(),
        "name": table["name"].tolist(),
        "concept": table["concept"].tolist(),
        "label": table["label"].tolist(),
        "stability": _or_none(table["stability"].tolist()),
        **{one.key or one.name: _or_none(table[one.name].tolist()) for one in COLUMNS if one.page},
    }


def map_view(found: DimensionMap) -> dict[str, Any]:
    """Serialise the map of all live dimensions by column."""
    x, y = found.positions.astype(float).round(4).T
    return {
        "id": found.dimensions.tolist(),
        "x": x.tolist(),
        "y": y.tolist(),
        "method": found.method,
    }


def item_map_view(positions: np.ndarray) -> dict[str, str]:
    """Serialise positions in [-1, 1], (n, 2) float32, as two columns of 16-bit integers."""
    scaled = np.round(positions * 32767).astype("<i2")
    return {"x": _base64(scaled[:, 0]), "y": _base64(scaled[:, 1])}


def colours_view(engine: SearchEngine, where: str) -> dict[str, Any]:
    """Serialise a value from 0 to 255 for each item: a concept's activation, or a filter's mask."""
    facets = ItemFilter.parse(where).facets
    if len(facets) == 1 and facets[0].kind == "concept" and not facets[0].negated:
        names = engine.names()
        leading = names.find_concept(facets[0].value)
        members = engine.concepts.members(leading)
        values = np.asarray(engine.image_codes.by_dimension[:, members].sum(1))
        high = float(values.max(initial=0))
        shares = values / (high or 1)
        about = {"kind": "concept", "name": names(leading), "high": high}
    else:
        mask = engine.facets.mask(where)
        shares = np.ones(engine.collection.n_items) if mask is None else mask
        about = {"kind": "filter", "name": where or "all", "items": int(shares.sum())}
    return {**about, "values": _base64(np.round(shares * 255.0).astype(np.uint8))}


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def page_view(engine: SearchEngine, page: DimensionPage) -> dict[str, Any]:
    """Serialise a dimension for its page: the API's fields, a histogram and a query to try.

    The histogram has the number of images and captions with an activation between two edges.
    """
    edges, images, captions = (part.tolist() for part in page.histogram)
    histogram = {"edges": edges, "images": images, "captions": captions}
    is_active = any(images) or any(captions)  # the examples may be filtered out
    search = _words_to_search(engine, page)
    return {
        **page_json(page),
        "histogram": histogram if is_active else None,
        "search": search,
    }


def _words_to_search(engine: SearchEngine, page: DimensionPage) -> str:
    """Choose a query that activates a dimension: its suggested name, else its top caption.

    A user's own name may contain words that are not in the backbone's vocabulary.
    """
    named = page.words and page.naming is not None
    caption = page.top_captions[0].text if page.top_captions else ""
    name = page.naming.name if page.naming else ""
    text = " ".join(name.replace("·", " ").split()) if named else caption
    if engine.collection.codes:
        return next((each for each in (page.suggested, caption) if engine.understands(each)), "")
    return text


def probe_view(probe: Ablation) -> dict[str, Any]:
    """Serialise the effect of switching a dimension off."""
    return {
        "probes": probe.n_probes,
        "changed": probe.n_changed,
        "mean_left": round(probe.mean_left, 2),
        "changes": [{**to_json(change), "left": change.left} for change in probe.changes],
    }


def _or_none(column: list[Any]) -> list[Any]:
    return [
        value if isinstance(value, str) else None if np.isnan(value) else round(value, 5)
        for value in column
    ]
