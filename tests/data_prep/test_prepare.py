from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from squares import Drawn, skipped_rows

import assets
from data_prep import bundled
from data_prep.known import Joined, KnownEmbeddings
from data_prep.pipeline.decoding import Thumbnails
from data_prep.prepare import prepare
from data_prep.records import Record
from data_prep.scenes import Scenes
from data_prep.skipped import Skipped
from data_prep.sources.folder import Folder
from model.backbone import Backbone
from model.collection import BackboneIdentity, Collection, thumbnail_path


def test_a_collection_holds_all_that_was_given(tmp_path: Path, tiny_backbone: Backbone) -> None:
    made = prepare(Drawn(7), tiny_backbone, tmp_path / "c", progress=False)
    opened = Collection.open(tmp_path / "c")
    assert (opened.name, opened.n_items, opened.n_captions) == ("drawn", 7, 6)
    assert (opened.manifest["source"], opened.manifest["licence"]) == ("7 squares", "CC0")
    assert opened.backbone == made.backbone
    assert opened.items["id"].tolist() == [record.id for record in Drawn(7).records()]
    assert opened.caption_item.tolist() == [1, 2, 2, 4, 5, 5]
    assert opened.caption_texts[2] == "square 2 seen 1"
    row = opened.items.iloc[5]
    assert (row["image"], row["split"], row["width"], row["height"]) == (
        "nowhere/5",
        "select",
        8,
        8,
    )
    assert list(row["labels"]) == ["l1"]
    assert skipped_rows(opened) == [["key", "image", "reason"]]


def test_embeddings_are_the_backbones_own(tmp_path: Path, tiny_backbone: Backbone) -> None:
    source = Drawn(40)
    made = prepare(source, tiny_backbone, tmp_path / "c", progress=False)
    assert made.image_embeddings.dtype == made.text_embeddings.dtype == np.float16
    images = tiny_backbone.encode_images([source.open_image(r, 320) for r in source.records()])
    texts = tiny_backbone.encode_texts(made.caption_texts)
    for kept, expected in ((made.image_embeddings, images), (made.text_embeddings, texts)):
        assert np.abs(np.asarray(kept, np.float32) - expected).max() < 2e-3
        assert np.abs(np.linalg.norm(kept.astype(np.float32), axis=1) - 1).max() < 2e-3


def test_thumbnails_are_small_and_never_enlarged(tmp_path: Path, tiny_backbone: Backbone) -> None:
    images = tmp_path / "images"
    images.mkdir()
    sizes = {
        "wide.png": (1000, 500),
        "tall.png": (100, 900),
        "dot.png": (1, 1),
        "long.png": (4000, 2),
    }
    for name, size in sizes.items():
        Image.new("RGB", size, "green").save(images / name)
    made = prepare(Folder(images), tiny_backbone, tmp_path / "c", progress=False)
    shown = {}
    for item in made.items.itertuples():
        with Image.open(made.path / thumbnail_path(item.id)) as thumbnail:
            assert thumbnail.format == "WEBP"
            shown[Path(item.image).name] = thumbnail.size
        assert (item.width, item.height) == sizes[Path(item.image).name]
    assert shown == {
        "wide.png": (320, 160),
        "tall.png": (36, 320),
        "dot.png": (1, 1),
        "long.png": (320, 1),
    }
    files = [path for path in (made.path / "thumbnails").rglob("*") if path.is_file()]
    assert len(files) == len(sizes)


def test_the_number_of_processes_changes_nothing(tmp_path: Path, tiny_backbone: Backbone) -> None:
    source = Drawn(150, {3: "torn", 77: "torn"})
    alone = prepare(source, tiny_backbone, tmp_path / "a", workers=0, progress=False)
    shared = prepare(source, tiny_backbone, tmp_path / "b", workers=2, progress=False)
    assert alone.manifest == shared.manifest  # it holds the hash of every file
    for one in (alone.path / "thumbnails").rglob("*.webp"):
        assert one.read_bytes() == (shared.path / one.relative_to(alone.path)).read_bytes()


def test_bad_records_are_left_out_by_name(tmp_path: Path, tiny_backbone: Backbone) -> None:
    made = prepare(
        Drawn(60, {0: "torn", 41: "a\nbomb"}), tiny_backbone, tmp_path / "c", progress=False
    )
    assert made.n_items == 58
    assert skipped_rows(made)[1:] == [["s0", "nowhere/0", "torn"], ["s41", "nowhere/41", "a bomb"]]
    assert made.items["image"].iloc[0] == "nowhere/1"
    own = [caption.split()[1] for caption in made.caption_texts]
    assert own == [made.items["image"].iloc[row].split("/")[1] for row in made.caption_item]


def test_too_many_bad_records_stop(tmp_path: Path, tiny_backbone: Backbone) -> None:
    source = Drawn(60, {1: "torn: 5 bytes", 2: "torn: 7 bytes", 5: "a bomb", 6: "torn: x"})
    with pytest.raises(ValueError) as caught:
        prepare(source, tiny_backbone, tmp_path / "c", progress=False)
    assert str(caught.value) == (
        "4 of the first 32 records cannot be used, more than 5% of all 60: 3 × torn (s1), "
        "1 × a bomb (s5); mend them, or leave them out with --keep-going"
    )
    assert list(tmp_path.iterdir()) == []
    made = prepare(source, tiny_backbone, tmp_path / "c", progress=False, keep_going=True)
    assert made.n_items == 56


def test_nothing_usable_is_no_collection(tmp_path: Path, tiny_backbone: Backbone) -> None:
    torn = Drawn(3, {0: "torn", 1: "torn", 2: "torn"})
    with pytest.raises(ValueError, match=r"none of the 3 records can be used: 3 × torn \(s0\)"):
        prepare(torn, tiny_backbone, tmp_path / "c", progress=False, keep_going=True)
    with pytest.raises(ValueError, match="there are no images in .*: there is nothing to prep"):
        prepare(Drawn(0), tiny_backbone, tmp_path / "c", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_duplicate_id_is_left_out(tmp_path: Path, tiny_backbone: Backbone) -> None:
    class Twice(Drawn):
        def records(self) -> Iterator[Record]:
            yield from super().records()
            yield Record("s7", "elsewhere")

    made = prepare(Twice(40), tiny_backbone, tmp_path / "c", progress=False)
    assert made.n_items == 40
    key, image, reason = skipped_rows(made)[1]
    assert (key, image) == ("s7", "elsewhere")
    assert reason.startswith("duplicate id: ") and reason.endswith(" is s7 already")


def test_rows_that_are_no_records_are_listed_but_not_counted_as_bad(
    tmp_path: Path, tiny_backbone: Backbone
) -> None:
    class WithRows(Drawn):
        def skipped_rows(self) -> list[Skipped]:
            return [Skipped(f"captions.csv:{n}", "a.png", "empty caption") for n in range(30)]

    made = prepare(WithRows(5), tiny_backbone, tmp_path / "c", progress=False)
    assert made.n_items == 5
    assert len(skipped_rows(made)) == 31
    assert made.manifest["counts"]["skipped"] == 30


def test_known_embeddings_spare_the_images(tmp_path: Path, tiny_backbone: Backbone) -> None:
    known = np.random.default_rng(0).standard_normal((30, tiny_backbone.width))
    made = prepare(
        Drawn(30, {4: "torn"}),
        tiny_backbone,
        tmp_path / "c",
        progress=False,
        known=KnownEmbeddings(known.astype(np.float16)),
    )
    expected = np.delete(known, 4, axis=0)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.abs(made.image_embeddings.astype(float) - expected).max() < 2e-3
    with pytest.raises(
        ValueError, match=r"shape \(30, 32\), expected \(31, 32\): one row a record"
    ):
        prepare(
            Drawn(31), tiny_backbone, tmp_path / "d", known=KnownEmbeddings(known), progress=False
        )


def test_where_all_is_known_no_backbone_runs(tmp_path: Path) -> None:
    class Twice(Drawn):
        def records(self) -> Iterator[Record]:
            for place, record in enumerate(super().records()):
                yield record
                if place == 2:
                    yield Record("s2", "elsewhere", ("again",))

    random = np.random.default_rng(0)
    images, texts = random.standard_normal((61, 6)), random.standard_normal((61, 6))
    identity = BackboneIdentity("theirs", "ab" * 32, 6)
    known = KnownEmbeddings(Joined([images[:3], images[3:29], images[29:]]), texts)
    made = prepare(Twice(60, {4: "torn"}), identity, tmp_path / "c", known=known, progress=False)
    assert made.backbone == identity
    for found, given, left_out in (
        (made.image_embeddings, images, [3, 5]),  # the duplicate, and the torn one after it
        (made.text_embeddings, texts, [3, 4]),
    ):
        expected = np.delete(given, left_out, axis=0)
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        assert np.abs(found.astype(float) - expected).max() < 2e-3


def test_what_is_not_known_needs_a_backbone(tmp_path: Path) -> None:
    identity = BackboneIdentity("theirs", "ab" * 32, 6)
    known = KnownEmbeddings(np.ones((3, 6)))
    with pytest.raises(ValueError, match="not all embeddings of drawn are known: backbone theirs"):
        prepare(Drawn(3), identity, tmp_path / "c", known=known, progress=False)
    wrong = KnownEmbeddings(np.ones((3, 6)), np.ones((4, 6)))
    with pytest.raises(ValueError, match=r"known texts have shape \(4, 6\), expected \(3, 6\)"):
        prepare(Drawn(3), identity, tmp_path / "c", known=wrong, progress=False)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_known_embeddings_that_are_no_directions_are_left_out(tmp_path: Path, value: float) -> None:
    images, texts = np.ones((60, 4), np.float16), np.ones((60, 4), np.float16)
    images[17] = value
    texts[-1, 2] = value if value else np.nan  # the second caption of the last record
    known = KnownEmbeddings(images, texts)
    identity = BackboneIdentity("theirs", "ab" * 32, 4)
    made = prepare(Drawn(60), identity, tmp_path / "c", known=known, progress=False)
    assert [row[::2] for row in skipped_rows(made)[1:]] == [
        ["s17", "embedding is NaN, infinite or zero"],
        ["s59", "a caption's embedding is NaN, infinite or zero"],
    ]
    assert (made.n_items, made.n_captions) == (58, 56)
    shown = {path.stem for path in (made.path / "thumbnails").rglob("*.webp")}
    assert shown == set(made.items["id"])


def test_a_damaged_backbone_is_refused(
    tmp_path: Path, tiny_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = np.zeros((30, tiny_backbone.width), np.float32)
    monkeypatch.setattr(Backbone, "encode_pixels", lambda *_: nothing)
    with pytest.raises(ValueError, match="is NaN, infinite or zero; its weights are damaged"):
        prepare(Drawn(30), tiny_backbone, tmp_path / "c", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_batch_that_does_not_fit_into_memory_is_halved(
    tmp_path: Path,
    tiny_backbone: Backbone,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = Drawn(70)
    whole = prepare(source, tiny_backbone, tmp_path / "whole", progress=False)
    encode, most = Backbone.encode_pixels, 9

    def small(self: Backbone, pixels: torch.Tensor) -> np.ndarray:
        if len(pixels) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(self, pixels)

    monkeypatch.setattr(Backbone, "encode_pixels", small)
    halved = prepare(source, tiny_backbone, tmp_path / "halved", progress=False)
    difference = halved.image_embeddings.astype(float) - whole.image_embeddings.astype(float)
    assert np.abs(difference).max() < 2e-3
    assert [record.message.split(";")[0] for record in caplog.records] == [
        "out of memory: from here on 16 images at once",
        "out of memory: from here on 8 images at once",
    ]
    assert "rows may differ in the last bit" in caplog.text
    most = 0
    with pytest.raises(OSError, match="one of the images alone does not fit into memory"):
        prepare(source, tiny_backbone, tmp_path / "none", progress=False)


def test_what_exists_is_not_touched(tmp_path: Path, tiny_backbone: Backbone) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "thesis.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="exists already; choose another name"):
        prepare(Drawn(3), tiny_backbone, tmp_path / "c", progress=False)
    assert (tmp_path / "c" / "thesis.txt").read_text() == "precious"


@pytest.mark.parametrize("workers", [0, 1])
def test_a_full_disk_is_told_and_leaves_nothing(
    tmp_path: Path, tiny_backbone: Backbone, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "a.webp")

    monkeypatch.setattr(Thumbnails, "write", full)
    with pytest.raises(OSError, match="the disk that holds .* is full; free some space"):
        prepare(Drawn(9), tiny_backbone, tmp_path / "c", workers=workers, progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "writer", ["numpy.savez", "data_prep.pipeline.writing.CollectionWriter.add"]
)
def test_a_disk_that_fills_up_at_the_end_is_told_too(
    tmp_path: Path, tiny_backbone: Backbone, monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    def short_write(*_: object, **__: object) -> None:
        raise OSError("4096 requested and 12 written")  # as NumPy says it, without a number

    monkeypatch.setattr(writer, short_write)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0))
    with pytest.raises(OSError, match="the disk that holds .* is full"):
        prepare(Drawn(3), tiny_backbone, tmp_path / "c", progress=False)
    assert not (tmp_path / "c").exists()
    monkeypatch.undo()
    assert prepare(Drawn(3), tiny_backbone, tmp_path / "c", progress=False).n_items == 3
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_ctrl_c_leaves_nothing(tmp_path: Path, tiny_backbone: Backbone) -> None:
    class Interrupted(Drawn):
        def open_image(self, record: Record, size: int) -> Image.Image:
            if record.key == "s50":
                raise KeyboardInterrupt
            return super().open_image(record, size)

    with pytest.raises(KeyboardInterrupt):
        prepare(Interrupted(60), tiny_backbone, tmp_path / "c", workers=0, progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("home")
class TestBundled:
    """The bundled collection, with a tiny backbone in place of the shipped one."""

    @pytest.fixture(autouse=True)
    def _few_scenes(
        self, monkeypatch: pytest.MonkeyPatch, tiny_backbone_dir: Path, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(assets, "ROOT", tmp_path / "assets")
        monkeypatch.setattr(bundled, "BACKBONE", f"local-dir:{tiny_backbone_dir}")
        monkeypatch.setattr("data_prep.scenes.Scenes", lambda: Scenes(count=12))

    def test_it_is_prepared_once(self, home: Path) -> None:
        path = bundled.open_collection_path("scenes", progress=False)
        assert path.parent == home / "collections"
        assert Collection.open(path).n_items == 12
        before = (path / "collection.json").stat().st_mtime_ns
        assert bundled.open_collection_path("scenes", progress=False) == path
        assert (path / "collection.json").stat().st_mtime_ns == before

    def test_shipped_embeddings_are_used_and_name_the_version(self) -> None:
        computed = bundled.bundled_scenes(progress=False)
        shipped = bundled.scenes_embeddings()
        shipped.parent.mkdir(parents=True)
        known = np.random.default_rng(0).standard_normal((12, 32)).astype(np.float16)
        np.save(shipped, known)
        path = bundled.bundled_scenes(progress=False)
        assert path != computed
        first = Collection.open(path).image_embeddings[0].astype(float)
        assert first @ known[0] / np.linalg.norm(known[0].astype(float)) > 0.999

    def test_two_at_once_both_get_it(self, home: Path) -> None:
        with ThreadPoolExecutor(2) as pool:
            paths = list(pool.map(lambda _: bundled.bundled_scenes(progress=False), range(2)))
        assert paths[0] == paths[1]
        assert Collection.open(paths[0]).n_items == 12
        assert [entry.name for entry in (home / "collections").iterdir()] == [paths[0].name]


def test_names_are_found_in_their_order(
    tmp_path: Path, home: Path, tiny_collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = home / "collections" / "mine"
    shutil.copytree(tiny_collection.path, kept)
    assert bundled.open_collection_path("mine") == kept
    assert bundled.open_collection_path(tiny_collection.path) == tiny_collection.path
    monkeypatch.chdir(tmp_path)
    shutil.copytree(kept, tmp_path / "mine")
    assert bundled.open_collection_path("mine") == Path("mine")
    with pytest.raises(FileNotFoundError, match="no collection 'yours'; there are: scenes, mine"):
        bundled.open_collection_path("yours")
    (tmp_path / "yours").mkdir()
    with pytest.raises(FileNotFoundError, match="yours is not a collection"):
        Collection.open(bundled.open_collection_path("yours"))
