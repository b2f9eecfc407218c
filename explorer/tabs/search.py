"""The Search tab: a question, its dimensions to switch, and what is found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gradio as gr

from sieve.explorer.components import piece
from sieve.explorer.faults import answered

if TYPE_CHECKING:
    from sieve.explorer.desk import Desk


def search_tab(desk: Desk) -> None:
    """Lay out the tab; call inside a `gr.Tab`."""
    uploads = () if desk.public else (desk.upload,)
    piece("search_bar", *map(answered, (desk.open, desk.ask, desk.item, *uploads)))
    piece("saved_searches")
    with gr.Row(elem_classes="sv-split"):
        piece("dimension_list")
        piece("results", answered(desk.export_results))
