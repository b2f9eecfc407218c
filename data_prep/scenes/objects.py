"""Catalogue of the objects in scenes: names, sprites, sizes and places.

It is read from `assets/scenes/objects.json`: adding an object takes an entry and a sprite, no code.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image

from sieve.assets import ROOT

FOLDER: Path = ROOT / "scenes"
ZONES = ("sky", "wall", "back", "water", "ground", "road", "table", "behind", "front")
"""Zones where an object can be placed; every place has some of these."""


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
    name: Name
    synonyms: tuple[Name, ...]
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
    alone: bool
    """Whether a scene has at most one of it (the moon, a castle)."""

    shows: tuple[str, ...]
    """Labels of what else its sprites show, such as the candles on a cake."""

    def __post_init__(self) -> None:
        unknown = [zone for zone in self.zones if zone not in ZONES]
        if unknown or not self.zones:
            raise ValueError(f"{self.label}: zones must be among {ZONES}; got {self.zones}")
        if not 0.05 <= self.size <= 1:
            raise ValueError(f"{self.label}: size must be .05 to 1; got {self.size}")

    def sprites_for(self, place: str, zone: str) -> tuple[str, ...]:
        """Return the file names of the sprites for a place and a zone."""
        return self.sprites.get(place) or self.sprites.get(zone) or self.sprites["any"]


@lru_cache(maxsize=1)
def catalogue() -> dict[str, SceneObject]:
    """Return all objects by label, in alphabetical order.

    Raises
    ------
    FileNotFoundError
        If the catalogue is missing from the installation.
    """
    path = FOLDER / "objects.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; reinstall sieve-explorer")
    entries = json.loads(path.read_text(encoding="utf-8"))
    return {label: _object(label, entries[label]) for label in sorted(entries)}


def _object(label: str, entry: dict) -> SceneObject:
    return SceneObject(
        label=label,
        name=Name(entry["singular"], entry["plural"]),
        synonyms=tuple(Name(**synonym) for synonym in entry["synonyms"]),
        categories=tuple(entry["categories"]),
        zones=tuple(entry["zones"]),
        size=entry["size"],
        sprites={where: tuple(files) for where, files in entry["sprites"].items()},
        places=entry["places"],
        friends=entry["friends"],
        popularity=entry["popularity"],
        alone=entry.get("alone", False),
        shows=tuple(entry.get("shows", ())),
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
