"""Open image files of unknown origin: upright RGB, or a plain reason why not.

Sizes are checked in the header, before a pixel is decoded, so that a file of a few kilobytes cannot
ask for gigabytes. Images of more than 16 megapixels come reduced, and are decoded one at a time:
with the limits below, a decode takes about 0.9 GB at most, and all others together wait for it.
Colours are converted in strips, so that no second copy of the full size is made.
HEIC is read if pillow-heif is installed.

An item's image in the size that print needs: the original where it still is, else a thumbnail.

A scene is drawn anew at the wanted size. A photograph is read from where it was when the collection
was prepared, and only if it still has the size that it had then and looks like its thumbnail:
another image may lie there now, and a collection from elsewhere may name any file of this machine.
Links out of its folder are opened only if the collection was prepared with `--follow-links`.
"""

from __future__ import annotations

import math
import os
import re
import threading
import warnings
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from sieve.data_prep.thumbnails import read_thumbnail
from sieve.model.collection import Collection, thumbnail_path

MAX_PIXELS = 100_000_000
"""Images with more pixels are refused: decoded, 100 megapixels take 400 MB."""
MAX_HEAVY_PIXELS = 50_000_000
"""The limit for formats whose decoders hold three or four copies of the image."""
LARGE_PIXELS = 1 << 24
"""Images with more pixels come reduced to at most as many, and are decoded one at a time."""
ORIGINAL_SIZE = "original_size"
"""Key in `Image.info` of the upright size before the reduction: see `original_size`."""

_HEAVY_FORMATS = {"AVIF", "HEIF", "JPEG2000", "WEBP"}
_STRIP_PIXELS = 1 << 21
_TRANSPOSED = (
    Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_270, Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
)  # fmt: skip
"""The transposition for each EXIF orientation from 2 to 8."""

# Pillow raises DecompressionBombError at twice this, also for images inside others, such as the
# PNG in an ICO, whose size stands in no header that is seen here.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2

_one_at_a_time: AbstractContextManager[object] = threading.Lock()

# They start other programs (EPS), know no pixels (stubs), are no pictures (MPEG, WMF), or are
# decoded pixel by pixel in Python (FITS).
_REFUSED_FORMATS = {"BUFR", "EPS", "FITS", "GRIB", "HDF5", "MPEG", "WMF"}


def share_decoding_lock(lock: AbstractContextManager[object]) -> None:
    """Let this process decode large images only while it holds a lock of several processes."""
    global _one_at_a_time
    _one_at_a_time = lock


def original_size(image: Image.Image) -> tuple[int, int]:
    """Return the width and height that a loaded image has in its file, upright."""
    return image.info.get(ORIGINAL_SIZE, image.size)


_HEIF = 'pip install "sieve-explorer[heif]"'
_RAW = "3fr arw cr2 cr3 crw dcr dng erf kdc mef mrw nef nrw orf pef raf raw rw2 rwl sr2 srf srw x3f"
UNREADABLE_IMAGES = {
    **dict.fromkeys((".heic", ".heif", ".hif", ".heics", ".heifs"), f"HEIC image: {_HEIF}"),
    **dict.fromkeys((".avif", ".avifs"), f"AVIF image: {_HEIF}"),
    ".jxl": "JPEG XL image: convert it to JPEG or PNG",
    ".svg": "SVG image: convert it to PNG",
    ".svgz": "SVG image: convert it to PNG",
    **{f".{name}": "camera RAW image: convert it to JPEG" for name in _RAW.split()},
}
"""Reason for each extension of an image that may not be readable, in lower case with its dot."""


@cache
def readable_formats() -> tuple[str, ...]:
    """Return the names of the formats that are opened, as Pillow calls them."""
    Image.init()
    with suppress(ImportError):
        import pillow_heif  # optional

        pillow_heif.register_heif_opener()
    return tuple(sorted(set(Image.OPEN) - _REFUSED_FORMATS))


@cache
def readable_extensions() -> frozenset[str]:
    """Return the lower-case file extensions of these formats, with their dot."""
    formats = set(readable_formats())
    known = Image.registered_extensions()
    return frozenset(extension for extension, name in known.items() if name in formats)


def load_image(path: Path) -> Image.Image:
    """Decode an image file as a person would see it.

    Rotated by EXIF, the first frame of an animation, transparency over white, 16 bits as 8.

    Returns
    -------
    PIL.Image.Image
        RGB, without metadata; of at most 16 megapixels, see `original_size`.

    Raises
    ------
    ValueError
        With a reason of a few words where the file holds no usable image.
    """
    if not os.path.exists(path):  # unlike pathlib's, also false for names that no disk can hold
        raise ValueError("file is missing")
    if not path.is_file():  # opening a pipe or a device would hang or never end
        raise ValueError("not a regular file")
    if path.stat().st_size == 0:
        raise ValueError("file is empty")
    return _checked(path)


def load_image_bytes(data: bytes) -> Image.Image:
    """Decode the bytes of an image file, such as a member of an archive; see `load_image`."""
    if not data:
        raise ValueError("file is empty")
    return _checked(BytesIO(data))


def _checked(file: Path | BytesIO) -> Image.Image:
    """Decode an image, whatever is wrong told in a few words."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our own limit stands below Pillow's
            return _decode(file)
    except _TooLarge as error:
        raise ValueError(str(error)) from None
    except Image.DecompressionBombError as error:
        found = re.search(r"\d+", str(error))
        raise ValueError(
            f"too large: {int(found[0]) if found else 0:,} pixels; the limit is {MAX_PIXELS:,}"
        ) from None
    except UnidentifiedImageError:
        raise ValueError("not an image of a known format") from None
    except MemoryError:
        raise ValueError("too large for the memory of this machine") from None
    except PermissionError:
        raise ValueError("cannot be read: permission denied") from None
    except Exception as error:  # Pillow's decoders raise of every kind on damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"damaged image: {reason[:120]}") from None


class _TooLarge(ValueError):
    """The header asks for more pixels than are decoded."""


def _decode(file: Path | BytesIO) -> Image.Image:
    with Image.open(file, formats=readable_formats()) as image:
        _check_size(image)
        size = image.size
        factor = _factor(image)
        is_progressive = factor > 1 and "progressive" in image.info
        if factor > 1:
            # Reduces a JPEG while it is decoded, by a power of two; does nothing to other formats.
            image.draft(None, (size[0] // factor, size[1] // factor))
        is_drafted = image.size != size
        # The decoder of a progressive JPEG holds it in full size all the same.
        is_large = is_progressive or image.width * image.height > LARGE_PIXELS
        with _one_at_a_time if is_large else nullcontext():
            image.load()
            orientation = _orientation(image)
            width, height = size if is_drafted else image.size
            upright = _as_rgb(image)
    if 2 <= orientation <= 8:
        upright = upright.transpose(_TRANSPOSED[orientation - 2])
    upright.info = {ORIGINAL_SIZE: (height, width) if orientation >= 5 else (width, height)}
    return upright


def _check_size(image: Image.Image) -> None:
    """Raise an error if decoding would take too much memory."""
    tags = getattr(image, "tag_v2", {})  # of a TIFF, which may keep a small image in a large tile
    tile = [number for tag in (322, 323) if isinstance(number := tags.get(tag), int)]
    most = MAX_HEAVY_PIXELS if image.format in _HEAVY_FORMATS else MAX_PIXELS
    found = max(image.width * image.height, math.prod(tile))
    if found > most:
        kind = f" for {image.format}" if most < MAX_PIXELS else ""
        raise _TooLarge(f"too large: {found:,} pixels; the limit{kind} is {most:,}")


def _factor(image: Image.Image) -> int:
    """Find the whole number by which both sides of a large image are divided."""
    factor = math.ceil(math.sqrt(image.width * image.height / LARGE_PIXELS))
    return max(min(factor, image.width, image.height), 1)


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:  # damaged EXIF says nothing of the pixels, which are whole
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _as_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to RGB and reduce it if it is large, strip by strip."""
    factor = _factor(image)
    width, height = image.size
    rows = max(_STRIP_PIXELS // width // factor, 1) * factor
    strips = ((0, top, width, min(top + rows, height)) for top in range(0, height, rows))
    is_deep = image.mode.startswith("I") or image.mode == "F"
    full = _full_scale(image, rows) if is_deep else 0.0
    reduced = Image.new("RGB", (-(-width // factor), -(-height // factor)))
    for box in strips:
        strip = image.crop(box)
        strip = _over_white(_eight_bits(strip, full) if is_deep else strip)
        reduced.paste(strip.reduce(factor) if factor > 1 else strip, (0, box[1] // factor))
    return reduced


def _over_white(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        white = Image.new("RGBA", coloured.size, "white")
        return Image.alpha_composite(white, coloured).convert("RGB")
    return image.convert("RGB")


def _full_scale(image: Image.Image, rows: int) -> float:
    """Find the value that stands for white in an image of 16 bits or more."""
    if image.mode.startswith("I;16"):
        return 65535.0
    # `I` and `F` do not say their range: take the smallest usual one that holds the values.
    tops = range(0, image.height, rows)
    boxes = ((0, top, image.width, min(top + rows, image.height)) for top in tops)
    peak = max((_numbers(image.crop(box)).max(initial=0.0) for box in boxes), default=0.0)
    return next((top for top in (1.0, 255.0, 65535.0) if peak <= top), float(peak))


def _eight_bits(image: Image.Image, full: float) -> Image.Image:
    """Scale grey values to 8 bits; Pillow's own conversion would clip them."""
    scaled = (_numbers(image) / full).clip(0, 1) * 255
    return Image.fromarray(scaled.round().astype(np.uint8))


def _numbers(image: Image.Image) -> np.ndarray:
    return np.nan_to_num(np.asarray(image, np.float64), posinf=0.0, neginf=0.0)


_SCENE = "scene:"
_MARGIN = 1.05
"""A scene is drawn a little larger than needed, since its shape is known only when drawn."""
_CELL = 10
"""Pixels of a thumbnail that are looked at as one."""
_ALIKE = 32
"""Of 256 levels: the most that such a cell may differ from the thumbnail's. On 250 photographs the
lossy thumbnails differed by 6 at most, other photographs by 127 at least."""


class Original(NamedTuple):
    """An item's image."""

    image: Image.Image
    """RGB"""
    is_thumbnail: bool
    """Whether the original was not to be found."""


def open_original(collection: Collection, row: int, short_side: int) -> Original:
    """Open an item's image, at least `short_side` pixels on the short side where that exists.

    Parameters
    ----------
    collection : Collection
    row : int
    short_side : int
        Pixels that are wanted; a photograph comes in its own size.

    Raises
    ------
    ValueError
        If not even the thumbnail can be read; the message names it.
    """
    item = collection.items.iloc[row]
    reference = str(item["image"])
    size = (int(item["width"]), int(item["height"]))
    if reference.startswith(_SCENE):
        try:
            return Original(_scene(reference, size, short_side), False)
        except ValueError:
            return open_thumbnail(collection, row)
    thumbnail = open_thumbnail(collection, row)
    follow_links = collection.manifest.get("follow_links") is True
    try:
        return Original(_photograph(reference, size, thumbnail.image, follow_links), False)
    except ValueError:
        return thumbnail  # moved, replaced or never a file


def original_path(collection: Collection, row: int) -> str:
    """Return where an item's file is: its absolute path, or the name in its source if it is gone.

    A collection from elsewhere may name any file of this machine, and what is printed may be
    handed to another program: only an image of the recorded size counts as the item's file.
    """
    item = collection.items.iloc[row]
    path = str(item["image"])
    try:
        if os.path.isabs(path) and not _is_remote(path):
            with Image.open(path) as image:
                if sorted(image.size) == sorted((int(item["width"]), int(item["height"]))):
                    return path
    except (OSError, ValueError, Image.DecompressionBombError):
        pass
    return collection.file_names[row]


def open_thumbnail(collection: Collection, row: int) -> Original:
    """Open an item's thumbnail, 320 pixels on the long side.

    Raises
    ------
    ValueError
        If it cannot be read; the message names it.
    """
    item_id = str(collection.items["id"].iloc[row])
    try:
        return Original(load_image_bytes(read_thumbnail(collection.path, item_id)), True)
    except (ValueError, OSError) as error:
        path = collection.path / thumbnail_path(item_id)
        raise ValueError(f"{path}: {error}; prepare the collection again") from None


def _scene(reference: str, size: tuple[int, int], short_side: int) -> Image.Image:
    from sieve.data_prep.scenes.render import MAX_SIZE, render_scene

    long_side = short_side * max(size) / max(min(size), 1) * _MARGIN
    return render_scene(reference, min(max(round(long_side), 16), MAX_SIZE))


def _photograph(
    reference: str, size: tuple[int, int], thumbnail: Image.Image, follow_links: bool
) -> Image.Image:
    if _is_remote(reference):
        raise ValueError("is on another machine")
    path = Path(reference)
    if not follow_links and path.is_symlink() and not _stays(path):
        raise ValueError("is a link, and links were not followed")
    image = load_image(path)
    if original_size(image) != size:
        raise ValueError(f"has {original_size(image)} pixels, had {size}")
    small = image.copy()
    small.thumbnail(thumbnail.size, Image.Resampling.LANCZOS)
    if small.size != thumbnail.size or np.abs(_coarse(small) - _coarse(thumbnail)).max() > _ALIKE:
        raise ValueError("looks unlike its thumbnail")
    return image


def _is_remote(reference: str) -> bool:
    """Whether a path is on another machine, to which Windows would give a password."""
    return bool(re.match(r"[\\/]{2}", reference))


def _stays(path: Path) -> bool:
    """Whether a link leads to a file below its own folder."""
    return path.resolve().is_relative_to(path.parent.resolve())


def _coarse(image: Image.Image) -> np.ndarray:
    """Look at an image as if from afar: (rows, columns, 3) float32, from 0 to 255."""
    cells = (max(image.width // _CELL, 1), max(image.height // _CELL, 1))
    return np.asarray(image.resize(cells, Image.Resampling.BOX), np.float32)
