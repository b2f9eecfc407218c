"""The exclusion benchmark: methods, tuned alike and measured on items not used for training."""

from __future__ import annotations

from sieve.model.benchmark.failures import KINDS as FAILURE_KINDS
from sieve.model.benchmark.measurement import Contrast, contrast
from sieve.model.benchmark.methods import METHODS, SHORT_METHODS, TRAINED, TRAINING_FREE
from sieve.model.benchmark.results import (
    SHIPPED,
    Answer,
    BenchmarkConfig,
    BenchmarkResult,
    ConfidenceInterval,
    Evaluation,
    EvaluationSummary,
    Failure,
    MethodResult,
    PairCount,
    TrackResult,
    evaluation_json,
    list_evaluations,
    read_evaluation,
    save_evaluation,
)
from sieve.model.benchmark.run import QUERIES, Benchmark
from sieve.model.evaluation.pairs import tracks_of

__all__ = [
    "FAILURE_KINDS",
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
    "Failure",
    "MethodResult",
    "PairCount",
    "SHIPPED",
    "TrackResult",
    "contrast",
    "evaluation_json",
    "list_evaluations",
    "read_evaluation",
    "save_evaluation",
    "tracks_of",
]
