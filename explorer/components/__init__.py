"""HTML components of the page, each with its template, style and script in this folder."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import gradio as gr
import orjson
from starlette.responses import Response

from sieve.explorer.concurrency import RequestLimiter
from sieve.explorer.errors import json_errors

FOLDER = Path(str(files(__name__)))
SHARED = (
    "csrf_token.js", "sieve.js", "request.js", "format.js", "measures.js", "concept_rows.js",
    "popover.js", "image_input.js", "tab_keys.js", "methods_plot.js",
)  # fmt: skip
"""Scripts shared by all components, in execution order."""
_PART = re.compile(r"<!-- (\w+) (\{.*?\}) -->", re.DOTALL)


def component(name: str, *functions: Callable[[Any], Any]) -> gr.HTML:
    """Create the component whose template and script have the given name.

    The template is constant and the script fills it through `textContent` only, so Gradio never
    renders it again. The script calls Python through `functions`, which take and return one JSON
    value and bypass the event queue; a call takes a third of the time of an unqueued event. Each
    component has its own request limiter, so that load on one does not block the others.
    """
    limiter = RequestLimiter()
    # Not a subclass: Gradio writes a .pyi file beside the source of every subclass.
    return gr.HTML(
        value="",
        html_template=_template(name),
        js_on_load=(FOLDER / f"{name}.js").read_text("utf-8"),
        apply_default_css=False,
        elem_id=f"sieve-{name.replace('_', '-')}",
        server_functions=[_named(json_errors(function), limiter) for function in functions],
    )


def _template(name: str) -> str:
    """Read a template; in it, `<!-- part {"field": "text"} -->` stands for another template."""
    text = (FOLDER / f"{name}.html").read_text("utf-8")

    def fill(part: re.Match[str]) -> str:
        return Template(_template(part[1])).substitute(json.loads(part[2]))

    return _PART.sub(fill, text)


def _named(
    function: Callable[[Any], Any], limiter: RequestLimiter
) -> Callable[[Any], Awaitable[Response]]:
    """Wrap a function so that it runs within the limits of its component.

    The wrapper is needed because Gradio sets attributes on the function that it receives. Gradio
    also makes it an attribute of the component; the prefix avoids collisions such as with `page`.
    """

    @wraps(function)
    async def call(data: Any) -> Response:
        answer = await limiter.run(function, data)
        # FastAPI would convert the answer value by value, which takes longer than a search.
        return Response(orjson.dumps(answer, default=tuple), media_type="application/json")

    call.__name__ = f"sieve_{function.__name__}"
    return call


def page_head(style: Path, settings: Mapping[str, Any]) -> str:
    """Return the head of the page; styles come first, to avoid unstyled content.

    `settings` are limits and defaults of the server, as JSON; scripts read them from
    `Sieve.SETTINGS`.
    """
    styles = "\n".join(path.read_text("utf-8") for path in sorted(FOLDER.glob("*.css")))
    scripts = [(FOLDER / name).read_text("utf-8") for name in SHARED]
    script = "\n".join([f"window.sieveSettings = {json.dumps(settings)};", *scripts])
    # Nested under a doubled class, our rules outweigh Gradio's resets of buttons and headings.
    css = f"{style.read_text('utf-8')}\n.gradio-container.gradio-container {{\n{styles}\n}}"
    return f"<style>{css}</style><script>{script}</script>"
