"""Find checkpoints by name, on the Hub or by the collection that they fit, and explain the default.

An explorer without --checkpoint opens the first of `list_fitting`.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import NamedTuple

from sieve import assets
from sieve.model.checkpoint import (
    CONFIG,
    FILES,
    NAMES,
    REMEDY,
    TRAINING,
    VERSIONS,
    CheckpointConfig,
    TrainingRecord,
)
from sieve.model.collection import Collection
from sieve.model.files import check_files, read_head, read_json, sieve_home
from sieve.model.hub import download, is_reference

log = logging.getLogger(__name__)

QUICK_STEPS = 300
QUICK_DIMENSIONS = 256
"""A checkpoint with fewer steps or dimensions is a trial, and the last choice as default."""
AS_GOOD = 0.05
"""Largest difference of relative recalls that does not make a checkpoint weaker than another."""


def checkpoint_folders() -> list[Path]:
    """Return the folders of all installed checkpoints: the user's, newest first, then bundled."""
    own = (sieve_home() / "checkpoints").glob("*/" + CONFIG)
    newest_first = sorted(own, key=lambda config: -config.stat().st_mtime)
    bundled = sorted((assets.ROOT / "checkpoints").glob("*/" + CONFIG))
    return [config.parent for config in [*newest_first, *bundled]]


class FittingCheckpoint(NamedTuple):
    """A checkpoint that fits a collection."""

    path: Path
    trained_on: str
    own: bool
    """Whether it was trained on a collection of this name."""
    quick: str
    """Size of a quick training, such as "20 steps"; empty for a full one."""
    recall: float | None
    """Its text-to-image recall@10 on validation items, relative to the backbone's; None if it was
    not recorded."""

    @property
    def name(self) -> str:
        """Name for --checkpoint, with the origin if it is bundled."""
        is_bundled = self.path.resolve().parent == (assets.ROOT / "checkpoints").resolve()
        return f"{self.path.name}{' (bundled)' if is_bundled else ''}"

    def is_weaker(self, other: FittingCheckpoint) -> bool:
        """Return whether its recall is lower; comparable only if both have the same items."""
        if self.recall is None or other.recall is None or self.trained_on != other.trained_on:
            return False
        return self.recall < other.recall - AS_GOOD


def list_fitting(collection: Collection) -> list[FittingCheckpoint]:
    """Return the installed checkpoints that fit a collection, the best first.

    Full trainings precede quick ones. Then, those whose validation recall is as good as that of
    others on the same collection precede weaker ones, those on a collection of this name precede
    others of the same backbone, and the user's newest precede the bundled ones. External codes have
    only their own.
    """
    fitting = _by_date(collection)

    def rank(one: FittingCheckpoint) -> tuple[bool, bool]:
        return bool(one.quick), any(map(one.is_weaker, fitting))

    return sorted(fitting, key=rank)


def _by_date(collection: Collection) -> list[FittingCheckpoint]:
    """Return the fitting checkpoints by their collection and date, without regard to quality."""
    if collection.codes:
        return [FittingCheckpoint(collection.path, collection.name, True, "", None)]
    fitting = []
    for folder in checkpoint_folders():
        try:
            check_files(folder, f"{REMEDY}; it is left out", [CONFIG])
            config = read_head(folder / CONFIG, CheckpointConfig, REMEDY, *VERSIONS)
        except (OSError, ValueError) as error:
            # A damaged checkpoint must not prevent the collection from opening with another one.
            log.warning("%s: %s", folder / CONFIG, error)
            continue
        if config.backbone and config.backbone.sha256 == collection.backbone.sha256:
            own = config.trained_on == collection.name
            quick, recall = _training_quality(folder, config.m)
            fitting.append(FittingCheckpoint(folder, config.trained_on, own, quick, recall))
    return sorted(fitting, key=lambda one: (not one.own, one.trained_on == "scenes"))


def _training_quality(folder: Path, m: int) -> tuple[str, float | None]:
    """Return the size of a quick training, empty for a full one, and the recorded recall."""
    try:
        training = read_json(folder / TRAINING, TrainingRecord, REMEDY)
    except (OSError, ValueError):
        training = TrainingRecord()
    steps = training.curves[-1].step if training.curves else QUICK_STEPS
    if steps < QUICK_STEPS:
        quick = f"{steps} step{'' if steps == 1 else 's'}"
    else:
        quick = f"{m} dimensions" if m < QUICK_DIMENSIONS else ""
    return quick, training.quality.relative_recall


class CheckpointChoice(NamedTuple):
    """Reason for opening a checkpoint, if another one could have been expected."""

    reason: str = ""
    """A sentence; empty if the choice is obvious."""
    other: str = ""
    """Name of the other checkpoint; empty if there is none."""

    def __str__(self) -> str:
        offer = f" Open {self.other} with --checkpoint {self.other}." if self.other else ""
        return self.reason + offer


def explain_choice(collection: Collection, opened: Path) -> CheckpointChoice:
    """Return why a checkpoint is open by default, if this is not obvious, and the other one."""
    fitting = list_fitting(collection)
    now = next((one for one in fitting if one.path.resolve() == opened.resolve()), None)
    if now is None:
        return CheckpointChoice()
    best = fitting[0]
    if now.quick and best.quick:
        short = f"{now.name} had only a quick training ({now.quick})"
        return CheckpointChoice(f"{short}; train a longer one with `sieve train`.")
    if fault := _fault(now, best):
        return CheckpointChoice(f"{now.name} {fault}; {best.name} is better.", best.path.name)
    # By collection and date alone, another one would have been opened.
    expected = _by_date(collection)[0]
    if now != best or not (fault := _fault(expected, now)):
        return CheckpointChoice()
    return CheckpointChoice(
        f"{now.name} is open, because {expected.name} {fault}.", expected.path.name
    )


def _fault(one: FittingCheckpoint, other: FittingCheckpoint) -> str:
    """Describe why a checkpoint is worse than another; empty if it is not."""
    faults = []
    if one.quick and not other.quick:
        faults.append(f"had only a quick training ({one.quick})")
    if one.is_weaker(other):
        recalls = f"{one.recall:.2f} < {other.recall:.2f} of the backbone's"
        faults.append(f"has a lower validation recall ({recalls})")
    return " and ".join(faults)


def find_checkpoint(collection: Collection) -> Path:
    """Return the first of `list_fitting`, or raise a FileNotFoundError."""
    fitting = list_fitting(collection)
    if not fitting:
        raise FileNotFoundError(
            f"no checkpoint fits backbone {collection.backbone.name} of collection "
            f"{collection.name}; train one with `sieve train {collection.path}`"
        )
    return fitting[0].path


def checkpoint_path(name: str) -> Path:
    """Return the path of a checkpoint: a path, a name in `$SIEVE_HOME`, or a bundled name.

    `hf://ORG/NAME@REVISION` is downloaded from the Hub if it is not cached; see `download`. A
    folder that is not a checkpoint does not hide a checkpoint of the same name. Raises a
    FileNotFoundError that lists the existing names if there is none of that name.
    """
    if is_reference(name):
        return download(name, "model", FILES, NAMES)
    path = Path(name).expanduser()
    if (path / CONFIG).is_file():
        return path
    folders = checkpoint_folders()
    for folder in folders:
        if folder.name == name:
            return folder
    if path.exists():
        return path  # opening it raises the right error
    known = ", ".join(dict.fromkeys(folder.name for folder in folders)) or "none"
    raise FileNotFoundError(
        f"there is no checkpoint {name[:200]!r}; there are: {known}. Give the path of one, "
        "hf://ORG/NAME, or make one with `sieve train COLLECTION`"
    )


def default_checkpoint_out(collection: str) -> Path:
    """Return an unused path in `$SIEVE_HOME` for a checkpoint of a collection."""
    folder = sieve_home() / "checkpoints"
    # A collection's name is untrusted, so it is reduced to word characters.
    stem = re.sub(r"[^\w.-]+", "-", collection)[:80].strip(".-") or "codes"
    number, name = 1, stem
    while (folder / name).exists():
        number += 1
        name = f"{stem}-{number}"
    return folder / name
