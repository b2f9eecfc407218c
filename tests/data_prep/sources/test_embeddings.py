"""Test collections of external embeddings; nothing is embedded again."""

from __future__ import annotations

import csv
import logging
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from published import jpeg, write
from retrieved import D, identity, prepared, retrieval, unit, write_shard

from sieve.data_prep.images import open_original
from sieve.data_prep.precomputed import ConcatRows
from sieve.data_prep.prepare import prepare
from sieve.data_prep.records import Tally, read_skipped
from sieve.data_prep.sources.embeddings import Embeddings, RowSubset, open_identity
from sieve.data_prep.sources.local_images import find_images
from sieve.model.backbone.clip import Backbone
from sieve.model.collection import BackboneIdentity, Collection


def export(collection: Collection, folder: Path, shards: int) -> Path:
    """Export a collection in the layout of clip-retrieval, with one row per caption."""
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


@pytest.mark.parametrize("shards", [1, 3, 12])
def test_clip_retrieval_layout_round_trips(
    tiny_collection: Collection, pictures: Path, tmp_path: Path, shards: int
) -> None:
    folder = export(tiny_collection, tmp_path / "out", shards)
    source = Embeddings(folder, pictures / "images")
    made = prepare(
        source,
        tiny_collection.backbone,
        tmp_path / "again",
        precomputed=source.precomputed(),
        progress=False,
    )
    for part in ("image_embeddings", "text_embeddings", "caption_item"):
        assert np.array_equal(getattr(made, part), getattr(tiny_collection, part)), part
    assert list(made.caption_texts) == list(tiny_collection.caption_texts)
    for column in ("image", "split", "width", "height"):
        assert made.items[column].tolist() == tiny_collection.items[column].tolist()
    labels = [list(map(list, c.items["labels"])) for c in (made, tiny_collection)]
    assert labels[0] == labels[1]
    assert made.backbone == tiny_collection.backbone


def test_shards_are_ordered_by_number(tmp_path: Path) -> None:
    source = Embeddings(retrieval(tmp_path / "e", (1,) * 12))
    assert [record.key for record in source.records()] == [
        f"/data/set/{n:03}.jpg" for n in range(12)
    ]
    images = np.concatenate([unit(1, 10 + number) for number in range(12)])
    assert np.array_equal(source.precomputed().images[0:12], images)
    assert np.array_equal(source.precomputed().images[9:11], images[9:11])


def test_no_backbone_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backbone, "__init__", lambda *_: pytest.fail("a backbone was opened"))
    made = prepared(Embeddings(retrieval(tmp_path / "e")), tmp_path / "c")
    assert (made.n_items, made.n_captions, made.backbone.width) == (5, 5, D)
    assert not made.backbone.is_known and made.backbone.name == "some-clip"


def test_missing_image_gets_a_caption_placeholder(
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
    reported = [message for message in caplog.messages if "images are in" in message]
    assert set(reported) == {
        f"2 of 5 images are in {tmp_path / 'images'}; the others are shown as captions; "
        "give the folder of images with --images"
    }


def test_links_to_other_folders_are_read_only_on_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (1, 2, 3):
        write(tmp_path / "elsewhere" / f"{number:03}.jpg", jpeg("red"))
    images = tmp_path / "images"
    images.mkdir()
    (images / "001.jpg").symlink_to(tmp_path / "elsewhere" / "001.jpg")
    names = ["001.jpg", "linked/002.jpg", "../elsewhere/003.jpg"]
    folder = retrieval(tmp_path / "e", (3,), image_path=names)
    with caplog.at_level(logging.WARNING):
        made = prepared(Embeddings(folder, images), tmp_path / "c")
    assert made.items["width"].tolist() == [320, 320, 320] and not made.manifest.follow_links
    assert any("links to files outside" in message for message in caplog.messages)
    assert not any("linked" in message for message in caplog.messages)

    (images / "linked").symlink_to(tmp_path / "elsewhere")
    with caplog.at_level(logging.WARNING):
        prepared(Embeddings(folder, images), tmp_path / "d")
    hint = "linked: linked folder: links are not followed; use --follow-links to read it"
    assert hint in caplog.messages
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        made = prepared(Embeddings(folder, images, follow_links=True), tmp_path / "f")
    assert made.items["width"].tolist() == [12, 12, 320] and made.manifest.follow_links
    assert hint not in caplog.messages
    assert [open_original(made, row, 400).is_thumbnail for row in range(3)] == [False, False, True]


def test_names_do_not_leave_a_linked_folder(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "target" / "inner" / "1.jpg", jpeg("red"))
    write(tmp_path / "target" / "secret.jpg", jpeg("red"))
    write(tmp_path / "images" / "sub" / "own.jpg", jpeg("red"))
    (tmp_path / "images" / "linked").symlink_to(tmp_path / "target" / "inner")
    names = ["linked/1.jpg", "linked/../secret.jpg", "sub/../sub/own.jpg"]
    with caplog.at_level(logging.WARNING):
        found = find_images(tmp_path / "images", names, follow_links=True)
    assert set(found) == {"linked/1.jpg", "sub/../sub/own.jpg"}
    hint = (
        f"such as linked/../secret.jpg, are outside {tmp_path / 'images'}, which are not read; give"
    )
    assert any(hint in message for message in caplog.messages)


def test_rows_of_one_image_become_one_item(tmp_path: Path) -> None:
    images = unit(5)[[0, 1, 0, 2, 3]]  # the last is a different image with the name of the first
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


def test_unread_files_next_to_arrays_are_reported(tmp_path: Path) -> None:
    folder = tmp_path / "e"
    folder.mkdir()
    np.save(folder / "images.npy", unit(2))
    (folder / "items.csv").write_text("image\na.jpg\nb.jpg\n")
    for name in ("captions.json", "names.txt", "old.zip", "a.jpg", ".DS_Store"):
        (folder / name).write_text("[]")
    skipped = Embeddings(folder).skipped_rows()
    assert {entry.key for entry in skipped if entry.reason.startswith("file beside")} == {
        "captions.json", "names.txt", "old.zip",
    }  # fmt: skip


def test_row_number_next_to_a_file_name_is_ignored(tmp_path: Path) -> None:
    folder = tmp_path / "e"
    folder.mkdir()
    np.save(folder / "images.npy", unit(2))
    (folder / "items.csv").write_text("image,filename,caption\n1,0.jpg,a dog\n0,1.jpg,a cat\n")
    for name in ("0.jpg", "1.jpg"):
        write(folder / name, jpeg())
    found = {
        r.captions: Path(r.image).name for r in Embeddings(folder, keep_captions=True).records()
    }
    assert found == {("a dog",): "0.jpg", ("a cat",): "1.jpg"}


def test_captions_without_embeddings_are_skipped(
    tmp_path: Path, tiny_backbone: Backbone, caplog: pytest.LogCaptureFixture
) -> None:
    facts = {"image_path": ["a.jpg", "b.jpg"], "caption": ["a dog", "a cat"]}
    width = tiny_backbone.width
    write_shard(tmp_path / "e", 0, unit(2, width=width), None, facts)
    with caplog.at_level(logging.WARNING):
        source = Embeddings(tmp_path / "e")
        made = prepare(
            source,
            identity(width),
            tmp_path / "mute",
            precomputed=source.precomputed(),
            progress=False,
        )
    assert made.n_captions == 0 and made.text_embeddings.shape == (0, width)
    assert "skipped 2 captions without embeddings; --embed-captions embeds them" in caplog.messages
    left_out = Tally(read_skipped(made.path / "skipped.csv")).counts.most_common()
    assert left_out == [("caption without an embedding", 2)]
    saved = Embeddings(tmp_path / "e", keep_captions=True)
    reported = prepare(
        saved, tiny_backbone, tmp_path / "embedded", precomputed=saved.precomputed(), progress=False
    )
    expected = tiny_backbone.encode_texts(["a dog", "a cat"])
    assert np.allclose(reported.text_embeddings, expected, atol=2e-3)
    with pytest.raises(ValueError, match="has to be opened"):
        prepare(
            saved, identity(width), tmp_path / "no", precomputed=saved.precomputed(), progress=False
        )


def test_arrays_with_a_table_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    folder.mkdir()
    np.save(folder / "images.npy", unit(3).astype(np.float32) * 7)
    np.save(folder / "texts.npy", unit(3, 1).astype(np.float64))
    (folder / "table.csv").write_text('image,caption\na.jpg,"one, two"\nb.jpg,<b>x</b>\na,NaN\n')
    made = prepared(Embeddings(folder), tmp_path / "c")
    assert list(made.caption_texts) == ["one, two", "<b>x</b>"]
    assert np.allclose(made.image_embeddings, unit(3), atol=1e-3)
    (folder / "texts.npy").unlink()
    (folder / "table.csv").unlink()
    pd.DataFrame({"score": [1, 2, 3]}).to_parquet(folder / "table.parquet")
    assert [record.key for record in Embeddings(folder).records()] == ["row:0", "row:1", "row:2"]


@pytest.mark.parametrize("place", ["", "photos.lance"], ids=["database", "table"])
def test_table_of_lancedb_is_read(
    place: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lance = pytest.importorskip("lance")
    vectors = unit(3).astype(np.float32) * 7
    columns = {"image": ["a.jpg", "b.jpg", "c.jpg"], "caption": ["one", "two", "three"]}
    column = pa.FixedSizeListArray.from_arrays(vectors.ravel(), D)
    lance.write_dataset(pa.table(columns | {"vector": column}), tmp_path / "db" / "photos.lance")
    made = prepared(Embeddings(tmp_path / "db" / place), tmp_path / "c")
    assert [list(texts) for texts in made.items["captions"]] == [[], [], []]
    assert "embeddings have length 7.00, not 1; they are normalised" in caplog.text
    assert np.allclose(made.image_embeddings, unit(3), atol=1e-3)


def test_hdf5_groups_are_read_and_links_are_not(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    folder = tmp_path / "h5"
    folder.mkdir()
    unit(3, 5).astype(np.float32).tofile(tmp_path / "secret")
    (folder / "table.csv").write_text("image,caption\na.jpg,one\nb.jpg,two\nc.jpg,three\n")
    with h5py.File(folder / "all.h5", "w") as file:
        file["embeddings/image"] = unit(3).astype(np.float32)
        file["embeddings/text"] = unit(3, 1).astype(np.float32)
        file["names"] = ["a", "b", "c"]
        file["more"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/x")
    made = prepared(Embeddings(folder), tmp_path / "c")
    assert np.allclose(made.image_embeddings, unit(3), atol=1e-3)
    assert np.allclose(made.text_embeddings, unit(3, 1), atol=1e-3)
    with h5py.File(folder / "all.h5", "w") as file:
        outside = [(str(tmp_path / "secret"), 0, h5py.h5f.UNLIMITED)]
        file.create_dataset("image", (3, D), "f4", external=outside)
    with pytest.raises(ValueError, match="all.h5 cannot be read: image refers to another file"):
        Embeddings(folder).precomputed()


def test_pickle_in_a_torch_file_is_not_run(tmp_path: Path) -> None:
    folder = tmp_path / "pt"
    folder.mkdir()
    (folder / "table.csv").write_text("image\na.jpg\nb.jpg\nc.jpg\n")
    torch.save({"images": torch.tensor(unit(3)), "notes": "text"}, folder / "images.pt")
    assert Embeddings(folder).width == D
    torch.save({"images": Harmful(tmp_path / "ran")}, folder / "images.pt")
    with pytest.raises(ValueError, match=r"images.pt cannot be read: it holds Python objects"):
        Embeddings(folder).precomputed()
    assert not (tmp_path / "ran").exists()


class Harmful:
    """An object whose unpickling makes a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self._path,)


def test_backbone_hash_is_recorded_if_it_can_be_loaded(
    tiny_backbone: Backbone, tiny_backbone_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"local-dir:{tiny_backbone_dir}"
    assert open_identity(name, 32, "cpu").sha256 == tiny_backbone.sha256
    with pytest.raises(ValueError, match="embeddings are 16 wide, but those of .* are 32; name"):
        open_identity(name, 16, "cpu")
    one, other = open_identity("unavailable-model", 16), open_identity("another", 16)
    assert isinstance(one, BackboneIdentity) and not one.is_known
    assert one == open_identity("open_clip:unavailable-model", 16)
    assert one.sha256 != other.sha256
    assert one.may_be(tiny_backbone.sha256, 16) and not one.may_be(tiny_backbone.sha256, 32)
    assert str(one) == "backbone unavailable-model (weights unknown)"
    assert "the weights of backbone unavailable-model are not available" in caplog.text


def test_pickled_source_is_small(tmp_path: Path) -> None:
    source = Embeddings(retrieval(tmp_path / "e"))
    record = next(source.records())
    copy = pickle.loads(pickle.dumps(source))
    assert not any(isinstance(value, np.memmap) for value in vars(copy).values())
    assert copy.open_image(record, 320).size == (320, 240)
    assert len(list(copy.records())) == 5


def test_selected_rows_are_returned() -> None:
    parts = [unit(40, 1), unit(3, 2), unit(60, 3)]
    whole = np.concatenate(parts)
    places = np.array([0, 0, 5, 41, 42, 43, 102, 2, 1])
    picked = RowSubset(ConcatRows(parts), places)
    assert picked.shape == (9, D)
    for start in range(9):
        for stop in range(start, 10):
            assert np.array_equal(picked[start:stop], whole[places[start:stop]])
