"""The Inspect tab: what one thing is made of, what two share, and why one result beats another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sieve.explorer.components import piece
from sieve.explorer.faults import answered
from sieve.explorer.inspecting import inspect_view, why_view

if TYPE_CHECKING:
    from sieve.explorer.desk import Desk


def inspect_tab(desk: Desk) -> None:
    """Lay out the tab; call inside a `gr.Tab`."""

    def inspect(payload: Any) -> dict[str, Any]:
        return inspect_view(desk, payload)

    def why(payload: Any) -> dict[str, Any]:
        return why_view(desk, payload)

    piece("inspect", answered(inspect))
    piece("why", answered(why))
