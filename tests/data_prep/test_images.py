from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sieve.data_prep.images import load_image, readable_extensions


def png_header(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to be of any size."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 4) + b"IDATxxxx\0\0\0\0"


@pytest.fixture
def gradient() -> Image.Image:
    across = np.linspace(0, 255, 40, dtype=np.uint8)
    grid = np.stack([np.tile(across, (30, 1))] * 3, axis=2)
    grid[..., 2] = 128
    return Image.fromarray(grid)


def test_a_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(png_header(20_000, 6_000))
    with pytest.raises(ValueError, match="too large: 20000 x 6000 is more than 100,000,000"):
        load_image(bomb)
    bomb.write_bytes(png_header(2_000_000, 2_000_000))
    with pytest.raises(ValueError, match="too large: more than 100,000,000 pixels"):
        load_image(bomb)


def test_a_truncated_image_is_refused(tmp_path: Path, gradient: Image.Image) -> None:
    for name in ("a.jpg", "a.png", "a.webp", "a.gif"):
        gradient.save(tmp_path / name)
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) * 6 // 10])
        with pytest.raises(ValueError, match="damaged image: |not an image"):
            load_image(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "file is empty"),
        (b"<html>404 not found</html>", "not an image of a known format"),
        (b"\xff\xd8\xff\xe0 no jpeg at all", "damaged image|not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image of a known format"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        load_image(path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="file is missing"):
        load_image(tmp_path / "none.jpg")
    with pytest.raises(ValueError, match="file is missing"):
        load_image(tmp_path / ("long" * 200))
    with pytest.raises(ValueError, match="not a regular file"):
        load_image(tmp_path)
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ValueError, match="not a regular file"):
        load_image(tmp_path / "pipe.jpg")


def test_exif_turns_the_image_upright(tmp_path: Path) -> None:
    lying = Image.new("RGB", (40, 20), "red")
    lying.paste("blue", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90° to the right
    lying.save(tmp_path / "a.png", exif=exif)
    upright = load_image(tmp_path / "a.png")
    assert upright.size == (20, 40)
    assert upright.getpixel((10, 5)) == (0, 0, 255)
    assert upright.getpixel((10, 35)) == (255, 0, 0)


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert load_image(tmp_path / "a.gif").getpixel((4, 4)) == (255, 0, 0)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.array([[0, 128 * 257, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    image = load_image(tmp_path / "a.png")
    assert [image.getpixel((x, 0))[0] for x in range(3)] == [0, 128, 255]  # type: ignore[index]


def test_transparency_lies_over_white(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    clear.save(tmp_path / "rgba.png")
    clear.convert("LA").save(tmp_path / "la.png")
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([9, 9, 9] * 256)
    palette.save(tmp_path / "p.png", transparency=0)
    for name in ("rgba.png", "la.png", "p.png"):
        assert load_image(tmp_path / name).getpixel((1, 1)) == (255, 255, 255), name


def test_other_modes_become_rgb(tmp_path: Path, gradient: Image.Image) -> None:
    gradient.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    gradient.convert("1").save(tmp_path / "one.png")
    gradient.quantize(16).save(tmp_path / "palette.png")
    Image.new("RGB", (1, 1), "red").save(tmp_path / "tiny.png")
    cmyk = np.asarray(load_image(tmp_path / "cmyk.jpg"), int)
    assert np.abs(cmyk - np.asarray(gradient, int)).mean() < 12
    for name, size in (("one.png", (40, 30)), ("palette.png", (40, 30)), ("tiny.png", (1, 1))):
        image = load_image(tmp_path / name)
        assert (image.mode, image.size) == ("RGB", size)


def test_damaged_exif_does_not_cost_the_image(tmp_path: Path, gradient: Image.Image) -> None:
    gradient.save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xffgarbage")
    assert load_image(tmp_path / "a.jpg").size == (40, 30)


def test_extensions_are_those_of_pictures() -> None:
    assert {".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".bmp"} <= readable_extensions()
    assert not {".pdf", ".eps", ".mpg", ".h5", ".csv"} & readable_extensions()
