"""A small synthetic evaluation of the tiny collection, in which Sieve wins and loses."""

from __future__ import annotations

from pathlib import Path

from sieve.model.benchmark.results import (
    Answer,
    BenchmarkConfig,
    BenchmarkResult,
    ConfidenceInterval,
    Failure,
    MethodResult,
    PairCount,
    TrackResult,
    save_evaluation,
)
from sieve.model.collection import Collection
from sieve.model.evaluation.pairs import PairCriteria

PAIRS = (("circle", "snow"), ("square", "night"), ("red", "sand"))
SHARES = {
    "A only": (0.3, 0.4, 0.2),
    "subtraction": (0.5, 0.9, 0.4),
    "paper": (0.95, 0.95, 0.95),
    "Sieve": (0.9, 0.6, 0.4),
}
"""AP@10 of each method for each pair."""


def save_small_evaluation(
    collection: Collection, checkpoint: str = "", sha256: str | None = None, seeds: int = 1
) -> Path:
    """Save an evaluation of a label and a caption track."""
    return save_evaluation(small_result(collection, sha256, seeds), checkpoint)


def small_result(
    collection: Collection, sha256: str | None = None, seeds: int = 1
) -> BenchmarkResult:
    """Build a synthetic result of a label and a caption track."""
    items = collection.items["id"].tolist()
    tracks = tuple(_track(name, items) for name in ("label", "caption"))
    return BenchmarkResult(
        collection=collection.name,
        collection_sha256=collection.sha256,
        train="elsewhere",
        train_sha256="00" * 32,
        backbone="tiny",
        checkpoint=sha256,
        seeds=tuple(range(seeds)),
        nouns_sha256="11" * 32,
        config=BenchmarkConfig(),
        backbone_recall={"recall@10": 0.5},
        tracks=tracks,
    )


def _track(name: str, items: list[str]) -> TrackResult:
    requested = tuple(PairCount(a, b, 12, 10) for a, b in PAIRS)
    marks = {"Sieve": "rrrrrrrrrn", "subtraction": "rvrvrrrrrr"}
    found = {
        method: Answer(tuple(items[:10]), marks.get(method, "vrvrvrvrvr")) for method in SHARES
    }
    answers = {method: dict.fromkeys(range(len(PAIRS)), found[method]) for method in SHARES}
    methods = tuple(_method(method) for method in SHARES)
    failures = tuple(
        Failure(pair, kind, found["Sieve"].items, marks["Sieve"], {"gain": 0.25})
        for pair, kind in ((2, "calibration"), (1, "B absorbed in A"))
    )
    return TrackResult(
        name, requested, 12, 4, 12, PairCriteria(), methods, (), answers, PairCriteria(),
        failures=failures,
    )  # fmt: skip


def _method(name: str) -> MethodResult:
    by_pair = SHARES[name]
    ap, own = sum(by_pair) / 3, sum(SHARES["Sieve"]) / 3
    ratio = own / ap
    return MethodResult(
        method=name,
        ap=ap,
        ci=ConfidenceInterval(ap - 0.1, min(ap + 0.1, 1.0)),
        precision=ap,
        violation=0.2,
        violation_ci=ConfidenceInterval(0.1, 0.3),
        ndcg=ap,
        plain_ap=0.9,
        kept_ap=0.8,
        spared_ap=0.8,
        spared_plain_ap=0.85,
        by_seed=(ap,),
        by_pair=by_pair,
        violation_by_pair=(0.0, 0.2, 0.5),
        spread=None,
        hyperparameters={"rule": "synthetic", "weight": 0.5},
        tuning_ap=ap,
        trials=1,
        ratio=ratio,
        ratio_ci=ConfidenceInterval(ratio - 0.05, ratio + 0.05),
        gap=0.1,
        gap_ci=ConfidenceInterval(0.0, 0.2),
    )
