from __future__ import annotations

import numpy as np
import pytest

from sieve.data_prep.scenes import (
    CounterfactualScenes,
    counterfactual_pairs,
    counterfactuals,
)
from sieve.data_prep.scenes.compose import compose, describe
from sieve.data_prep.scenes.render import draw_scene, render_scene

SOURCE = CounterfactualScenes(12, seed=3)


def test_only_the_pixels_of_the_object_change() -> None:
    # A cup, a teapot, a taco and a lemon on a table.
    scene = describe("scene:3:0")
    whole = np.asarray(render_scene("scene:3:0", 256), np.int16)
    taken = np.asarray(render_scene("scene:3:0:-cup", 256), np.int16)
    changed = np.abs(whole - taken).max(2) > 0
    (cup,) = [placed for placed in scene.placements if placed.label == "cup"]
    left, top, right, bottom = (round(edge * len(whole)) for edge in cup.box)
    assert changed[top:bottom, left:right].any()
    margin = round(0.15 * cup.width * len(whole)) + 2  # its shadow
    changed[top - margin : bottom + margin, left - margin : right + margin] = False
    assert not changed.any()


def test_a_table_stays_without_its_objects() -> None:
    on_table = (
        (scene, label)
        for scene in (compose(0, index) for index in range(400))
        if scene.place in ("bedroom", "living room") and len(scene.counts) > 1
        for label in scene.counts
        if {placed.label for placed in scene.placements if placed.zone == "table"} == {label}
    )
    scene, label = next(on_table)
    # The table's front edge is at the lower edge of the image.
    whole, taken = (np.asarray(draw_scene(one, 128)) for one in (scene, scene.without(label)))
    assert (whole[-1] == taken[-1]).all()


def test_references_lead_to_the_same_counterfactual() -> None:
    for record in SOURCE.records():
        scene = describe(record.image)
        assert scene.reference == record.image
        assert scene.labels == record.labels
        assert record.split == "test"


def test_each_object_is_taken_out_once() -> None:
    scene = describe("scene:3:0")
    changed = [one.change for one in counterfactuals(scene)]
    assert changed[:-1] == [f"-{label}" for label in scene.counts]
    assert changed[-1].startswith("@")
    moved = list(counterfactuals(scene))[-1]
    assert moved.placements == scene.placements
    assert moved.place != scene.place
    assert set(scene.labels) - set(moved.labels) >= {scene.place}


def test_pairs_name_the_labels_that_left() -> None:
    images = [record.image for record in SOURCE.records()]
    pairs = counterfactual_pairs(images)
    assert len(pairs) == len(images) - SOURCE.count
    first = pairs[images.index("scene:3:0:-cup") - 1]
    assert (images[first.original], images[first.changed]) == ("scene:3:0", "scene:3:0:-cup")
    assert "cup" in first.lost
    assert not first.lost & set(describe("scene:3:0:-cup").labels)


@pytest.mark.parametrize(
    "reference", ["scene:3:0:-dog", "scene:3:0:@nowhere", "scene:3:0:+cup", "scene:3:0:-"]
)
def test_impossible_changes_are_rejected(reference: str) -> None:
    with pytest.raises(ValueError, match="scene:3:0|expected a scene"):
        describe(reference)


def test_originals_alone_are_no_pairs() -> None:
    with pytest.raises(ValueError, match="none of the 2 images is a counterfactual"):
        counterfactual_pairs(["scene:3:0", "scene:3:1"])
