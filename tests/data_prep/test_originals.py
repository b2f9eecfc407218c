from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sieve.data_prep import images as originals
from sieve.data_prep.images import open_original, open_thumbnail
from sieve.data_prep.scenes.render import render_scene
from sieve.model.collection import thumbnail_path


def changed(collection, **columns: object):
    other = copy.copy(collection)
    other.__dict__ |= {"items": collection.items.assign(**columns)}
    return other


def test_original_photograph_is_returned_unchanged(tiny_collection) -> None:
    found = open_original(tiny_collection, 3, 900)
    path = tiny_collection.items["image"].iloc[3]
    assert not found.is_thumbnail
    assert np.array_equal(np.asarray(found.image), np.asarray(Image.open(path).convert("RGB")))


def test_scene_is_rendered_at_print_size(tiny_collection) -> None:
    scene = render_scene("scene:0:5", 320)
    scenes = changed(tiny_collection, image="scene:0:5", width=scene.width, height=scene.height)
    found = open_original(scenes, 0, 700)
    assert not found.is_thumbnail
    assert 700 <= min(found.image.size) < 800


@pytest.mark.parametrize(
    "columns",
    [{"image": "nowhere.jpg"}, {"image": "scene:x"}, {"image": "/etc/passwd"}, {"width": 47}],
    ids=str,
)
def test_thumbnail_is_used_if_the_original_is_unavailable(tiny_collection, columns: dict) -> None:
    found = open_original(changed(tiny_collection, **columns), 3, 900)
    assert found.is_thumbnail
    assert found.image.size == open_thumbnail(tiny_collection, 3).image.size


def test_different_image_of_the_same_size_is_not_shown(tiny_collection, tmp_path: Path) -> None:
    path = tmp_path / "private.png"
    with Image.open(tiny_collection.items["image"].iloc[3]) as own:
        own.rotate(180).save(path)
    found = open_original(changed(tiny_collection, image=str(path)), 3, 900)
    assert found.is_thumbnail


def test_missing_thumbnail_is_reported(tiny_collection, tmp_path: Path) -> None:
    collection = changed(tiny_collection, image="nowhere.jpg")
    collection.path = tmp_path
    with pytest.raises(ValueError, match=r"\.webp: file is missing; prepare"):
        open_original(collection, 3, 900)


def test_no_link_out_of_the_thumbnails_is_followed(tiny_collection, tmp_path: Path) -> None:
    collection = changed(tiny_collection, image="nowhere.jpg")
    collection.path = tmp_path / "c"
    place = collection.path / thumbnail_path(collection.items["id"].iloc[3])
    place.parent.mkdir(parents=True)
    Image.new("RGB", (40, 30)).save(tmp_path / "private.webp")
    place.symlink_to(tmp_path / "private.webp")
    with pytest.raises(ValueError, match="a link that leaves the collection's thumbnails"):
        open_original(collection, 3, 900)


@pytest.mark.parametrize(
    "place", [r"\\evil\share\a.png", "//evil/share/a.png", r"\/evil/share/a.png", r"/\evil\a.png"]
)
def test_image_paths_on_other_machines_are_not_opened(
    tiny_collection, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    load_image = originals.load_image
    monkeypatch.setattr(originals, "load_image", lambda p: opened.append(str(p)) or load_image(p))
    assert open_original(changed(tiny_collection, image=place), 3, 900).is_thumbnail
    assert not opened
