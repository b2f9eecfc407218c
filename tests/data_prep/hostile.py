"""A folder of hostile image files, with the expected outcome of each."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

GOOD, SKIPPED, IGNORED = "good", "skipped", "ignored"


class Expected(NamedTuple):
    """Expected outcome of a file."""

    fate: str
    detail: str = ""
    """Size of the item, `WxH`, or the beginning of the reason in skipped.csv."""


def picture(size: tuple[int, int] = (64, 48), mode: str = "RGB") -> Image.Image:
    """Noise images with consecutive seeds, so that all differ."""
    random = np.random.default_rng(size[0] * 7 + size[1])
    pixels = random.integers(0, 255, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encoded(kind: str, image: Image.Image | None = None, **options: object) -> bytes:
    """Bytes of an image file."""
    stream = BytesIO()
    (image or picture()).save(stream, kind, **options)
    return stream.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """A PNG chunk with a valid checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG whose header states a size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def turned() -> bytes:
    """A JPEG that EXIF rotates by 90°."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded("JPEG", picture((60, 30)), exif=exif)


def frames(kind: str) -> bytes:
    """An animation."""
    first, *others = (picture((40 + 0 * i, 40)).rotate(90 * i) for i in range(3))
    return encoded(kind, first, save_all=True, append_images=others)


SVG = b"""<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script>
<image href="file:///etc/passwd"/></svg>"""
XBM_BOMB = b"#define a_width 99999\n#define a_height 99999\nstatic char a_bits[] = {\n0x00 };\n"
UNKNOWN = Expected(SKIPPED, "not an image of a known format")

FILES: dict[str, tuple[bytes | Callable[[], bytes], Expected]] = {
    "empty.jpg": (b"", Expected(SKIPPED, "file is empty")),
    "one-byte.png": (b"\x89", UNKNOWN),
    "text.jpg": (b"I am no picture.", UNKNOWN),
    "page.png": (b"<!doctype html><script>alert(1)</script>", UNKNOWN),
    "zip.webp": (b"PK\x03\x04" + bytes(60), UNKNOWN),
    "zeros.jpg": (bytes(10_000), UNKNOWN),
    "program.gif": (b"\x7fELF" + bytes(100), UNKNOWN),
    "postscript.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", UNKNOWN),
    "pdf.png": (b"%PDF-1.7\n1 0 obj\n", UNKNOWN),
    "script.svg": (SVG, Expected(SKIPPED, "SVG image: convert it")),
    "script-svg.png": (SVG, UNKNOWN),
    "half.jpg": (lambda: encoded("JPEG")[:1500], Expected(SKIPPED, "damaged image")),
    "half.png": (lambda: encoded("PNG")[:2000], Expected(SKIPPED, "damaged image")),
    "half.webp": (lambda: encoded("WEBP", lossless=True)[:900], Expected(SKIPPED)),
    "half.gif": (lambda: encoded("GIF")[:1000], Expected(SKIPPED, "damaged image")),
    "half.tif": (lambda: encoded("TIFF")[:3000], Expected(SKIPPED)),
    "header-only.jpg": (lambda: encoded("JPEG")[:20], Expected(SKIPPED)),
    "flipped-bits.png": (
        lambda: encoded("PNG")[:300] + b"\xff" * 50 + encoded("PNG")[350:],
        Expected(SKIPPED, "damaged image"),
    ),
    "bomb.png": (png_of(50_000, 50_000), Expected(SKIPPED, "too large")),
    "bomb-4g.png": (png_of(2**31 - 1, 2**31 - 1), Expected(SKIPPED, "too large")),
    "bomb-just-over.png": (png_of(10_001, 10_000), Expected(SKIPPED, "too large")),
    "bomb.xbm": (XBM_BOMB, Expected(SKIPPED, "too large")),
    "bomb.bmp": (
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 90_000, 90_000, 1, 24, *[0] * 6),
        Expected(SKIPPED, "too large"),
    ),
    "no-size.png": (png_of(0, 0), Expected(SKIPPED)),
    "text-bomb.png": (
        lambda: _with_text_bomb(),
        Expected(SKIPPED, "damaged image"),
    ),
    "good.jpg": (lambda: encoded("JPEG"), Expected(GOOD, "64x48")),
    "png-inside.jpg": (lambda: encoded("PNG", picture((65, 48))), Expected(GOOD, "65x48")),
    "jpg-inside.gif": (lambda: encoded("JPEG", picture((66, 48))), Expected(GOOD, "66x48")),
    "upper.JPG": (lambda: encoded("JPEG", picture((67, 48))), Expected(GOOD, "67x48")),
    "cmyk.jpg": (lambda: encoded("JPEG", picture((68, 48), "CMYK")), Expected(GOOD, "68x48")),
    "grey.jpg": (lambda: encoded("JPEG", picture((69, 48), "L")), Expected(GOOD, "69x48")),
    "sixteen-bits.png": (
        lambda: encoded("PNG", Image.fromarray(np.arange(3500, dtype=np.uint16).reshape(50, 70))),
        Expected(GOOD, "70x50"),
    ),
    "floats.tif": (
        lambda: encoded("TIFF", Image.fromarray(np.full((50, 71), np.nan, np.float32))),
        Expected(GOOD, "71x50"),
    ),
    "palette.png": (lambda: encoded("PNG", picture((72, 48)).quantize(9)), Expected(GOOD, "72x48")),
    "clear.png": (lambda: encoded("PNG", picture((73, 48), "RGBA")), Expected(GOOD, "73x48")),
    "clear-grey.png": (lambda: encoded("PNG", picture((74, 48), "LA")), Expected(GOOD, "74x48")),
    "bits.png": (lambda: encoded("PNG", picture((75, 48), "1")), Expected(GOOD, "75x48")),
    "lab.tif": (
        lambda: encoded("TIFF", Image.merge("LAB", picture((76, 48)).split())),
        Expected(GOOD, "76x48"),
    ),
    "moving.gif": (lambda: frames("GIF"), Expected(GOOD, "40x40")),
    "moving.png": (lambda: frames("PNG"), Expected(GOOD, "40x40")),
    "moving.webp": (lambda: frames("WEBP"), Expected(GOOD, "40x40")),
    "turned.jpg": (turned, Expected(GOOD, "30x60")),
    "bad-exif.jpg": (
        lambda: encoded("JPEG", picture((77, 48)), exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
        Expected(GOOD, "77x48"),
    ),
    "dot.png": (lambda: encoded("PNG", picture((1, 1))), Expected(GOOD, "1x1")),
    "line.png": (lambda: encoded("PNG", picture((30_000, 1))), Expected(GOOD, "30000x1")),
    "post.png": (lambda: encoded("PNG", picture((1, 30_000))), Expected(GOOD, "1x30000")),
    "trailing.jpg": (
        lambda: encoded("JPEG", picture((78, 48))) + b"<script>" * 999,
        Expected(GOOD, "78x48"),
    ),
    'it\'s "quoted".jpg': (lambda: encoded("JPEG", picture((79, 48))), Expected(GOOD, "79x48")),
    "new\nline,comma;.jpg": (lambda: encoded("JPEG", picture((80, 48))), Expected(GOOD, "80x48")),
    "<img src=x onerror=alert(1)>.png": (
        lambda: encoded("PNG", picture((81, 48))),
        Expected(GOOD, "81x48"),
    ),
    "صورة \u202egnp.jpg": (lambda: encoded("JPEG", picture((82, 48))), Expected(GOOD, "82x48")),
    "🐕\u200d🦺 zero\u200bwidth.jpg": (
        lambda: encoded("JPEG", picture((83, 48))),
        Expected(GOOD, "83x48"),
    ),
    "n" * 251 + ".jpg": (lambda: encoded("JPEG", picture((84, 48))), Expected(GOOD, "84x48")),
    "  spaces  .jpg": (lambda: encoded("JPEG", picture((85, 48))), Expected(GOOD, "85x48")),
    "=1+1.jpg": (lambda: encoded("JPEG", picture((86, 48))), Expected(GOOD, "86x48")),
    "%2e%2e%2f.jpg": (lambda: encoded("JPEG", picture((87, 48))), Expected(GOOD, "87x48")),
    "-rf.jpg": (lambda: encoded("JPEG", picture((88, 48))), Expected(GOOD, "88x48")),
    "new\nline-bad.jpg": (b"torn", UNKNOWN),
    'it\'s "bad".jpg': (b"torn", UNKNOWN),
    ".hidden.jpg": (b"torn", Expected(IGNORED)),
    "notes.txt": (b"", Expected(SKIPPED, "text file without an image of the same name")),
}


def _with_text_bomb() -> bytes:
    """A PNG whose comment unpacks to 20 MB."""
    whole = encoded("PNG", picture((32, 32)))
    bomb = png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(20_000_000)))
    return whole[:33] + bomb + whole[33:]


def make(folder: Path) -> dict[str, Expected]:
    """Write all files into a new folder; return the expected outcomes by name."""
    folder.mkdir()
    expected = {name: fate for name, (_, fate) in FILES.items()}
    for name, (content, _) in FILES.items():
        (folder / name).write_bytes(content() if callable(content) else content)
    (folder / "folder.jpg").mkdir()
    (folder / "folder.jpg" / "inside.png").write_bytes(encoded("PNG", picture((89, 48))))
    expected["folder.jpg/inside.png"] = Expected(GOOD, "89x48")
    (folder.parent / "outside.png").write_bytes(encoded("PNG", picture((90, 48))))
    for name, target in (
        ("link-inside.jpg", folder / "good.jpg"),
        ("link-outside.png", folder.parent / "outside.png"),
        ("link-nowhere.png", folder / "nothing.png"),
        ("link-itself.png", folder / "link-itself.png"),
        ("link-device.png", Path("/dev/zero")),
        ("linked-folder", folder.parent),
    ):
        os.symlink(target, folder / name)
    os.mkfifo(folder / "pipe.png")
    leaves = Expected(SKIPPED, "link leaves the folder")
    return expected | {
        "link-inside.jpg": Expected(GOOD, "64x48"),
        "link-outside.png": leaves,
        "link-nowhere.png": Expected(SKIPPED, "file is missing"),
        "link-itself.png": Expected(SKIPPED),
        "link-device.png": leaves,
        "linked-folder": Expected(SKIPPED, "linked folder"),
        "pipe.png": Expected(SKIPPED, "not a regular file"),
    }
