"""What img2dataset downloads, in any of its layouts: tar shards, Parquet shards or plain files.

An image's key is its shard and its name there (`00000/000000012`): the same in every layout. What
could not be downloaded is named with the reason that img2dataset gives.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from sieve.data_prep.captions import caption_fault, tidy
from sieve.data_prep.images import readable_extensions
from sieve.data_prep.records import DRAWN, Record
from sieve.data_prep.skipped import Skipped
from sieve.data_prep.sources.image_files import open_inside
from sieve.data_prep.sources.noting import NotesSkipped
from sieve.data_prep.sources.parquet_images import Cell, open_cell
from sieve.data_prep.sources.shards import (
    NOT_DOWNLOADED,
    failures,
    folder_images,
    is_image_table,
    table_images,
    tar_images,
)
from sieve.data_prep.sources.tars import Reference, open_member

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Img2Dataset(NotesSkipped):
    """A folder of shards, or one shard.

    Parameters
    ----------
    path : Path
        Holds `.tar` files, `.parquet` files with images in them, or subfolders of images with
        `.txt` and `.json` files beside them; or is such a file itself.
    name : str
        The collection's name; by default the folder's.
    licence : str

    Raises
    ------
    FileNotFoundError
        If there is nothing at `path`.
    ValueError
        If nothing of the kind is there.
    """

    path: Path
    name: str = ""
    licence: str = "not stated"

    def __post_init__(self) -> None:
        if not self.path.exists():
            raise FileNotFoundError(f"there is no {self.path}; give the folder of the shards")
        object.__setattr__(self, "path", self.path.resolve())
        object.__setattr__(self, "name", self.name or self.path.stem)
        if not _shards(self.path):
            raise ValueError(
                f"{self.path} holds no .tar shards, no .parquet shards with images and no images; "
                "give img2dataset's output folder, or the official TSV"
            )

    def __str__(self) -> str:
        return f"img2dataset {self.path}"

    def open_image(self, record: Record, size: int) -> Image.Image:  # noqa: ARG002
        """Open the record's image where it lies; see `sieve.data_prep.images.load_image`."""
        if member := Reference.parse(record.image):
            return open_member(member)
        if cell := Cell.parse(record.image):
            return open_cell(cell)
        return open_inside(self.path, Path(record.image))

    def _find(self, skipped: list[Skipped]) -> Iterator[Record]:
        root = self.path if self.path.is_dir() else self.path.parent
        n_found = 0
        for shard in _shards(self.path):
            name = shard.relative_to(root).as_posix()
            prefix = name.removesuffix(".tar").removesuffix(".parquet")
            read = _READERS.get(shard.suffix, folder_images) if shard.is_file() else folder_images
            for found in read(shard, name, skipped):
                key = found.key if prefix == "." else f"{prefix}/{found.key}"
                caption = tidy(found.caption)
                if fault := caption_fault(caption):
                    skipped.append(Skipped(key, found.image, fault))
                yield Record(key, found.image, () if fault else (caption,), split=DRAWN)
                n_found += 1
            if shard.suffix != ".parquet":
                failures(
                    shard.with_name(f"{shard.name.removesuffix('.tar')}.parquet"), name, skipped
                )
        n_failed = sum(entry.reason.startswith(NOT_DOWNLOADED) for entry in skipped)
        if n_failed:
            log.warning(
                "%s of %s images of %s were downloaded; skipped.csv names the others",
                *(f"{n_found:,}", f"{n_found + n_failed:,}", self.path),
            )


_READERS = {".tar": tar_images, ".parquet": table_images}


def _shards(path: Path) -> list[Path]:
    """Find the shards of a data set, sorted: of one kind, tar files before all others."""
    if path.is_file():
        return [path] if path.suffix == ".tar" or is_image_table(path) else []
    tars, tables, folders = [], [], []
    for folder, subfolders, names in os.walk(path):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith((".", "_")))
        plain = [name for name in sorted(names) if not name.startswith(".")]
        tars += [Path(folder, name) for name in plain if name.endswith(".tar")]
        tables += [Path(folder, name) for name in plain if name.endswith(".parquet")]
        if any(os.path.splitext(name)[1].lower() in readable_extensions() for name in plain):
            folders.append(Path(folder))
    return sorted(tars or [table for table in tables if is_image_table(table)] or folders)
