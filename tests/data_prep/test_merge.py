from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from square_source import SquareSource, contents, skipped_rows

from sieve.data_prep.merge import add, merge
from sieve.data_prep.pipeline.plan import CHUNK_ROWS, Shard
from sieve.data_prep.prepare import prepare
from sieve.data_prep.records import Record, Skipped
from sieve.data_prep.sources.folder import Folder
from sieve.model.backbone.clip import Backbone
from sieve.model.collection import Collection, thumbnail_path


class Mixed(SquareSource):
    """A source with good and bad records, a duplicate id, and malformed rows."""

    name = "mixed"

    def records(self) -> Iterator[Record]:
        yield from super().records()
        yield Record("s3", "elsewhere")

    def skipped_rows(self) -> list[Skipped]:
        return [Skipped("captions.csv:9", "", "empty caption")]


MIXED = Mixed(3 * CHUNK_ROWS + 40, {7: "torn", 600: "torn", 807: "torn"})


def shards(backbone: Backbone, folder: Path, of: int) -> list[Path]:
    made = []
    for index in range(1, of + 1):
        out = folder / f"part-{index}-of-{of}"
        prepare(MIXED, backbone, out, shard=Shard(index, of), workers=0, progress=False)
        made.append(out)
    return made


@pytest.fixture(scope="module")
def parts(tiny_backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return shards(tiny_backbone, tmp_path_factory.mktemp("parts"), 3)


@pytest.mark.parametrize("of", [1, 3, 7])
def test_merged_shards_equal_the_unsharded_run(
    tiny_backbone: Backbone, tmp_path: Path, parts: list[Path], of: int
) -> None:
    whole = prepare(MIXED, tiny_backbone, tmp_path / "whole", workers=0, progress=False)
    made = parts if of == 3 else shards(tiny_backbone, tmp_path, of)  # 7: three are empty
    merged = merge(made[::-1], tmp_path / "merged")
    assert contents(merged.path) == contents(whole.path)


def test_shard_can_be_opened_alone(parts: list[Path]) -> None:
    opened = [Collection.open(part) for part in parts]
    assert sum(part.n_items for part in opened) == 805
    assert min(part.n_items for part in opened) > 30
    assert opened[1].manifest.shard.part == "2/3"
    assert len(opened[1].items) == opened[1].n_items == len(opened[1].image_embeddings)


def test_incomplete_set_of_shards_is_rejected(
    tiny_backbone: Backbone, tmp_path: Path, parts: list[Path]
) -> None:
    out = tmp_path / "merged"
    for given, message in (
        (parts[:1], "shards are missing: 2/3, 3/3; prepare them with --shard, then merge all"),
        ([*parts, parts[1]], "shard 2/3 is given twice"),
        ([], "there is nothing to merge; give the folders"),
    ):
        with pytest.raises(ValueError, match=message):
            merge(given, out)
    other = prepare(
        SquareSource(300), tiny_backbone, tmp_path / "o", shard=Shard(2, 3), progress=False
    )
    with pytest.raises(
        ValueError, match="are not from the same preparation: they differ in source"
    ):
        merge([parts[0], other.path, parts[2]], out)
    whole = prepare(SquareSource(3), tiny_backbone, tmp_path / "w", progress=False)
    with pytest.raises(ValueError, match="w is a whole collection, not a shard"):
        merge([*parts, whole.path], out)
    with pytest.raises(FileNotFoundError, match="is not a collection"):
        merge([tmp_path / "none"], out)
    assert not out.exists()
    (out / "precious").mkdir(parents=True)
    with pytest.raises(FileExistsError):
        merge(parts, out)


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "1/x", "-1/4", "1/4/2", ""])
def test_invalid_shard_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match=r"does not exist; in i/n|expected a shard as i/n"):
        Shard.parse(text)


def pictures(folder: Path, **colours: str) -> Folder:
    folder.mkdir(exist_ok=True)
    for name, colour in colours.items():
        Image.new("RGB", (12, 8), colour).save(folder / f"{name}.png")
    return Folder(folder)


def test_only_new_images_are_embedded(
    tiny_backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = pictures(tmp_path / "photos", a="red", b="blue")
    old = prepare(source, tiny_backbone, tmp_path / "one", progress=False)
    before = contents(old.path)
    pictures(tmp_path / "photos", c="green")
    opened = []
    load = Folder.open_image
    monkeypatch.setattr(
        Folder, "open_image", lambda s, r, size: opened.append(r.key) or load(s, r, size)
    )
    two = add(old, Folder(tmp_path / "photos"), tiny_backbone, tmp_path / "two", progress=False)
    assert opened == ["c.png"]
    assert contents(old.path) == before
    assert [Path(image).name for image in two.items["image"]] == ["a.png", "b.png", "c.png"]
    whole = prepare(Folder(tmp_path / "photos"), tiny_backbone, tmp_path / "w", progress=False)
    assert np.array_equal(two.image_embeddings[:2], old.image_embeddings)
    difference = two.image_embeddings[2].astype(float) - whole.image_embeddings[2].astype(float)
    assert np.abs(difference).max() < 2e-3
    assert all((two.path / thumbnail_path(item)).is_file() for item in two.items["id"])
    with pytest.raises(ValueError, match="has nothing that is not in .*two already"):
        add(two, Folder(tmp_path / "photos"), tiny_backbone, tmp_path / "three", progress=False)
    left = {"photos", "one", "two", "w"}
    assert {path.name for path in tmp_path.iterdir()} == left


def test_same_file_name_in_another_folder_is_another_item(
    tiny_backbone: Backbone, tmp_path: Path
) -> None:
    old = prepare(
        pictures(tmp_path / "paris", a="red"), tiny_backbone, tmp_path / "1", progress=False
    )
    rome = pictures(tmp_path / "rome", a="blue", b="green")
    made = add(old, rome, tiny_backbone, tmp_path / "2", progress=False)
    keys = ("a.png", "rome/a.png", "b.png")
    assert set(made.items["id"]) == {Record(key, "").id for key in keys}
    assert len(skipped_rows(made)) == 1
    pictures(tmp_path / "rome", c="black")
    again = add(made, Folder(tmp_path / "rome"), tiny_backbone, tmp_path / "3", progress=False)
    assert (again.n_items, again.name) == (4, "3")


def test_other_backbone_is_rejected_by_name(
    tiny_backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = pictures(tmp_path / "photos", a="red")
    old = prepare(source, tiny_backbone, tmp_path / "1", progress=False)
    monkeypatch.setattr(tiny_backbone, "sha256", "cd" * 32)
    with pytest.raises(ValueError, match=r"was prepared with backbone .*tiny .*, not with .*cdcd"):
        add(old, source, tiny_backbone, tmp_path / "2", progress=False)


def test_interrupted_add_embeds_nothing_twice(
    tiny_backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = prepare(pictures(tmp_path / "p", a="red"), tiny_backbone, tmp_path / "1", progress=False)
    source = pictures(tmp_path / "p", b="blue")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("sieve.data_prep.merge.join", _interrupted)
        add(old, source, tiny_backbone, tmp_path / "2", progress=False)
    assert (tmp_path / ".2.new").is_dir()
    with monkeypatch.context() as patch:
        patch.setattr(Folder, "open_image", _interrupted)
        made = add(old, Folder(tmp_path / "p"), tiny_backbone, tmp_path / "2", progress=False)
    assert made.n_items == 2
    assert not (tmp_path / ".2.new").exists()


def _interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_pickled_sources_are_small(tiny_backbone: Backbone, tmp_path: Path) -> None:
    from sieve.data_prep.merge import NewRecords

    old = prepare(pictures(tmp_path / "p", a="red"), tiny_backbone, tmp_path / "1", progress=False)
    new = NewRecords(pictures(tmp_path / "q", a="blue"), old)
    (record,) = new.records()
    copy = pickle.loads(pickle.dumps(new))
    assert record.key == "q/a.png"
    assert copy.open_image(record, 320).getpixel((0, 0)) == (0, 0, 255)
    assert len(pickle.dumps(new)) < 1000


@pytest.mark.parametrize("kind", ["outside", "a pipe"])
def test_no_link_out_of_a_shard_is_merged(
    tiny_backbone: Backbone, tmp_path: Path, kind: str
) -> None:
    """A hard link to its target would otherwise be shown as part of the collection."""
    part = tmp_path / "part"
    prepare(SquareSource(9), tiny_backbone, part, shard=Shard(1, 1), workers=0, progress=False)
    place = part / thumbnail_path(str(Collection.open(part).items["id"].iloc[3]))
    place.unlink()
    if kind == "outside":
        Image.new("RGB", (40, 30)).save(tmp_path / "private.webp")
        place.symlink_to(tmp_path / "private.webp")
    else:
        os.mkfifo(place)
    with pytest.raises(ValueError, match="prepare that part again") as raised:
        merge([part], tmp_path / "merged")
    assert str(place) in str(raised.value) and "\n" not in str(raised.value)
    assert not (tmp_path / "merged").exists()
