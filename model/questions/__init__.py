"""Questions "A without B": which are asked, which rules answer them, and how good an answer is."""

from __future__ import annotations

from sieve.model.questions.pairs import TRACKS, PairLaw, TrackName
from sieve.model.questions.ranking import measure_rankings, recall_at

__all__ = ["TRACKS", "PairLaw", "TrackName", "measure_rankings", "recall_at"]
