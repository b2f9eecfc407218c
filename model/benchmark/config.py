"""Configuration of the exclusion benchmark, and checks of its inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from sieve.model.benchmark.methods import METHODS, TRAINING_FREE
from sieve.model.checkpoint import Checkpoint
from sieve.model.collection import Collection
from sieve.model.duplicates import evaluation_rows
from sieve.model.evaluation import TRACKS, PairCriteria, TrackName
from sieve.model.training import TrainingConfig

SHORT_METHODS = (*TRAINING_FREE, "Sieve")
"""Methods that need no training, measured in a minute or two with one checkpoint."""


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


def tracks_of(collection: Collection) -> tuple[TrackName, ...]:
    """Return the tracks that a collection has data for.

    Raises
    ------
    ValueError
        If it has neither labels nor captions.
    """
    has = {"label": collection.has_labels, "caption": collection.n_captions > 0}
    tracks: tuple[TrackName, ...] = tuple(track for track in TRACKS if has[track])
    if not tracks:
        raise ValueError(f"collection {collection.name} has neither labels nor captions")
    return tracks


def check_no_overlap(collection: Collection, trained: Iterable[str], what: str) -> None:
    """Check that no scored item was trained on.

    Raises
    ------
    ValueError
        If there are any; the message has their number.
    """
    scored = set(collection.items["id"].iloc[_scored_rows(collection)])
    shared = len(scored.intersection(trained))
    if shared:
        raise ValueError(
            f"{what} was trained on {shared:,} of the {len(scored):,} select and test items of "
            f"{collection.name} that would be scored; train on other items (--train)"
        )


def check_inputs(
    collection: Collection,
    train: Collection,
    checkpoint: Checkpoint | None,
    baselines: Mapping[str, Collection],
) -> None:
    """Check that the inputs of a benchmark fit together.

    Raises
    ------
    ValueError
        If a backbone differs, scored items were trained on, or a baseline lacks items.
    """
    inputs = [(f"collection {train.name}", train.backbone)]
    inputs += [(f"checkpoint {checkpoint.path}", checkpoint.backbone)] if checkpoint else []
    for name, backbone in inputs:
        if backbone.sha256 != collection.backbone.sha256:
            raise ValueError(
                f"{name} uses {backbone}, but collection {collection.name} uses "
                f"{collection.backbone}; prepare or train with the same backbone"
            )
    trained = train.items["id"].iloc[train.rows_of_split(["train"])].tolist()
    check_no_overlap(collection, trained, f"what {train.name} offers to train on")
    if checkpoint is not None:
        if not checkpoint.trained_items:
            raise ValueError(
                f"checkpoint {checkpoint.path} does not record its training items, so it cannot "
                "be scored; train again with `sieve train COLLECTION`"
            )
        check_no_overlap(collection, checkpoint.trained_items, f"checkpoint {checkpoint.path}")
    scored = collection.items["id"].iloc[_scored_rows(collection)]
    for name, other in baselines.items():
        if name in METHODS:
            raise ValueError(f"{name!r} is already a method; give the baseline another name")
        missing = sum(item not in other.row_of_id for item in scored)
        if missing:
            raise ValueError(
                f"baseline {name} lacks {missing:,} of the {len(scored):,} scored items; "
                "prepare its collection from the same images"
            )


def _scored_rows(collection: Collection) -> np.ndarray:
    """Return the select and test items that are scored: (r,) int64."""
    return np.concatenate([evaluation_rows(collection, split) for split in ("select", "test")])


def modality_means(collection: Collection) -> np.ndarray:
    """Return the mean image and mean caption of the train split: (2, d) float32; 0 if empty."""
    rows = collection.rows_of_split(["train"])
    means = np.zeros((2, collection.backbone.width), np.float32)
    captions = collection.captions_of_rows(rows)
    for j, (embeddings, chosen) in enumerate(
        ((collection.image_embeddings, rows), (collection.text_embeddings, captions))
    ):
        if len(chosen):
            means[j] = np.asarray(embeddings[chosen], np.float32).mean(0)
    return means
