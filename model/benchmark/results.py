"""Results of the exclusion benchmark, and their JSON form.

Readers raise `LookupError`, `TypeError`, `ValueError` or `AttributeError` on invalid data; the
caller that reads the file turns them into a one-line message.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from sieve.model.benchmark.config import BenchmarkConfig
from sieve.model.evaluation import PairCriteria


class ConfidenceInterval(NamedTuple):
    """A 95% interval."""

    low: float
    high: float


class PairCount(NamedTuple):
    """One pair, and the numbers of its relevant and violating test items."""

    a: str
    b: str
    relevant: int
    violating: int


@dataclass(frozen=True)
class MethodResult:
    """One row of the table: means over report pairs and training seeds."""

    method: str
    ap: float
    """AP@10"""
    ci: ConfidenceInterval
    precision: float
    """P@10"""
    violation: float
    """violation@10: share of the first ten results with both A and B."""
    violation_ci: ConfidenceInterval
    ndcg: float
    """nDCG@10"""
    plain_ap: float
    """AP@10 of the query A without exclusion, in the same space."""
    kept_ap: float
    """AP@10 of the excluding ranking, where an item is relevant if it has A, with or without B."""
    spared_ap: float
    """AP@10 of the excluding ranking for A among items without B, which it should not change."""
    spared_plain_ap: float
    """`spared_ap` of the query A without exclusion. With at least ten relevant items, this is also
    the `kept_ap` of perfect exclusion: exactly the items with B removed."""
    by_seed: tuple[float, ...]
    """AP@10 of each training seed."""
    by_pair: tuple[float, ...]
    """AP@10 of each pair, over seeds."""
    violation_by_pair: tuple[float, ...]
    """violation@10 of each pair, over seeds."""
    spread: float | None
    """Standard deviation of AP@10 over seeds; None with one seed."""
    hyperparameters: Mapping[str, float | str]
    """Values after tuning."""
    tuning_ap: float
    trials: int
    """Number of distinct settings tried."""
    ratio: float | None = None
    """AP@10 of Sieve divided by that of this method."""
    ratio_ci: ConfidenceInterval | None = None
    gap: float | None = None
    """Share of the gap between this method and a perfect ranking that Sieve closes."""
    gap_ci: ConfidenceInterval | None = None
    same_rule_ratio: float | None = None
    """AP@10 of Sieve with the same rule divided by this one, for rows of a single rule."""
    same_rule_ratio_ci: ConfidenceInterval | None = None
    recall: Mapping[str, float] | None = None
    """Text-to-image recall@k among the test items, for trained codes."""

    def as_json(self) -> dict[str, Any]:
        """Return plain data, rounded to six decimals."""
        values = {name: getattr(self, field) for name, field in JSON_FIELDS.items()}
        if self.same_rule_ratio is not None:
            values |= {name: getattr(self, name) for name in JSON_SAME_RULE_FIELDS}
        return rounded(values)


JSON_FIELDS = {
    "method": "method",
    "ap@10": "ap",
    "ci": "ci",
    "ratio": "ratio",
    "ratio_ci": "ratio_ci",
    "p@10": "precision",
    "violation@10": "violation",
    "violation_ci": "violation_ci",
    "ndcg@10": "ndcg",
    "plain_ap@10": "plain_ap",
    "kept_ap@10": "kept_ap",
    "spared_ap@10": "spared_ap",
    "spared_plain_ap@10": "spared_plain_ap",
    "gap_closed": "gap",
    "gap_closed_ci": "gap_ci",
    "seeds_ap@10": "by_seed",
    "spread": "spread",
    "knobs": "hyperparameters",
    "tuning_ap@10": "tuning_ap",
    "trials": "trials",
    "recall": "recall",
}
"""Field of `MethodResult` by its JSON key."""
JSON_SAME_RULE_FIELDS = ("same_rule_ratio", "same_rule_ratio_ci")


class Answer(NamedTuple):
    """The first results of one method for one pair."""

    items: tuple[str, ...]
    """Ids, best first, at most 10."""
    marks: str
    """One letter per item: r relevant (A without B), v violating (both), n neither (no A)."""


@dataclass(frozen=True)
class TrackResult:
    """Results of one track."""

    track: str
    pair_counts: tuple[PairCount, ...]
    """The report pairs."""
    items: int
    tuning_pairs: int
    tuning_items: int
    tuning_criteria: PairCriteria
    methods: tuple[MethodResult, ...]
    variants: tuple[MethodResult, ...]
    """The same methods with a single rule each."""
    answers: Mapping[str, Mapping[int, Answer]] = field(default_factory=dict)
    """By method and pair index, of the first training seed: for each baseline the pairs with the
    largest wins and losses of Sieve, and the answers of Sieve for all of these."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """By split: number of items left out because they duplicate an item of an earlier split."""

    @property
    def pairs(self) -> int:
        """Number of reported pairs."""
        return len(self.pair_counts)

    @property
    def a_words(self) -> int:
        """Number of distinct A."""
        return len({pair.a for pair in self.pair_counts})

    def as_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "track": self.track,
            "pairs": self.pairs,
            "a_words": self.a_words,
            "items": self.items,
            "dropped": dict(self.dropped),
            "tuning": {
                "pairs": self.tuning_pairs,
                "items": self.tuning_items,
                "law": asdict(self.tuning_criteria),
            },
            "methods": [method.as_json() for method in self.methods],
            "variants": [method.as_json() for method in self.variants],
        }


@dataclass(frozen=True)
class BenchmarkResult:
    """Results of a benchmark run, and what it measured."""

    collection: str
    collection_sha256: str
    train: str
    train_sha256: str
    backbone: str
    checkpoint: str | None
    """Hash of the checkpoint that was measured as Sieve, if one was given."""
    seeds: tuple[int, ...]
    nouns_sha256: str
    config: BenchmarkConfig
    backbone_recall: Mapping[str, float]
    tracks: tuple[TrackResult, ...]

    def as_json(self) -> dict[str, Any]:
        """Return plain data; the same run gives the same bytes."""
        return {
            "collection": self.collection,
            "seeds": list(self.seeds),
            "nouns_sha256": self.nouns_sha256,
            "backbone_recall": rounded(dict(self.backbone_recall)),
            "tracks": [track.as_json() for track in self.tracks],
        }

    def settings(self) -> dict[str, Any]:
        """Return everything that the results depend on."""
        return {
            "collection": {"name": self.collection, "sha256": self.collection_sha256},
            "train": {"name": self.train, "sha256": self.train_sha256},
            "backbone": self.backbone,
            "checkpoint_sha256": self.checkpoint,
            "nouns_sha256": self.nouns_sha256,
            "benchmark": {
                "law" if name == "criteria" else name: value
                for name, value in asdict(self.config).items()
            },
            "tuning_laws": {track.track: asdict(track.tuning_criteria) for track in self.tracks},
        }


def rounded(value: Any) -> Any:
    """Round all numbers of plain data to six decimals."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {name: rounded(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(part) for part in value]
    return value


_TEXTS = {"method"}
_INTERVALS = {"ci", "ratio_ci", "violation_ci", "gap_closed_ci", "same_rule_ratio_ci"}
_OPTIONAL = {
    *("ratio", "ratio_ci", "gap_closed", "gap_closed_ci", "spread", "recall"),
    *JSON_SAME_RULE_FIELDS,
}


def track_to_json(track: TrackResult) -> dict[str, Any]:
    """Serialise a track, including the values of every pair."""
    entry = track.as_json()
    for row, method in zip(entry["methods"], track.methods, strict=True):
        row["by_pair"] = [round(value, 4) for value in method.by_pair]
        row["violation_by_pair"] = [round(value, 4) for value in method.violation_by_pair]
    return entry | {
        "asked": [pair._asdict() for pair in track.pair_counts],
        "answers": {
            method: {str(pair): [*answer] for pair, answer in answers.items()}
            for method, answers in track.answers.items()
        },
    }


def track_from_json(entry: dict[str, Any]) -> TrackResult:
    """Read a track that `track_to_json` serialised."""
    pair_counts = tuple(
        PairCount(
            read_text(one["a"]),
            read_text(one["b"]),
            read_integer(one["relevant"]),
            read_integer(one["violating"]),
        )
        for one in entry["asked"]
    )
    tuning = entry["tuning"]
    return TrackResult(
        track=read_text(entry["track"]),
        pair_counts=pair_counts,
        items=read_integer(entry["items"]),
        tuning_pairs=read_integer(tuning["pairs"]),
        tuning_items=read_integer(tuning["items"]),
        tuning_criteria=PairCriteria(**tuning["law"]),
        methods=tuple(_method(one, len(pair_counts)) for one in entry["methods"]),
        variants=tuple(_method(one, 0) for one in entry["variants"]),
        dropped={
            read_text(split): read_integer(count)
            for split, count in entry.get("dropped", {}).items()
        },
        answers={
            read_text(method): {
                _pair_index(pair, len(pair_counts)): _answer(one) for pair, one in answers.items()
            }
            for method, answers in entry["answers"].items()
        },
    )


def _method(entry: dict[str, Any], n_pairs: int) -> MethodResult:
    values: dict[str, Any] = {
        field: _field(name, entry[name]) for name, field in JSON_FIELDS.items()
    }
    values |= {name: _field(name, entry[name]) for name in JSON_SAME_RULE_FIELDS if name in entry}
    for name in ("by_pair", "violation_by_pair"):
        values[name] = tuple(map(read_number, entry.get(name, ())))
        if len(values[name]) != n_pairs:
            raise TypeError(f"{name} has {len(values[name])} numbers for {n_pairs} pairs")
    return MethodResult(**values)


def _field(name: str, value: Any) -> Any:
    """Read one field of a method."""
    if value is None:
        if name in _OPTIONAL:
            return None
        raise TypeError(f"{name} is missing")
    if name in _TEXTS:
        return read_text(value)
    if name in _INTERVALS:
        low, high = value
        return ConfidenceInterval(read_number(low), read_number(high))
    if name == "seeds_ap@10":
        return tuple(map(read_number, value))
    if name == "knobs":
        return {read_text(name): one if isinstance(one, str) else read_number(one)
                for name, one in value.items()}  # fmt: skip
    return read_numbers(value) if name == "recall" else read_number(value)


def _answer(entry: list[Any]) -> Answer:
    items, marks = entry
    if not set(read_text(marks)) <= set("rvn") or len(items) != len(marks):
        raise TypeError("marks do not match the items")
    for item in items:
        if not re.fullmatch(r"[0-9a-f]{16}", read_text(item)):
            raise TypeError(f"{item!r:.20} is not an item id")
    return Answer(tuple(items), marks)


def _pair_index(text: str, n_pairs: int) -> int:
    if not (text.isdecimal() and len(text) < 9 and int(text) < n_pairs):
        raise TypeError(f"{text!r:.20} is not the index of a pair")
    return int(text)


def read_numbers(entry: dict[str, Any]) -> dict[str, float]:
    """Read a mapping of names to finite numbers."""
    return {read_text(name): read_number(value) for name, value in entry.items()}


def read_number(value: Any) -> float:
    """Read a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"{value!r:.20} is not a finite number")
    return value


def read_integer(value: Any) -> int:
    """Read an integer."""
    if not isinstance(value, int):
        raise TypeError(f"{value!r:.20} is not an integer")
    return int(read_number(value))


def read_text(value: Any) -> str:
    """Read a string of at most 1,000 characters."""
    if not isinstance(value, str) or len(value) > 1000:
        raise TypeError(f"{value!r:.20} is not a string of at most 1,000 characters")
    return value
