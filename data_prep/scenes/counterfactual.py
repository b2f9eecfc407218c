"""Counterfactual scenes: a scene again with one object taken out, or in another place.

Everything else is drawn as before, so that a difference between the codes of two images is due to
that one change.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random

from sieve.data_prep.records import Record
from sieve.data_prep.scenes import Scenes, record_of
from sieve.data_prep.scenes.compose import Scene, compose, describe, pick
from sieve.model.sanity import CounterfactualPair


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
