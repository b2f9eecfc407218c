"""Evaluations that are kept: one JSON file each, found again by the collection that they are of.

$SIEVE_HOME/evaluations/COLLECTION_SHA256[:16]/TIME-CHECKPOINT.json

Each holds the table, every pair's AP@10 and violation@10 by every method, and the results of the
pairs where Sieve wins and loses most: see `sieve.model.benchmark.results`. Read, one takes a
megabyte of memory, so of all that are kept only what a list tells of them stays there.
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
    read_numbers,
    read_text,
    read_track,
    read_whole,
    tell_track,
)
from sieve.model.files import claim_name, sieve_home, temporary_beside

SCHEMA_VERSION = 1
MAX_BYTES = 16 * 2**20
"""A larger file is none of ours."""
_SIEVE = "Sieve"
_DAMAGES = (ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError)
"""What reading something else than an evaluation raises."""


class Named(NamedTuple):
    """What was measured, or trained on."""

    name: str
    sha256: str


@dataclass(frozen=True)
class EvaluationSummary:
    """What a list tells of one evaluation."""

    path: Path
    made: str
    """When, as 2026-01-31T12:00:00Z."""
    collection: Named
    train: Named
    checkpoint: Named | None
    """None where encoders were trained for it."""
    seeds: tuple[int, ...]
    track_names: tuple[str, ...]
    is_short: bool
    """Whether peers that have to be trained are missing."""

    @property
    def id(self) -> str:
        """Name of its file without the ending."""
        return self.path.stem


@dataclass(frozen=True)
class Evaluation:
    """One run of the benchmark, as it is kept."""

    glance: EvaluationSummary
    backbone_recall: Mapping[str, float]
    tracks: tuple[TrackResult, ...]


def evaluations_folder(collection_sha256: str) -> Path:
    """Where evaluations of a collection are kept."""
    return sieve_home() / "evaluations" / collection_sha256[:16]


def keep_evaluation(result: BenchmarkResult, checkpoint: str = "") -> Path:
    """Write a result where the explorer finds it.

    Parameters
    ----------
    result : BenchmarkResult
    checkpoint : str
        Name of the checkpoint that was measured as Sieve, if one was.

    Returns
    -------
    Path
        Of the new file, which is whole from the moment it is there.
    """
    now = time.gmtime()
    entry = {
        **result.as_json(),
        "schema_version": SCHEMA_VERSION,
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", now),
        "collection": Named(result.collection, result.collection_sha256)._asdict(),
        "train": Named(result.train, result.train_sha256)._asdict(),
        "checkpoint": Named(checkpoint, result.checkpoint)._asdict() if result.checkpoint else None,
        "settings": result.settings(),
        "tracks": list(map(tell_track, result.tracks)),
    }
    folder = evaluations_folder(result.collection_sha256)
    folder.mkdir(parents=True, exist_ok=True)
    word = re.sub(r"[^\w.-]+", "-", checkpoint)[:60].strip(".-") or "trained"
    stem = f"{time.strftime('%Y%m%d-%H%M%S', now)}-{word}"
    with temporary_beside(folder / f"{stem}.json") as draft:
        draft.write_text(json.dumps(entry, ensure_ascii=False), encoding="utf-8")
        return _named(draft, folder, stem)


def _named(draft: Path, folder: Path, stem: str) -> Path:
    """Give a whole file a name that no other has; names sort by time."""
    names = chain([stem], (f"{stem}-{number}" for number in count(2)))
    targets = (folder / f"{name}.json" for name in names)
    return next(target for target in targets if claim_name(draft, target))


def list_evaluations(collection_sha256: str) -> tuple[list[EvaluationSummary], list[str]]:
    """List all evaluations of a collection; each file is read once, however often this is asked.

    Returns
    -------
    list of Glance
        Newest first.
    list of str
        A line for each file that cannot be read.
    """
    found, faults = [], []
    paths = evaluations_folder(collection_sha256).glob("[!.]*.json")
    for path in sorted(paths, key=lambda path: path.stem, reverse=True):
        try:
            looked = _look(path, *_version(path))
        except OSError as error:
            looked = str(error)
        if isinstance(looked, str):
            faults.append(" ".join(looked.split()))
        elif looked.collection.sha256 != collection_sha256:
            faults.append(f"{path} is of another collection; remove it")
        else:
            found.append(looked)
    return found, faults


def _version(path: Path) -> tuple[int, int]:
    """Tell a file's contents from others: by when it was changed, in ns, and its bytes."""
    state = path.stat()
    return state.st_mtime_ns, state.st_size


@cache
def _look(path: Path, changed: int, size: int) -> EvaluationSummary | str:
    """Tell of each contents of a file what a list needs, or why it cannot be read."""
    try:
        return _read(path, changed, size).glance
    except ValueError as error:
        return str(error)


def read_evaluation(path: Path) -> Evaluation:
    """Read one evaluation.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If it is damaged or of another version, in one line.
    """
    return _read(path, *_version(path))


@lru_cache(maxsize=8)
def _read(path: Path, changed: int, size: int) -> Evaluation:  # noqa: ARG001
    """Read a file once for each of its contents, while it is among those that people look at."""
    if size > MAX_BYTES:
        raise ValueError(f"{path} is larger than {MAX_BYTES:,} bytes: no evaluation; remove it")
    try:
        entry = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
        version = entry["schema_version"]
        evaluation = _evaluation(path, entry) if version == SCHEMA_VERSION else None
    except _DAMAGES as error:
        reason = f"{type(error).__name__}: {error}"[:80]
        raise ValueError(
            f"{path} is damaged ({reason}); remove it, and evaluate again with "
            "`sieve evaluate COLLECTION`"
        ) from None
    if evaluation is None:
        raise ValueError(
            f"{path} has schema_version {version!r:.20}, this Sieve reads {SCHEMA_VERSION}; "
            "evaluate again with `sieve evaluate COLLECTION`"
        )
    return evaluation


def _evaluation(path: Path, entry: dict[str, Any]) -> Evaluation:
    given = entry["checkpoint"]
    tracks = tuple(map(read_track, entry["tracks"]))
    methods = {method.method for track in tracks for method in track.methods}
    glance = EvaluationSummary(
        path=path,
        made=read_text(entry["made"]),
        collection=_named_from(entry["collection"]),
        train=_named_from(entry["train"]),
        checkpoint=None if given is None else _named_from(given),
        seeds=tuple(map(read_whole, entry["seeds"])),
        track_names=tuple(track.track for track in tracks),
        is_short=not methods.issuperset(set(TRAINED) - {_SIEVE}),
    )
    return Evaluation(glance, read_numbers(entry["backbone_recall"]), tracks)


def _named_from(entry: dict[str, Any]) -> Named:
    return Named(read_text(entry["name"]), read_text(entry["sha256"]))


def _refuse(constant: str) -> None:
    raise TypeError(f"{constant} is no number")
