"""The Figure tab: rows and layout of a paper figure, its preview, and files to download."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from sieve.explorer.components import component
from sieve.explorer.errors import json_errors
from sieve.explorer.figures.drawing import figure_download, preview_figure, recipe_for

if TYPE_CHECKING:
    from sieve.explorer.tabs.search import SearchHandlers


def figure_tab(handlers: SearchHandlers) -> None:
    """Add the tab's component; call inside a `gr.Tab`."""

    def preview(payload: Any) -> dict[str, Any]:
        drawn = preview_figure(
            handlers.engine, recipe_for(handlers.engine, payload), handlers.encode
        )
        return {
            "image": _data_url("image/png", drawn.data),
            "width_cm": drawn.width_cm,
            "height_cm": drawn.height_cm,
            "notes": list(drawn.notes),
            "rows": [{"title": row.title, "without": row.without} for row in drawn.content],
            "recipe": drawn.recipe.as_json(),
        }

    def download(payload: Any) -> dict[str, Any]:
        if not isinstance(payload, dict):
            raise ValueError(f"expected a recipe and a kind; got {type(payload).__name__}")
        recipe = recipe_for(handlers.engine, payload.get("recipe"))
        kind, originals = payload.get("kind", ""), not handlers.public
        made = figure_download(handlers.engine, recipe, kind, handlers.encode, originals=originals)
        return {"name": made.name, "url": _data_url(made.mime, made.data)}

    component("figure_editor", json_errors(preview), json_errors(download))


def _data_url(mime: str, data: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"
