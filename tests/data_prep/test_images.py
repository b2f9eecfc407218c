from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sieve.data_prep.images import LARGE_PIXELS, load_image, original_size, readable_extensions

pytestmark = pytest.mark.slow


def png_header(width: int, height: int) -> bytes:
    """Return a PNG of a few bytes that declares the given size."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 4) + b"IDATxxxx\0\0\0\0"


@pytest.fixture
def gradient() -> Image.Image:
    across = np.linspace(0, 255, 40, dtype=np.uint8)
    grid = np.stack([np.tile(across, (30, 1))] * 3, axis=2)
    grid[..., 2] = 128
    return Image.fromarray(grid)


def test_decompression_bomb_is_rejected_by_its_header(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(png_header(20_000, 6_000))
    with pytest.raises(ValueError, match="too large: 120,000,000 pixels; the limit is 100,000,000"):
        load_image(bomb)
    bomb.write_bytes(png_header(2_000_000, 2_000_000))
    with pytest.raises(ValueError, match="too large: 4,000,000,000,000 pixels"):
        load_image(bomb)


def test_truncated_image_is_rejected(tmp_path: Path, gradient: Image.Image) -> None:
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
def test_other_files_are_rejected(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        load_image(path)


def test_special_files_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="file is missing"):
        load_image(tmp_path / "none.jpg")
    with pytest.raises(ValueError, match="file is missing"):
        load_image(tmp_path / ("long" * 200))
    with pytest.raises(ValueError, match="not a regular file"):
        load_image(tmp_path)
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ValueError, match="not a regular file"):
        load_image(tmp_path / "pipe.jpg")


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    lying = Image.new("RGB", (40, 20), "red")
    lying.paste("blue", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # displayed rotated by 90° clockwise
    lying.save(tmp_path / "a.png", exif=exif)
    upright = load_image(tmp_path / "a.png")
    assert upright.size == (20, 40)
    assert upright.getpixel((10, 5)) == (0, 0, 255)
    assert upright.getpixel((10, 35)) == (255, 0, 0)


def test_first_frame_of_an_animation_is_used(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert load_image(tmp_path / "a.gif").getpixel((4, 4)) == (255, 0, 0)


def test_sixteen_bit_images_are_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.array([[0, 128 * 257, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    image = load_image(tmp_path / "a.png")
    assert [image.getpixel((x, 0))[0] for x in range(3)] == [0, 128, 255]  # type: ignore[index]


def test_transparency_is_composited_over_white(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    clear.save(tmp_path / "rgba.png")
    clear.convert("LA").save(tmp_path / "la.png")
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([9, 9, 9] * 256)
    palette.save(tmp_path / "p.png", transparency=0)
    for name in ("rgba.png", "la.png", "p.png"):
        assert load_image(tmp_path / name).getpixel((1, 1)) == (255, 255, 255), name


def test_other_modes_are_converted_to_rgb(tmp_path: Path, gradient: Image.Image) -> None:
    gradient.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    gradient.convert("1").save(tmp_path / "one.png")
    gradient.quantize(16).save(tmp_path / "palette.png")
    Image.new("RGB", (1, 1), "red").save(tmp_path / "tiny.png")
    cmyk = np.asarray(load_image(tmp_path / "cmyk.jpg"), int)
    assert np.abs(cmyk - np.asarray(gradient, int)).mean() < 12
    for name, size in (("one.png", (40, 30)), ("palette.png", (40, 30)), ("tiny.png", (1, 1))):
        image = load_image(tmp_path / name)
        assert (image.mode, image.size) == ("RGB", size)


def test_damaged_exif_does_not_reject_the_image(tmp_path: Path, gradient: Image.Image) -> None:
    gradient.save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xffgarbage")
    assert load_image(tmp_path / "a.jpg").size == (40, 30)


def test_image_extensions_are_recognised() -> None:
    assert {".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".bmp"} <= readable_extensions()
    assert not {".pdf", ".eps", ".mpg", ".h5", ".csv"} & readable_extensions()


def png_of_zeros(path: Path, side: int, header: bytes, bits: int, extra: bytes = b"") -> None:
    """Write a square PNG whose pixels are all 0, which takes a few kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    pixels = zlib.compress(bytes((1 + -(-side * bits // 8)) * side), 1)
    head = chunk(b"IHDR", struct.pack(">II", side, side) + header)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + head + extra + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


MEASURE = """
import resource, sys, threading
from pathlib import Path
from PIL import Image
from sieve.data_prep.images import load_image, load_image_bytes
Image.init()
start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
paths = [Path(path) for path in sys.argv[1:]]
threads = [threading.Thread(target=load_image, args=(path,)) for path in paths]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start)
"""


def peak_megabytes(*paths: Path) -> float:
    """Measure the peak memory of a process that loads images concurrently."""
    command = [sys.executable, "-c", MEASURE, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout) / (1024 if sys.platform == "linux" else 1 << 20)


def palette_of(path: Path, side: int) -> Path:
    """Write a palette image with transparent colours."""
    table = b"PLTE" + bytes(6)
    clear = b"tRNS" + b"\0\x80"
    extra = b"".join(
        struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part))
        for part in (table, clear)
    )
    png_of_zeros(path, side, bytes([8, 3, 0, 0, 0]), 8, extra)
    return path


@pytest.mark.skipif(sys.platform not in ("linux", "darwin"), reason="measures memory as Unix does")
def test_large_images_are_decoded_one_at_a_time_in_little_memory(tmp_path: Path) -> None:
    palette = palette_of(tmp_path / "palette.png", 10_000)
    assert palette.stat().st_size < 1 << 19
    assert peak_megabytes(palette) < 260  # 1,720 if composited at once
    half = palette_of(tmp_path / "half.png", 7000)
    assert peak_megabytes(*[half] * 4) < 250  # 3,400
    png_of_zeros(tmp_path / "deep.png", 7000, bytes([16, 0, 0, 0, 0]), 16)
    assert peak_megabytes(tmp_path / "deep.png") < 280  # 1,360


@pytest.mark.skipif(sys.platform not in ("linux", "darwin"), reason="measures memory as Unix does")
def test_memory_heavy_formats_have_a_lower_pixel_limit(tmp_path: Path) -> None:
    path = tmp_path / "clear.webp"
    Image.new("RGBA", (9000, 6000), (1, 2, 3, 99)).save(path, lossless=True, method=0)
    assert path.stat().st_size < 100
    with pytest.raises(ValueError, match=r"54,000,000 pixels; the limit for WEBP is 50,000,000"):
        load_image(path)
    assert peak_megabytes(path) < 30


def test_image_inside_an_icon_has_the_same_limit(tmp_path: Path) -> None:
    inside = png_header(11_000, 10_000)
    entry = struct.pack("<BBBBHHII", 64, 64, 0, 0, 1, 32, len(inside), 22)
    (tmp_path / "a.ico").write_bytes(struct.pack("<HHH", 0, 1, 1) + entry + inside)
    with pytest.raises(ValueError, match="110,000,000 pixels; the limit is 100,000,000"):
        load_image(tmp_path / "a.ico")


def test_small_tiff_with_a_huge_tile_is_rejected(tmp_path: Path) -> None:
    data = zlib.compress(bytes(1000))
    tags = {256: 10, 257: 10, 258: 8, 259: 8, 262: 1, 277: 1}
    tags |= {322: 20_000, 323: 20_000, 324: 8, 325: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = b"II*\0" + struct.pack("<I", 8 + len(data)) + data
    (tmp_path / "a.tif").write_bytes(head + struct.pack("<H", len(tags)) + entries + bytes(4))
    with pytest.raises(ValueError, match="400,000,000 pixels; the limit is 100,000,000"):
        load_image(tmp_path / "a.tif")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "progressive.jpg", "a.tif", "a.gif", "a.bmp"])
def test_large_image_is_reduced_and_reports_its_original_size(tmp_path: Path, name: str) -> None:
    """Return an image, half red and half blue, with EXIF orientation if supported."""
    large = Image.new("RGB", (6000, 3000), "red")
    large.paste("blue", (3000, 0, 6000, 3000))
    assert LARGE_PIXELS < 6000 * 3000
    options: dict = {"progressive": True} if "progressive" in name else {}
    turned = name.endswith((".png", ".jpg"))
    if turned:
        exif = Image.Exif()
        exif[0x0112] = 6  # displayed rotated by 90° clockwise
        options["exif"] = exif
    large.save(tmp_path / name, **options)
    image = load_image(tmp_path / name)
    assert original_size(image) == ((3000, 6000) if turned else (6000, 3000))
    assert image.size == ((1500, 3000) if turned else (3000, 1500))
    places = ((700, 100), (700, 2900)) if turned else ((100, 700), (2900, 700))
    for place, colour in zip(places, ((255, 0, 0), (0, 0, 255)), strict=True):
        found = image.getpixel(place)
        assert isinstance(found, tuple)
        assert max(abs(a - b) for a, b in zip(found, colour, strict=True)) < 8


def test_strip_decoding_gives_identical_pixels(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 255, (2100, 1050, 4), np.uint8)  # more than a strip
    whole = Image.fromarray(pixels)
    whole.save(tmp_path / "a.png", compress_level=0)
    white = Image.new("RGBA", whole.size, "white")
    wanted = np.asarray(Image.alpha_composite(white, whole).convert("RGB"))
    assert np.array_equal(np.asarray(load_image(tmp_path / "a.png")), wanted)


def test_reduction_of_a_thin_image_leaves_at_least_one_pixel(tmp_path: Path) -> None:
    Image.new("L", (20_000_000, 1), 9).save(tmp_path / "line.png")
    assert load_image(tmp_path / "line.png").size == (20_000_000, 1)
