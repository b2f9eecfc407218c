"""The few custom HTML components, each beside its template, style and script."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from importlib.resources import files
from pathlib import Path
from typing import Any

import gradio as gr

from sieve.explorer.concurrency import RequestLimiter

FOLDER = Path(str(files(__name__)))
SHARED = (
    "csrf_token.js", "sieve.js", "request.js", "format.js", "popover.js", "image_input.js",
    "tab_keys.js", "methods_plot.js",
)  # fmt: skip
"""Scripts of all components, in the order in which they run."""


def piece(name: str, *functions: Callable[[Any], Any]) -> gr.HTML:
    """Make the component whose template and script lie here under one name.

    The template is constant: the script fills it through `textContent` only, and Gradio has nothing
    to render again. The script speaks to Python through `functions`, which skip the event queue:
    measured, that takes a third of the time of an unqueued event. Each piece has turns of its own,
    so that a crowd at one of them keeps nobody from the others.

    Parameters
    ----------
    name : str
        File name without its ending.
    functions : callables
        Each takes one JSON value and returns one; private to the page.
    """
    limiter = RequestLimiter()
    # Not a subclass: Gradio writes a .pyi file beside the source of every subclass.
    return gr.HTML(
        value="",
        html_template=(FOLDER / f"{name}.html").read_text("utf-8"),
        js_on_load=(FOLDER / f"{name}.js").read_text("utf-8"),
        apply_default_css=False,
        elem_id=f"sieve-{name.replace('_', '-')}",
        server_functions=[_named(function, limiter) for function in functions],
    )


def _named(
    function: Callable[[Any], Any], limiter: RequestLimiter
) -> Callable[[Any], Awaitable[Any]]:
    """Let a function run when it is its turn.

    What is handed over is wrapped, as Gradio marks the function that it is given. Gradio also makes
    it an attribute of the component, so the name must be no attribute's: `page` was one.
    """

    @wraps(function)
    async def call(data: Any) -> Any:
        return await limiter.run(function, data)

    call.__name__ = f"sieve_{function.__name__}"
    return call


def page_head(style: Path) -> str:
    """Everything that stands in the page's head: styles first, so that nothing flashes unstyled."""
    pieces = "\n".join(path.read_text("utf-8") for path in sorted(FOLDER.glob("*.css")))
    script = "\n".join((FOLDER / name).read_text("utf-8") for name in SHARED)
    # Nested under a doubled class, our rules outweigh Gradio's resets of buttons and headings.
    css = f"{style.read_text('utf-8')}\n.gradio-container.gradio-container {{\n{pieces}\n}}"
    return f"<style>{css}</style><script>{script}</script>"
