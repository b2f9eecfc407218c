"""The Dimensions tab: all dimensions as a table and as a map, and a page for each."""

from __future__ import annotations

from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Any

import gradio as gr

from sieve.explorer.components import piece
from sieve.explorer.downloads import dimensions_bytes, download
from sieve.explorer.errors import json_errors
from sieve.explorer.json_validation import read_object, read_whole
from sieve.explorer.serialize import map_view, page_view, probe_view, table_view
from sieve.explorer.view_state import ViewState
from sieve.model.dimensions import clearest_dimension
from sieve.model.dimensions.ablation import ablate_dimension
from sieve.model.dimensions.map import dimension_map

if TYPE_CHECKING:
    from sieve.explorer.tabs.annotations import AnnotationHandlers
    from sieve.model.engine import Engine


def dimensions_tab(engine: Engine, notes: AnnotationHandlers) -> None:
    """Lay out the tab; call inside a `gr.Tab`."""
    one_at_a_time = Lock()
    opened = (engine.collection, engine.checkpoint, engine.derived)
    laid_out = cache(lambda: dimension_map(*opened))

    def table(_: Any) -> dict[str, Any]:
        return {**table_view(engine), "first": clearest_dimension(engine.dimension_table())}

    def map(_: Any) -> dict[str, Any]:
        with one_at_a_time:  # who asks meanwhile waits for the same map
            return map_view(laid_out())

    def page(payload: Any) -> dict[str, Any]:
        dimension = _dimension(payload)
        shown = page_view(engine, engine.dimension(dimension, _seed(payload)))
        return {**shown, "kept": notes.kept(dimension)}

    def probe(payload: Any) -> dict[str, Any]:
        return probe_view(ablate_dimension(*opened, _dimension(payload)))

    def export_dimensions(payload: Any) -> dict[str, Any]:
        kind = str(read_object(payload, "an export").get("kind"))
        return download("dimensions", kind, dimensions_bytes(engine, kind))

    with gr.Row(elem_classes="sv-atlas"):
        with gr.Column(elem_classes="sv-atlas-list"):
            piece("dimension_index", json_errors(table), json_errors(export_dimensions))
            piece("dimension_map", json_errors(map))
            piece("dimension_table")
        piece("dimension_page", json_errors(page), json_errors(probe))
    piece("dimension_notes")


def _dimension(payload: Any) -> int:
    place = ViewState.from_payload(payload)
    if place.dimension is None:
        raise ValueError("choose a dimension")
    return place.dimension


def _seed(payload: Any) -> int:
    """Read which random sample is wanted."""
    seed = read_whole("seed", payload.get("seed", 0))
    if seed < 0:
        raise ValueError(f"seed must be at least 0; got {seed}")
    return seed
