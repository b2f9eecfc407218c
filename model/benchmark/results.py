"""What the exclusion benchmark found, as plain frozen data.

A track's results as plain data, and back: what is read comes from a file, so it is checked.

Whatever is not as it was told raises one of the errors that wrong data raises by itself (KeyError,
TypeError and their like); who reads a file makes one line of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from sieve.model.benchmark.bootstrap import Interval
from sieve.model.benchmark.config import BenchmarkConfig
from sieve.model.evaluation import PairCriteria


class PairCount(NamedTuple):
    """One pair, and how many test items it is about."""

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
    ci: Interval
    precision: float
    """P@10"""
    violation: float
    """Share of the first ten places with both A and B."""
    violation_ci: Interval
    ndcg: float
    """nDCG@10"""
    plain_ap: float
    """AP@10 of A alone, without any B, in the same space."""
    kept_ap: float
    """AP@10 for A, whether or not B is there, of the ranking that excludes B."""
    spared_ap: float
    """AP@10 for A among the items that lack B alone, which the exclusion should leave as they are,
    of the ranking that excludes B."""
    spared_plain_ap: float
    """The same of A alone. With at least ten relevant items, it is also the kept AP@10 of A's own
    ranking once exactly what has B is taken out: the most that excluding B leaves of it."""
    by_seed: tuple[float, ...]
    """AP@10 of each training seed."""
    by_pair: tuple[float, ...]
    """AP@10 of each pair, over seeds."""
    violation_by_pair: tuple[float, ...]
    """violation@10 of each pair, over seeds."""
    spread: float | None
    """Standard deviation of AP@10 over seeds; None with one seed."""
    knobs: Mapping[str, float | str]
    """As tuned."""
    tuning_ap: float
    trials: int
    """How many different settings were tried."""
    ratio: float | None = None
    """Sieve's AP@10 over this one's."""
    ratio_ci: Interval | None = None
    gap: float | None = None
    """Share of the way from this method to a perfect one that Sieve goes."""
    gap_ci: Interval | None = None
    same_rule_ratio: float | None = None
    """Sieve with the same rule over this one, for rows of a single rule."""
    same_rule_ratio_ci: Interval | None = None
    recall: Mapping[str, float] | None = None
    """Text-to-image recall among the test items, for trained codes."""

    def as_json(self) -> dict[str, Any]:
        """Tell it as plain data, rounded to six places."""
        names = {told: getattr(self, field) for told, field in TOLD_METHOD.items()}
        if self.same_rule_ratio is not None:
            names |= {told: getattr(self, told) for told in TOLD_SAME_RULE}
        return rounded(names)


TOLD_METHOD = {
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
    "knobs": "knobs",
    "tuning_ap@10": "tuning_ap",
    "trials": "trials",
    "recall": "recall",
}
"""What JSON calls each field of a `MethodResult`."""
TOLD_SAME_RULE = ("same_rule_ratio", "same_rule_ratio_ci")


class Answer(NamedTuple):
    """The first results of one method for one pair."""

    items: tuple[str, ...]
    """Ids, best first, at most 10."""
    marks: str
    """One letter for each: r relevant (A alone), v violating (both), n neither (no A)."""


@dataclass(frozen=True)
class TrackResult:
    """One track's table."""

    track: str
    asked: tuple[PairCount, ...]
    """The report pairs."""
    items: int
    tuning_pairs: int
    tuning_items: int
    tuning_law: PairCriteria
    methods: tuple[MethodResult, ...]
    variants: tuple[MethodResult, ...]
    """The same methods held to one rule each."""
    answers: Mapping[str, Mapping[int, Answer]] = field(default_factory=dict)
    """By method and by place among the pairs, of the first training seed: of each peer where Sieve
    wins and loses most against it, and Sieve's own of all these."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Select and test items that were left out, as they are equal or near to an item of an earlier
    split."""

    @property
    def pairs(self) -> int:
        """How many pairs were reported."""
        return len(self.asked)

    @property
    def a_words(self) -> int:
        """How many different A there are."""
        return len({pair.a for pair in self.asked})

    def as_json(self) -> dict[str, Any]:
        """Tell it as plain data."""
        return {
            "track": self.track,
            "pairs": self.pairs,
            "a_words": self.a_words,
            "items": self.items,
            "dropped": dict(self.dropped),
            "tuning": {
                "pairs": self.tuning_pairs,
                "items": self.tuning_items,
                "law": asdict(self.tuning_law),
            },
            "methods": [method.as_json() for method in self.methods],
            "variants": [method.as_json() for method in self.variants],
        }


@dataclass(frozen=True)
class BenchmarkResult:
    """Everything that was measured, and of what."""

    collection: str
    collection_sha256: str
    train: str
    train_sha256: str
    backbone: str
    checkpoint: str | None
    """Hash of the checkpoint that was measured as Sieve, where one was given."""
    seeds: tuple[int, ...]
    nouns_sha256: str
    config: BenchmarkConfig
    backbone_recall: Mapping[str, float]
    tracks: tuple[TrackResult, ...]

    def as_json(self) -> dict[str, Any]:
        """Tell it as plain data; the same run gives the same, byte for byte."""
        return {
            "collection": self.collection,
            "seeds": list(self.seeds),
            "nouns_sha256": self.nouns_sha256,
            "backbone_recall": rounded(dict(self.backbone_recall)),
            "tracks": [track.as_json() for track in self.tracks],
        }

    def settings(self) -> dict[str, Any]:
        """Tell everything that the figures depend on."""
        return {
            "collection": {"name": self.collection, "sha256": self.collection_sha256},
            "train": {"name": self.train, "sha256": self.train_sha256},
            "backbone": self.backbone,
            "checkpoint_sha256": self.checkpoint,
            "nouns_sha256": self.nouns_sha256,
            "benchmark": asdict(self.config),
            "tuning_laws": {track.track: asdict(track.tuning_law) for track in self.tracks},
        }


def rounded(value: Any) -> Any:
    """Round all numbers of plain data to six places."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {name: rounded(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(part) for part in value]
    return value


_TEXTS = {"method"}
_INTERVALS = {"ci", "ratio_ci", "violation_ci", "gap_closed_ci", "same_rule_ratio_ci"}
_MAYBE = {"ratio", "ratio_ci", "gap_closed", "gap_closed_ci", "spread", "recall", *TOLD_SAME_RULE}


def tell_track(track: TrackResult) -> dict[str, Any]:
    """Tell a track with all its pairs."""
    told = track.as_json()
    for entry, method in zip(told["methods"], track.methods, strict=True):
        entry["by_pair"] = [round(value, 4) for value in method.by_pair]
        entry["violation_by_pair"] = [round(value, 4) for value in method.violation_by_pair]
    return told | {
        "asked": [pair._asdict() for pair in track.asked],
        "answers": {
            method: {str(pair): [*answer] for pair, answer in answers.items()}
            for method, answers in track.answers.items()
        },
    }


def read_track(entry: dict[str, Any]) -> TrackResult:
    """Read what `tell_track` told."""
    asked = tuple(
        PairCount(
            read_text(one["a"]),
            read_text(one["b"]),
            read_whole(one["relevant"]),
            read_whole(one["violating"]),
        )
        for one in entry["asked"]
    )
    tuning = entry["tuning"]
    return TrackResult(
        track=read_text(entry["track"]),
        asked=asked,
        items=read_whole(entry["items"]),
        tuning_pairs=read_whole(tuning["pairs"]),
        tuning_items=read_whole(tuning["items"]),
        tuning_law=PairCriteria(**tuning["law"]),
        methods=tuple(_method(one, len(asked)) for one in entry["methods"]),
        variants=tuple(_method(one, 0) for one in entry["variants"]),
        dropped={
            read_text(split): read_whole(count) for split, count in entry.get("dropped", {}).items()
        },
        answers={
            read_text(method): {
                _pair(pair, len(asked)): _answer(one) for pair, one in answers.items()
            }
            for method, answers in entry["answers"].items()
        },
    )


def _method(entry: dict[str, Any], n_pairs: int) -> MethodResult:
    values: dict[str, Any] = {
        field: _field(told, entry[told]) for told, field in TOLD_METHOD.items()
    }
    values |= {told: _field(told, entry[told]) for told in TOLD_SAME_RULE if told in entry}
    for name in ("by_pair", "violation_by_pair"):
        values[name] = tuple(map(read_number, entry.get(name, ())))
        if len(values[name]) != n_pairs:
            raise TypeError(f"{name} has {len(values[name])} numbers for {n_pairs} pairs")
    return MethodResult(**values)


def _field(told: str, value: Any) -> Any:
    """Read one of a method's figures."""
    if value is None:
        if told in _MAYBE:
            return None
        raise TypeError(f"{told} is missing")
    if told in _TEXTS:
        return read_text(value)
    if told in _INTERVALS:
        low, high = value
        return Interval(read_number(low), read_number(high))
    if told == "seeds_ap@10":
        return tuple(map(read_number, value))
    if told == "knobs":
        return {read_text(name): one if isinstance(one, str) else read_number(one)
                for name, one in value.items()}  # fmt: skip
    return read_numbers(value) if told == "recall" else read_number(value)


def _answer(entry: list[Any]) -> Answer:
    items, marks = entry
    if not set(read_text(marks)) <= set("rvn") or len(items) != len(marks):
        raise TypeError("marks do not fit the items")
    for item in items:
        if not re.fullmatch(r"[0-9a-f]{16}", read_text(item)):
            raise TypeError("an item has no id")
    return Answer(tuple(items), marks)


def _pair(place: str, n_pairs: int) -> int:
    if not (place.isdecimal() and len(place) < 9 and int(place) < n_pairs):
        raise TypeError(f"{place!r:.20} is no pair")
    return int(place)


def read_numbers(entry: dict[str, Any]) -> dict[str, float]:
    """Read numbers by name."""
    return {read_text(name): read_number(value) for name, value in entry.items()}


def read_number(value: Any) -> float:
    """Read a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"{value!r:.20} is no number")
    return value


def read_whole(value: Any) -> int:
    """Read a whole number."""
    if not isinstance(value, int):
        raise TypeError(f"{value!r:.20} is no whole number")
    return int(read_number(value))


def read_text(value: Any) -> str:
    """Read a text of a sensible length."""
    if not isinstance(value, str) or len(value) > 1000:
        raise TypeError(f"{value!r:.20} is no text")
    return value
