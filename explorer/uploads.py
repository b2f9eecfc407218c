"""Images that people search by: read with care, kept small, forgotten soon."""

from __future__ import annotations

import base64
import hashlib
import io
import warnings
from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from PIL import Image, ImageOps

MAX_BYTES = 20 * 2**20
MAX_PIXELS = 64_000_000
KEPT_SIDE = 512
PREVIEW_SIDE = 96
_FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")


class Upload(NamedTuple):
    """An image that was taken in."""

    key: str
    """First 16 hex digits of the SHA-256 of the file."""
    preview: str
    """A data URL of what was understood, upright, 96 pixels on the long side."""


class Uploads:
    """The last images that were uploaded, in memory, by the hash of their bytes.

    Parameters
    ----------
    capacity : int
        How many are kept; 64 of them take some 50 MB.
    """

    def __init__(self, capacity: int = 64) -> None:
        self._images: OrderedDict[str, Image.Image] = OrderedDict()
        self._capacity = capacity
        self._lock = Lock()

    def add(self, data: bytes) -> Upload:
        """Take in an image file.

        Raises
        ------
        ValueError
            In one line, if it is no image that can be searched by.
        """
        image = read_image(data)
        key = hashlib.sha256(data).hexdigest()[:16]
        with self._lock:
            self._images[key] = image
            self._images.move_to_end(key)
            while len(self._images) > self._capacity:
                self._images.popitem(last=False)
        return Upload(key, _preview(image))

    def get(self, key: str) -> Image.Image:
        """Return an uploaded image; ValueError if it was forgotten."""
        with self._lock:
            image = self._images.get(key)
        if image is None:
            raise ValueError("the uploaded image is no longer here; choose it again")
        return image


def read_image(data: bytes) -> Image.Image:
    """Decode an image file: RGB, upright, first frame, at most 512 pixels on the long side.

    Raises
    ------
    ValueError
        If it is empty, too large, truncated, or not a picture in a common format.
    """
    if not data:
        raise ValueError("the image file is empty")
    if len(data) > MAX_BYTES:
        raise ValueError(
            f"the image file has {len(data) / 2**20:.0f} MB; at most {MAX_BYTES // 2**20} are read"
        )
    try:
        with warnings.catch_warnings():
            # Pillow warns of large images; the pixels are counted below, before any are decoded.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(io.BytesIO(data), formats=_FORMATS)
    except Image.DecompressionBombError:
        raise ValueError(_too_many_pixels()) from None
    except Exception:  # noqa: BLE001 - Pillow's readers raise whatever a damaged file leads to
        raise ValueError(
            "the file is not an image that can be read; try JPEG, PNG or WebP"
        ) from None
    if opened.width * opened.height > MAX_PIXELS:
        raise ValueError(_too_many_pixels(opened.width, opened.height))
    try:
        opened.draft("RGB", (2 * KEPT_SIDE, 2 * KEPT_SIDE))
        image = _flat(ImageOps.exif_transpose(opened))
        image.thumbnail((KEPT_SIDE, KEPT_SIDE), Image.Resampling.LANCZOS)
    except Exception:  # noqa: BLE001 - as above
        raise ValueError("the image is damaged and cannot be read to its end") from None
    return image


def take_file(path: str, folder: Path) -> bytes:
    """Read a file that came through the upload route, and remove it.

    Parameters
    ----------
    path : str
        As the browser gives it back, so it may be anything.
    folder : Path
        The only folder that may be read.

    Raises
    ------
    ValueError
        If the file is elsewhere, too large or gone.
    """
    file = _inside(path, folder)
    if file is None:
        raise ValueError("the uploaded file is not there; choose the image again")
    try:
        if file.stat().st_size > MAX_BYTES:
            raise ValueError(f"the image file is larger than {MAX_BYTES // 2**20} MB")
        return file.read_bytes()
    finally:
        file.unlink(missing_ok=True)


def _inside(path: str, folder: Path) -> Path | None:
    try:
        file = Path(path).resolve(strict=True)
    except (OSError, ValueError):
        return None
    return file if file.is_relative_to(folder.resolve()) and file.is_file() else None


def _too_many_pixels(width: int = 0, height: int = 0) -> str:
    size = f" ({width:,} × {height:,})" if width else ""
    return f"the image has too many pixels{size}; at most {MAX_PIXELS // 10**6} million can be read"


def _flat(image: Image.Image) -> Image.Image:
    """RGB on white: transparent pixels would otherwise show whatever colour lies beneath them."""
    if image.mode.startswith("I;16"):
        image = image.point(lambda value: value / 256).convert("L")
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _preview(image: Image.Image) -> str:
    small = image.copy()
    small.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
    stream = io.BytesIO()
    small.save(stream, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()
