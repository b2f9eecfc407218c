"""The exclusion benchmark: methods, tuned alike, measured on what none of them was trained on."""

from __future__ import annotations

from sieve.model.benchmark.bootstrap import Interval
from sieve.model.benchmark.config import SHORT_METHODS, BenchmarkConfig, tracks_of
from sieve.model.benchmark.evaluation_store import (
    Evaluation,
    EvaluationSummary,
    keep_evaluation,
    list_evaluations,
    read_evaluation,
)
from sieve.model.benchmark.measures import Contrast, contrast
from sieve.model.benchmark.methods import METHODS, TRAINED, TRAINING_FREE
from sieve.model.benchmark.results import (
    Answer,
    BenchmarkResult,
    MethodResult,
    PairCount,
    TrackResult,
)
from sieve.model.benchmark.run import Benchmark

__all__ = [
    "METHODS",
    "SHORT_METHODS",
    "TRAINED",
    "TRAINING_FREE",
    "Answer",
    "Benchmark",
    "BenchmarkConfig",
    "BenchmarkResult",
    "Contrast",
    "Evaluation",
    "EvaluationSummary",
    "Interval",
    "MethodResult",
    "PairCount",
    "TrackResult",
    "contrast",
    "keep_evaluation",
    "list_evaluations",
    "read_evaluation",
    "tracks_of",
]
