"""Test NumPy files with invalid headers: one-line errors, and nothing is unpickled.

NumPy parses a header as a Python literal, so it raises the errors of Python's parser.
"""

from __future__ import annotations

import io
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import WordBackbone, write_word_collection
from corruption import PicklePayload, put_file
from tiny_codes import write_codes

from sieve.data_prep.prepare import prepare
from sieve.data_prep.sources.embedding_files import open_shards
from sieve.data_prep.sources.sparse_codes import CodeFiles, Codes
from sieve.model.codes import IMAGE_CODES, SparseCodes, read_codes
from sieve.model.collection import CAPTION_ITEM, IMAGE_EMBEDDINGS, Collection
from sieve.model.dimensions.vocabulary import word_embeddings

N = 20


def npy(head: str, data: bytes = bytes(64)) -> bytes:
    """Return the bytes of a NumPy file with a custom header."""
    text = head.encode("latin-1") + b"\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text + data


def described(descr: str = "'<f4'", shape: str = "(4,)") -> bytes:
    return npy(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}")


def saved(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


HEADS = {
    "no end of a dict": npy("{'descr': '<f4', 'shape': (4,)"),  # TokenError
    "no end of a text": npy("{'descr': '<f4"),  # SyntaxError
    "a zero byte": npy("{'descr': \0}"),
    "no literal": npy("().__class__"),
    "parentheses without end": npy("(" * 9000),
    "signs without end": npy("-" * 9000 + "1"),  # MemoryError
    "a key that is a list": npy("{[]: 1}"),  # TypeError
    "keys of two kinds": npy("{1: 2, 'a': 3}"),
    "a type of one part": described("('<f4',)"),  # IndexError
    "a type of nothing": described("()"),
    "a size that is true": described(shape="(True,)"),
    "a size of 400 digits": described(shape=f"({'9' * 400},)"),  # OverflowError
    "a size beyond memory": described(shape=f"({10**12},)"),  # MemoryError where not mapped
    "a size below zero": described(shape="(-1,)"),
    "a hundred axes": described(shape=f"({'1,' * 100})"),
    "numbers of no bytes": described("'|V0'", f"({2**62},)"),
    "an archive that is none": b"PK\x03\x04" + bytes(100),  # BadZipFile
    "a longer head than the file": b"\x93NUMPY\x02\0" + struct.pack("<I", 2**32 - 1) + b"{}",
    "nothing": b"",
}


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_word_collection(tmp_path_factory.mktemp("arrays") / "words", n=N)


@pytest.fixture(scope="module")
def codes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("codes")
    files = write_codes(folder / "splice")
    source = Codes(CodeFiles.find(files), files / "photos", name="mine")
    prepare(source, None, folder / "made", precomputed=source.precomputed(), progress=False)
    return folder / "made"


def put(folder: Path, name: str, data: bytes) -> Collection:
    """Open a collection in which an untrusted file is listed in the manifest."""
    put_file(folder, name, data)
    return Collection.open(folder)


def refused(read: Any, *given: Any) -> str:
    with pytest.raises(ValueError) as raised:
        read(*given)
    line = str(raised.value)
    assert "\n" not in line and "()" not in line and len(line) < 400
    return line


@pytest.mark.parametrize("case", HEADS)
def test_damaged_embeddings_of_a_collection_are_rejected(opened: Path, case: str) -> None:
    whole = (opened / IMAGE_EMBEDDINGS).read_bytes()
    try:
        collection = put(opened, IMAGE_EMBEDDINGS, HEADS[case])
        assert IMAGE_EMBEDDINGS in refused(lambda: collection.image_embeddings)
    finally:
        put(opened, IMAGE_EMBEDDINGS, whole)


@pytest.mark.parametrize("case", HEADS)
def test_damaged_external_codes_are_rejected(codes: Path, case: str) -> None:
    place = codes / "image_values.npy"
    whole = place.read_bytes()
    try:
        place.write_bytes(HEADS[case])
        refused(read_codes, codes, IMAGE_CODES, 6, 4)
    finally:
        place.write_bytes(whole)


@pytest.mark.parametrize("case", HEADS)
def test_damaged_embeddings_to_prepare_are_rejected(tmp_path: Path, case: str) -> None:
    (tmp_path / "images.npy").write_bytes(HEADS[case])
    (tmp_path / "items.csv").write_text("image,caption\na.jpg,a dog\n")
    assert "images.npy" in refused(open_shards, tmp_path)


@pytest.mark.parametrize("case", HEADS)
def test_damaged_cache_of_word_embeddings_is_rebuilt(
    tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIEVE_HOME", str(tmp_path))
    first = word_embeddings(["a dog"], WordBackbone(), "ff")
    (stored,) = (tmp_path / "words").glob("*.npy")
    stored.write_bytes(HEADS[case])
    assert np.array_equal(word_embeddings(["a dog"], WordBackbone(), "ff"), first)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        (IMAGE_EMBEDDINGS, np.zeros((N, 48), "<U0")),
        (IMAGE_EMBEDDINGS, np.zeros((N, 48), "c16")),
        (IMAGE_EMBEDDINGS, np.zeros((N, 48), [("a", "<f4")])),
        (CAPTION_ITEM, np.zeros(3 * N, "f4")),
        (CAPTION_ITEM, np.arange(3 * N)[::-1] // 3),
        (CAPTION_ITEM, np.arange(3 * N) // 3 + 1),
        (CAPTION_ITEM, np.arange(3 * N) // 3 - 1),
    ],
    ids=["texts", "complex", "fields", "fractions", "falling", "beyond", "below"],
)
def test_unexpected_array_types_are_rejected(opened: Path, name: str, array: np.ndarray) -> None:
    whole = (opened / name).read_bytes()
    n_captions = Collection.open(opened).n_captions
    if name == CAPTION_ITEM:
        assert len(array) == n_captions, "only its numbers are wrong"
    try:
        collection = put(opened, name, saved(array))
        line = refused(lambda: getattr(collection, Path(name).stem))
        assert name in line and "prepare the collection again" in line
    finally:
        put(opened, name, whole)


def test_codes_are_not_unpickled(codes: Path, tmp_path: Path) -> None:
    objects = io.BytesIO()
    np.save(objects, np.array([PicklePayload(tmp_path / "trace")], object), allow_pickle=True)
    for place in sorted(codes.glob("image_*.npy")):
        whole = place.read_bytes()
        for data in (pickle.dumps(PicklePayload(tmp_path / "trace")), objects.getvalue()):
            place.write_bytes(data)
            refused(read_codes, codes, IMAGE_CODES, 6, 4)
        place.write_bytes(whole)
    SparseCodes.from_active(np.ones((6, 2)), np.tile([0, 1], (6, 1)), 4).save_cache(
        tmp_path, IMAGE_CODES
    )
    for place in sorted(tmp_path.glob("image_*.npy")):
        for data in (pickle.dumps(PicklePayload(tmp_path / "trace")), objects.getvalue()):
            place.write_bytes(data)
            with pytest.raises(ValueError):  # in $SIEVE_HOME, which the caller recomputes
                SparseCodes.load_cache(tmp_path, IMAGE_CODES, 4)
    assert not (tmp_path / "trace").exists()
