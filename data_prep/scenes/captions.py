"""Generate five varied captions of a scene, all true of its layout, and list label synonyms."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random

from sieve.data_prep.scenes.compose import (
    OVERHEAD,
    PLACES,
    Name,
    Placement,
    Scene,
    catalogue,
    draw,
    pick,
    read_json,
)

NUMBERS = ("no", "one", "two", "three", "four", "five")
_WORDS = read_json("words.json")
_HOURS: dict[str, list[str]] = _WORDS["hours"]
_CATEGORIES: dict[str, list[str]] = _WORDS["categories"]
"""Singular and plural of each category that can be counted."""
_UNCOUNTED: dict[str, list[str]] = _WORDS["uncounted"]


def article(noun: str) -> str:
    """Return a noun with `a` or `an`, by its sound."""
    vowel = noun[:1].lower() in "aeiou" and not noun.lower().startswith(("one", "uni", "use", "eu"))
    return f"an {noun}" if vowel else f"a {noun}"


def listed(parts: Sequence[str]) -> str:
    """Join as `a`, `a and b`, `a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def full_caption(scene: Scene) -> str:
    """Return a caption that names every object with its count, and the place."""
    parts = [_counted(catalogue()[label].name, count) for label, count in scene.counts.items()]
    return f"{listed(parts)} {PLACES[scene.place].words[0]}"


def captions(scene: Scene) -> tuple[str, ...]:
    """Return five different captions of a scene, in an order that the scene's seed decides."""
    writer = _Writer(scene)
    kinds = (writer.everything, writer.part, writer.relation, writer.category, writer.loose)
    found: dict[str, str] = {}
    """Captions by what makes them different."""
    for kind in kinds:
        for attempt in (kind, kind, writer.part, writer.everything, writer.loose, writer.plain):
            text = attempt()
            if (key := text.lower().rstrip(".")) not in found:
                found[key] = text
                break
    while len(found) < len(kinds):  # a single object gives too few different captions
        ending = ("seen up close", "and nothing else")[len(found) % 2]
        text = f"{full_caption(scene)}, {ending}"
        found[text] = text
    keyed = sorted((writer.random(), text) for text in found.values())
    return tuple(text for _, text in keyed)


def _counted(name: Name, count: int) -> str:
    return article(name.singular) if count == 1 else f"{NUMBERS[count]} {name.plural}"


class _Writer:
    """Caption generator of one scene, with one random stream."""

    def __init__(self, scene: Scene) -> None:
        self.scene, self.counts = scene, scene.counts
        self.place = PLACES[scene.place]
        self.rand = Random(f"sieve captions {scene.seed} {scene.index}")
        self.random = self.rand.random

    def _name(self, label: str, synonyms: float = 0.4) -> Name:
        """Choose a name of an object that describes all its instances in the scene."""
        what = catalogue()[label]
        sprites = {one.sprite for one in self.scene.placements if one.label == label}
        fitting = [s for s in what.synonyms if s.sprite is None or sprites == {s.sprite}]
        return pick(self.rand, fitting) if fitting and self.random() < synonyms else what.name

    def _phrase(self, label: str, synonyms: float = 0.4) -> str:
        name, count = self._name(label, synonyms), self.counts[label]
        if count == 2 and "pair" not in name.plural and self.random() < 0.12:
            return f"a couple of {name.plural}"
        if count >= 3 and self.random() < 0.25:
            return f"{pick(self.rand, ('some', 'several', 'a few'))} {name.plural}"
        return _counted(name, count)

    def _phrases(self, labels: Iterable[str], synonyms: float = 0.4) -> str:
        return listed([self._phrase(label, synonyms) for label in labels])

    def _noun(self) -> str:
        return pick(self.rand, self.place.noun)

    def _where(self, labels: Iterable[str]) -> str:
        """Return where objects are; the phrase is true of all of them."""
        wanted = set(labels)
        zones = {one.zone for one in self.scene.placements if one.label in wanted}
        footing = [text for zone, text in self.place.footing if zones == {zone}]
        options = (*self.place.words, *footing) if self.random() < 0.5 else self.place.words
        text, hours = pick(self.rand, options), self._hours()
        return f"{text} {pick(self.rand, hours)}" if hours and self.random() < 0.15 else text

    def _hours(self) -> list[str]:
        return [] if self.place.indoors else _HOURS.get(self.scene.hour, [])

    def _styled(self, text: str) -> str:
        return text if self.random() < 0.5 else f"{text[0].upper()}{text[1:]}."

    def everything(self) -> str:
        """Name all objects and the place."""
        labels = list(self.counts)
        objects = self._phrases(labels, 0.3)
        style = draw(self.rand, {"end": 6.0, "there": 1.5, "picture": 1.0, "with": 1.5})
        if style == "with":
            return self._styled(f"{self._noun()} with {objects}")
        is_one = self.counts[labels[0]] == 1
        start = {"there": f"there {'is' if is_one else 'are'} ", "picture": "a picture of "}
        return self._styled(f"{start.get(style, '')}{objects} {self._where(labels)}")

    def part(self) -> str:
        """Name one or two of the objects, with or without the place."""
        labels = self._some(2)
        objects = self._phrases(labels)
        if self.random() < 0.25:
            return self._styled(objects)
        return self._styled(f"{objects}{self._doing(labels)} {self._where(labels)}")

    def _some(self, most: int) -> list[str]:
        labels = sorted(self.counts, key=lambda _: self.random())
        return labels[: 1 + int(self.random() * min(most, len(labels)))]

    def _doing(self, labels: list[str]) -> str:
        """Return a participle if one is certainly true, else an empty text."""
        if len(labels) > 1 or self.random() >= 0.5:
            return ""
        (label,) = labels
        zones = {one.zone for one in self.scene.placements if one.label == label}
        kinds = catalogue()[label].categories
        if zones == {"sky"} and ("animal" in kinds or "vehicle" in kinds or label == "kite"):
            return " flying"
        if zones == {"road"}:
            return " parked"
        if zones == {"water"} and "vehicle" in kinds:
            return " floating"
        hangs = zones == {"wall"} and self.place.indoors and label != "balloon"
        return " hanging on the wall" if hangs else ""

    def relation(self) -> str:
        """Name the spatial relation of two objects that each occur once."""
        single = [one for one in self.scene.placements if self.counts[one.label] == 1]
        pairs = [(a, b, text) for a in single for b in single for text in _relations(a, b)]
        if not pairs:
            return self.part()
        a, b, text = pick(self.rand, pairs)
        sentence = f"{self._phrase(a.label, 0.3)} {text} {self._phrase(b.label, 0.3)}"
        if self.random() < 0.4:
            sentence += f" {self._where([a.label, b.label])}"
        return self._styled(sentence)

    def category(self) -> str:
        """Name a category of the objects."""
        kinds: dict[str, list[str]] = {}
        for label in self.counts:
            for name in catalogue()[label].categories[:2]:
                kinds.setdefault(name, []).append(label)
        if not kinds:
            return self.part()
        name = pick(self.rand, list(kinds))
        labels = kinds[name]
        parts = [self._kind(name, sum(self.counts[label] for label in labels))]
        others = [label for label in self.counts if label not in labels]
        if others and self.random() < 0.5:
            parts.append(self._phrase(pick(self.rand, others)))
            labels = [*labels, *others]
        if self.random() < 0.3:
            return self._styled(f"{self._noun()} with {listed(parts)}")
        return self._styled(f"{listed(parts)} {self._where(labels)}")

    def _kind(self, name: str, count: int) -> str:
        if name in _UNCOUNTED and (name not in _CATEGORIES or self.random() < 0.5):
            return pick(self.rand, _UNCOUNTED[name])
        one, many = _CATEGORIES[name]
        if count == 1:
            return article(one)
        return f"{NUMBERS[count]} {many}" if self.random() < 0.6 else f"some {many}"

    def loose(self) -> str:
        """Name objects without articles, or after the place."""
        labels = self._some(3)
        if self.random() < 0.5:
            objects = self._phrases(labels)
            return self._styled(f"{self._noun()} with {objects}")
        names = [(self._name(label), self.counts[label]) for label in labels]
        bare = [name.singular if count == 1 else name.plural for name, count in names]
        return f"{listed(bare)} {self._where(labels)}"

    def plain(self) -> str:
        """Name only the place and the hour."""
        noun, hours = self._noun(), self._hours()
        return self._styled(f"{noun} {pick(self.rand, hours)}" if hours else f"a view of {noun}")


def _relations(a: Placement, b: Placement) -> list[str]:
    """Return the relations of a to b that are clearly true."""
    if a is b or "front" in (a.zone, b.zone):
        return []
    gap = abs(a.x - b.x) - (a.width + b.width) / 2
    is_above = a.zone in OVERHEAD
    if is_above != (b.zone in OVERHEAD):
        return ["above"] if is_above and a.y < b.y - b.height and gap < 0.15 else []
    if gap > 0:
        side = "to the left of" if a.x < b.x else "to the right of"
        is_near = gap < 0.3 and abs(a.y - b.y) < 0.15
        return [side, "next to", "beside"] if is_near else [side]
    if a.y > b.y + 0.1 and a.zone not in (*OVERHEAD, "behind"):
        return ["in front of"]
    if b.y > a.y + 0.1 and b.zone not in (*OVERHEAD, "behind"):
        return ["behind"]
    return []


def label_synonyms() -> dict[str, tuple[str, ...]]:
    """Return other names of labels, of objects, categories and places, as captions use them."""
    found = {label: tuple(names) for label, names in _WORDS["further"].items()}
    for category, forms in _CATEGORIES.items():
        found[category] = (*found.get(category, ()), *forms)
    for label, what in catalogue().items():
        names = [form for name in what.synonyms for form in (name.singular, name.plural)]
        found[label] = (*found.get(label, ()), what.name.plural, *names)
    return found
