"""Test collections of external codes and the errors of invalid files."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import save_file
from scipy.sparse import bsr_matrix, coo_matrix, csc_matrix, csr_matrix, save_npz
from tiny_codes import CAPTIONS, IMAGES, NAMES, TEXTS, WORDS, matrix, write_codes

from sieve.data_prep.prepare import prepare
from sieve.data_prep.sources.sparse_codes import (
    MAX_NAME_CHARACTERS,
    CodeFiles,
    Codes,
    read_codes_file,
    read_names,
)
from sieve.model.backbone.clip import Backbone
from sieve.model.codes import IMAGE_CODES, TEXT_CODES, read_codes, read_words
from sieve.model.collection import Collection


def prepared(folder: Path, out: Path, **options: object) -> Collection:
    source = Codes(CodeFiles.find(folder), folder / "photos")
    return prepare(source, None, out, precomputed=source.precomputed(), progress=False, **options)  # type: ignore[arg-type]


def unit(rows: object) -> np.ndarray:
    dense = np.array(rows, np.float64)
    return dense / np.maximum(np.linalg.norm(dense, axis=1, keepdims=True), 1e-30)


def codes_of(made: Collection, part: str, n: int) -> np.ndarray:
    return read_codes(made.path, part, n, len(NAMES)).by_row.toarray()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_codes(tmp_path / "splice")


def test_folder_of_codes_becomes_a_collection(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Backbone, "__init__", lambda *_: pytest.fail("a backbone was opened"))
    made = prepared(folder, tmp_path / "made")
    assert made.codes is not None and made.codes.m == 4
    assert (made.n_items, made.n_captions) == (6, 7)
    assert [tuple(captions) for captions in made.items["captions"]] == list(CAPTIONS)
    np.testing.assert_allclose(codes_of(made, IMAGE_CODES, 6), unit(IMAGES), atol=1e-7)
    np.testing.assert_allclose(codes_of(made, TEXT_CODES, 7), unit(TEXTS), atol=1e-7)
    assert read_words(made.path) == list(WORDS)
    assert made.items["image"].iloc[0] == str((folder / "photos" / "0.jpg").resolve())
    assert made.items[["width", "height"]].iloc[0].tolist() == [80, 60]
    assert made.items["width"].iloc[5] == 320  # the placeholder of the missing image
    assert not (made.path / "image_embeddings.npy").exists()
    manifest = json.loads((made.path / "collection.json").read_text())
    assert manifest["backbone"] is None and "image_values.npy" in manifest["files"]
    for missing in ("backbone", "image_embeddings", "text_embeddings"):
        with pytest.raises(ValueError, match="no backbone: it can be explored"):
            getattr(made, missing)


def test_same_codes_give_identical_bytes(folder: Path, tmp_path: Path) -> None:
    one, other = (prepared(folder, tmp_path / name / "c") for name in ("one", "other"))
    assert one.sha256 == other.sha256


def test_codes_follow_the_included_items(folder: Path, tmp_path: Path) -> None:
    table = (folder / "items.csv").read_text().replace("a wet dog", "x" * 6000)
    # Row 2 is the second caption of item 0; captions of an item need not be consecutive.
    lines = table.splitlines()
    moved = [*lines[:2], *lines[3:], lines[2]]
    (folder / "items.csv").write_text("\n".join(moved))
    order = [0, 2, 3, 4, 5, 6, 1]
    save_npz(folder / "text_codes.npz", matrix([TEXTS[i] for i in order]))
    made = prepared(folder, tmp_path / "made")
    assert made.n_captions == 6
    expected = [TEXTS[i] for i in (0, 2, 3, 4, 5, 6)]
    np.testing.assert_allclose(codes_of(made, TEXT_CODES, 6), unit(expected), atol=1e-7)
    assert "huge caption" in (made.path / "skipped.csv").read_text()


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_typed_tables_can_contain_lists_of_captions(
    folder: Path, tmp_path: Path, suffix: str
) -> None:
    (folder / "items.csv").unlink()
    rows = pd.DataFrame({"id": range(6), "captions": [list(each) for each in CAPTIONS]})
    rows["labels"] = [["pet"], [], [], [], ["pet", "sea"], []]
    if suffix == ".jsonl":
        rows.to_json(folder / "items.jsonl", orient="records", lines=True)
    else:
        rows.to_parquet(folder / "items.parquet")
    made = prepared(folder, tmp_path / "made")
    assert [tuple(captions) for captions in made.items["captions"]] == list(CAPTIONS)
    assert list(made.items["labels"].iloc[4]) == ["pet", "sea"]
    np.testing.assert_allclose(codes_of(made, TEXT_CODES, 7), unit(TEXTS), atol=1e-7)


def test_items_without_captions_are_accepted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_codes(tmp_path / "splice", texts=False, words=False)
    (folder / "names.txt").unlink()
    (folder / "items.csv").write_text("image\n" + "".join(f"{n}.jpg\n" for n in range(6)))
    made = prepared(folder, tmp_path / "made")
    assert (made.n_items, made.n_captions) == (6, 0)
    assert json.loads((made.path / "names.json").read_text()) == []
    assert "dimensions are shown by number" in caplog.text
    assert "only items can be used as queries" in caplog.text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("n.txt", "dog\nbeach\n\ncat\n"),
        ("n.json", '["dog", "beach", null, "cat"]'),
        ("n.json", '{"0": "dog", "3": "cat", "1": "beach"}'),
        ("n.csv", 'name\ndog\nbeach\n""\ncat\n'),
        ("n.csv", "latent,concept,score\n3,cat,1\n1,beach,1\n0,dog,1\n"),
    ],
)
def test_all_formats_of_names_are_read(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert read_names(tmp_path / name, 4) == {0: "dog", 1: "beach", 3: "cat"}


def test_long_names_are_truncated_and_control_characters_removed(tmp_path: Path) -> None:
    (tmp_path / "n.json").write_text(json.dumps(["x" * 5000, "a\u0000b\n\u001b[31mc"]))
    names = read_names(tmp_path / "n.json", 2)
    assert len(names[0]) == MAX_NAME_CHARACTERS and names[0].endswith("…")
    assert names[1] == "a b [31mc"


@pytest.mark.parametrize(
    ("file", "message"),
    {
        ("n.txt", "dog\nbeach\n"): "has 2 names, but the codes have 4 dimensions",
        ("n.json", "{"): "is not JSON",
        ("n.json", "[" * 100_000): "is not JSON",
        ("n.json", "[1, 2, 3, 4]"): "is not a list of names",
        ("n.json", '{"7": "dog"}'): "names dimension 7; the codes have 0 to 3",
        ("n.json", '{"-1": "dog"}'): "is not an integer",
        ("n.csv", "a,b\n1,2\n"): "no column `name`",
        ("n.csv", "dimension,name\n1,dog\n1,cat\n"): "names dimension 1 twice",
        ("n.csv", ""): "no column `name`",
    }.items(),
)
def test_wrong_number_of_names_is_rejected(
    tmp_path: Path, file: tuple[str, str], message: str
) -> None:
    name, text = file
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message) as raised:
        read_names(tmp_path / name, 4)
    assert "\n" not in str(raised.value)


def test_non_utf8_names_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "n.txt").write_bytes(b"dog\n\xff\xfe\n")
    with pytest.raises(ValueError, match="is not UTF-8"):
        read_names(tmp_path / "n.txt", 2)


def parts(**changed: object) -> Callable[[Path], None]:
    """Return a writer of an .npz file that is almost a CSR matrix."""

    def write(path: Path) -> None:
        whole = {
            "format": np.array(b"csr"), "shape": np.array([2, 4]), "indptr": np.array([0, 1, 3]),
            "indices": np.array([0, 1, 2]), "data": np.array([1.0, 2.0, 3.0]),
        }  # fmt: skip
        np.savez(path, **{k: v for k, v in (whole | changed).items() if v is not None})

    return write


def unsorted_rows(path: Path) -> None:
    save_npz(path, csr_matrix((np.ones(2), np.array([3, 1]), np.array([0, 2])), shape=(1, 4)))


def bomb(path: Path) -> None:
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("data.npy", "w", force_zip64=True) as stream,
    ):
        for _ in range(1100):
            stream.write(bytes(1 << 20))


HOSTILE = {
    "text": (lambda path: path.write_text("no"), "cannot be read"),
    "truncated": (
        lambda path: (parts()(path), path.write_bytes(path.read_bytes()[:-200])), "cannot be read"
    ),
    "pickle": (lambda path: path.write_bytes(pickle.dumps([1])), "cannot be read"),
    "objects": (parts(data=np.array([1, None, {}], object)), "holds Python objects"),
    "bomb": (bomb, "would unpack to 1 GiB"),
    "lacks": (parts(indptr=None), "lacks indptr"),
    "bsr": (lambda path: save_npz(path, bsr_matrix(np.eye(3))), "of format 'bsr'; save it as CSR"),
    "doubled": (
        lambda path: save_npz(path, coo_matrix(([1.0, 2.0], ([1, 1], [2, 2])), shape=(3, 3))),
        "row 1 has dimension 2 twice",
    ),
    "format": (parts(format=np.array([1, 2])), "format"),
    "shape": (parts(shape=np.array([2.5, 4])), "no shape of two integers"),
    "negative shape": (parts(shape=np.array([-2, 4])), "no shape of two integers"),
    "wide": (parts(shape=np.array([2, 1 << 40])), "1,099,511,627,776 dimensions; 1 to 131,072"),
    "no width": (parts(shape=np.array([2, 0])), "has 0 dimensions"),
    "rows": (parts(shape=np.array([5, 4])), "fits no matrix of 5 rows"),
    "indptr": (parts(indptr=np.array([0, 9, 3])), "indptr does not lead"),
    "indptr start": (parts(indptr=np.array([1, 1, 3])), "indptr does not lead"),
    "out of range": (parts(indices=np.array([0, 1, 4])), "row 1 has dimension 4; dimensions are 0"),
    "below range": (parts(indices=np.array([-1, 1, 2])), "row 0 has dimension -1"),
    "twice": (parts(indices=np.array([0, 2, 2])), "row 1 has dimension 2 twice; call sum_dupl"),
    "unsorted": (unsorted_rows, "row 0 has dimension 1 out of order; call sort_indices"),
    "negative": (parts(data=np.array([1.0, -2, 3])), "row 1 has a negative value in dimension 1"),
    "nan": (parts(data=np.array([1.0, 2, np.nan])), "row 1 has a value that is not finite in"),
    "infinite": (parts(data=np.array([np.inf, 2, 3])), "row 0 has a value that is not finite"),
    "complex": (parts(data=np.array([1j, 2, 3])), "its data has shape"),
    "text data": (parts(data=np.array(["a", "b", "c"])), "its data has shape"),
    "float indices": (parts(indices=np.array([0.0, 1, 2])), "its indices has shape"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_invalid_matrices_are_rejected_with_one_line(tmp_path: Path, case: str) -> None:
    write, text = HOSTILE[case]
    path = tmp_path / "codes.npz"
    write(path)
    with pytest.raises(ValueError, match=text) as raised:
        read_codes_file(path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_extreme_values_preserve_direction(tmp_path: Path) -> None:
    rows = [[1e300, 1e300, 0], [1e-300, 0, 1e-300], [0, 0, 0], [0, 7, 0]]
    save_npz(tmp_path / "codes.npz", matrix(rows))
    found = read_codes_file(tmp_path / "codes.npz").by_row.toarray()
    half = np.sqrt(0.5)
    np.testing.assert_allclose(
        found, [[half, half, 0], [half, 0, half], [0, 0, 0], [0, 1, 0]], atol=1e-7
    )


def test_explicit_zeros_are_not_entries(tmp_path: Path) -> None:
    parts(data=np.array([0, 2, 0]))(tmp_path / "codes.npz")
    found = read_codes_file(tmp_path / "codes.npz")
    assert found.by_row.nnz == 1 and found.dense(1).tolist() == [0, 1, 0, 0]


def less(rows: object) -> csr_matrix:
    return matrix(list(rows)[:-1])  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: save_npz(f / "image_codes.npz", less(IMAGES)),
         "has 5 rows, but .*items.csv names 6 items in 7 rows"),
        (lambda f: save_npz(f / "text_codes.npz", less(TEXTS)), "has 6 rows, but .* 7 captions"),
        (lambda f: save_npz(f / "text_codes.npz", matrix(np.ones((7, 9)))),
         "has 9 dimensions, but the image codes have 4"),
        (lambda f: (f / "words.txt").write_text("dog\n"), "has 1 lines, but .* 6 rows"),
        (lambda f: (f / "words.txt").unlink(), "only one of word_codes.npz and words.txt"),
        (lambda f: (f / "items.csv").unlink(), "there is no items.parquet or items.csv"),
        (lambda f: (f / "image_codes.npz").unlink(), "there is no image_codes.npz"),
        (lambda f: (f / "items.csv").write_text(""), "items.csv cannot be read as a table"),
        (lambda f: ((f / "items.csv").unlink(), (f / "items.jsonl").write_text("{}\n[]\n")),
         "line 2 is not a JSON object"),
    ],
)  # fmt: skip
def test_inconsistent_files_are_rejected(
    folder: Path, tmp_path: Path, change: Callable[[Path], object], message: str
) -> None:
    change(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as raised:
        prepared(folder, tmp_path / "made")
    assert "\n" not in str(raised.value) and not (tmp_path / "made").exists()


def test_images_outside_the_folder_are_not_read(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.jpg"
    secret.write_bytes((folder / "photos" / "0.jpg").read_bytes())
    text = (folder / "items.csv").read_text().replace("5.jpg", "../../secret.jpg")
    (folder / "items.csv").write_text(text)
    made = prepared(folder, tmp_path / "made")
    assert made.items["width"].iloc[5] == 320  # a placeholder, not the 80 pixels of the secret


def _safetensors(path: Path, **arrays: np.ndarray) -> None:
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)


LAYOUTS: dict[str, Callable[[Path, np.ndarray], None]] = {
    "codes.npz": lambda path, codes: save_npz(path, csr_matrix(codes)),
    "csc.npz": lambda path, codes: save_npz(path, csc_matrix(codes)),
    "coo.npz": lambda path, codes: save_npz(path, coo_matrix(codes)),
    "dense.npz": lambda path, codes: np.savez(path, codes),
    "dense.npy": lambda path, codes: np.save(path, codes.astype(np.float64)),
    "dense.safetensors": lambda path, codes: _safetensors(path, codes=codes),
    "csr.safetensors": lambda path, codes: _safetensors(
        path,
        crow_indices=csr_matrix(codes).indptr,
        col_indices=csr_matrix(codes).indices,
        values=csr_matrix(codes).data,
        shape=np.array(codes.shape),
    ),
    "dense.pt": lambda path, codes: torch.save(torch.from_numpy(codes), path),
    "dense.parquet": lambda path, codes: pd.DataFrame({"codes": list(codes)}).to_parquet(path),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_gives_the_same_codes(tmp_path: Path, name: str) -> None:
    generator = np.random.default_rng(0)
    codes = generator.random((7, 9), np.float32) * (generator.random((7, 9)) < 0.4)
    codes[3] = 0
    LAYOUTS[name](tmp_path / name, codes)
    read = read_codes_file(tmp_path / name)
    lengths = np.maximum(np.linalg.norm(codes, axis=1, keepdims=True), 1e-9)
    assert np.allclose(read.by_row.toarray(), codes / lengths, atol=1e-3)
