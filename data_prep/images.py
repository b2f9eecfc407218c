"""Decode untrusted image files to upright RGB, and open an item's original image or thumbnail.

Sizes are checked in the header before any pixel is decoded, so that a file of a few kilobytes
cannot allocate gigabytes. Images of more than 16 megapixels are reduced, in strips, and decoded one
at a time, which takes at most about 0.9 GB. HEIC is read if pillow-heif is installed.

Thumbnails are small WebP images that end in a checksum. A collection has too many to verify them
when it is opened, so each file ends in a RIFF chunk, which decoders ignore, with the CRC-32 of all
bytes before it.
"""

from __future__ import annotations

import math
import os
import re
import struct
import threading
import warnings
import zipfile
import zlib
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cache, lru_cache
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from sieve.model.collection import (
    THUMBNAIL_ARCHIVE,
    THUMBNAILS,
    Collection,
    thumbnail_path,
)
from sieve.model.files import reason_of

MAX_PIXELS = 100_000_000
"""Images with more pixels are refused: decoded, 100 megapixels take 400 MB."""
MAX_HEAVY_PIXELS = 50_000_000
"""The limit for formats whose decoders hold three or four copies of the image."""
LARGE_PIXELS = 1 << 24
"""Images with more pixels are reduced to at most this many, and decoded one at a time."""
ORIGINAL_SIZE = "original_size"
"""Key in `Image.info` of the upright size before reduction; see `original_size`."""

_HEAVY_FORMATS = {"AVIF", "HEIF", "JPEG2000", "WEBP"}
_STRIP_PIXELS = 1 << 21
_ORIENTATIONS = ("", "", "FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE",
                 "ROTATE_270", "TRANSVERSE", "ROTATE_90")  # fmt: skip
"""Pillow's transposition for each EXIF orientation; none for 0 and 1."""

# Pillow raises DecompressionBombError at twice this, also for images inside others, such as the
# PNG in an ICO, whose size is not in the outer header.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2

_large_image_lock: AbstractContextManager[object] = threading.Lock()

# Formats that start other programs (EPS), have no decoder (stubs), are not raster images (MPEG,
# WMF), or are decoded pixel by pixel in Python (FITS).
_REFUSED_FORMATS = {"BUFR", "EPS", "FITS", "GRIB", "HDF5", "MPEG", "WMF"}


def share_decoding_lock(lock: AbstractContextManager[object]) -> None:
    """Use a lock that several processes share while decoding large images."""
    global _large_image_lock
    _large_image_lock = lock


def original_size(image: Image.Image) -> tuple[int, int]:
    """Return the upright width and height of a loaded image's file, before reduction."""
    return image.info.get(ORIGINAL_SIZE, image.size)


_INSTALL_HEIF = 'pip install "sieve-explorer[heif]"'
_RAW = "3fr arw cr2 cr3 crw dcr dng erf kdc mef mrw nef nrw orf pef raf raw rw2 rwl sr2 srf srw x3f"
UNREADABLE_IMAGES = {
    **dict.fromkeys((".heic", ".heif", ".hif", ".heics", ".heifs"), f"HEIC image: {_INSTALL_HEIF}"),
    **dict.fromkeys((".avif", ".avifs"), f"AVIF image: {_INSTALL_HEIF}"),
    ".jxl": "JPEG XL image: convert it to JPEG or PNG",
    **dict.fromkeys((".svg", ".svgz"), "SVG image: convert it to PNG"),
    **{f".{name}": "camera RAW image: convert it to JPEG" for name in _RAW.split()},
}
"""Reason by lower-case extension of image formats that may not be readable."""


@cache
def readable_formats() -> tuple[str, ...]:
    """Return Pillow's names of the formats that can be opened."""
    Image.init()
    with suppress(ImportError):
        import pillow_heif  # optional

        pillow_heif.register_heif_opener()
    return tuple(sorted(set(Image.OPEN) - _REFUSED_FORMATS))


@cache
def readable_extensions() -> frozenset[str]:
    """Return the lower-case file extensions, with dot, of `readable_formats`."""
    formats, known = set(readable_formats()), Image.registered_extensions()
    return frozenset(extension for extension, name in known.items() if name in formats)


def load_image(path: Path) -> Image.Image:
    """Decode an image file to RGB without metadata, at most 16 megapixels; see `original_size`.

    EXIF rotation is applied, animations give their first frame, transparency is composited over
    white, and 16 bits are scaled to 8. Raise ValueError with a short reason if the file holds no
    usable image.
    """
    if not os.path.exists(path):  # unlike pathlib, returns False for names that are too long
        raise ValueError("file is missing")
    if not path.is_file():  # reading a pipe or a device might never end
        raise ValueError("not a regular file")
    if path.stat().st_size == 0:
        raise ValueError("file is empty")
    return _decode_or_explain(path)


def open_image_file(name: str | Path) -> Image.Image:
    """Decode an image file that a user names, as `load_image` does; the error names the file."""
    try:
        return load_image(Path(name).expanduser())
    except ValueError as error:
        raise ValueError(f"image {name}: {error}; give another one") from None


def load_image_bytes(data: bytes) -> Image.Image:
    """Decode the bytes of an image file, such as a member of an archive; see `load_image`."""
    if not data:
        raise ValueError("file is empty")
    return _decode_or_explain(BytesIO(data))


def _decode_or_explain(file: Path | BytesIO) -> Image.Image:
    """Decode an image; turn every error into a ValueError with a short reason."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our own limit is below Pillow's
            return _decode(file)
    except _TooLarge as error:
        reason = str(error)
    except Image.DecompressionBombError as error:
        found = re.search(r"\d+", str(error))
        pixels = int(found[0]) if found else 0
        reason = f"too large: {pixels:,} pixels; the limit is {MAX_PIXELS:,}"
    except UnidentifiedImageError:
        reason = "not an image of a known format"
    except MemoryError:
        reason = "too large for the memory of this machine"
    except PermissionError:
        reason = "cannot be read: permission denied"
    except Exception as error:  # Pillow's decoders raise many kinds of errors for damaged files
        reason = f"damaged image: {reason_of(error)}"
    raise ValueError(reason)


class _TooLarge(ValueError):
    """The header states more pixels than the limit."""


def _decode(file: Path | BytesIO) -> Image.Image:
    with Image.open(file, formats=readable_formats()) as image:
        _check_size(image)
        size, factor = image.size, _factor(image)
        if factor > 1:
            # Reduces a JPEG by a power of two while decoding; has no effect on other formats.
            image.draft(None, (size[0] // factor, size[1] // factor))
        is_drafted = image.size != size
        # The decoder of a progressive JPEG always holds it at full size.
        is_progressive = factor > 1 and "progressive" in image.info
        is_large = is_progressive or image.width * image.height > LARGE_PIXELS
        with _large_image_lock if is_large else nullcontext():
            image.load()
            width, height = size if is_drafted else image.size
            is_turned = _orientation(image) >= 5
            upright = to_rgb(image)
    upright.info = {ORIGINAL_SIZE: (height, width) if is_turned else (width, height)}
    return upright


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an opened image of any mode to upright RGB, as `load_image` does.

    Raise ValueError if it has no pixels.
    """
    if not (image.width and image.height):
        raise ValueError(f"the image has no pixels: it is {image.width} × {image.height}")
    turn, upright = _ORIENTATIONS[_orientation(image)], _as_rgb(image)
    return upright.transpose(Image.Transpose[turn]) if turn else upright


def _check_size(image: Image.Image) -> None:
    tags = getattr(image, "tag_v2", {})  # a TIFF may store a small image in a large tile
    tile = [number for tag in (322, 323) if isinstance(number := tags.get(tag), int)]
    limit = MAX_HEAVY_PIXELS if image.format in _HEAVY_FORMATS else MAX_PIXELS
    found = max(image.width * image.height, math.prod(tile))
    if found > limit:
        kind = f" for {image.format}" if limit < MAX_PIXELS else ""
        raise _TooLarge(f"too large: {found:,} pixels; the limit{kind} is {limit:,}")


def _factor(image: Image.Image) -> int:
    """Return the integer by which both sides of a large image are divided."""
    factor = math.ceil(math.sqrt(image.width * image.height / LARGE_PIXELS))
    return max(min(factor, image.width, image.height), 1)


def _orientation(image: Image.Image) -> int:
    with suppress(Exception):  # damaged EXIF does not affect the pixels
        orientation = image.getexif().get(0x0112, 1)
        return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1
    return 1


def _as_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to RGB and reduce it if it is large, strip by strip."""
    factor = _factor(image)
    width, height = image.size
    rows = max(_STRIP_PIXELS // width // factor, 1) * factor
    boxes = [(0, top, width, min(top + rows, height)) for top in range(0, height, rows)]
    is_deep = image.mode.startswith("I") or image.mode == "F"
    white = _white_level(image, boxes) if is_deep else 0.0
    reduced = Image.new("RGB", (-(-width // factor), -(-height // factor)))
    for box in boxes:
        strip = image.crop(box)
        if is_deep:  # Pillow's conversion would clip the values
            levels = (_numbers(strip) / white).clip(0, 1) * 255
            strip = Image.fromarray(levels.round().astype(np.uint8))
        elif strip.has_transparency_data:
            coloured = strip.convert("RGBA")
            strip = Image.alpha_composite(Image.new("RGBA", coloured.size, "white"), coloured)
        strip = strip.convert("RGB")
        reduced.paste(strip.reduce(factor) if factor > 1 else strip, (0, box[1] // factor))
    return reduced


def _white_level(image: Image.Image, boxes: list[tuple[int, int, int, int]]) -> float:
    """Return the value of white in an image of 16 bits or more."""
    if image.mode.startswith("I;16"):
        return 65535.0
    # `I` and `F` do not say their range: take the smallest usual one that holds the values.
    peak = max((_numbers(image.crop(box)).max(initial=0.0) for box in boxes), default=0.0)
    return next((top for top in (1.0, 255.0, 65535.0) if peak <= top), float(peak))


def _numbers(image: Image.Image) -> np.ndarray:
    return np.nan_to_num(np.asarray(image, np.float64), posinf=0.0, neginf=0.0)


_MARGIN = 1.05
"""Draw scenes slightly larger than needed, since their aspect ratio is approximate here."""
_CELL = 10
"""Side in pixels of the thumbnail cells whose mean colours are compared."""
_MAX_CELL_DIFFERENCE = 32
"""Maximum difference, of 256 levels, of a cell of the original and of its thumbnail. On 250
photographs, lossy thumbnails differed by at most 6, other photographs by at least 127."""


class Original(NamedTuple):
    """An item's original image in RGB, or its thumbnail if that was not found."""

    image: Image.Image
    is_thumbnail: bool


def open_original(collection: Collection, row: int, short_side: int) -> Original:
    """Open an item's original image if it is available, else its thumbnail.

    A scene is drawn with a short side of about `short_side` pixels. A photograph is read from its
    original path, but only if it still has the recorded size and resembles its thumbnail: another
    image may have replaced it, and an untrusted collection may name any file of this machine. Links
    out of its folder are opened only if the collection was prepared with `--follow-links`. Raise
    ValueError, which names the thumbnail, if that cannot be read either.
    """
    item = collection.items.iloc[row]
    reference = str(item["image"])
    size = (int(item["width"]), int(item["height"]))
    try:
        if reference.startswith("scene:"):
            from sieve.data_prep.scenes.render import MAX_SIZE, render_scene

            long_side = round(short_side * max(size) / max(min(size), 1) * _MARGIN)
            return Original(render_scene(reference, min(max(long_side, 16), MAX_SIZE)), False)
        thumbnail = open_thumbnail(collection, row).image
        follow_links = collection.manifest.follow_links
        return Original(_photograph(reference, size, thumbnail, follow_links), False)
    except ValueError:  # moved, replaced, or not a file
        return open_thumbnail(collection, row)


def original_path(collection: Collection, row: int) -> str:
    """Return the absolute path of an item's file, or its name in the source if it is gone.

    An untrusted collection may name any file of this machine, and other programs may use the
    printed path: only an image of the recorded size counts as the item's file.
    """
    item = collection.items.iloc[row]
    path = str(item["image"])
    with suppress(OSError, ValueError, Image.DecompressionBombError):
        if os.path.isabs(path) and not _is_remote(path):
            with Image.open(path) as image:
                if sorted(image.size) == sorted((int(item["width"]), int(item["height"]))):
                    return path
    return collection.file_names[row]


def open_thumbnail(collection: Collection, row: int) -> Original:
    """Open an item's thumbnail; see `load_thumbnail`."""
    return Original(load_thumbnail(collection.path, str(collection.items["id"].iloc[row])), True)


def load_thumbnail(folder: Path, item_id: str) -> Image.Image:
    """Load a thumbnail, at most 320 pixels on the long side; raise ValueError if that fails."""
    try:
        return load_image_bytes(read_thumbnail(folder, item_id))
    except (ValueError, OSError) as error:
        path = folder / thumbnail_path(item_id)
        raise ValueError(f"{path}: {error}; prepare the collection again") from None


def _photograph(
    reference: str, size: tuple[int, int], thumbnail: Image.Image, follow_links: bool
) -> Image.Image:
    if _is_remote(reference):
        raise ValueError("is on another machine")
    path = Path(reference)
    leads_out = path.is_symlink() and not path.resolve().is_relative_to(path.parent.resolve())
    if leads_out and not follow_links:
        raise ValueError("is a link out of its folder")
    image = load_image(path)
    if original_size(image) != size:
        raise ValueError(f"has {original_size(image)} pixels, had {size}")
    small = image.copy()
    small.thumbnail(thumbnail.size, Image.Resampling.LANCZOS)
    same_size = small.size == thumbnail.size
    if same_size and np.abs(_coarse(small) - _coarse(thumbnail)).max() <= _MAX_CELL_DIFFERENCE:
        return image
    raise ValueError("does not resemble its thumbnail")


def _is_remote(reference: str) -> bool:
    """Whether this is a UNC path; opening one makes Windows send credentials to that host."""
    return bool(re.match(r"[\\/]{2}", reference))


def _coarse(image: Image.Image) -> np.ndarray:
    """Return the mean colours of an image's cells: (rows, columns, 3) float32, 0 to 255."""
    cells = (max(image.width // _CELL, 1), max(image.height // _CELL, 1))
    return np.asarray(image.resize(cells, Image.Resampling.BOX), np.float32)


THUMBNAIL_SIZE = 320
"""Long side of a thumbnail in pixels; smaller images are not enlarged."""
MAX_THUMBNAIL_BYTES = 1 << 20
"""Twice what 320 x 320 pixels take uncompressed."""
_RIFF_HEAD = 8
"""Size of a RIFF chunk header in bytes: name and size."""
_MARK = struct.pack("<4sI", b"SIEV", 4)


def encode_thumbnail(image: Image.Image) -> bytes:
    """Encode an RGB image as WebP with a long side of at most 320 pixels, and a checksum."""
    small = image.copy()
    small.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE), Image.Resampling.LANCZOS)
    webp = BytesIO()
    # Method 4 takes three times as long for files that are 4 % smaller.
    small.save(webp, "WEBP", quality=80, method=2)
    return add_checksum(webp.getvalue())


def add_checksum(webp: bytes) -> bytes:
    """Append the checksum chunk to a WebP image."""
    size = struct.pack("<I", len(webp) + len(_MARK) + 4 - _RIFF_HEAD)
    body = webp[:4] + size + webp[_RIFF_HEAD:] + _MARK
    return body + struct.pack("<I", zlib.crc32(body))


def thumbnail_file(collection: Path, item_id: str) -> Path:
    """Return the path of an item's thumbnail in the folder of a collection, maybe an untrusted one.

    Raise ValueError if the file is missing, or is a link out of the collection's thumbnails, which
    could expose any file of this machine.
    """
    path = collection / thumbnail_path(item_id)
    if not path.resolve().is_relative_to(collection.resolve() / THUMBNAILS):
        raise ValueError("is a link that leaves the collection's thumbnails")
    if not path.is_file():  # reading a pipe or a device might never end
        raise ValueError("file is missing")
    return path


def read_thumbnail(collection: Path, item_id: str) -> bytes:
    """Read an item's thumbnail; raise ValueError if that fails or its checksum differs."""
    packed = collection / THUMBNAIL_ARCHIVE
    if packed.is_file():
        data = _read_packed(packed, f"{item_id}.webp")
    else:
        with thumbnail_file(collection, item_id).open("rb") as stream:
            data = stream.read(MAX_THUMBNAIL_BYTES + 1)
    fault = ""
    if len(data) > MAX_THUMBNAIL_BYTES:
        fault = "it is too large for a thumbnail"
    elif data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        fault = "it is not a WebP image"
    elif struct.unpack_from("<I", data, 4)[0] + _RIFF_HEAD != len(data):
        fault = "it is incomplete"
    elif data[-12:-4] != _MARK:
        fault = "it has no checksum"
    elif zlib.crc32(data[:-4]) != struct.unpack("<I", data[-4:])[0]:
        fault = "its bytes have changed"
    if fault:
        raise ValueError(f"is damaged: {fault}")
    return data


def _read_packed(path: Path, name: str) -> bytes:
    facts = path.stat()
    try:
        archive = _open_archive(path, facts.st_size, facts.st_mtime_ns)
        with archive.open(name) as stream:
            return stream.read(MAX_THUMBNAIL_BYTES + 1)
    except KeyError:
        raise ValueError(f"is not in {path.name}") from None
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error, EOFError) as error:
        raise ValueError(f"cannot be read from {path.name} ({reason_of(error)})") from None


@lru_cache(maxsize=8)
def _open_archive(path: Path, size: int, mtime_ns: int) -> zipfile.ZipFile:  # noqa: ARG001
    return zipfile.ZipFile(path)  # several threads can read from it
