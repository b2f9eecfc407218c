"""Scenes, the bundled collection: images composed of emoji sprites, with exact labels.

A reference `scene:SEED:INDEX` identifies a scene, which can be drawn at any size. Its objects,
their categories and its place are known, so that "a dog, without a beach" has a ground truth.
Objects co-occur as in the real world (umbrellas at the beach, cups in the kitchen), which makes
exclusion as hard as in real photographs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

from sieve.data_prep.records import Record
from sieve.data_prep.scenes.captions import captions
from sieve.data_prep.scenes.compose import Scene, compose
from sieve.data_prep.scenes.render import render_scene


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
