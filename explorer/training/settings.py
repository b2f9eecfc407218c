"""What a person may choose of a training, read as a stranger's input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sieve.explorer.json_fields import (
    check_choice,
    check_number,
    read_number,
    read_object,
    read_whole,
    refuse_unknown,
)
from sieve.model.training import PRESETS, TrainingConfig

MAX_M = 16_384
MAX_EPOCHS = 1000
MAX_WEIGHT = 1000
_NUMBERS = ("m", "k", "epochs")
_FIELDS = {"preset", "weights", *_NUMBERS}


@dataclass(frozen=True)
class TrainingSettings:
    """A preset, and what is changed of it."""

    preset: str = "compact"
    m: int = PRESETS["compact"].m
    """Dimensions of a code."""
    k: int = PRESETS["compact"].k
    """At most this many are active."""
    epochs: int = 0
    """Passes over all captions; 0: as many as the size of the collection asks for."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Of losses, by the names of `TrainingConfig`; those left out are the preset's."""

    def __post_init__(self) -> None:
        check_choice("preset", self.preset, tuple(PRESETS))
        check_number("m, the dimensions of a code,", self.m, 1, MAX_M)
        check_number("k, the active dimensions,", self.k, 1, self.m, "(m)")
        check_number("epochs", self.epochs, 0, MAX_EPOCHS)
        known = PRESETS[self.preset].weights()
        for name, weight in self.weights.items():
            check_number(f"the weight of {name}", weight, 0, MAX_WEIGHT)
        # Reviving dead dimensions is a care, no aim: with nothing else there is nothing to learn.
        aims = {name: self.weights.get(name, known[name]) for name in known if name != "revive"}
        if not any(aims.values()):
            raise ValueError("at least one loss needs a weight above 0")

    @classmethod
    def from_payload(cls, payload: Any) -> TrainingSettings:
        """Read what a browser or a file says; what is missing is the preset's.

        Raises
        ------
        ValueError
            In one line that names the field.
        """
        given = read_object(payload, "a training's settings")
        refuse_unknown(given, _FIELDS, "a training's settings")
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
        """Make the whole configuration."""
        numbers = {name: getattr(self, name) for name in _NUMBERS}
        return replace(PRESETS[self.preset], **numbers, **self.weights)
