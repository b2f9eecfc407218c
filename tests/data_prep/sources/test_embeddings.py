from __future__ import annotations

import csv
import io
import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from published import jpeg, write

from data_prep.captions.tile import draw_tile
from data_prep.known import Joined
from data_prep.prepare import prepare
from data_prep.sources.embeddings import Embeddings, Picked, open_identity
from model.backbone import Backbone
from model.collection import BackboneIdentity, Collection

D = 16
PARTS = ("img_emb", "text_emb", "metadata")
FIRST_TABLE = "metadata/metadata_0.parquet"


def unit(count: int, seed: int = 0, width: int = D) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, width))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def write_shard(
    folder: Path, number: int, images: np.ndarray, texts: np.ndarray | None, facts: dict[str, Any]
) -> None:
    """One shard as clip-retrieval's writer leaves it: three files of one number."""
    for part in PARTS:
        (folder / part).mkdir(parents=True, exist_ok=True)
    np.save(folder / "img_emb" / f"img_emb_{number}.npy", images)
    if texts is None:
        (folder / "text_emb").rmdir()
    else:
        np.save(folder / "text_emb" / f"text_emb_{number}.npy", texts)
    pd.DataFrame(facts).to_parquet(folder / "metadata" / f"metadata_{number}.parquet")


def retrieval(folder: Path, sizes: tuple[int, ...] = (3, 2), **facts: Any) -> Path:
    start = 0
    for number, size in enumerate(sizes):
        rows = range(start, start + size)
        known = {
            "image_path": [f"/data/set/{row:03}.jpg" for row in rows],
            "caption": [f"caption {row}" for row in rows],
            "url": [f"http://x.org/{row}" for row in rows],
        }
        images, texts = (unit(size, seed + number) for seed in (10, 20))
        write_shard(folder, number, images, texts, known | facts)
        start += size
    return folder


def export(collection: Collection, folder: Path, shards: int) -> Path:
    """Write a collection out as clip-retrieval would have: a row a caption, its image repeated."""
    owners = np.asarray(collection.caption_item)
    for number, rows in enumerate(np.array_split(np.arange(len(owners)), shards)):
        of = owners[rows]
        write_shard(
            folder, number, collection.image_embeddings[of], collection.text_embeddings[rows],
            {
                "image_path": collection.items["image"].iloc[of].tolist(),
                "caption": [collection.caption_texts[row] for row in rows],
                "split": collection.items["split"].iloc[of].tolist(),
                "labels": [list(labels) for labels in collection.items["labels"].iloc[of]],
            },
        )  # fmt: skip
    return folder


def identity(width: int = D) -> BackboneIdentity:
    return BackboneIdentity.unknown("some-clip", width)


def prepared(source: Embeddings, out: Path, **options: Any) -> Collection:
    return prepare(source, identity(), out, known=source.known(), progress=False, **options)


@pytest.mark.parametrize("shards", [1, 3, 12])
def test_a_round_trip_through_clip_retrievals_layout(
    tiny_collection: Collection, pictures: Path, tmp_path: Path, shards: int
) -> None:
    folder = export(tiny_collection, tmp_path / "out", shards)
    source = Embeddings(folder, pictures / "images")
    made = prepare(
        source, tiny_collection.backbone, tmp_path / "again", known=source.known(), progress=False
    )
    for part in ("image_embeddings", "text_embeddings", "caption_item"):
        assert np.array_equal(getattr(made, part), getattr(tiny_collection, part)), part
    assert list(made.caption_texts) == list(tiny_collection.caption_texts)
    for column in ("image", "split", "width", "height"):
        assert made.items[column].tolist() == tiny_collection.items[column].tolist()
    labels = [list(map(list, c.items["labels"])) for c in (made, tiny_collection)]
    assert labels[0] == labels[1]
    assert made.backbone == tiny_collection.backbone


def test_shards_go_by_their_numbers(tmp_path: Path) -> None:
    source = Embeddings(retrieval(tmp_path / "e", (1,) * 12))
    assert [record.key for record in source.records()] == [
        f"/data/set/{n:03}.jpg" for n in range(12)
    ]
    images = np.concatenate([unit(1, 10 + number) for number in range(12)])
    assert np.array_equal(source.known().images[0:12], images)
    assert np.array_equal(source.known().images[9:11], images[9:11])


def test_no_backbone_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backbone, "__init__", lambda *_: pytest.fail("a backbone was opened"))
    made = prepared(Embeddings(retrieval(tmp_path / "e")), tmp_path / "c")
    assert (made.n_items, made.n_captions, made.backbone.width) == (5, 5, D)
    assert not made.backbone.is_known and made.backbone.name == "some-clip"


def test_an_image_that_is_not_here_is_shown_by_its_caption(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "images" / "set" / "001.jpg", jpeg("red"))
    write(tmp_path / "images" / "002.jpg", b"no image")
    source = Embeddings(retrieval(tmp_path / "e"), tmp_path / "images")
    with caplog.at_level(logging.WARNING):
        made = prepared(source, tmp_path / "c")
    assert made.n_items == 5
    assert made.items["width"].tolist() == [320, 12, 320, 320, 320]
    assert made.items["image"].iloc[1] == str(tmp_path / "images" / "set" / "001.jpg")
    assert made.items["image"].iloc[0] == "/data/set/000.jpg"
    told = [message for message in caplog.messages if "images are in" in message]
    assert set(told) == {
        f"2 of 5 images are in {tmp_path / 'images'}; the others are shown by their captions "
        "(--images says where they are)"
    }


def test_nothing_outside_the_folder_of_images_is_read(tmp_path: Path) -> None:
    secret = write(tmp_path / "secret.jpg", jpeg("red"))
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "link.jpg").symlink_to(secret)
    names = [str(secret), "../secret.jpg", "link.jpg", "nul\0.jpg", "x" * 900]
    source = Embeddings(retrieval(tmp_path / "e", (5,), image_path=names), tmp_path / "images")
    records = list(source.records())
    assert [record.key for record in records] == names
    for record in records:
        assert source.open_image(record, 320).size == (320, 240)


def test_rows_of_one_image_are_one_item(tmp_path: Path) -> None:
    images = unit(5)[[0, 1, 0, 2, 3]]  # the last is another image of the first one's name
    texts = unit(5, 1)
    facts = {"image_path": ["a", "b", "a", "c", "a"], "caption": ["x", "y", "z", "", "x"]}
    write_shard(tmp_path / "e", 0, images, texts, facts)
    source = Embeddings(tmp_path / "e")
    made = prepared(source, tmp_path / "c")
    assert [(r.key, r.captions) for r in source.records()] == [
        ("a", ("x", "z")), ("b", ("y",)), ("c", ()), ("a#4", ("x",)),
    ]  # fmt: skip
    assert np.allclose(made.image_embeddings, images[[0, 1, 3, 4]], atol=1e-3)
    assert np.allclose(made.text_embeddings, texts[[0, 2, 1, 4]], atol=1e-3)
    with (made.path / "skipped.csv").open() as stream:
        assert ["row:3", "c", "empty caption"] in list(csv.reader(stream))


def test_captions_without_embeddings(
    tmp_path: Path, tiny_backbone: Backbone, caplog: pytest.LogCaptureFixture
) -> None:
    facts = {"image_path": ["a.jpg", "b.jpg"], "caption": ["a dog", "a cat"]}
    width = tiny_backbone.width
    write_shard(tmp_path / "e", 0, unit(2, width=width), None, facts)
    with caplog.at_level(logging.WARNING):
        source = Embeddings(tmp_path / "e")
        made = prepare(
            source, identity(width), tmp_path / "mute", known=source.known(), progress=False
        )
    assert made.n_captions == 0 and made.text_embeddings.shape == (0, width)
    assert "left out 2 captions without embeddings; --embed-captions embeds them" in caplog.messages
    kept = Embeddings(tmp_path / "e", keep_captions=True)
    told = prepare(kept, tiny_backbone, tmp_path / "told", known=kept.known(), progress=False)
    expected = tiny_backbone.encode_texts(["a dog", "a cat"])
    assert np.allclose(told.text_embeddings, expected, atol=2e-3)
    with pytest.raises(ValueError, match="has to be opened"):
        prepare(kept, identity(width), tmp_path / "no", known=kept.known(), progress=False)


def test_plain_arrays_and_a_table(tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    folder.mkdir()
    np.save(folder / "images.npy", unit(3).astype(np.float32) * 7)
    np.save(folder / "texts.npy", unit(3, 1).astype(np.float64))
    (folder / "table.csv").write_text('image,caption\na.jpg,"one, two"\nb.jpg,<b>x</b>\na,NaN\n')
    made = prepared(Embeddings(folder), tmp_path / "c")
    assert list(made.caption_texts) == ["one, two", "<b>x</b>", "NaN"]
    assert np.allclose(made.image_embeddings, unit(3), atol=1e-3)
    (folder / "texts.npy").unlink()
    (folder / "table.csv").unlink()
    pd.DataFrame({"score": [1, 2, 3]}).to_parquet(folder / "table.parquet")
    assert [record.key for record in Embeddings(folder).records()] == ["row:0", "row:1", "row:2"]


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_embeddings_without_a_direction_are_left_out_by_name(tmp_path: Path, value: float) -> None:
    images = unit(40)
    images[7] = value
    facts = {"image_path": [f"{n}.jpg" for n in range(40)], "caption": [f"c{n}" for n in range(40)]}
    write_shard(tmp_path / "e", 0, images, unit(40, 1), facts)
    made = prepared(Embeddings(tmp_path / "e"), tmp_path / "c")
    assert made.n_items == made.n_captions == 39
    assert "7.jpg,7.jpg,embedding is NaN, infinite or zero" in (
        made.path / "skipped.csv"
    ).read_text().replace('"', "")
    images[:10] = value
    write_shard(tmp_path / "e", 0, images, unit(40, 1), facts)
    with pytest.raises(ValueError, match="of the first 40 records cannot be used, more than 5%"):
        prepared(Embeddings(tmp_path / "e"), tmp_path / "d")


def save_objects(path: Path) -> None:
    np.save(path, np.array([{"a": 1}], object), allow_pickle=True)


def archive_of(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, array)
    return stream.getvalue()


Harm = Callable[[Path], Any]
HARMS: dict[str, tuple[Harm, str]] = {
    "no array": (
        lambda e: write(e / "img_emb" / "img_emb_0.npy", b"nothing"),
        r"img_emb_0.npy cannot be read: it holds Python objects or is no array",
    ),
    "half a ZIP archive": (
        lambda e: write(e / "img_emb" / "img_emb_0.npy", b"PK\x03\x04" + b"\0" * 90),
        r"img_emb_0.npy cannot be read: it holds Python objects or is no array",
    ),
    "a ZIP archive of arrays": (
        lambda e: write(e / "img_emb" / "img_emb_0.npy", archive_of(unit(3))),
        r"img_emb_0.npy cannot be read: it holds Python objects or is no array",
    ),
    "a pickle": (
        lambda e: save_objects(e / "img_emb" / "img_emb_0.npy"),
        r"img_emb_0.npy cannot be read: it holds Python objects",
    ),
    "cut off": (
        lambda e: write(
            e / "img_emb" / "img_emb_0.npy", (e / "img_emb" / "img_emb_0.npy").read_bytes()[:-9]
        ),
        r"img_emb_0.npy cannot be read: ",
    ),
    "three dimensions": (
        lambda e: np.save(e / "img_emb" / "img_emb_0.npy", np.ones((3, 2, 2), np.float16)),
        r"img_emb_0.npy has shape \(3, 2, 2\); expected \(rows, width\)",
    ),
    "whole numbers": (
        lambda e: np.save(e / "img_emb" / "img_emb_0.npy", np.ones((3, D), np.int32)),
        r"img_emb_0.npy holds int32; expected floating-point numbers",
    ),
    "no rows": (
        lambda e: np.save(e / "img_emb" / "img_emb_0.npy", np.ones((0, D), np.float16)),
        r"has shape \(0, 16\); expected",
    ),
    "another width": (
        lambda e: [
            np.save(e / p / f"{p}_1.npy", unit(2, width=8)) for p in ("img_emb", "text_emb")
        ],
        r"img_emb_1.npy is 8 wide, but img_emb_0.npy 16",
    ),
    "texts of another width": (
        lambda e: np.save(e / "text_emb" / "text_emb_1.npy", unit(2, width=8)),
        r"text_emb_1.npy has shape \(2, 8\), but img_emb_1.npy \(2, 16\)",
    ),
    "too few texts": (
        lambda e: np.save(e / "text_emb" / "text_emb_0.npy", unit(2)),
        r"text_emb_0.npy has shape \(2, 16\), but img_emb_0.npy \(3, 16\)",
    ),
    "a table too short": (
        lambda e: pd.DataFrame({"caption": ["x"]}).to_parquet(
            e / "metadata" / "metadata_0.parquet"
        ),
        r"metadata_0.parquet has 1 rows, but its array of images 3",
    ),
    "a table too long": (
        lambda e: pd.DataFrame({"caption": ["x"] * 4}).to_parquet(
            e / "metadata" / "metadata_0.parquet"
        ),
        r"metadata_0.parquet has 4 rows, but its array of images 3",
    ),
    "a damaged table": (
        lambda e: write(e / "metadata" / "metadata_1.parquet", b"PAR1 x PAR1"),
        r"metadata_1.parquet is not a table that can be read: ",
    ),
    "a missing table": (
        lambda e: (e / "metadata" / "metadata_1.parquet").unlink(),
        r"2 shards in img_emb and 1 in metadata: img_emb_1.npy has no counterpart",
    ),
    "a missing array of texts": (
        lambda e: (e / "text_emb" / "text_emb_0.npy").unlink(),
        r"2 shards in img_emb and 1 in text_emb: img_emb_0.npy has no counterpart",
    ),
    "no arrays": (
        lambda e: [path.unlink() for path in (e / "img_emb").iterdir()],
        r"img_emb holds no .npy files",
    ),
}


@pytest.mark.parametrize("harm", HARMS)
def test_what_does_not_fit_is_told_in_a_line(tmp_path: Path, harm: str) -> None:
    folder = retrieval(tmp_path / "e")
    apply, message = HARMS[harm]
    apply(folder)
    with pytest.raises(ValueError, match=message) as caught:
        Embeddings(folder).known()
    assert "\n" not in str(caught.value)


def test_missing_places_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder .*none; give the folder of the embed"):
        Embeddings(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="no folder .*none; check --images"):
        Embeddings(retrieval(tmp_path / "e"), tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds none of these; expected clip-retrieval's folders"):
        Embeddings(tmp_path / "empty")


def test_the_backbone_is_known_where_it_can_be_opened(
    tiny_backbone: Backbone, tiny_backbone_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"local-dir:{tiny_backbone_dir}"
    assert open_identity(name, 32, "cpu").sha256 == tiny_backbone.sha256
    with pytest.raises(ValueError, match="embeddings are 16 wide, but those of .* are 32; name"):
        open_identity(name, 16, "cpu")
    one, other = open_identity("somebody-elses", 16), open_identity("another", 16)
    assert isinstance(one, BackboneIdentity) and not one.is_known
    assert one == open_identity("open_clip:somebody-elses", 16)
    assert one.sha256 != other.sha256
    assert one.may_be(tiny_backbone.sha256, 16) and not one.may_be(tiny_backbone.sha256, 32)
    assert str(one) == "backbone somebody-elses (weights unknown)"
    assert "the weights of backbone somebody-elses are unknown here" in caplog.text


def test_a_source_travels_light(tmp_path: Path) -> None:
    source = Embeddings(retrieval(tmp_path / "e"))
    record = next(source.records())
    copy = pickle.loads(pickle.dumps(source))
    assert not any(isinstance(value, np.memmap) for value in vars(copy).values())
    assert copy.open_image(record, 320).size == (320, 240)
    assert len(list(copy.records())) == 5


def test_picked_rows_are_those_asked_for() -> None:
    parts = [unit(40, 1), unit(3, 2), unit(60, 3)]
    whole = np.concatenate(parts)
    places = np.array([0, 0, 5, 41, 42, 43, 102, 2, 1])
    picked = Picked(Joined(parts), places)
    assert picked.shape == (9, D)
    for start in range(9):
        for stop in range(start, 10):
            assert np.array_equal(picked[start:stop], whole[places[start:stop]])


@pytest.mark.parametrize(
    "text",
    ["a dog", "", "word " * 500, "x" * 3000, "W" * 90, "<b>&amp;\u202eשלום", "漢字", "a\nb\tc"],
)
def test_tiles_hold_any_text(text: str) -> None:
    tile = draw_tile(text)
    assert (tile.mode, tile.size) == ("RGB", (320, 240))
    inside = np.asarray(tile)[10:-10, 10:-10]
    assert inside.std() > 1, "something is written"
    edge = np.asarray(tile)[4:-4, -12:-4]
    assert (edge == edge[0, 0]).all(), "nothing runs out of the tile"


def test_tiles_of_other_texts_differ() -> None:
    assert draw_tile("a dog") == draw_tile("a dog")
    assert draw_tile("a dog") != draw_tile("a cat")
