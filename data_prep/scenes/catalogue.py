"""Objects and places of scenes, read from `assets/scenes/objects.json` and `places.json`.

Adding an object takes an entry and a sprite, no code. `assets/scenes/SOURCE.md` lists the keys.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from pydantic import TypeAdapter

from sieve.assets import ROOT

FOLDER: Path = ROOT / "scenes"


def read_json(name: str) -> Any:
    """Read a JSON file of the folder."""
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Name:
    """One way to call an object in a caption."""

    singular: str
    plural: str
    sprite: str | None = None
    """The only sprite that this name describes ("green apple"), or None if it describes all."""


@dataclass(frozen=True)
class SceneObject:
    """A type of object that scenes are composed of."""

    label: str
    synonyms: tuple[Name, ...]
    name: Name
    categories: tuple[str, ...]
    zones: tuple[str, ...]
    """Zones where it can be placed, most usual first."""
    size: float
    """Square root of its area when near, in image heights."""
    sprites: dict[str, tuple[str, ...]]
    """File names by zone or place; `any` is the default."""
    places: dict[str, float]
    """Weights of the places where it occurs."""
    friends: dict[str, float]
    """Weights of the objects that it occurs with."""
    popularity: float
    """Relative frequency as the main object of a scene."""
    alone: bool = False
    """Whether a scene has at most one of it (the moon, a castle)."""
    shows: tuple[str, ...] = ()
    """Labels of what else its sprites show, such as the candles on a cake."""

    def sprites_for(self, place: str, zone: str) -> tuple[str, ...]:
        """Return the file names of the sprites for a place and a zone."""
        return self.sprites.get(place) or self.sprites.get(zone) or self.sprites["any"]


@cache
def catalogue() -> dict[str, SceneObject]:
    """Return all objects by label, in alphabetical order."""
    entries = sorted(read_json("objects.json").items())
    return TypeAdapter(dict[str, SceneObject]).validate_python(
        {label: {"label": label, "name": entry, **entry} for label, entry in entries}
    )


@lru_cache(maxsize=512)
def sprite(file: str) -> Image.Image:
    """Load a sprite in RGBA. The image is cached: do not modify it."""
    with Image.open(FOLDER / "sprites" / file) as image:
        return image.convert("RGBA")


@lru_cache(maxsize=512)
def sprite_aspect(file: str) -> float:
    """Return width divided by height of a sprite, from the file's header."""
    with Image.open(FOLDER / "sprites" / file) as image:
        return image.width / image.height


class Zone(NamedTuple):
    """A band where objects can be placed; their sizes are interpolated.

    `far` and `near` are fractions of the way from the horizon down to the lower edge (zones of the
    ground) or from the upper edge down to the horizon (`sky`, `wall`).
    """

    far: float
    near: float
    far_size: float = 1.0
    near_size: float = 1.0


OVERHEAD = ("sky", "wall")
"""The zones above the horizon."""


@dataclass(frozen=True)
class Place:
    """A setting that scenes are drawn in."""

    name: str
    words: tuple[str, ...]
    """Adverbial phrases that end a caption: "on the beach"."""
    noun: tuple[str, ...]
    """Noun phrases for captions that start with the place."""
    zones: dict[str, Zone]
    horizon: tuple[float, float]
    """Range of its height."""
    hours: dict[str, float]
    """Weights of the hours."""
    weight: float = 1.0
    shows: tuple[str, ...] = ()
    """Labels of what the backdrop of this place always shows."""
    indoors: bool = False
    footing: tuple[tuple[str, str], ...] = ()
    """(zone, phrase) pairs; a phrase is true only if all mentioned objects are in that zone."""


PLACES = TypeAdapter(dict[str, Place]).validate_python(
    {name: {"name": name, **entry} for name, entry in read_json("places.json").items()}
)
"""All places by name. Random draws depend on the order."""
