"""Settings of a training that is started from the page."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from sieve.explorer.json_validation import Whole, check_choice, read_object, validate
from sieve.model.hyperparameters import PRESETS, TrainingConfig

MAX_M = 16_384
MAX_EPOCHS = 1000
MAX_WEIGHT = 1000
Weight = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, le=MAX_WEIGHT)]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class TrainingSettings:
    """A preset with changed hyperparameters."""

    preset: str = "compact"
    m: Annotated[Whole, Field(ge=1, le=MAX_M)] = PRESETS["compact"].m
    """Number of dimensions of a code."""
    k: Annotated[Whole, Field(ge=1)] = PRESETS["compact"].k
    """Maximum number of active dimensions."""
    epochs: Annotated[Whole, Field(ge=0, le=MAX_EPOCHS)] = 0
    """Passes over all captions; 0 chooses a number by the size of the collection."""
    weights: dict[str, Weight] = Field(default_factory=dict)
    """Loss weights by the names of `TrainingConfig`; missing ones are taken from the preset."""

    def __post_init__(self) -> None:
        known = PRESETS[check_choice("preset", self.preset, tuple(PRESETS))].weights()
        if self.k > self.m:
            raise ValueError(f"k must be at most m = {self.m}; got {self.k}")
        for name in self.weights:
            check_choice(f"a loss of {self.preset}", name, tuple(known))
        # Reviving dead dimensions alone is no training objective.
        if not any((known | self.weights)[name] for name in known if name != "revive"):
            raise ValueError("at least one loss needs a weight above 0")

    @classmethod
    def from_payload(cls, payload: Any) -> TrainingSettings:
        """Validate the JSON of a request; missing fields are taken from the preset.

        Raises a ValueError that names the field if one is unknown or has an invalid value.
        """
        given = read_object(payload, "training settings")
        preset = PRESETS[check_choice("preset", given.get("preset", "compact"), tuple(PRESETS))]
        numbers = {"m": preset.m, "k": preset.k, "epochs": preset.epochs}
        return validate(cls, {**numbers, **given}, "training settings")

    def config(self) -> TrainingConfig:
        """Return the complete training configuration."""
        numbers = {"m": self.m, "k": self.k, "epochs": self.epochs}
        return replace(PRESETS[self.preset], **numbers, **self.weights)
