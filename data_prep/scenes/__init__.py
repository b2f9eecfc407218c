"""Scenes, the bundled collection: images composed of emoji sprites, with exact labels.

A reference `scene:SEED:INDEX` identifies a scene, which can be drawn at any size. Its objects,
their categories and its place are known, so that "a dog, without a beach" has a ground truth.
Objects co-occur as in the real world (umbrellas at the beach, cups in the kitchen), which makes
exclusion as hard as in real photographs.

A counterfactual is a scene again, with one object taken out or in another place. Everything else is
drawn as before, so that a difference between the codes of the two images is due to that change.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING

from PIL import Image

from sieve.data_prep.records import Record
from sieve.data_prep.scenes.captions import captions
from sieve.data_prep.scenes.compose import Scene, compose, describe, pick
from sieve.data_prep.scenes.render import render_scene

if TYPE_CHECKING:
    from sieve.model.sanity_checks import CounterfactualPair


def record_of(scene: Scene) -> Record:
    """Return the record of a scene: reference, five captions, labels and split."""
    reference = scene.reference
    return Record(reference, reference, captions(scene), scene.labels, scene.split)


@dataclass(frozen=True)
class Scenes:
    """A source of composed scenes; each seed gives an unlimited number of new scenes."""

    count: int = 5000
    seed: int = 0
    name: str = "scenes"
    licence: str = (
        "Scenes: composed by Sieve (Apache-2.0) from Microsoft Fluent Emoji, "
        "(c) Microsoft Corporation, MIT License"
    )

    def __post_init__(self) -> None:
        if not 0 < self.count <= 10**9 or not 0 <= self.seed < 10**12:
            raise ValueError(
                f"expected a count of 1 to 10^9 and a seed of 0 to 10^12 - 1; "
                f"got count={self.count}, seed={self.seed}"
            )

    def records(self) -> Iterator[Record]:
        """Yield all records by index."""
        for index in range(self.count):
            yield record_of(compose(self.seed, index))

    def open_image(self, record: Record, size: int) -> Image.Image:
        """Draw a scene in RGB, `size` pixels on the long side; raise ValueError for others."""
        return render_scene(record.image, size)


@dataclass(frozen=True)
class CounterfactualScenes(Scenes):
    """Scenes with at least two kinds of object, each followed by its counterfactuals.

    `count` is the number of original scenes. All records are of the test split.
    """

    name: str = "counterfactual-scenes"

    def records(self) -> Iterator[Record]:
        """Yield each scene, the scene without each of its objects, and in another place."""
        found = index = 0
        while found < self.count:
            scene = compose(self.seed, index)
            index += 1
            if len(scene.counts) < 2:
                continue
            found += 1
            for one in (scene, *counterfactuals(scene)):
                yield replace(record_of(one), split="test")


def counterfactuals(scene: Scene) -> Iterator[Scene]:
    """Yield the scene without each of its objects, and in another place if there is one."""
    for label in scene.counts:
        yield scene.without(label)
    if places := scene.other_places:
        rand = Random(f"sieve counterfactual {scene.seed} {scene.index}")
        yield scene.moved_to(pick(rand, places))


def counterfactual_pairs(images: Sequence[str]) -> list[CounterfactualPair]:
    """Pair the rows of each counterfactual and of its original.

    `images` are the references of a collection of `CounterfactualScenes`, by row; a ValueError is
    raised if there is no pair among them.
    """
    from sieve.model.sanity_checks import CounterfactualPair

    row_of = {reference: row for row, reference in enumerate(images)}
    pairs = []
    for reference, row in row_of.items():
        original, changed = ":".join(reference.split(":")[:3]), reference.count(":") > 2
        if changed and original in row_of:
            lost = set(describe(original).labels) - set(describe(reference).labels)
            pairs.append(CounterfactualPair(row_of[original], row, frozenset(lost)))
    if not pairs:
        raise ValueError(
            f"none of the {len(images):,} images is a counterfactual; make them with "
            "`sieve prepare scenes --counterfactual --out FOLDER`"
        )
    return pairs
