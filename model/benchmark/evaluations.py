"""Evaluations that are kept: one JSON file each, found again by the collection that they are of.

$SIEVE_HOME/evaluations/COLLECTION_SHA256[:16]/TIME-CHECKPOINT.json

Each holds the table, every pair's AP@10 and violation@10 by every method, and the results of the
pairs where Sieve wins and loses most: see `model.benchmark.results`.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, count
from pathlib import Path
from typing import Any, NamedTuple

from model.benchmark.baselines import TRAINED
from model.benchmark.results import BenchmarkResult, TrackResult
from model.benchmark.told import read_numbers, read_text, read_track, read_whole, tell_track
from model.drafts import draft_beside, take_name
from model.home import sieve_home

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
class Evaluation:
    """One run of the benchmark, as it is kept."""

    id: str
    """Name of its file without the ending."""
    made: str
    """When, as 2026-01-31T12:00:00Z."""
    collection: Named
    train: Named
    checkpoint: Named | None
    """None where encoders were trained for it."""
    seeds: tuple[int, ...]
    backbone_recall: Mapping[str, float]
    tracks: tuple[TrackResult, ...]

    @property
    def is_short(self) -> bool:
        """Whether peers that have to be trained are missing."""
        names = {method.method for track in self.tracks for method in track.methods}
        return not names.issuperset(set(TRAINED) - {_SIEVE})


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
    with draft_beside(folder / f"{stem}.json") as draft:
        draft.write_text(json.dumps(entry, ensure_ascii=False), encoding="utf-8")
        return _named(draft, folder, stem)


def _named(draft: Path, folder: Path, stem: str) -> Path:
    """Give a whole file a name that no other has; names sort by time."""
    names = chain([stem], (f"{stem}-{number}" for number in count(2)))
    targets = (folder / f"{name}.json" for name in names)
    return next(target for target in targets if take_name(draft, target))


def list_evaluations(collection_sha256: str) -> tuple[list[Evaluation], list[str]]:
    """Read all evaluations of a collection.

    Returns
    -------
    list of Evaluation
        Newest first.
    list of str
        A line for each file that cannot be read.
    """
    found, faults = [], []
    paths = evaluations_folder(collection_sha256).glob("[!.]*.json")
    for path in sorted(paths, key=lambda path: path.stem, reverse=True):
        try:
            evaluation = read_evaluation(path)
            if evaluation.collection.sha256 != collection_sha256:
                raise ValueError(f"{path} is of another collection; remove it")
        except (OSError, ValueError) as error:
            faults.append(" ".join(str(error).split()))
        else:
            found.append(evaluation)
    return found, faults


def read_evaluation(path: Path) -> Evaluation:
    """Read one evaluation.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If it is damaged or of another version, in one line.
    """
    state = path.stat()
    if state.st_size > MAX_BYTES:
        raise ValueError(f"{path} is larger than {MAX_BYTES:,} bytes: no evaluation; remove it")
    return _read(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=64)
def _read(path: Path, changed: int, size: int) -> Evaluation:  # noqa: ARG001
    """Read a file once for each of its contents."""
    try:
        entry = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
        version = entry["schema_version"]
        evaluation = _evaluation(path.stem, entry) if version == SCHEMA_VERSION else None
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


def _evaluation(name: str, entry: dict[str, Any]) -> Evaluation:
    given = entry["checkpoint"]
    return Evaluation(
        id=name,
        made=read_text(entry["made"]),
        collection=_named_from(entry["collection"]),
        train=_named_from(entry["train"]),
        checkpoint=None if given is None else _named_from(given),
        seeds=tuple(map(read_whole, entry["seeds"])),
        backbone_recall=read_numbers(entry["backbone_recall"]),
        tracks=tuple(map(read_track, entry["tracks"])),
    )


def _named_from(entry: dict[str, Any]) -> Named:
    return Named(read_text(entry["name"]), read_text(entry["sha256"]))


def _refuse(constant: str) -> None:
    raise TypeError(f"{constant} is no number")
