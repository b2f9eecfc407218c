"""Test embeddings that are damaged, inconsistent or refer to files outside the folder."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from published import jpeg, write
from retrieved import D, prepared, retrieval, unit, write_shard

from sieve.data_prep.sources.embeddings import Embeddings


def test_no_file_outside_the_image_folder_is_read(tmp_path: Path) -> None:
    secret = write(tmp_path / "secret.jpg", jpeg("red"))
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "link.jpg").symlink_to(secret)
    names = [str(secret), "../secret.jpg", "link.jpg", "nul\0.jpg", "x" * 900]
    source = Embeddings(retrieval(tmp_path / "e", (5,), image_path=names), tmp_path / "images")
    records = list(source.records())
    assert [record.key for record in records] == names
    for record in records:
        assert source.open_image(record, 320).size == (320, 240)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_embeddings_without_direction_are_skipped_by_name(tmp_path: Path, value: float) -> None:
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
        r"img_emb_0.npy cannot be read: it holds Python objects or is not an array",
    ),
    "half a ZIP archive": (
        lambda e: write(e / "img_emb" / "img_emb_0.npy", b"PK\x03\x04" + b"\0" * 90),
        r"img_emb_0.npy cannot be read: it holds Python objects or is not an array",
    ),
    "a ZIP archive of arrays": (
        lambda e: write(e / "img_emb" / "img_emb_0.npy", archive_of(unit(3))),
        r"img_emb_0.npy cannot be read: it holds Python objects or is not an array",
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
        r"img_emb_1.npy is 8 wide, but img_emb_0.npy is 16",
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
        r"metadata_0.parquet has 1 rows, but its array of images has 3",
    ),
    "a table too long": (
        lambda e: pd.DataFrame({"caption": ["x"] * 4}).to_parquet(
            e / "metadata" / "metadata_0.parquet"
        ),
        r"metadata_0.parquet has 4 rows, but its array of images has 3",
    ),
    "a damaged table": (
        lambda e: write(e / "metadata" / "metadata_1.parquet", b"PAR1 x PAR1"),
        r"metadata_1.parquet cannot be read as a table: ",
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
def test_inconsistent_inputs_are_rejected_with_one_line(tmp_path: Path, harm: str) -> None:
    folder = retrieval(tmp_path / "e")
    apply, message = HARMS[harm]
    apply(folder)
    with pytest.raises(ValueError, match=message) as caught:
        Embeddings(folder).precomputed()
    assert "\n" not in str(caught.value)


def test_missing_paths_are_reported(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder .*none; give the folder of the embed"):
        Embeddings(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="no folder .*none; check --images"):
        Embeddings(retrieval(tmp_path / "e"), tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds none of these; expected clip-retrieval's folders"):
        Embeddings(tmp_path / "empty")
