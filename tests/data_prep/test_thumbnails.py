"""Test that damaged thumbnails are rejected with one line and never shown as another image."""

from __future__ import annotations

import copy
import io
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from corruption import damaged_files
from page_api import call_server, web_client
from PIL import Image
from processes import FIRST_PORT

from sieve.data_prep.images import MAX_THUMBNAIL_BYTES, add_checksum, open_thumbnail, read_thumbnail
from sieve.explorer.app import start
from sieve.model.collection import Collection, thumbnail_path
from sieve.model.engine import SearchEngine


def webp(colour: str = "red") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(stream, "WEBP", quality=80)
    return stream.getvalue()


def pixels(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


@pytest.fixture
def prepared(tiny_collection: Collection, tmp_path: Path) -> Collection:
    return Collection.open(shutil.copytree(tiny_collection.path, tmp_path / "c"))


@pytest.fixture
def placed(tmp_path: Path) -> Path:
    """A single thumbnail of an item."""
    path = tmp_path / thumbnail_path("ab" * 8)
    path.parent.mkdir(parents=True)
    path.write_bytes(add_checksum(webp()))
    return path


def test_checksum_does_not_change_pixels(placed: Path, tmp_path: Path) -> None:
    assert read_thumbnail(tmp_path, "ab" * 8) == placed.read_bytes()
    assert np.array_equal(pixels(placed.read_bytes()), pixels(webp()))


def test_every_prepared_thumbnail_has_a_checksum(prepared: Collection) -> None:
    for item_id in prepared.items["id"]:
        assert read_thumbnail(prepared.path, item_id)[-12:-8] == b"SIEV"


def test_no_flipped_bit_changes_the_image_undetected(placed: Path, tmp_path: Path) -> None:
    whole = placed.read_bytes()
    for place in range(8 * len(whole)):
        data = bytearray(whole)
        data[place // 8] ^= 1 << place % 8
        placed.write_bytes(data)
        with pytest.raises(ValueError, match="is damaged: "):
            read_thumbnail(tmp_path, "ab" * 8)


@pytest.mark.parametrize("seal", [add_checksum, bytes], ids=["with checksum", "without checksum"])
def test_truncated_thumbnail_is_not_shown(placed: Path, tmp_path: Path, seal) -> None:
    whole = seal(webp())
    for length in range(len(whole)):
        placed.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="is damaged: it is (not a WebP image|incomplete|no)"):
            read_thumbnail(tmp_path, "ab" * 8)


def test_missing_checksum_and_oversized_file_are_rejected(placed: Path, tmp_path: Path) -> None:
    placed.write_bytes(webp("blue"))
    with pytest.raises(ValueError, match="is damaged: it has no checksum"):
        read_thumbnail(tmp_path, "ab" * 8)
    placed.write_bytes(webp() + bytes(MAX_THUMBNAIL_BYTES))
    with pytest.raises(ValueError, match="too large for a thumbnail"):
        read_thumbnail(tmp_path, "ab" * 8)


def test_figure_with_a_damaged_thumbnail_is_rejected_with_one_line(prepared: Collection) -> None:
    path = prepared.path / thumbnail_path(prepared.items["id"].iloc[3])
    for _, how in damaged_files([path]):
        if how == "one byte more" or "bit" in how or "cut" in how or "zeros" in how:
            with pytest.raises(ValueError, match="damaged.*prepare the collection again") as raised:
                open_thumbnail(prepared, 3)
            assert str(path) in str(raised.value) and "\n" not in str(raised.value)
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match="file is missing"):
        open_thumbnail(prepared, 3)


@pytest.fixture
def web(tiny_engine: SearchEngine, prepared: Collection) -> Iterator[httpx.Client]:
    engine = copy.copy(tiny_engine)
    engine.collection = prepared
    served = start(engine, port=FIRST_PORT + 20)
    with web_client(served.url) as client:
        yield client
    served.app.close()


def test_server_reports_a_damaged_thumbnail_with_one_line(
    web: httpx.Client, prepared: Collection
) -> None:
    item = str(prepared.items["id"].iloc[3])
    address = f"/thumbnails/{item[:2]}/{item}.webp"
    path = prepared.path / thumbnail_path(item)
    whole = path.read_bytes()
    assert web.get(address).content == whole
    for _, how in damaged_files([path]):
        text = web.get(address)
        assert text.status_code == 404 and "is damaged" in text.text, how
        assert text.text.count("\n") == 1 and str(prepared.path) not in text.text
        drawn = call_server(web, "sieve_preview", {"rows": [{"image": item}], "columns": 1}).json()
        assert "is damaged" in drawn["error"] and "\n" not in drawn["error"], how
    assert web.get(address).content == whole


def test_hostile_archive_of_thumbnails_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "thumbnails.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr(f"{'a' * 16}.webp", bytes(50 << 20))
    with pytest.raises(ValueError, match="it is too large for a thumbnail"):
        read_thumbnail(tmp_path, "a" * 16)
    with pytest.raises(ValueError, match="is not in thumbnails.zip"):
        read_thumbnail(tmp_path, "b" * 16)
    archive.write_bytes(b"PK" + bytes(99))
    with pytest.raises(ValueError, match="cannot be read from thumbnails.zip"):
        read_thumbnail(tmp_path, "a" * 16)
