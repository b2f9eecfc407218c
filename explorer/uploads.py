"""Uploaded query images, and the temporary folder of the process.

Uploads are validated, downscaled and stored in memory; their files are deleted at once.
"""

from __future__ import annotations

import atexit
import io
import os
import shutil
import tempfile
import time
from collections import OrderedDict
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from PIL import Image

from sieve.data_prep.images import load_image
from sieve.explorer.downloads import data_url
from sieve.model.collection import file_sha256

MAX_UPLOAD_BYTES = 20 * 2**20
MAX_WAITING = 64
"""Maximum number of uploaded files that were not read yet."""
WAITING_SECONDS = 600.0
"""Time in seconds after which an unread upload is deleted; the page reads an image at once."""
MAX_SIDE = 512
"""Longer side of a stored image, in pixels."""
PREVIEW_SIDE = 96
"""Longer side of a preview, in pixels."""
TEMP_DIR = "GRADIO_TEMP_DIR"
"""Environment variable that Gradio reads the folder for temporary files from."""


@cache
def private_temp_dir() -> Path:
    """Create a temporary folder for this process and let Gradio use it.

    Gradio's default folder is shared by all users of the machine: a second user could not write to
    it, and each user could read the uploads of others. This one has mode 0700, is inside
    `$GRADIO_TEMP_DIR` if that is set, and is deleted at exit. Call this before importing gradio.
    """
    parent = os.environ.get(TEMP_DIR) or None
    if parent:
        Path(parent).mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="sieve-", dir=parent)).resolve()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ[TEMP_DIR] = str(folder)
    return folder


class Upload(NamedTuple):
    """An uploaded image."""

    key: str
    """First 16 hex digits of the SHA-256 of the file."""
    preview: str
    """Data URL of the decoded image, upright, 96 pixels on the longer side."""


class Uploads:
    """Least-recently-used cache of the uploaded images, by the hash of their files.

    Files outside `folder`, where the web server stores uploads, are never read. The default
    capacity takes about 50 MB.
    """

    def __init__(self, folder: Path, capacity: int = 64) -> None:
        self._folder = folder
        self._capacity = capacity
        self._images: OrderedDict[str, Image.Image] = OrderedDict()
        self._lock = Lock()

    def add(self, path: str) -> Upload:
        """Read an uploaded file, whose path is not trusted, and delete it.

        Raises a ValueError if the file is outside the folder, missing, or not a supported image.
        """
        file = self._resolve(path)
        if file is None:
            raise ValueError("the uploaded file does not exist; choose the image again")
        try:
            key = file_sha256(file)[:16]
            image = load_image(file)
        except ValueError as error:
            raise ValueError(f"this image cannot be used: {error}") from None
        finally:
            file.unlink(missing_ok=True)
            if file.parent != self._folder.resolve():
                with suppress(OSError):
                    file.parent.rmdir()  # the server creates a folder for each file
        image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
        with self._lock:
            self._images[key] = image
            self._images.move_to_end(key)
            while len(self._images) > self._capacity:
                self._images.popitem(last=False)
        small, stream = image.copy(), io.BytesIO()
        small.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
        small.save(stream, "WEBP", quality=80)
        return Upload(key, data_url("image/webp", stream.getvalue()))

    def get(self, key: str) -> Image.Image:
        """Return an uploaded image; ValueError if it is no longer stored."""
        with self._lock:
            image = self._images.get(key)
        if image is None:
            raise ValueError("the uploaded image is no longer stored; choose it again")
        return image

    def _resolve(self, path: str) -> Path | None:
        """Return the path of a file in the folder, symbolic links resolved, or None."""
        try:
            file = Path(path).resolve(strict=True)
        except (OSError, ValueError):
            return None
        inside = file.is_relative_to(self._folder.resolve())
        return file if inside and file.is_file() else None


def has_room(folder: Path, not_uploads: frozenset[str]) -> bool:
    """Delete uploads that were not read in time, and return whether one more is allowed.

    `not_uploads` are the names of entries of the web server's folder that are no uploads.
    """
    waiting, oldest = 0, time.time() - WAITING_SECONDS
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name in not_uploads:
            continue
        with suppress(FileNotFoundError):  # read and deleted by another request
            if path.stat().st_mtime >= oldest:
                waiting += 1
            elif path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
    return waiting < MAX_WAITING
