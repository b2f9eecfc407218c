"""The Compare tab: the same question by two methods, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorer.comparing import CompareDesk
from explorer.components import piece
from explorer.faults import answered

if TYPE_CHECKING:
    from explorer.desk import Desk


def compare_tab(desk: Desk) -> None:
    """Lay out the tab; call inside a `gr.Tab`."""
    asks = CompareDesk(desk)
    piece("compare", *map(answered, (asks.compare_options, asks.compare)))
