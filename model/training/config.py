"""How to train: every setting of a training, checked, and the presets."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from sieve.model.encoder import Activation, SparseEncoderConfig
from sieve.model.training.objectives import LOSSES, OBJECTIVES, ObjectiveName

_EPOCHS = 15
_MIN_STEPS = 300


@dataclass(frozen=True)
class TrainingConfig:
    """How to train; the defaults are the `compact` preset."""

    m: int = 1024
    """Dimensions of a code."""
    k: int = 64
    """At most this many are active."""
    k_text: int = 0
    """At most this many in a text's code; 0: as many as in an image's."""
    floor: float = 0.0
    """Activations below this share of the largest are dropped."""
    epochs: int = 0
    """Passes over all captions of the train split; 0: 15, or as many as make 300 steps."""
    batch_size: int = 1024
    """Pairs a step."""
    learning_rate: float = 2e-3
    """Peak, after a warm-up of 5 % of the steps and before a cosine decay to 0."""
    weight_decay: float = 0.3
    """Of AdamW; strong, as thousands of pairs must teach half a million weights."""
    noise: float = 0.5
    """Length of the noise added to unit embeddings."""
    contrast: float = 1.0
    """Weight of InfoNCE between the codes of a pair."""
    reconstruct: float = 1.0
    """Weight of reconstruction at k and at 4k."""
    cross: float = 0.5
    """Weight of reconstructing an image from its caption's code and back."""
    presence: float = 3.0
    """Weight of word presence."""
    narrow: float = 30.0
    """Weight of word presence by a word's strongest dimension alone: it gives words their own."""
    exclude: float = 1.0
    """Weight of ranking A-without-B above all else."""
    balance: float = 1.0
    """Weight of each dimension being used alike by images and texts."""
    revive: float = 1 / 32
    """Weight of the auxiliary loss of dead dimensions."""
    n_words: int = 256
    """Words sampled a step."""
    n_exclusions: int = 256
    """Pairs of words, "A without B", drawn a step."""
    kinds: bool = True
    """Captions also tell what their nouns are kinds of: a dog is an animal."""
    anneal: float = 0.3
    """Share of the steps over which k falls from 4k to k."""
    seed: int = 0
    """Of everything that is drawn."""
    activation: Activation = "topk"
    """How a linear map becomes a code."""
    objective: ObjectiveName = "compact"
    """What a step's losses are; the weights above scale those of the same name."""

    def __post_init__(self) -> None:
        self.shape(1)
        if self.objective not in OBJECTIVES:
            raise ValueError(
                f"objective must be one of {tuple(OBJECTIVES)}; got {self.objective!r}"
            )
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1; got {self.batch_size}")
        for name, value in asdict(self).items():
            if not isinstance(value, str) and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be a finite number of at least 0; got {value}")

    def steps(self, steps_per_epoch: int) -> int:
        """Count the steps of a whole training."""
        if self.epochs:
            return self.epochs * steps_per_epoch
        # A small collection has few steps a pass: it is passed over more often.
        return max(_EPOCHS, math.ceil(_MIN_STEPS / steps_per_epoch)) * steps_per_epoch

    def weighted(self) -> frozenset[str]:
        """Losses of a weight above 0."""
        return frozenset(name for name in LOSSES if getattr(self, name) > 0)

    def weights(self) -> dict[str, float]:
        """Weights of the losses that the objective has, by name."""
        asks = OBJECTIVES[self.objective].asks
        return {name: value for name, value in asdict(self).items() if name in asks}

    def shape(self, d: int) -> SparseEncoderConfig:
        """Shape of the encoder for embeddings of width d."""
        return SparseEncoderConfig(d, self.m, self.k, self.activation, self.k_text, self.floor)


PAPER = TrainingConfig(
    m=1000,
    k=256,
    objective="paper",
    noise=0.0,
    contrast=1.0,
    reconstruct=1.0,
    cross=0.0,
    presence=0.0,
    narrow=0.0,
    exclude=0.0,
    balance=0.0,
    revive=0.0,
    n_words=0,
    kinds=False,
    learning_rate=1e-3,
    weight_decay=0.0,
)
"""The `paper` preset: see `sieve.model.training.objectives.Paper`.

The paper's own learning rate, 1e-4 to 1e-5 at batch 4,096, belongs to many more pairs: of 1e-3,
3e-4 and 1e-4, this one had the highest recall on the select items of a small collection.
"""
PRESETS = {"compact": TrainingConfig(), "paper": PAPER}
