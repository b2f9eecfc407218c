"""What a person may choose of a training, read as a stranger's input."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from explorer.json_fields import (
    check_choice,
    check_number,
    read_object,
    read_whole,
    refuse_unknown,
)
from model.training import PRESETS, TrainingConfig

MAX_M = 16_384
MAX_EPOCHS = 1000
_FIELDS = {"preset", "m", "k", "epochs"}


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

    def __post_init__(self) -> None:
        check_choice("preset", self.preset, tuple(PRESETS))
        check_number("m, the dimensions of a code,", self.m, 1, MAX_M)
        check_number("k, the active dimensions,", self.k, 1, self.m, "(m)")
        check_number("epochs", self.epochs, 0, MAX_EPOCHS)

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
            field: read_whole(field, given.get(field, getattr(preset, field)))
            for field in ("m", "k", "epochs")
        }
        return cls(name, **numbers)

    def config(self) -> TrainingConfig:
        """Make the whole configuration."""
        return replace(PRESETS[self.preset], m=self.m, k=self.k, epochs=self.epochs)
