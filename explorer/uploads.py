"""Images that people search by: read with care, kept small, forgotten soon."""

from __future__ import annotations

import base64
import io
import shutil
import time
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from PIL import Image

from sieve.data_prep.images import load_image
from sieve.model.collection import file_sha256

MAX_BYTES = 20 * 2**20
MAX_WAITING = 64
"""Uploads on the disk that were not read yet."""
WAITING_SECONDS = 600.0
"""Time that an upload is kept, in seconds; the page reads an image at once."""
KEPT_SIDE = 512
PREVIEW_SIDE = 96


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
    folder : Path
        Where the web server puts uploaded files; nothing else is ever read.
    capacity : int
        How many images are kept; 64 of them take some 50 MB.
    """

    def __init__(self, folder: Path, capacity: int = 64) -> None:
        self._folder = folder
        self._capacity = capacity
        self._images: OrderedDict[str, Image.Image] = OrderedDict()
        self._lock = Lock()

    def take(self, path: str) -> Upload:
        """Read a file that came through the upload route, and remove it from the disk.

        Parameters
        ----------
        path : str
            As the browser gives it back, so it may be anything.

        Raises
        ------
        ValueError
            In one line, if the file is elsewhere, gone, or no image that can be searched by.
        """
        file = self._uploaded(path)
        if file is None:
            raise ValueError("the uploaded file is not there; choose the image again")
        try:
            key = file_sha256(file)[:16]
            image = load_image(file)
        except ValueError as error:
            raise ValueError(f"this image cannot be used: {error}") from None
        finally:
            file.unlink(missing_ok=True)
            if file.parent != self._folder.resolve():
                with suppress(OSError):
                    file.parent.rmdir()  # the server makes a folder for each file
        image.thumbnail((KEPT_SIDE, KEPT_SIDE), Image.Resampling.LANCZOS)
        self._keep(key, image)
        return Upload(key, _preview(image))

    def get(self, key: str) -> Image.Image:
        """Return an uploaded image; ValueError if it was forgotten."""
        with self._lock:
            image = self._images.get(key)
        if image is None:
            raise ValueError("the uploaded image is no longer here; choose it again")
        return image

    def _keep(self, key: str, image: Image.Image) -> None:
        with self._lock:
            self._images[key] = image
            self._images.move_to_end(key)
            while len(self._images) > self._capacity:
                self._images.popitem(last=False)

    def _uploaded(self, path: str) -> Path | None:
        try:
            file = Path(path).resolve(strict=True)
        except (OSError, ValueError):
            return None
        inside = file.is_relative_to(self._folder.resolve())
        return file if inside and file.is_file() else None


def has_room(folder: Path, kept: frozenset[str]) -> bool:
    """Remove uploads that nobody has read for ten minutes, and tell whether one more has room.

    Parameters
    ----------
    folder : Path
        Where the web server puts uploaded files.
    kept : frozenset of str
        Names in it that are no uploads.
    """
    waiting, oldest = 0, time.time() - WAITING_SECONDS
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name in kept:
            continue
        with suppress(FileNotFoundError):  # it was read just now
            if path.stat().st_mtime >= oldest:
                waiting += 1
            elif path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
    return waiting < MAX_WAITING


def _preview(image: Image.Image) -> str:
    small = image.copy()
    small.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
    stream = io.BytesIO()
    small.save(stream, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()
