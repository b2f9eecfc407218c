"""Configurations of the sparse encoder and of its training, with presets.

This module does not import torch, so that the command line can list the options quickly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

from pydantic import ConfigDict

Activation = Literal["topk", "elu", "dense", "jumprelu"]
"""Activation function: `topk` keeps the k largest values of ReLU, `elu` the k largest of ELU + 1
(always positive), `dense` is the identity, a control without sparse codes, and `jumprelu` keeps the
values of ReLU above a threshold of their dimension (imported encoders only)."""
InputNorm = Literal["centred", "none", "unit", "layer"]
"""Normalisation of the embeddings: `centred`, minus the mean of the modality and renormalised;
`none`; `unit`, L2-normalised; `layer`, to mean 0 and standard deviation 1."""

IMAGE = "image"
TEXT = "text"
MODALITIES = (IMAGE, TEXT)


@dataclass(frozen=True)
class SparseEncoderConfig:
    """Shape of a sparse encoder."""

    d: int
    """Width of the backbone's embeddings."""
    m: int = 1024
    """Number of dimensions of a code."""
    k: int = 64
    """Maximum number of active dimensions of a code."""
    activation: Activation = "topk"
    """Activation function."""
    k_text: int = 0
    """Maximum number of active dimensions of a text's code; 0 means k."""
    floor: float = 0.0
    """Activations below this share of their row's largest are dropped, so that short queries have
    few dimensions and complex images many."""
    text_power: float = 1.0
    """Power of the activations of texts when they are encoded; training uses 1."""
    input_norm: InputNorm = "centred"
    """Normalisation of the input; other values than `centred` are those of imported encoders."""
    input_scale: float = 1.0
    """Factor of the input: before `layer`, after `unit`; unused by `centred`."""
    soft_cap: float = 0.0
    """Activations z become soft_cap * tanh(z / soft_cap); 0: no cap."""

    def __post_init__(self) -> None:
        if self.d < 1:
            raise ValueError(f"d must be at least 1; got {self.d}")
        if self.m < 1:
            raise ValueError(f"m must be at least 1; got {self.m}")
        if not 1 <= self.k <= self.m:
            raise ValueError(f"k must be between 1 and m={self.m}; got {self.k}")
        if not 0 <= self.k_text <= self.m:
            raise ValueError(f"k_text must be between 0 and m={self.m}; got {self.k_text}")
        if not 0 <= self.floor < 1:
            raise ValueError(f"floor must be at least 0 and less than 1; got {self.floor}")
        if not self.text_power > 0:
            raise ValueError(f"text_power must be positive; got {self.text_power}")
        if not 0 < self.input_scale < math.inf or not 0 <= self.soft_cap < math.inf:
            raise ValueError(
                "input_scale must be positive and soft_cap not negative; got "
                f"{self.input_scale}, {self.soft_cap}"
            )

    @property
    def is_trainable(self) -> bool:
        """Whether Sieve can train such an encoder; others are imported."""
        return self.activation != "jumprelu" and self.input_norm == "centred" and not self.soft_cap

    @property
    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the weights by name; `bias` and `centre` have a row for each modality."""
        m, d = self.m, self.d
        shapes: dict[str, tuple[int, ...]] = {
            "encode_md": (m, d), "decode_md": (m, d), "bias": (2, m), "centre": (2, d)
        }  # fmt: skip
        if self.activation == "jumprelu":
            shapes["threshold"] = (m,)
        if not self.is_trainable:
            shapes["decode_bias"] = (d,)
        return shapes

    def active(self, modality: str) -> int:
        """Return the maximum number of active dimensions of the codes of "image" or "text"."""
        return self.k_text or self.k if modality == TEXT else self.k


LOSSES = frozenset(
    {
        "contrast",
        "reconstruct",
        "cross",
        "presence",
        "narrow",
        "assign",
        "concentrate",
        "exclude",
        "balance",
        "revive",
    }
)
ObjectiveName = Literal["compact", "paper", "vocabulary"]
LOSSES_OF_OBJECTIVE: dict[str, frozenset[str]] = {
    "compact": LOSSES,
    "paper": frozenset({"contrast", "reconstruct"}),
    "vocabulary": frozenset({"contrast"}),
}
"""Names of the losses of each objective in `sieve.model.training.objectives`."""
_EPOCHS = 15
_MIN_STEPS = 300


@dataclass(frozen=True)
class TrainingConfig:
    """Hyperparameters of a training run; the defaults are the `compact` preset.

    `sieve train` and the form of the Train tab have an option for each field, with its docstring as
    help, except for those in `SET_BY_PRESET`.
    """

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)

    m: int = 1024
    """Number of dimensions of a code."""
    k: int = 64
    """Maximum number of active dimensions of an image code (TopK)."""
    k_text: int = 0
    """Maximum number of active dimensions of a text code; 0: the same as k."""
    floor: float = 0.0
    """Drop activations below this share of the largest."""
    text_power: float = 2.0
    """Power of the activations of texts after training; more concentrates their codes."""
    epochs: int = 0
    """Epochs over all captions of the train split; 0 chooses 15, or more to reach 300 steps."""
    batch_size: int = 1024
    """Pairs per step."""
    learning_rate: float = 2e-3
    """Peak learning rate; 5% linear warm-up, then cosine decay to 0."""
    weight_decay: float = 0.3
    """Weight decay of AdamW; strong, because a few thousand pairs train half a million weights."""
    noise: float = 0.5
    """Norm of the Gaussian noise added to unit embeddings."""
    contrast: float = 1.0
    """Weight of InfoNCE between the codes of a pair."""
    reconstruct: float = 1.0
    """Weight of reconstruction at k and at 4k."""
    cross: float = 0.5
    """Weight of reconstructing an image from its caption's code and back."""
    presence: float = 3.0
    """Weight of the word presence loss."""
    narrow: float = 30.0
    """Weight of word presence by only the strongest dimension of a word."""
    assign: float = 30.0
    """Weight of word presence by only the dimension that is assigned to the word."""
    concentrate: float = 0.3
    """Weight of the loss that concentrates the code of a word on its assigned dimension."""
    exclude: float = 1.0
    """Weight of the exclusion loss, which ranks items with A and without B first."""
    balance: float = 1.0
    """Weight of the loss that balances the use of each dimension by images and texts."""
    revive: float = 1 / 32
    """Weight of the auxiliary loss of dead dimensions."""
    n_words: int = 256
    """Words sampled per step."""
    n_exclusions: int = 256
    """Pairs of words, "A without B", sampled per step."""
    kinds: bool = True
    """Also use the hypernyms of caption nouns: a dog is an animal."""
    anneal: float = 0.3
    """Share of the steps over which k is annealed from 4k to k."""
    seed: int = 0
    """Seed of all random draws."""
    activation: Activation = "topk"
    """Activation function that turns a linear map into a code."""
    objective: ObjectiveName = "compact"
    """Set of losses; the weights above scale the losses of the same name."""

    def __post_init__(self) -> None:
        if not self.shape(1).is_trainable:
            raise ValueError(
                f"activation must be topk or elu, or dense for a control; got {self.activation!r}, "
                "which imported encoders may have, but Sieve does not train"
            )
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1; got {self.batch_size}")
        if self.seed >= 2**63:
            raise ValueError(f"seed must be less than 2**63; got {self.seed}")
        # Reviving dead dimensions alone is no training objective.
        if not any(value for name, value in self.weights().items() if name != "revive"):
            raise ValueError("at least one loss needs a weight above 0")
        for name, value in asdict(self).items():
            if not isinstance(value, str) and not 0 <= value < math.inf:
                raise ValueError(f"{name} must be a finite number of at least 0; got {value}")

    def steps(self, steps_per_epoch: int) -> int:
        """Return the number of steps of the whole training."""
        if self.epochs:
            return self.epochs * steps_per_epoch
        # A small collection has few steps per epoch, so it gets more epochs.
        return max(_EPOCHS, math.ceil(_MIN_STEPS / steps_per_epoch)) * steps_per_epoch

    def weighted(self) -> frozenset[str]:
        """Return the names of the losses with a positive weight."""
        return frozenset(name for name in LOSSES if getattr(self, name) > 0)

    def weights(self) -> dict[str, float]:
        """Return the weights of the losses of the objective, by name."""
        names = LOSSES_OF_OBJECTIVE[self.objective]
        return {name: value for name, value in asdict(self).items() if name in names}

    def shape(self, d: int) -> SparseEncoderConfig:
        """Return the encoder configuration for embeddings of width d."""
        return SparseEncoderConfig(
            d, self.m, self.k, self.activation, self.k_text, self.floor, self.text_power
        )


PAPER = TrainingConfig(
    m=1000,
    text_power=1.0,
    k=256,
    objective="paper",
    noise=0.0,
    contrast=1.0,
    reconstruct=1.0,
    cross=0.0,
    presence=0.0,
    narrow=0.0,
    assign=0.0,
    concentrate=0.0,
    exclude=0.0,
    balance=0.0,
    revive=0.0,
    n_words=0,
    kinds=False,
    learning_rate=1e-3,
    weight_decay=0.0,
)
"""The `paper` preset: see `sieve.model.training.objectives.Paper`.

The learning rate of the paper, 1e-4 to 1e-5 at batch size 4,096, is for many more pairs. Of 1e-3,
3e-4 and 1e-4, this one had the highest recall on the validation split of a small collection.
"""
PRESETS = {"compact": TrainingConfig(), "paper": PAPER}
SET_BY_PRESET = frozenset({"n_words", "n_exclusions", "kinds", "anneal", "activation", "objective"})
"""Fields of `TrainingConfig` that only Python code can change."""
OPTIONS = tuple(one.name for one in fields(TrainingConfig) if one.name not in SET_BY_PRESET)
"""Fields of `TrainingConfig` that the command line and the page offer."""


def configure(preset: str, changes: Mapping[str, Any]) -> TrainingConfig:
    """Return a preset with changed hyperparameters.

    Raises a ValueError if a value is out of range, or is a weight of a loss that the objective does
    not have.
    """
    config = replace(PRESETS[preset], **changes)
    for name in sorted(LOSSES - LOSSES_OF_OBJECTIVE[config.objective]):
        if getattr(config, name) != getattr(PRESETS[preset], name):
            objective, known = config.objective, ", ".join(config.weights())
            raise ValueError(f"the objective {objective} has no loss {name}; it has: {known}")
    return config


ImportTool = Literal["auto", "SAELens", "sparsify", "overcomplete", "MSAE"]
ImportActivation = Literal["", "relu", "topk", "jumprelu", "batchtopk"]
TENSOR_ROLES = ("encode", "bias", "decode", "decode_bias", "input_bias", "threshold")
"""Parts of an encoder that `ImportSettings.tensors` can name."""


@dataclass(frozen=True)
class ImportSettings:
    """Facts about an encoder of another tool that its files do not record."""

    tool: ImportTool = "auto"
    """Tool that saved the encoder; by default recognised by its files."""
    activation: ImportActivation = ""
    """Activation function, if the files do not record it."""
    k: int = 0
    """Active dimensions of topk, if the files do not record them."""
    threshold: float | None = None
    """Threshold of jumprelu or batchtopk, if the files do not record it."""
    input_scale: float = 1.0
    """Factor of the L2-normalised embeddings, such as the mean norm of those that the encoder was
    trained on."""
    tensors: Mapping[str, str] = field(default_factory=dict)
    """Name of the tensor of each part of an encoder of another tool; parts are `TENSOR_ROLES`."""
    any_hook: bool = False
    """Accept an encoder of a hook that is not known to be the embedding."""

    def __post_init__(self) -> None:
        if self.k < 0 or not (math.isfinite(self.input_scale) and self.input_scale > 0):
            raise ValueError(
                f"k must not be negative and the input scale must be positive; got {self.k}, "
                f"{self.input_scale}"
            )
        if self.threshold is not None and not 0 <= self.threshold < math.inf:
            raise ValueError(f"the threshold must be at least 0; got {self.threshold}")
