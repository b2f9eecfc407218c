"""What the exclusion benchmark found, as plain frozen data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from sieve.model.benchmark.bootstrap import Interval
from sieve.model.benchmark.config import BenchmarkConfig
from sieve.model.questions import PairLaw


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
    tuning_law: PairLaw
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
