"""Open image files of unknown origin: upright RGB, or a plain reason why not.

Sizes are checked in the header, before a pixel is decoded, so that a file of a few kilobytes cannot
ask for gigabytes. HEIC is read if pillow-heif is installed.
"""

from __future__ import annotations

import os
import warnings
from contextlib import suppress
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 100_000_000
"""Larger images are refused: 100 megapixels take 300 MB once decoded."""

# They start other programs (EPS), know no pixels (stubs), or are no pictures (MPEG, WMF).
_REFUSED_FORMATS = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}


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
        RGB, in its full size.

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
    except Image.DecompressionBombError:
        raise ValueError(f"too large: more than {MAX_PIXELS:,} pixels") from None
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
        if image.width * image.height > MAX_PIXELS:
            raise _TooLarge(
                f"too large: {image.width} x {image.height} is more than {MAX_PIXELS:,} pixels"
            )
        image.load()
        return _as_rgb(_upright(image))


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF says nothing of the pixels, which are whole
        return image


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bits(image)
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        white = Image.new("RGBA", coloured.size, "white")
        return Image.alpha_composite(white, coloured).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey values of 16 bits or more scaled to 8; Pillow's own conversion would clip them."""
    grey = np.nan_to_num(np.asarray(image, np.float64), posinf=0.0, neginf=0.0)
    peak = grey.max(initial=0.0)
    if image.mode.startswith("I;16"):
        full = 65535.0
    else:  # `I` and `F` do not say their range: take the smallest usual one that holds the values
        full = next((top for top in (1.0, 255.0, 65535.0) if peak <= top), peak)
    scaled = (grey / full).clip(0, 1) * 255
    return Image.fromarray(scaled.round().astype(np.uint8))
