"""Stored benchmark results: one JSON file per run, grouped by collection.

$SIEVE_HOME/evaluations/COLLECTION_SHA256[:16]/TIME-CHECKPOINT.json

Each file has the result tables, AP@10 and violation@10 of every pair and method, and the results of
the pairs with the largest wins and losses of Sieve: see `sieve.model.benchmark.results`. A file
takes about a megabyte in memory, so only summaries are cached for all files.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import chain, count
from pathlib import Path
from typing import Any, NamedTuple

from sieve.model.benchmark.methods import TRAINED
from sieve.model.benchmark.results import (
    BenchmarkResult,
    TrackResult,
    read_integer,
    read_numbers,
    read_text,
    track_from_json,
    track_to_json,
)
from sieve.model.files import claim_name, sieve_home, temporary_beside

SCHEMA_VERSION = 1
MAX_BYTES = 16 * 2**20
"""Larger files are refused."""
_SIEVE = "Sieve"
_INVALID = (ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError)
"""Errors that invalid content raises."""


class NamedHash(NamedTuple):
    """Name and hash of a collection or checkpoint."""

    name: str
    sha256: str


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

    @property
    def id(self) -> str:
        """Name of the file without the extension."""
        return self.path.stem


@dataclass(frozen=True)
class Evaluation:
    """A stored benchmark run."""

    summary: EvaluationSummary
    backbone_recall: Mapping[str, float]
    tracks: tuple[TrackResult, ...]


def evaluations_folder(collection_sha256: str) -> Path:
    """Return the folder of the evaluations of a collection."""
    return sieve_home() / "evaluations" / collection_sha256[:16]


def save_evaluation(result: BenchmarkResult, checkpoint: str = "") -> Path:
    """Store a result in `$SIEVE_HOME`, where the explorer lists it.

    Parameters
    ----------
    result : BenchmarkResult
    checkpoint : str
        Name of the checkpoint that was measured as Sieve, if any.

    Returns
    -------
    Path
        The new file; it is written atomically.
    """
    now = time.gmtime()
    entry = {
        **result.as_json(),
        "schema_version": SCHEMA_VERSION,
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", now),
        "collection": NamedHash(result.collection, result.collection_sha256)._asdict(),
        "train": NamedHash(result.train, result.train_sha256)._asdict(),
        "checkpoint": NamedHash(checkpoint, result.checkpoint)._asdict()
        if result.checkpoint
        else None,
        "settings": result.settings(),
        "tracks": list(map(track_to_json, result.tracks)),
    }
    folder = evaluations_folder(result.collection_sha256)
    folder.mkdir(parents=True, exist_ok=True)
    label = re.sub(r"[^\w.-]+", "-", checkpoint)[:60].strip(".-") or "trained"
    stem = f"{time.strftime('%Y%m%d-%H%M%S', now)}-{label}"
    with temporary_beside(folder / f"{stem}.json") as draft:
        draft.write_text(json.dumps(entry, ensure_ascii=False), encoding="utf-8")
        return _move_to_unused(draft, folder, stem)


def _move_to_unused(draft: Path, folder: Path, stem: str) -> Path:
    """Move a complete file to an unused name; names sort by time."""
    names = chain([stem], (f"{stem}-{number}" for number in count(2)))
    targets = (folder / f"{name}.json" for name in names)
    return next(target for target in targets if claim_name(draft, target))


def list_evaluations(collection_sha256: str) -> tuple[list[EvaluationSummary], list[str]]:
    """List the evaluations of a collection; unchanged files are read only once.

    Returns
    -------
    list of EvaluationSummary
        Newest first.
    list of str
        One line for each unreadable file.
    """
    summaries, errors = [], []
    paths = evaluations_folder(collection_sha256).glob("[!.]*.json")
    for path in sorted(paths, key=lambda path: path.stem, reverse=True):
        try:
            summary = _summary_or_error(path, *_version(path))
        except OSError as error:
            summary = str(error)
        if isinstance(summary, str):
            errors.append(" ".join(summary.split()))
        elif summary.collection.sha256 != collection_sha256:
            errors.append(f"{path} belongs to another collection; remove it")
        else:
            summaries.append(summary)
    return summaries, errors


def _version(path: Path) -> tuple[int, int]:
    """Return modification time in ns and size, which identify a version of a file."""
    state = path.stat()
    return state.st_mtime_ns, state.st_size


@cache
def _summary_or_error(path: Path, changed: int, size: int) -> EvaluationSummary | str:
    """Return the summary of a version of a file, or why it cannot be read."""
    try:
        return _read(path, changed, size).summary
    except ValueError as error:
        return str(error)


def read_evaluation(path: Path) -> Evaluation:
    """Read one evaluation.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If it is damaged or has another version; one line.
    """
    return _read(path, *_version(path))


@lru_cache(maxsize=8)
def _read(path: Path, changed: int, size: int) -> Evaluation:  # noqa: ARG001
    """Read a version of a file; the most recent ones are cached."""
    if size > MAX_BYTES:
        raise ValueError(
            f"{path} is larger than {MAX_BYTES:,} bytes, so it is not an evaluation; remove it"
        )
    try:
        entry = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
        version = entry["schema_version"]
        evaluation = _evaluation(path, entry) if version == SCHEMA_VERSION else None
    except _INVALID as error:
        reason = f"{type(error).__name__}: {error}"[:80]
        raise ValueError(
            f"{path} is damaged ({reason}); remove it, and evaluate again with "
            "`sieve evaluate COLLECTION`"
        ) from None
    if evaluation is None:
        raise ValueError(
            f"{path} has schema_version {version!r:.20}; expected {SCHEMA_VERSION}; "
            "evaluate again with `sieve evaluate COLLECTION`"
        )
    return evaluation


def _evaluation(path: Path, entry: dict[str, Any]) -> Evaluation:
    checkpoint = entry["checkpoint"]
    tracks = tuple(map(track_from_json, entry["tracks"]))
    methods = {method.method for track in tracks for method in track.methods}
    summary = EvaluationSummary(
        path=path,
        made=read_text(entry["made"]),
        collection=_named_hash(entry["collection"]),
        train=_named_hash(entry["train"]),
        checkpoint=None if checkpoint is None else _named_hash(checkpoint),
        seeds=tuple(map(read_integer, entry["seeds"])),
        track_names=tuple(track.track for track in tracks),
        is_short=not methods.issuperset(set(TRAINED) - {_SIEVE}),
    )
    return Evaluation(summary, read_numbers(entry["backbone_recall"]), tracks)


def _named_hash(entry: dict[str, Any]) -> NamedHash:
    return NamedHash(read_text(entry["name"]), read_text(entry["sha256"]))


def _refuse(constant: str) -> None:
    raise TypeError(f"{constant} is not valid JSON")
