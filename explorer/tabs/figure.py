"""The Figure tab: rows and layout of a paper figure, its preview, and files to download."""

from __future__ import annotations

from typing import Any

from sieve.explorer.components import component
from sieve.explorer.downloads import data_url
from sieve.explorer.figures.drawing import MIME, draw_figure, file_stem, preview_figure, recipe_for
from sieve.explorer.json_validation import read_object
from sieve.explorer.tabs.search import SearchHandlers


def figure_tab(handlers: SearchHandlers) -> None:
    """Add the tab's component; call inside a `gr.Tab`."""

    def preview(payload: Any) -> dict[str, Any]:
        recipe = recipe_for(handlers.engine, payload)
        drawn = preview_figure(handlers.engine, recipe, handlers.encode)
        return {
            "image": data_url("image/png", drawn.data),
            "width_cm": drawn.width_cm,
            "height_cm": drawn.height_cm,
            "notes": list(drawn.notes),
            "rows": [
                {"title": row.title, "without": row.without, "number": row.number}
                for row in drawn.content
            ],
            "recipe": drawn.recipe.as_json(),
        }

    def download(payload: Any) -> dict[str, Any]:
        given = read_object(payload, "a download")
        recipe = recipe_for(handlers.engine, given.get("recipe"))
        kind, originals = str(given.get("kind")), not handlers.public
        drawn = draw_figure(handlers.engine, recipe, kind, handlers.encode, originals=originals)
        return {
            "name": f"{file_stem(drawn.content)}.{kind}",
            "url": data_url(MIME[kind], drawn.data),
        }

    component("figure_editor", preview, download)
