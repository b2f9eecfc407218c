"""Compose a scene: choose its place, hour and objects, and the position of each object.

A scene depends only on its seed and index. All draws use `random.Random.random`, whose sequence
Python guarantees to be stable, so that a reference always gives the same scene.

Objects and places are read from `assets/scenes/objects.json` and `places.json`. Adding an object
takes an entry and a sprite, no code; `assets/scenes/SOURCE.md` lists the keys.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, TypeVar

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


T = TypeVar("T")

MAX_INSTANCES = 5
MAX_OVERLAP = 0.22
MIN_LENGTH = 0.15
"""Minimum length of an object's longer side, in image heights."""
ASPECTS = {4 / 3: 0.8, 1.0: 0.1, 3 / 4: 0.1}
_REFERENCE = re.compile(r"scene:(\d{1,12}):(\d{1,12})(?::([-@])([a-z -]{1,40}))?", re.ASCII)
_ORDER = {"sky": 0, "wall": 0, "back": 1, "behind": 1, "front": 4}
"""Order in which zones are drawn; the default is 2."""


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
    change: str = ""
    """Change of a counterfactual scene: `-LABEL` or `@PLACE`; empty for an original scene."""

    @property
    def reference(self) -> str:
        """`scene:SEED:INDEX`, or `scene:SEED:INDEX:CHANGE`."""
        return f"scene:{self.seed}:{self.index}{self.change and f':{self.change}'}"

    def without(self, label: str) -> Scene:
        """Take an object out, with all its copies; everything else stays where it is.

        Raises a ValueError if the scene has no such object, or no other.
        """
        left = tuple(placed for placed in self.placements if placed.label != label)
        if not left or len(left) == len(self.placements):
            raise ValueError(
                f"{self.reference} has {', '.join(self.counts)}; cannot remove {label}"
            )
        return replace(self, placements=left, change=f"-{label}")

    def moved_to(self, place: str) -> Scene:
        """Draw the same objects in another place; raise a ValueError if they do not fit there."""
        if place not in self.other_places:
            raise ValueError(f"{self.reference} does not fit in place {place}")
        return replace(self, place=place, change=f"@{place}")

    @property
    def other_places(self) -> tuple[str, ...]:
        """Places with the same zones, hour and horizon."""
        zones, here = {placed.zone for placed in self.placements}, PLACES[self.place]
        return tuple(
            name
            for name, place in PLACES.items()
            if name != self.place
            and place.indoors == here.indoors
            and self.hour in place.hours
            and place.horizon[0] <= self.horizon <= place.horizon[1]
            and zones <= place.zones.keys()
        )

    @cached_property
    def counts(self) -> dict[str, int]:
        """Number of each object, largest total area first."""
        area: defaultdict[str, float] = defaultdict(float)
        for placed in self.placements:
            area[placed.label] += placed.width * placed.height
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
        also_shown = (text for label in self.counts for text in catalogue()[label].shows)
        named = (*self.counts, *self.categories, place.name)
        return tuple(dict.fromkeys((*named, *place.shows, *also_shown)))

    @property
    def split(self) -> str:
        """Split by the last digit of the index: 70 % train, 10 % select, 20 % test."""
        return {5: "select", 2: "test", 7: "test"}.get(self.index % 10, "train")


def describe(reference: str) -> Scene:
    """Return the layout of a scene; raise ValueError if its reference is not like `scene:0:17`.

    `scene:0:17:-umbrella` is the same scene without an object, `scene:0:17:@park` in another place.
    """
    if found := _REFERENCE.fullmatch(reference):
        scene = compose(int(found[1]), int(found[2]))
        if not found[3]:
            return scene
        return scene.without(found[4]) if found[3] == "-" else scene.moved_to(found[4])
    raise ValueError(
        f"expected a scene as scene:SEED:INDEX, e.g. scene:0:17; got {reference[:60]!r}"
    )


def compose(seed: int, index: int) -> Scene:
    """Compose one scene; equal arguments give equal scenes."""
    rand = Random(f"sieve scene {seed} {index}")
    main = _main_object(seed, index)
    place = PLACES[draw(rand, {p: w * PLACES[p].weight for p, w in main.places.items()})]
    hour = draw(rand, place.hours)
    aspect = draw(rand, ASPECTS)
    low, high = place.horizon
    horizon = low + rand.random() * (high - low)
    backdrop_seed = int(rand.random() * 2**31)
    wanted = _choose_objects(rand, main, place)
    placements = _arrange(rand, wanted, place, aspect, horizon)
    return Scene(seed, index, place.name, hour, aspect, horizon, backdrop_seed, placements)


def _main_object(seed: int, index: int) -> SceneObject:
    # A golden-ratio sequence with a random start spreads the choice evenly over the indices.
    start = int(Random(f"sieve seed {seed}").random() * 2**64)
    share = (index * 11400714819323198485 + start) % 2**64 / 2**64
    return catalogue()[_at(share, {o.label: o.popularity for o in catalogue().values()})]


def draw(rand: Random, weights: Mapping[T, float]) -> T:
    """Draw one key in proportion to its weight."""
    return _at(rand.random(), weights)


def _at(share: float, weights: Mapping[T, float]) -> T:
    left = share * sum(weights.values())
    for key, weight in weights.items():
        left -= weight
        if left < 0:
            return key
    return next(reversed(list(weights)))


def pick(rand: Random, options: Sequence[T]) -> T:
    """Draw one of the options with equal probability."""
    return options[int(rand.random() * len(options))]


@cache
def _typical_objects(place: str) -> dict[str, float]:
    """Return the objects that are typical of a place, with weights."""
    return {
        o.label: o.places[place] * o.popularity**0.5
        for o in catalogue().values()
        if place in o.places and any(zone in PLACES[place].zones for zone in o.zones)
    }


def _choose_objects(rand: Random, main: SceneObject, place: Place) -> list[tuple[SceneObject, str]]:
    """Choose objects and counts: the main object, its friends, and typical objects of the place."""
    kinds = draw(rand, {1: 0.14, 2: 0.34, 3: 0.34, 4: 0.18})
    chosen = {main.label: 1}
    typical = _typical_objects(place.name)
    for _ in range(kinds - 1):
        friends = {
            f: w * (1.0 if f in typical else 0.25)
            for f, w in main.friends.items()
            if f not in chosen and (f in typical or _may_appear(catalogue()[f], place))
        }
        others = {o: w for o, w in typical.items() if o not in chosen}
        chosen[draw(rand, friends if friends and rand.random() < 0.55 else others)] = 1
    for label in chosen:
        room = MAX_INSTANCES - sum(chosen.values())
        what = catalogue()[label]
        small = what.size < 0.4 and "front" not in what.zones and not what.alone
        if room and small and rand.random() < (0.28 if label == main.label else 0.14):
            chosen[label] += 1 + (room > 1 and rand.random() < 0.4)
    return [
        (catalogue()[label], _zone_of(rand, catalogue()[label], place))
        for label, count in chosen.items()
        for _ in range(count)
    ]


def _may_appear(what: SceneObject, place: Place) -> bool:
    """Whether an object may appear in a place that is not typical of it: no sofas on the farm."""
    fits = any(zone in place.zones for zone in what.zones if zone != "water")
    return fits and any(PLACES[usual].indoors == place.indoors for usual in what.places)


def _zone_of(rand: Random, what: SceneObject, place: Place) -> str:
    zones = [zone for zone in what.zones if zone in place.zones]
    return zones[0] if len(zones) == 1 or rand.random() < 0.7 else pick(rand, zones[1:])


def _arrange(
    rand: Random, wanted: list[tuple[SceneObject, str]], place: Place, aspect: float, horizon: float
) -> tuple[Placement, ...]:
    """Place every object, largest first; those without enough room are left out."""
    zone_by_label: dict[str, str] = {}
    placed: list[Placement] = []
    bands = dict(place.zones)
    if "ground" in bands and any(zone == "table" for _, zone in wanted):
        # Leave the foreground to the low table.
        bands["ground"] = bands["ground"]._replace(near=0.5)
    crowd = 1.0 - 0.035 * max(0, len(wanted) - 2)
    for what, zone in sorted(wanted, key=lambda pair: -pair[0].size):
        zone = zone_by_label.setdefault(what.label, zone)
        best, least = None, MAX_OVERLAP
        for attempt in range(28):
            shrink = crowd * (1.0 if attempt < 14 else 0.84)
            file = pick(rand, what.sprites_for(place.name, zone))
            option = _try_spot(rand, what, file, zone, bands[zone], aspect, horizon, shrink)
            clash = max((_overlap(option, other) for other in placed), default=0.0)
            if clash < least or (best is None and not placed):
                best, least = option, clash
            if least < 0.04:
                break
        if best is not None:
            placed.append(best)
    return tuple(sorted(placed, key=lambda one: (_ORDER.get(one.zone, 2), one.y)))


def _try_spot(
    rand: Random, what: SceneObject, file: str, zone: str, band: Zone, aspect: float,
    horizon: float, shrink: float,
) -> Placement:  # fmt: skip
    t = rand.random()
    along = band.far + t * (band.near - band.far)
    scale = band.far_size + t * (band.near_size - band.far_size)
    shape = sprite_aspect(file)
    room = min(1.0, 0.866 * aspect**0.5)  # narrow images have less room for the same object
    length = 1.2 * what.size * scale * shrink * room * (0.9 + 0.22 * rand.random())
    width, height = length * shape**0.5, length / shape**0.5
    visible = 0.56 if zone == "behind" and "front" not in what.zones else 1.0
    y = horizon + along * (1 - horizon)
    headroom = 0.9 * horizon if zone in OVERHEAD else 0.96 * y
    if zone == "behind":  # a person behind a table, whose head must stay in the image
        tall, headroom = 0.64 if what.label in ("boy", "girl") else 0.8, 2.0
        factor = tall * horizon / (height * visible)
        width, height = width * factor, height * factor
    fit = min(1.0, 0.62 * aspect / width, headroom / height)
    fit = max(fit, MIN_LENGTH / max(width, height))
    width, height = width * fit, height * fit
    if zone in OVERHEAD:
        y = max(height + 0.02, min(horizon * 0.97, along * horizon + height / 2))
    x = width / 2 + 0.015 + rand.random() * max(0.0, aspect - width - 0.03)
    height *= visible
    return Placement(what.label, file, zone, x, y, width, height, rand.random() < 0.5, visible)


def _overlap(one: Placement, other: Placement) -> float:
    """Return the intersection of two boxes, divided by the smaller area."""
    a, b = one.box, other.box
    wide = max(min(a[2], b[2]) - max(a[0], b[0]), 0.0)
    high = max(min(a[3], b[3]) - max(a[1], b[1]), 0.0)
    return wide * high / min(one.width * one.height, other.width * other.height)
