"""Images that a table from elsewhere names: shown where they are here, else by their caption."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from PIL import Image

from sieve.data_prep.captions.tile import draw_tile
from sieve.data_prep.records import Record
from sieve.data_prep.sources.image_files import open_inside


def find_image(folder: Path, name: str) -> Path | None:
    """Find an image inside a folder by as much of the end of its name as fits."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    for start in range(len(parts)):
        path = folder.joinpath(*parts[start:])
        if os.path.isfile(path) and path.resolve().is_relative_to(folder):
            return path
    return None


def open_or_draw(folder: Path, record: Record) -> Image.Image:
    """Open a record's image where it is in a folder and whole, else draw its caption."""
    if os.path.isabs(record.image) and os.path.isfile(record.image):
        try:
            return open_inside(folder, Path(record.image))
        except ValueError:
            pass  # its numbers are known, so the item is of use all the same
    return draw_tile(record.captions[0] if record.captions else Path(record.key).name)
