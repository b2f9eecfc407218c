from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import write_word_collection

from sieve.model.collection import IMAGE_EMBEDDINGS, ITEMS, MANIFEST, Collection
from sieve.model.files import write_checksums


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_word_collection(tmp_path / "words", n=20)


def test_written_collection_round_trips(folder: Path) -> None:
    collection = Collection.open(folder)
    assert (collection.n_items, collection.n_captions) == (20, 60)
    assert collection.image_embeddings.shape == (20, 48)
    assert isinstance(collection.image_embeddings, np.memmap)
    texts = list(collection.caption_texts)
    assert texts[3:6] == list(collection.items["captions"][1])
    assert collection.caption_texts[-1] == list(collection.items["captions"])[-1][-1]
    assert len(texts) == len(collection.caption_texts)
    assert collection.captions_of_rows(np.array([1, 3])).tolist() == [3, 4, 5, 9, 10, 11]
    assert collection.rows_of_split(["test"]).tolist() == [9, 19]


def test_other_folder_error_shows_the_command(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="sieve prepare"):
        Collection.open(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema_version": 1}', "null"])
def test_damaged_manifest_is_one_line(folder: Path, content: str) -> None:
    (folder / MANIFEST).write_text(content)
    with pytest.raises(ValueError, match="damaged"):
        Collection.open(folder)


def test_other_version_is_rejected(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(manifest | {"schema_version": 7}))
    with pytest.raises(ValueError, match="schema_version 7"):
        Collection.open(folder)


def test_missing_or_truncated_file_is_reported(folder: Path) -> None:
    data = (folder / IMAGE_EMBEDDINGS).read_bytes()
    (folder / IMAGE_EMBEDDINGS).write_bytes(data[:-10])
    with pytest.raises(ValueError, match=IMAGE_EMBEDDINGS):
        Collection.open(folder)
    (folder / ITEMS).unlink()
    with pytest.raises(FileNotFoundError, match=ITEMS):
        Collection.open(folder)


def test_pickle_instead_of_an_array_is_not_loaded(folder: Path) -> None:
    path = folder / IMAGE_EMBEDDINGS
    size = path.stat().st_size
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    path.write_bytes(path.read_bytes().ljust(size, b"\0"))
    with pytest.raises(ValueError, match="its bytes have changed"):
        _ = Collection.open(folder).image_embeddings


def test_manifest_cannot_point_outside_the_folder(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"]["../../etc/passwd"] = {"bytes": 1, "sha256": ""}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    write_checksums(folder, [MANIFEST])
    with pytest.raises(FileNotFoundError, match="missing"):
        Collection.open(folder)


def test_item_is_found_by_its_id(word_collection: Collection) -> None:
    for row in (0, 7, word_collection.n_items - 1):
        assert word_collection.row_of(word_collection.items["id"].iloc[row]) == row
    for nothing in ("", "f" * 16, "\ud800", "é", "0" * 10_000):
        assert word_collection.row_of(nothing) is None
