"""Configuration and results of the exclusion benchmark, stored as one JSON file per run.

    $SIEVE_HOME/evaluations/COLLECTION_SHA256[:16]/TIME-CHECKPOINT.json

Results of the bundled collection ship in `SHIPPED`. They belong to a collection by the hash of its
image embeddings, because thumbnails and captions are encoded on each machine.

A stored result takes about a megabyte in memory, so only summaries are cached for all files.
"""

from __future__ import annotations

import json
import re
import statistics
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from itertools import chain, count
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AliasPath, Field, TypeAdapter, ValidationError

from sieve import assets
from sieve.model.benchmark.methods import METHODS, SIEVE, TRAINED
from sieve.model.evaluation.pairs import PairCriteria, TrackName
from sieve.model.files import (
    Count,
    claim_name,
    fault_in,
    read_limited,
    sieve_home,
    temporary_beside,
)
from sieve.model.hyperparameters import TrainingConfig

SHIPPED = assets.ROOT / "benchmark" / "results"
"""Folder of the results that ship."""
SCHEMA_VERSION = 1
MAX_BYTES = 16 << 20
"""Larger files are refused."""

Text = Annotated[str, Field(max_length=1000)]
Number = Annotated[float, Field(allow_inf_nan=False)]
ItemId = Annotated[str, Field(pattern="^[0-9a-f]{16}$")]


@dataclass(frozen=True)
class BenchmarkConfig:
    """Settings of a benchmark run."""

    tracks: tuple[TrackName, ...] = ("label", "caption")
    methods: tuple[str, ...] = METHODS
    seeds: tuple[int, ...] = (0, 1, 2)
    """Training seeds."""
    trials: int = 60
    """Hyperparameter settings sampled for each method."""
    resamples: int = 1000
    """Number of bootstrap resamples."""
    criteria: PairCriteria = field(default_factory=PairCriteria)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """Training of Sieve; the baselines use the same epochs and batches."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.methods if name not in METHODS]
        if unknown:
            raise ValueError(f"unknown method {', '.join(unknown)}; expected: {', '.join(METHODS)}")
        if not self.seeds or not self.tracks:
            raise ValueError(
                f"expected at least one seed and one track; got {self.seeds}, {self.tracks}"
            )
        if self.trials < 1 or self.resamples < 1:
            raise ValueError(
                f"trials and resamples must be at least 1; got {self.trials}, {self.resamples}"
            )


class NamedHash(NamedTuple):
    """Name and hash of a collection, checkpoint or query file."""

    name: Text
    sha256: Text


class ConfidenceInterval(NamedTuple):
    """A 95% interval."""

    low: Number
    high: Number


class PairCount(NamedTuple):
    """One pair, and the numbers of its relevant and violating test items."""

    a: Text
    b: Text
    relevant: Count
    violating: Count


@dataclass(frozen=True, kw_only=True)
class MethodResult:
    """One row of the table: means over report pairs and training seeds."""

    method: Text
    ap: Annotated[Number, Field(alias="ap@10")]
    ci: ConfidenceInterval
    ratio: Number | None = None
    """AP@10 of Sieve divided by that of this method."""
    ratio_ci: ConfidenceInterval | None = None
    precision: Annotated[Number, Field(alias="p@10")]
    violation: Annotated[Number, Field(alias="violation@10")]
    """Share of the first ten results with both A and B."""
    violation_ci: ConfidenceInterval
    ndcg: Annotated[Number, Field(alias="ndcg@10")]
    plain_ap: Annotated[Number, Field(alias="plain_ap@10")]
    """AP@10 of the query A without exclusion, in the same space."""
    kept_ap: Annotated[Number, Field(alias="kept_ap@10")]
    """AP@10 of the excluding ranking, where an item is relevant if it has A, with or without B."""
    spared_ap: Annotated[Number, Field(alias="spared_ap@10")]
    """AP@10 of the excluding ranking for A among items without B, which it should not change."""
    spared_plain_ap: Annotated[Number, Field(alias="spared_plain_ap@10")]
    """`spared_ap` of the query A without exclusion. With at least ten relevant items, this is also
    the `kept_ap` of perfect exclusion: exactly the items with B removed."""
    gap: Annotated[Number | None, Field(alias="gap_closed")] = None
    """Share of the gap between this method and a perfect ranking that Sieve closes."""
    gap_ci: Annotated[ConfidenceInterval | None, Field(alias="gap_closed_ci")] = None
    by_seed: Annotated[tuple[Number, ...], Field(alias="seeds_ap@10")]
    """AP@10 of each training seed."""
    spread: Number | None
    """Standard deviation of AP@10 over seeds; None with one seed."""
    hyperparameters: Annotated[Mapping[Text, Number | Text], Field(alias="knobs")]
    """Values after tuning."""
    tuning_ap: Annotated[Number, Field(alias="tuning_ap@10")]
    trials: Count
    """Number of distinct settings tried."""
    recall: Mapping[Text, Number] | None = None
    """Text-to-image recall@k among the test items, for trained codes."""
    same_rule_ratio: Number | None = None
    """AP@10 of Sieve with the same rule divided by this one, for rows of a single rule."""
    same_rule_ratio_ci: ConfidenceInterval | None = None
    wordings: Mapping[Text, Number] = field(default_factory=dict)
    """AP@10 with other words for the same A and B, by wording."""
    by_pair: tuple[Number, ...] = ()
    """AP@10 of each pair, over seeds."""
    violation_by_pair: tuple[Number, ...] = ()
    """violation@10 of each pair, over seeds."""

    @property
    def wording_spread(self) -> float | None:
        """Standard deviation of AP@10 over the wordings; None without any."""
        values = rounded(list(self.wordings.values()))  # as stored
        return statistics.stdev(values) if len(values) > 1 else None

    @property
    def detectable_ratio(self) -> float | None:
        """Smallest ratio above 1 whose interval would exclude 1 in 80% of repetitions.

        exp((1.96 + 0.84) σ), with σ the standard error of the logarithm of the ratio.
        """
        if self.ratio_ci is None or self.ratio_ci.low <= 1e-6:
            return None
        low, high = rounded(self.ratio_ci)  # as stored
        return (high / low) ** ((1.96 + 0.84) / (2 * 1.96))

    def as_json(self, pairs: bool = False) -> dict[str, Any]:
        """Return plain data rounded to six decimals, on request with four decimals of each pair."""
        entry = rounded(_METHOD.dump_python(self, by_alias=True))
        by_pair = {name: rounded(entry.pop(name), 4) for name in ("by_pair", "violation_by_pair")}
        entry["wording_spread"] = rounded(self.wording_spread, 4)
        entry["detectable_ratio"] = rounded(self.detectable_ratio, 4)
        if self.same_rule_ratio is None:
            del entry["same_rule_ratio"], entry["same_rule_ratio_ci"]
        return entry | by_pair if pairs else entry


class Answer(NamedTuple):
    """The first results of one method for one pair."""

    items: tuple[ItemId, ...]
    """Ids, best first, at most 10."""
    marks: Annotated[str, Field(pattern="^[rvn]*$")]
    """One letter per item: r relevant (A without B), v violating (both), n neither (no A)."""


class Failure(NamedTuple):
    """A pair that Sieve answers badly."""

    pair: Count
    kind: Text
    """One of `sieve.model.benchmark.failures.FAILURE_KINDS`."""
    items: tuple[ItemId, ...]
    """The first results of Sieve, as in `Answer`."""
    marks: Annotated[str, Field(pattern="^[rvn]*$")]
    facts: Mapping[Text, Number]
    """Measurements that the rules of `KINDS` use."""


@dataclass(frozen=True)
class TrackResult:
    """Results of one track."""

    track: Text
    pair_counts: Annotated[tuple[PairCount, ...], Field(alias="asked")]
    """The report pairs."""
    items: Count
    tuning_pairs: Annotated[Count, Field(validation_alias=AliasPath("tuning", "pairs"))]
    tuning_items: Annotated[Count, Field(validation_alias=AliasPath("tuning", "items"))]
    tuning_criteria: Annotated[PairCriteria, Field(validation_alias=AliasPath("tuning", "law"))]
    methods: tuple[MethodResult, ...]
    variants: tuple[MethodResult, ...]
    """The same methods with a single rule each."""
    answers: Mapping[Text, Mapping[int, Answer]] = field(default_factory=dict)
    """By method and pair index, of the first training seed: for each baseline the pairs with the
    largest wins and losses of Sieve, and the answers of Sieve for all of these."""
    criteria: PairCriteria | None = None
    """Criteria of the report pairs; None for a query file."""
    dropped: Mapping[Text, Count] = field(default_factory=dict)
    """By split: number of items left out because they duplicate an item of an earlier split."""
    notes: tuple[Text, ...] = ()
    """Parts of the query file that are not used, in sentences."""
    failures: tuple[Failure, ...] = ()
    """The pairs with the lowest AP@10 of Sieve, worst first."""

    def __post_init__(self) -> None:
        for method in self.methods:
            if {len(method.by_pair), len(method.violation_by_pair)} != {self.pairs}:
                raise ValueError(f"{method.method} does not have a value for each pair")
        shown = [entry for answers in self.answers.values() for entry in answers.items()]
        shown += [(one.pair, Answer(one.items, one.marks)) for one in self.failures]
        for pair, answer in shown:
            if not 0 <= pair < self.pairs or len(answer.items) != len(answer.marks):
                raise ValueError(f"the answer for pair {pair} does not fit the pairs or items")

    @property
    def pairs(self) -> int:
        """Number of reported pairs."""
        return len(self.pair_counts)

    @property
    def a_words(self) -> int:
        """Number of distinct A."""
        return len({pair.a for pair in self.pair_counts})

    def as_json(self, pairs: bool = False) -> dict[str, Any]:
        """Return plain data, on request with the values and answers of every pair."""
        entry: dict[str, Any] = {
            "track": self.track,
            "pairs": self.pairs,
            "a_words": self.a_words,
            "items": self.items,
            "criteria": self.criteria and asdict(self.criteria),
            "dropped": dict(self.dropped),
            "tuning": {
                "pairs": self.tuning_pairs,
                "items": self.tuning_items,
                "law": asdict(self.tuning_criteria),
            },
            "notes": list(self.notes),
            "failure_kinds": dict(Counter(failure.kind for failure in self.failures)),
            "methods": [method.as_json(pairs) for method in self.methods],
            "variants": [method.as_json() for method in self.variants],
        }
        if pairs:
            entry["asked"] = [pair._asdict() for pair in self.pair_counts]
            entry["answers"] = {
                method: {str(pair): list(answer) for pair, answer in answers.items()}
                for method, answers in self.answers.items()
            }
            entry["failures"] = [rounded(list(failure), 4) for failure in self.failures]
        return entry


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
    queries: NamedHash | None = None
    """The query file, if the report pairs are from one."""

    def as_json(self) -> dict[str, Any]:
        """Return plain data; the same run gives the same bytes."""
        return {
            "collection": self.collection,
            "seeds": list(self.seeds),
            "nouns_sha256": self.nouns_sha256,
            "backbone_recall": rounded(self.backbone_recall),
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
            "queries": self.queries and self.queries._asdict(),
            "benchmark": {
                "law" if name == "criteria" else name: value
                for name, value in asdict(self.config).items()
            },
            "tuning_laws": {track.track: asdict(track.tuning_criteria) for track in self.tracks},
        }


def rounded(value: Any, decimals: int = 6) -> Any:
    """Round all floats of plain data."""
    if isinstance(value, float):
        return round(value, decimals)
    if isinstance(value, Mapping):
        return {name: rounded(part, decimals) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(part, decimals) for part in value]
    return value


@dataclass(frozen=True)
class EvaluationSummary:
    """Summary of an evaluation, for lists."""

    path: Path
    made: str
    """Creation time, as 2026-01-31T12:00:00Z."""
    collection: NamedHash
    train: NamedHash
    checkpoint: NamedHash | None
    """None if encoders were trained for the run."""
    seeds: tuple[int, ...]
    track_names: tuple[str, ...]
    is_short: bool
    """Whether trained baselines are missing."""
    images_sha256: str = ""
    """Hash of the image embeddings of the collection, for results that ship."""
    code: str = ""
    """Version of the code that measured them."""

    @property
    def id(self) -> str:
        """Name of the file without the extension."""
        return self.path.stem


@dataclass(frozen=True)
class Evaluation:
    """A stored benchmark run."""

    summary: EvaluationSummary
    tracks: tuple[TrackResult, ...]


@dataclass(frozen=True)
class _EvaluationFile:
    """The part of a stored result that is read again."""

    schema_version: Literal[1]
    made: Text
    collection: NamedHash
    train: NamedHash
    checkpoint: NamedHash | None
    seeds: tuple[int, ...]
    tracks: tuple[TrackResult, ...]
    images_sha256: Text = ""
    code: Text = ""


_METHOD = TypeAdapter(MethodResult)
_EVALUATION_FILE = TypeAdapter(_EvaluationFile)


def save_evaluation(result: BenchmarkResult, checkpoint: str = "") -> Path:
    """Store a result in `$SIEVE_HOME`, where the explorer lists it, and return the new file.

    It is written atomically, and names sort by time. `checkpoint` is the name of the checkpoint
    that was measured as Sieve, if any.
    """
    now = time.gmtime()
    entry = evaluation_json(result, checkpoint, time.strftime("%Y-%m-%dT%H:%M:%SZ", now))
    folder = _evaluations_folder(result.collection_sha256)
    folder.mkdir(parents=True, exist_ok=True)
    label = re.sub(r"[^\w.-]+", "-", checkpoint)[:60].strip(".-") or "trained"
    stem = f"{time.strftime('%Y%m%d-%H%M%S', now)}-{label}"
    names = chain([stem], (f"{stem}-{number}" for number in count(2)))
    targets = (folder / f"{name}.json" for name in names)
    with temporary_beside(folder / f"{stem}.json") as temporary:
        temporary.write_text(json.dumps(entry, ensure_ascii=False), encoding="utf-8")
        return next(target for target in targets if claim_name(temporary, target))


def evaluation_json(result: BenchmarkResult, checkpoint: str, made: str) -> dict[str, Any]:
    """Return the content of a stored result, made at a time such as 2026-01-31T12:00:00Z."""
    settings = result.settings()
    return {
        **result.as_json(),
        "schema_version": SCHEMA_VERSION,
        "made": made,
        "collection": settings["collection"],
        "train": settings["train"],
        "checkpoint": {"name": checkpoint, "sha256": result.checkpoint}
        if result.checkpoint
        else None,
        "settings": settings,
        "tracks": [track.as_json(pairs=True) for track in result.tracks],
    }


def list_evaluations(
    collection_sha256: str, images_sha256: str = ""
) -> tuple[list[EvaluationSummary], list[str]]:
    """List the evaluations of a collection, newest first, and one line for each unreadable file.

    With the hash of its image embeddings, results that ship with Sieve follow. Unchanged files are
    read only once.
    """
    summaries, errors = [], []
    paths = _evaluations_folder(collection_sha256).glob("[!.]*.json")
    ordered = sorted(paths, key=lambda path: path.stem, reverse=True)
    shipped = sorted(SHIPPED.glob("*.json")) if images_sha256 else []
    for path in [*ordered, *shipped]:
        try:
            summary = _summary_or_error(path, *_version(path))
        except OSError as error:
            summary = str(error)
        if isinstance(summary, str):
            errors.append(" ".join(summary.split()))
        elif path.parent == SHIPPED:
            if summary.images_sha256 == images_sha256:
                summaries.append(summary)
        elif summary.collection.sha256 != collection_sha256:
            errors.append(f"{path} belongs to another collection; remove it")
        else:
            summaries.append(summary)
    return summaries, errors


def read_evaluation(path: Path) -> Evaluation:
    """Read one evaluation.

    Raises a FileNotFoundError if there is none, and a ValueError if it is damaged or has another
    version; one line.
    """
    return _read(path, *_version(path))


def _evaluations_folder(collection_sha256: str) -> Path:
    return sieve_home() / "evaluations" / collection_sha256[:16]


def _version(path: Path) -> tuple[int, int]:
    """Return modification time in ns and size, which identify a version of a file."""
    state = path.stat()
    return state.st_mtime_ns, state.st_size


@lru_cache(maxsize=10_000)
def _summary_or_error(path: Path, changed: int, size: int) -> EvaluationSummary | str:
    """Return the summary of a version of a file, or why it cannot be read."""
    try:
        return _read(path, changed, size).summary
    except ValueError as error:
        return str(error)


@lru_cache(maxsize=8)
def _read(path: Path, changed: int, size: int) -> Evaluation:  # noqa: ARG001
    """Read a version of a file; the most recent ones are cached."""
    try:
        stored = _EVALUATION_FILE.validate_json(read_limited(path, MAX_BYTES), strict=True)
    except ValidationError as error:
        raise ValueError(
            f"{path} is not an evaluation of this version ({fault_in(error)}); remove it, and "
            "evaluate again with `sieve evaluate COLLECTION`"
        ) from None
    methods = {method.method for track in stored.tracks for method in track.methods}
    summary = EvaluationSummary(
        path=path,
        made=stored.made,
        collection=stored.collection,
        train=stored.train,
        checkpoint=stored.checkpoint,
        seeds=stored.seeds,
        track_names=tuple(track.track for track in stored.tracks),
        is_short=not methods.issuperset(set(TRAINED) - {SIEVE}),
        images_sha256=stored.images_sha256,
        code=stored.code,
    )
    return Evaluation(summary, stored.tracks)
