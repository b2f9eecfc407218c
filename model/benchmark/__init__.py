"""The exclusion benchmark: methods, tuned alike, measured on what none of them was trained on."""

from __future__ import annotations

from model.benchmark.baselines import METHODS, TRAINED, TRAINING_FREE
from model.benchmark.bootstrap import Interval
from model.benchmark.results import BenchmarkResult, MethodResult, PairCount, TrackResult
from model.benchmark.run import Benchmark, BenchmarkConfig

__all__ = [
    "METHODS",
    "TRAINED",
    "TRAINING_FREE",
    "Benchmark",
    "BenchmarkConfig",
    "BenchmarkResult",
    "Interval",
    "MethodResult",
    "PairCount",
    "TrackResult",
]
