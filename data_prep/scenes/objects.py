"""The objects that stand in scenes: their words, sprites, sizes and habits.

Everything is read from `assets/scenes/objects.json`, so that an object is added by adding an
entry and its sprite, without code.
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
"""Where an object can stand; every place offers some of these."""


@dataclass(frozen=True)
class Name:
    """One way to call an object in a caption."""

    singular: str
    plural: str
    sprite: str | None = None
    """The only sprite this name is true of ("green apple"), or None where it is true of all."""


@dataclass(frozen=True)
class SceneObject:
    """A kind of thing that scenes are composed of."""

    label: str
    name: Name
    synonyms: tuple[Name, ...]
    categories: tuple[str, ...]
    zones: tuple[str, ...]
    """Where it can stand, the most usual first."""
    size: float
    """Square root of its area when near, in picture heights."""
    sprites: dict[str, tuple[str, ...]]
    """File names by zone or place; `any` serves where nothing special is given."""
    places: dict[str, float]
    friends: dict[str, float]
    popularity: float
    alone: bool
    """There is never more than one of it in a scene (the moon, a castle)."""

    shows: tuple[str, ...]
    """Labels of what else its sprites show: the candles on a cake."""

    def __post_init__(self) -> None:
        unknown = [zone for zone in self.zones if zone not in ZONES]
        if unknown or not self.zones:
            raise ValueError(f"{self.label}: zones must be among {ZONES}; got {self.zones}")
        if not 0.05 <= self.size <= 1:
            raise ValueError(f"{self.label}: size must be .05 to 1; got {self.size}")

    def sprites_for(self, place: str, zone: str) -> tuple[str, ...]:
        """File names that suit a place and a zone."""
        return self.sprites.get(place) or self.sprites.get(zone) or self.sprites["any"]


@lru_cache(maxsize=1)
def catalogue() -> dict[str, SceneObject]:
    """All objects by label, in alphabetical order.

    Raises
    ------
    FileNotFoundError
        Where the sprite folder is missing from the installation.
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
    """Decode a sprite, RGBA. It is shared: do not change it."""
    with Image.open(FOLDER / "sprites" / file) as image:
        return image.convert("RGBA")


@lru_cache(maxsize=512)
def sprite_aspect(file: str) -> float:
    """Width over height of a sprite; reads only the file's header."""
    with Image.open(FOLDER / "sprites" / file) as image:
        return image.width / image.height
