"""The Compare tab: the same question by two methods, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sieve.explorer.comparing import CompareDesk
from sieve.explorer.components import piece
from sieve.explorer.faults import answered

if TYPE_CHECKING:
    from sieve.explorer.desk import Desk


def compare_tab(desk: Desk) -> None:
    """Lay out the tab; call inside a `gr.Tab`."""
    asks = CompareDesk(desk)
    piece("compare", *map(answered, (asks.compare_options, asks.compare)))
