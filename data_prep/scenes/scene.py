"""What a scene is: its place, its hour, and every object in it with its box.

A scene is named by its reference, `scene:SEED:INDEX`.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

from sieve.data_prep.scenes.objects import catalogue
from sieve.data_prep.scenes.places import PLACES

_REFERENCE = re.compile(r"scene:(\d{1,12}):(\d{1,12})", re.ASCII)


@dataclass(frozen=True)
class Placement:
    """One object instance in a scene; lengths are in picture heights, from the upper left."""

    label: str
    sprite: str
    zone: str
    x: float
    """Middle of the object."""
    y: float
    """Lower edge: its feet."""
    width: float
    height: float
    mirror: bool
    keep: float = 1.0
    """Share of the sprite that shows, from its top; the rest is hidden by a table."""

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom."""
        return (self.x - self.width / 2, self.y - self.height, self.x + self.width / 2, self.y)


@dataclass(frozen=True)
class Scene:
    """Everything there is to know about one scene before it is drawn."""

    seed: int
    index: int
    place: str
    hour: str
    aspect: float
    """Width over height."""
    horizon: float
    """Height of the horizon (indoors: of the floor's or table's far edge), from the top."""
    look: int
    """Seeds the details of the backdrop."""
    placements: tuple[Placement, ...]
    """From back to front."""

    @property
    def reference(self) -> str:
        """`scene:SEED:INDEX`."""
        return f"scene:{self.seed}:{self.index}"

    @cached_property
    def counts(self) -> dict[str, int]:
        """How many of each object there are, the most prominent first."""
        area: dict[str, float] = {}
        for placed in self.placements:
            area[placed.label] = area.get(placed.label, 0.0) + placed.width * placed.height
        number = Counter(placed.label for placed in self.placements)
        return {label: number[label] for label in sorted(area, key=lambda one: (-area[one], one))}

    @cached_property
    def categories(self) -> tuple[str, ...]:
        """Categories of the objects, each once."""
        found = (name for label in self.counts for name in catalogue()[label].categories)
        return tuple(dict.fromkeys(found))

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Objects, their categories, the place, and what place and sprites show besides."""
        place = PLACES[self.place]
        besides = [text for label in self.counts for text in catalogue()[label].shows]
        return tuple(
            dict.fromkeys((*self.counts, *self.categories, place.name, *place.shows, *besides))
        )

    @property
    def split(self) -> str:
        """70 % train, 10 % select, 20 % test, by the last digit of the index."""
        return {5: "select", 2: "test", 7: "test"}.get(self.index % 10, "train")


def parse(reference: str) -> tuple[int, int]:
    """Read `scene:SEED:INDEX`.

    Raises
    ------
    ValueError
        Where the text is anything else.
    """
    found = _REFERENCE.fullmatch(reference) if isinstance(reference, str) else None
    if found is None:
        raise ValueError(f"expected a scene as scene:SEED:INDEX, e.g. scene:0:17; got "
                         f"{str(reference)[:60]!r}")  # fmt: skip
    return int(found[1]), int(found[2])
