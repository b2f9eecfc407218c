"""The Dimensions tab: a table of all dimensions, and a page for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from explorer.components import piece
from explorer.exports import dimensions_bytes, download
from explorer.faults import answered
from explorer.json_fields import read_object
from explorer.links import Place
from explorer.views import page_view, table_view

if TYPE_CHECKING:
    from model.engine import Engine


def dimensions_tab(engine: Engine) -> None:
    """Lay out the tab; call inside a `gr.Tab`."""

    def table(_: Any) -> dict[str, Any]:
        return table_view(engine)

    def page(payload: Any) -> dict[str, Any]:
        place = Place.from_payload(payload)
        if place.dimension is None:
            raise ValueError("choose a dimension")
        return page_view(engine, engine.dimension(place.dimension))

    def export_dimensions(payload: Any) -> dict[str, Any]:
        kind = str(read_object(payload, "an export").get("kind"))
        return download("dimensions", kind, dimensions_bytes(engine, kind))

    with gr.Row(elem_classes="sv-atlas"):
        piece("dimension_table", answered(table), answered(export_dimensions))
        piece("dimension_page", answered(page))
