"""Places of scenes: their zones, hours and caption phrases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Zone(NamedTuple):
    """A band where objects can be placed.

    `far` and `near` are fractions of the way from the horizon down to the lower edge (zones of the
    ground) or from the upper edge down to the horizon (`sky`, `wall`). Sizes are interpolated.
    """

    far: float
    near: float
    far_size: float = 1.0
    near_size: float = 1.0


OVERHEAD = ("sky", "wall")

DAYTIME = {"day": 5.0, "morning": 3.0, "overcast": 1.0, "sunset": 2.0}
OUTDOOR_EVENING = {"day": 4.0, "morning": 2.0, "overcast": 1.5, "sunset": 3.0, "dusk": 2.0}
INDOORS = {"day": 4.0, "morning": 3.0, "sunset": 1.5}


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
    hours: dict[str, float]
    weight: float = 1.0
    shows: tuple[str, ...] = ()
    """Labels of what the backdrop of this place always shows."""
    indoors: bool = False
    footing: tuple[tuple[str, str], ...] = ()
    """(zone, phrase) pairs; a phrase is true only if all mentioned objects are in that zone."""


_GROUND = Zone(0.2, 0.96, 0.58, 1.0)
_BACK = Zone(0.06, 0.2, 0.8, 0.95)
_FRONT = Zone(1.0, 1.0)
_SKY = Zone(0.22, 0.62, 1.0, 0.85)
_TABLE = Zone(0.2, 0.8, 0.95, 1.25)
_BEHIND = Zone(0.0, 0.0)

_PLACES = (
    Place(
        "beach",
        ("on the beach", "at the beach", "at the seaside", "by the sea", "near the water"),
        ("a sandy beach", "a sunny beach", "the seaside"),
        {
            "sky": _SKY,
            "water": Zone(0.1, 0.26, 0.6, 0.75),
            "ground": Zone(0.44, 0.96, 0.68, 1.0),
            "back": Zone(0.4, 0.5, 0.75, 0.85),
            "road": Zone(0.48, 0.9, 0.7, 0.95),
        },
        (0.3, 0.44),
        DAYTIME,
        1.25,
        ("sea",),
        footing=(
            ("ground", "on the sand"),
            ("ground", "on a sandy beach"),
            ("water", "on the water"),
        ),
    ),
    Place(
        "kitchen",
        ("in the kitchen", "in a kitchen", "in a home kitchen"),
        ("a kitchen", "a bright kitchen", "a tidy kitchen"),
        {"wall": Zone(0.5, 0.8), "table": _TABLE, "behind": _BEHIND},
        (0.54, 0.62),
        INDOORS,
        indoors=True,
        footing=(("table", "on the kitchen counter"), ("table", "on the worktop")),
    ),
    Place(
        "street",
        ("on the street", "in the street", "in the city", "in town", "on a city street"),
        ("a city street", "a quiet street", "a street with houses"),
        {
            "sky": Zone(0.12, 0.3, 0.8, 0.75),
            "ground": Zone(0.16, 0.95, 0.62, 1.0),
            "road": Zone(0.4, 0.9, 0.75, 1.05),
            "wall": Zone(0.5, 0.9, 0.8, 0.9),
            "front": _FRONT,
        },
        (0.5, 0.6),
        {**OUTDOOR_EVENING},
        1.15,
        ("building",),
        footing=(("road", "on the road"), ("ground", "on the pavement")),
    ),
    Place(
        "forest",
        ("in the forest", "in the woods", "among the trees", "in a forest"),
        ("a forest", "a deep green forest", "the woods"),
        {"sky": Zone(0.3, 0.7), "ground": _GROUND, "back": _BACK, "road": _GROUND, "front": _FRONT},
        (0.46, 0.58),
        {"day": 4.0, "morning": 4.0, "dusk": 1.0, "sunset": 1.0},
        shows=("tree", "plant"),
    ),
    Place(
        "snow",
        ("in the snow", "in a winter landscape", "in a snowy landscape"),
        ("a snowy landscape", "a white winter landscape", "fresh snow"),
        {"sky": _SKY, "ground": _GROUND, "back": _BACK, "road": _GROUND},
        (0.38, 0.5),
        OUTDOOR_EVENING,
        footing=(("ground", "on the snow"),),
    ),
    Place(
        "desert",
        ("in the desert", "among the dunes", "in a dry desert", "in the hot desert"),
        ("a desert", "a hot, dry desert", "the dunes of a desert"),
        {"sky": _SKY, "ground": _GROUND, "back": _BACK, "road": _GROUND, "front": _FRONT},
        (0.4, 0.52),
        DAYTIME,
        footing=(("ground", "on the sand"),),
    ),
    Place(
        "field",
        ("in a field", "in the field", "in a meadow", "in a grassy field"),
        ("a green field", "a wide meadow", "a grassy field"),
        {"sky": _SKY, "ground": _GROUND, "back": _BACK, "road": _GROUND, "front": _FRONT},
        (0.38, 0.52),
        OUTDOOR_EVENING,
        1.15,
        footing=(("ground", "on the grass"),),
    ),
    Place(
        "night",
        ("at night", "in the night", "under the night sky", "under the stars", "after dark"),
        ("a starry night", "a clear night", "a dark night sky"),
        {"sky": _SKY, "ground": _GROUND, "back": _BACK, "road": _GROUND, "front": _FRONT},
        (0.48, 0.62),
        {"night": 1.0},
    ),
    Place(
        "sea",
        ("at sea", "out at sea", "in the ocean", "on the open sea"),
        ("the open sea", "a calm sea", "the blue ocean"),
        {"sky": _SKY, "water": Zone(0.14, 0.92, 0.62, 1.05)},
        (0.36, 0.54),
        OUTDOOR_EVENING,
        1.1,
        footing=(("water", "on the water"), ("water", "in the water")),
    ),
    Place(
        "park",
        ("in the park", "in a park", "in a city park", "by the pond"),
        ("a park", "a sunny park", "a park with a pond"),
        {
            "sky": _SKY,
            "water": Zone(0.14, 0.2, 0.62, 0.66),
            "ground": Zone(0.34, 0.96, 0.66, 1.0),
            "back": Zone(0.32, 0.4, 0.85, 0.9),
            "front": _FRONT,
        },
        (0.4, 0.5),
        OUTDOOR_EVENING,
        1.15,
        footing=(("ground", "on the grass"), ("ground", "on the lawn"), ("water", "on the pond")),
    ),
    Place(
        "bedroom",
        ("in the bedroom", "in a bedroom", "in a child's room", "in a cosy bedroom"),
        ("a bedroom", "a cosy bedroom", "a tidy bedroom"),
        {
            "wall": Zone(0.35, 0.72),
            "ground": Zone(0.16, 0.92, 0.78, 1.05),
            "table": Zone(0.74, 0.9, 1.0, 1.05),
        },
        (0.58, 0.66),
        INDOORS,
        indoors=True,
        footing=(("ground", "on the bedroom floor"), ("wall", "on the bedroom wall")),
    ),
    Place(
        "living room",
        ("in the living room", "in a living room", "at home", "in a bright room"),
        ("a living room", "a bright living room", "a cosy living room"),
        {
            "wall": Zone(0.35, 0.72),
            "ground": Zone(0.16, 0.92, 0.78, 1.05),
            "table": Zone(0.74, 0.9, 1.0, 1.05),
        },
        (0.58, 0.66),
        INDOORS,
        indoors=True,
        footing=(
            ("ground", "on the living room floor"),
            ("table", "on a low table"),
            ("wall", "on the living room wall"),
        ),
    ),
    Place(
        "mountain",
        ("in the mountains", "on a mountain", "high in the mountains", "near the peaks"),
        ("a mountain landscape", "high mountains", "a mountain valley"),
        {"sky": _SKY, "ground": _GROUND, "back": _BACK, "road": _GROUND, "front": _FRONT},
        (0.5, 0.6),
        OUTDOOR_EVENING,
    ),
    Place(
        "farm",
        ("on the farm", "on a farm", "in the farmyard", "near the barn"),
        ("a farm", "a farm with a red barn", "a farmyard"),
        {
            "sky": _SKY,
            "ground": _GROUND,
            "back": _BACK,
            "road": _GROUND,
            "front": _FRONT,
        },
        (0.4, 0.5),
        DAYTIME,
        shows=("building",),
    ),
    Place(
        "restaurant",
        ("in a restaurant", "at a restaurant", "in a cafe"),
        ("a restaurant", "a cosy restaurant", "a small cafe"),
        {"wall": Zone(0.35, 0.7), "table": _TABLE, "behind": _BEHIND},
        (0.54, 0.62),
        {"dusk": 2.0, "sunset": 2.0, "day": 1.0},
        indoors=True,
        footing=(("table", "on a restaurant table"), ("table", "on the table")),
    ),
    Place(
        "garden",
        ("in the garden", "in a garden", "in the back yard", "by the flower beds"),
        ("a garden", "a flower garden", "a garden in bloom"),
        {
            "sky": Zone(0.2, 0.6, 1.0, 0.85),
            "ground": Zone(0.26, 0.96, 0.66, 1.0),
            "back": Zone(0.2, 0.26, 0.8, 0.85),
            "front": _FRONT,
        },
        (0.44, 0.54),
        {"day": 4.0, "morning": 4.0, "sunset": 2.0, "overcast": 0.5},
        1.1,
        ("flower", "plant"),
        footing=(("ground", "on the grass"),),
    ),
    Place(
        "stadium",
        ("in a stadium", "in the stadium", "at the stadium", "in a sports stadium"),
        ("a stadium", "a large stadium", "a sports stadium"),
        {"ground": _GROUND, "road": _GROUND, "front": _FRONT, "sky": Zone(0.12, 0.3)},
        (0.48, 0.56),
        OUTDOOR_EVENING,
        footing=(("ground", "on the pitch"),),
    ),
    Place(
        "workshop",
        ("in a workshop", "in the workshop", "in a carpenter's workshop"),
        ("a workshop", "a small workshop", "a carpenter's workshop"),
        {"wall": Zone(0.42, 0.78), "table": _TABLE, "behind": _BEHIND},
        (0.54, 0.6),
        INDOORS,
        indoors=True,
        footing=(("table", "on a workbench"), ("table", "on the workbench")),
    ),
)

PLACES: dict[str, Place] = {place.name: place for place in _PLACES}
"""All places by name. Random draws depend on the order."""
