"""The exclusion benchmark: methods, tuned alike and measured on items not used for training."""

from __future__ import annotations

from sieve.model.benchmark.config import SHORT_METHODS, BenchmarkConfig, tracks_of
from sieve.model.benchmark.evaluation_store import (
    Evaluation,
    EvaluationSummary,
    list_evaluations,
    read_evaluation,
    save_evaluation,
)
from sieve.model.benchmark.methods import METHODS, TRAINED, TRAINING_FREE
from sieve.model.benchmark.results import (
    Answer,
    BenchmarkResult,
    ConfidenceInterval,
    MethodResult,
    PairCount,
    TrackResult,
)
from sieve.model.benchmark.run import Benchmark
from sieve.model.benchmark.statistics import Contrast, contrast

__all__ = [
    "METHODS",
    "SHORT_METHODS",
    "TRAINED",
    "TRAINING_FREE",
    "Answer",
    "Benchmark",
    "BenchmarkConfig",
    "BenchmarkResult",
    "ConfidenceInterval",
    "Contrast",
    "Evaluation",
    "EvaluationSummary",
    "MethodResult",
    "PairCount",
    "TrackResult",
    "contrast",
    "save_evaluation",
    "list_evaluations",
    "read_evaluation",
    "tracks_of",
]
