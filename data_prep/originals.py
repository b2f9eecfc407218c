"""An item's image in the size that print needs: the original where it still is, else a thumbnail.

A scene is drawn anew at the wanted size. A photograph is read from where it was when the collection
was prepared, and only if it still has the size that it had then and looks like its thumbnail:
another image may lie there now, and a collection from elsewhere may name any file of this machine.
Links out of its folder are opened only if the collection was prepared with `--follow-links`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from sieve.data_prep.images import load_image, load_image_bytes, original_size
from sieve.data_prep.thumbnails import read_thumbnail
from sieve.model.collection import Collection, thumbnail_path

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
    from sieve.data_prep.scenes.drawing import MAX_SIZE, render_scene

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
