"""Settings of a training that is started from the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sieve.explorer.json_validation import (
    check_choice,
    check_number,
    read_number,
    read_object,
    read_whole,
    refuse_unknown,
)
from sieve.model.hyperparameters import PRESETS, TrainingConfig

MAX_M = 16_384
MAX_EPOCHS = 1000
MAX_WEIGHT = 1000
_NUMBERS = ("m", "k", "epochs")
_FIELDS = {"preset", "weights", *_NUMBERS}


@dataclass(frozen=True)
class TrainingSettings:
    """A preset with changed hyperparameters."""

    preset: str = "compact"
    m: int = PRESETS["compact"].m
    """Number of dimensions of a code."""
    k: int = PRESETS["compact"].k
    """Maximum number of active dimensions."""
    epochs: int = 0
    """Passes over all captions; 0 chooses a number by the size of the collection."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Loss weights by the names of `TrainingConfig`; missing ones are taken from the preset."""

    def __post_init__(self) -> None:
        check_choice("preset", self.preset, tuple(PRESETS))
        check_number("m, the dimensions of a code,", self.m, 1, MAX_M)
        check_number("k, the active dimensions,", self.k, 1, self.m, "(m)")
        check_number("epochs", self.epochs, 0, MAX_EPOCHS)
        known = PRESETS[self.preset].weights()
        for name, weight in self.weights.items():
            check_number(f"the weight of {name}", weight, 0, MAX_WEIGHT)
        # Reviving dead dimensions alone is no training objective.
        aims = {name: self.weights.get(name, known[name]) for name in known if name != "revive"}
        if not any(aims.values()):
            raise ValueError("at least one loss needs a weight above 0")

    @classmethod
    def from_payload(cls, payload: Any) -> TrainingSettings:
        """Validate the JSON of a request; missing fields are taken from the preset.

        Raises
        ------
        ValueError
            If a field is unknown or has an invalid value; the message names the field.
        """
        given = read_object(payload, "training settings")
        refuse_unknown(given, _FIELDS, "training settings")
        name = check_choice("preset", given.get("preset", "compact"), tuple(PRESETS))
        preset = PRESETS[name]
        numbers = {
            field: read_whole(field, given.get(field, getattr(preset, field))) for field in _NUMBERS
        }
        weights = read_object(given.get("weights", {}), "weights")
        refuse_unknown(weights, set(preset.weights()), f"the losses of {name}")
        read = {loss: read_number(f"the weight of {loss}", weights[loss]) for loss in weights}
        return cls(name, weights=read, **numbers)

    def config(self) -> TrainingConfig:
        """Return the complete training configuration."""
        numbers = {name: getattr(self, name) for name in _NUMBERS}
        return replace(PRESETS[self.preset], **numbers, **self.weights)
