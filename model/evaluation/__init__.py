"""Evaluation of "A without B": pairs of concepts, exclusion rules and ranking metrics."""

from __future__ import annotations

from sieve.model.evaluation.metrics import measure_rankings, recall_at
from sieve.model.evaluation.pairs import TRACKS, PairCriteria, TrackName

__all__ = ["TRACKS", "PairCriteria", "TrackName", "measure_rankings", "recall_at"]
