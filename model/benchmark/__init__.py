"""The exclusion benchmark: methods, tuned alike and measured on items not used for training."""

from __future__ import annotations

from sieve.model.benchmark.measurement import Contrast, contrast
from sieve.model.benchmark.methods import METHODS, SHORT_METHODS, TRAINED, TRAINING_FREE
from sieve.model.benchmark.results import (
    Answer,
    BenchmarkConfig,
    BenchmarkResult,
    ConfidenceInterval,
    Evaluation,
    EvaluationSummary,
    MethodResult,
    PairCount,
    TrackResult,
    list_evaluations,
    read_evaluation,
    save_evaluation,
)
from sieve.model.benchmark.run import QUERIES, Benchmark
from sieve.model.evaluation.pairs import tracks_of

__all__ = [
    "METHODS",
    "QUERIES",
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
    "list_evaluations",
    "read_evaluation",
    "save_evaluation",
    "tracks_of",
]
