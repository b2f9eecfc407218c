"""What a benchmark measures, and how."""

from __future__ import annotations

from dataclasses import dataclass, field

from sieve.model.benchmark.methods import METHODS, TRAINING_FREE
from sieve.model.collection import Collection
from sieve.model.evaluation import TRACKS, PairCriteria, TrackName
from sieve.model.training import TrainingConfig

SHORT_METHODS = (*TRAINING_FREE, "Sieve")
"""What can be measured in a minute or two with one checkpoint, as nothing has to be trained."""


@dataclass(frozen=True)
class BenchmarkConfig:
    """What is measured, and how."""

    tracks: tuple[TrackName, ...] = ("label", "caption")
    methods: tuple[str, ...] = METHODS
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of training."""
    trials: int = 60
    """Settings that each method draws."""
    resamples: int = 1000
    """Of the bootstrap."""
    law: PairCriteria = field(default_factory=PairCriteria)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """Sieve's; its peers take their length and batches from it."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.methods if name not in METHODS]
        if unknown:
            raise ValueError(
                f"there is no method {', '.join(unknown)}; there are: {', '.join(METHODS)}"
            )
        if not self.seeds or not self.tracks:
            raise ValueError("at least one seed and one track are needed")
        if self.trials < 1 or self.resamples < 1:
            raise ValueError(
                f"trials and resamples must be at least 1; got {self.trials}, {self.resamples}"
            )


def tracks_of(collection: Collection) -> tuple[TrackName, ...]:
    """List the tracks that a collection has what it takes for.

    Raises
    ------
    ValueError
        If it has neither labels nor captions.
    """
    has = {"label": collection.has_labels, "caption": collection.n_captions > 0}
    tracks: tuple[TrackName, ...] = tuple(track for track in TRACKS if has[track])
    if not tracks:
        raise ValueError(f"collection {collection.name} has neither labels nor captions to ask for")
    return tracks
