"""The Dimensions tab: a table and a map of all dimensions, and a page for each."""

from __future__ import annotations

from functools import cache
from threading import Lock
from typing import Annotated, Any

import gradio as gr
from pydantic import Field
from pydantic.dataclasses import dataclass

from sieve.explorer.components import component
from sieve.explorer.downloads import dimensions_bytes, download
from sieve.explorer.json_validation import Whole, read_object, validate
from sieve.explorer.serialize import map_view, page_view, probe_view, table_view
from sieve.explorer.tabs.annotations import AnnotationHandlers
from sieve.explorer.view_state import Dimension
from sieve.model.dimensions import clearest_dimension
from sieve.model.dimensions.ablation import ablate_dimension
from sieve.model.dimensions.map import dimension_map
from sieve.model.engine import SearchEngine


@dataclass(frozen=True)
class PageRequest:
    """A request for the page of a dimension."""

    dimension: Dimension
    seed: Annotated[Whole, Field(ge=0)] = 0
    """Seed of the random sample of images."""


def dimensions_tab(engine: SearchEngine, notes: AnnotationHandlers) -> None:
    """Add the tab's components; call inside a `gr.Tab`."""
    map_lock = Lock()
    opened = (engine.collection, engine.checkpoint, engine.derived)
    cached_map = cache(lambda: dimension_map(*opened))

    def table(_: Any) -> dict[str, Any]:
        return {**table_view(engine), "first": clearest_dimension(engine.dimension_table())}

    def map(_: Any) -> dict[str, Any]:
        with map_lock:  # concurrent requests wait for the same map
            return map_view(cached_map())

    def page(payload: Any) -> dict[str, Any]:
        request = validate(PageRequest, payload, "a dimension")
        page = page_view(engine, engine.dimension(request.dimension, request.seed))
        return {**page, "annotations": notes.for_page(request.dimension)}

    def probe(payload: Any) -> dict[str, Any]:
        request = validate(PageRequest, payload, "a dimension")
        return probe_view(ablate_dimension(*opened, request.dimension))

    def export_dimensions(payload: Any) -> dict[str, Any]:
        kind = str(read_object(payload, "an export").get("kind"))
        return download("dimensions", kind, dimensions_bytes(engine, kind))

    with gr.Row(elem_classes="sv-dimensions"):
        with gr.Column(elem_classes="sv-dimensions-list"):
            component("dimension_index", table, export_dimensions)
            component("dimension_map", map)
            component("dimension_table")
        component("dimension_page", page, probe)
    component("dimension_notes")
