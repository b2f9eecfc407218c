"""Images that an external table names: shown if found in a folder, else by their caption."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from sieve.data_prep.captions import tidy
from sieve.data_prep.captions.tile import draw_tile
from sieve.data_prep.records import Record
from sieve.data_prep.sources.image_files import ImageNames, open_inside, walk

log = logging.getLogger(__name__)


def find_images(folder: Path, names: Iterable[str]) -> dict[str, Path]:
    """Find the images that the names in a table mean; see `ImageNames`.

    A warning states how names that are no path were matched, and which may mean several images.

    Parameters
    ----------
    folder : Path
        Absolute.
    names : iterable of str
        All names of the table; it is iterated twice.

    Returns
    -------
    dict of str to Path
        Only for names whose image is found.
    """
    files = walk(folder).files
    resolver = ImageNames(folder, files)
    refused = resolver.resolve(names).refused
    if resolver.loose:
        log.warning(
            "the table names some images otherwise than %s; matched where only one fits: %s",
            *(folder, tidy(resolver.describe_loose())),
        )
    if refused:
        log.warning(
            "%s images are shown by their captions: %s",
            *(f"{len(refused):,}", tidy(next(iter(refused.values())))),
        )
    found = {}
    for name in names:
        key = resolver.key_of(name)
        if name not in refused and (key in files or os.path.isfile(folder / key)):
            path = folder / files.get(key, key)
            if path.resolve().is_relative_to(folder):
                found[name] = path
    return found


def open_or_draw(folder: Path, record: Record) -> Image.Image:
    """Open a record's image where it is in a folder and whole, else draw its caption."""
    if os.path.isabs(record.image) and os.path.isfile(record.image):
        try:
            return open_inside(folder, Path(record.image))
        except ValueError:
            pass  # its numbers are known, so the item is of use all the same
    return draw_tile(record.captions[0] if record.captions else Path(record.key).name)
