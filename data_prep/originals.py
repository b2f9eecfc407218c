"""An item's image in the size that print needs: the original where it still is, else a thumbnail.

A scene is drawn anew at the wanted size. A photograph is read from where it was when the collection
was prepared, and only if it still has the size that it had then: another image may lie there now.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from PIL import Image

from data_prep.images import load_image
from model.collection import Collection, thumbnail_path

_SCENE = "scene:"
_MARGIN = 1.05
"""A scene is drawn a little larger than needed, since its shape is known only when drawn."""


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
    size = (int(item["width"]), int(item["height"]))
    try:
        return Original(_original(str(item["image"]), size, short_side), False)
    except ValueError:
        pass  # moved, replaced or never a file: the thumbnail is at hand
    return open_thumbnail(collection, row)


def open_thumbnail(collection: Collection, row: int) -> Original:
    """Open an item's thumbnail, 320 pixels on the long side.

    Raises
    ------
    ValueError
        If it cannot be read; the message names it.
    """
    path = collection.path / thumbnail_path(str(collection.items["id"].iloc[row]))
    try:
        return Original(load_image(path), True)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; prepare the collection again") from None


def _original(reference: str, size: tuple[int, int], short_side: int) -> Image.Image:
    if reference.startswith(_SCENE):
        from data_prep.scenes.drawing import MAX_SIZE, render_scene

        long_side = short_side * max(size) / min(size) * _MARGIN
        return render_scene(reference, min(max(round(long_side), 16), MAX_SIZE))
    image = load_image(Path(reference))
    if image.size != size:
        raise ValueError(f"has {image.size} pixels, had {size}")
    return image
