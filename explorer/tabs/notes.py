"""Names, notes and saved searches: what the pieces of other tabs keep them by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sieve.explorer.components import piece
from sieve.explorer.faults import answered

if TYPE_CHECKING:
    from sieve.explorer.annotations.desk import NotesDesk


def notes_piece(desk: NotesDesk) -> None:
    """Add what all tabs share; call above them."""
    piece("annotations", *map(answered, (*desk.reading_handlers(), *desk.editing_handlers())))
