"""Test uploaded images: reduced, and read only from the upload folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from sieve.explorer.uploads import MAX_SIDE, Uploads


def put(folder: Path, name: str = "a.png", size: tuple[int, int] = (1000, 500)) -> Path:
    path = folder / name
    Image.new("RGB", size, "red").save(path)
    return path


def test_uploaded_image_is_read_and_its_file_removed(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    path = put(tmp_path)
    taken = uploads.add(str(path))
    assert uploads.get(taken.key).size == (MAX_SIDE, MAX_SIDE // 2)
    assert taken.preview.startswith("data:image/webp;base64,")
    assert not path.exists()


def test_temporary_folder_of_an_upload_is_removed(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "b" / "another.png").write_bytes(b"")
    uploads = Uploads(tmp_path)
    for name in ("a", "b"):
        uploads.add(str(put(tmp_path / name)))
    assert [path.name for path in tmp_path.rglob("*")] == ["b", "another.png"]


def test_only_the_upload_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "uploads").mkdir()
    uploads = Uploads(tmp_path / "uploads")
    outside = put(tmp_path)
    (tmp_path / "uploads" / "link.png").symlink_to(outside)
    for path in (outside, tmp_path / "uploads/../a.png", tmp_path / "uploads/link.png", tmp_path):
        with pytest.raises(ValueError, match="does not exist"):
            uploads.add(str(path))
    assert outside.exists()


@pytest.mark.parametrize("path", ["", "\0", "x" * 5000, "/nowhere/at/all"])
def test_invalid_path_is_rejected(tmp_path: Path, path: str) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        Uploads(tmp_path).add(path)


def test_invalid_image_is_rejected_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"no image")
    with pytest.raises(ValueError, match="cannot be used"):
        Uploads(tmp_path).add(str(path))
    assert not path.exists()


def test_old_images_are_removed(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path, capacity=2)
    keys = [uploads.add(str(put(tmp_path, f"{n}.png", (8, 8 + n)))).key for n in range(3)]
    assert uploads.get(keys[2]).size == (8, 10)
    with pytest.raises(ValueError, match="choose it again"):
        uploads.get(keys[0])
