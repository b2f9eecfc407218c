"""Layout of a scene: its place, its hour and its objects with their boxes."""

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
    """One object in a scene. Lengths are in image heights, from the upper left corner."""

    label: str
    sprite: str
    zone: str
    x: float
    """Horizontal centre."""
    y: float
    """Lower edge."""
    width: float
    height: float
    mirror: bool
    visible: float = 1.0
    """Visible share of the sprite, from its top; a table hides the rest."""

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom edge."""
        return (self.x - self.width / 2, self.y - self.height, self.x + self.width / 2, self.y)


@dataclass(frozen=True)
class Scene:
    """Complete layout of a scene, from which it is drawn."""

    seed: int
    index: int
    place: str
    hour: str
    aspect: float
    """Width divided by height."""
    horizon: float
    """Height of the horizon (indoors: of the floor's or table's far edge), from the top."""
    backdrop_seed: int
    """Seed of the details of the backdrop."""
    placements: tuple[Placement, ...]
    """From back to front."""

    @property
    def reference(self) -> str:
        """`scene:SEED:INDEX`."""
        return f"scene:{self.seed}:{self.index}"

    @cached_property
    def counts(self) -> dict[str, int]:
        """Number of each object, largest total area first."""
        area: dict[str, float] = {}
        for placed in self.placements:
            area[placed.label] = area.get(placed.label, 0.0) + placed.width * placed.height
        number = Counter(placed.label for placed in self.placements)
        return {label: number[label] for label in sorted(area, key=lambda one: (-area[one], one))}

    @cached_property
    def categories(self) -> tuple[str, ...]:
        """Distinct categories of the objects."""
        found = (name for label in self.counts for name in catalogue()[label].categories)
        return tuple(dict.fromkeys(found))

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Labels of objects, categories and the place, and of what place and sprites also show."""
        place = PLACES[self.place]
        also_shown = [text for label in self.counts for text in catalogue()[label].shows]
        return tuple(
            dict.fromkeys((*self.counts, *self.categories, place.name, *place.shows, *also_shown))
        )

    @property
    def split(self) -> str:
        """Split by the last digit of the index: 70 % train, 10 % select, 20 % test."""
        return {5: "select", 2: "test", 7: "test"}.get(self.index % 10, "train")


def parse(reference: str) -> tuple[int, int]:
    """Parse `scene:SEED:INDEX` into seed and index.

    Raises
    ------
    ValueError
        If the text has another form.
    """
    found = _REFERENCE.fullmatch(reference) if isinstance(reference, str) else None
    if found is None:
        raise ValueError(f"expected a scene as scene:SEED:INDEX, e.g. scene:0:17; got "
                         f"{str(reference)[:60]!r}")  # fmt: skip
    return int(found[1]), int(found[2])
