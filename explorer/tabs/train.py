"""The Train tab: a new checkpoint for this collection or another, trained in the background."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sieve.explorer.components import piece
from sieve.explorer.faults import answered

if TYPE_CHECKING:
    from sieve.explorer.training.desk import TrainingDesk


def train_tab(desk: TrainingDesk) -> None:
    """Lay out the tab; call inside a `gr.Tab`, or alone on a page."""
    ends = (desk.training_stop, desk.training_discard, desk.training_open)
    reads = (desk.training_state, desk.training_collections)
    asks = (*reads, desk.training_start, desk.training_resume, *ends)
    piece("train", *map(answered, asks))
