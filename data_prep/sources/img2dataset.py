"""What img2dataset downloads, in any of its layouts: tar shards, Parquet shards or plain files.

An image's key is its shard and its name there (`00000/000000012`): the same in every layout. What
could not be downloaded is named with the reason that img2dataset gives.
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from sieve.data_prep.captions import caption_fault, split_named
from sieve.data_prep.images import readable_extensions
from sieve.data_prep.records import DRAWN, SPLITS, Record
from sieve.data_prep.skipped import Skipped, SkippedRows
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
from sieve.data_prep.sources.url_tables import url_table_advice

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
            raise ValueError(_explain(self.path))

    @property
    def root(self) -> Path:
        """Folder that the images' files are named relative to."""
        return self.path if self.path.is_dir() else self.path.parent

    def __str__(self) -> str:
        return f"img2dataset {self.path}"

    def open_image(self, record: Record, size: int) -> Image.Image:  # noqa: ARG002
        """Open the record's image where it lies; see `sieve.data_prep.images.load_image`."""
        if member := Reference.parse(record.image):
            return open_member(member)
        if cell := Cell.parse(record.image):
            return open_cell(cell)
        return open_inside(self.path, Path(record.image))

    def _find(self, skipped: SkippedRows) -> Iterator[Record]:
        shards = _shards(self.path)
        skipped += _unused(self.path, shards)
        splits = _splits_by_name(shards)
        n_found = 0
        said: Counter[str] = Counter()
        for shard in shards:
            name = shard.relative_to(self.root).as_posix()
            prefix = name.removesuffix(".tar").removesuffix(".parquet")
            read = _READERS.get(shard.suffix, folder_images) if shard.is_file() else folder_images
            for found in read(shard, name, skipped):
                key = found.key if prefix == "." else f"{prefix}/{found.key}"
                if found.fault:
                    reason = f"caption cannot be read: {found.fault}"
                    skipped.add_malformed(key, found.image, reason)
                if found.note:
                    skipped.add(key, found.image, found.note)
                captions = []
                for caption in found.captions:
                    if fault := caption_fault(caption):
                        skipped.append(Skipped(key, found.image, fault))
                    else:
                        captions.append(caption)
                if not found.captions and not found.fault:
                    skipped.append(Skipped(key, found.image, caption_fault("")))
                split = found.split or splits.get(shard, DRAWN)
                said[split] += 1
                yield Record(key, found.image, tuple(captions), split=split)
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
        if set(said) - {DRAWN}:
            counts = ", ".join(f"{said[split]:,} {split}" for split in SPLITS if said[split])
            drawn = f"; {said[DRAWN]:,} are drawn" if said[DRAWN] else ""
            log.warning("splits are those of the data set (val is select): %s%s", counts, drawn)


_READERS = {".tar": tar_images, ".parquet": table_images}
_COMPRESSED_TAR = re.compile(r"\.(?:tar\.\w+|tgz|tbz2?|txz)$", re.I)
_SHARD_OF_SPLIT = re.compile(r"([a-z]+)-\d+-of-\d+\.parquet", re.I)


def _shards(path: Path) -> list[Path]:
    """Find the shards of a data set, sorted: of one kind, tar files before all others."""
    if path.is_file():
        return [path] if path.suffix == ".tar" or is_image_table(path) else []
    layouts = _layouts(path)
    return sorted(layouts.tars or layouts.tables or layouts.folders)


class _Layouts(NamedTuple):
    """Contents of a folder, by layout."""

    tars: list[Path]
    tables: list[Path]
    """Parquet files with images in them."""
    folders: list[Path]
    """Folders with image files."""
    compressed: list[Path]
    """Compressed tar files."""


def _layouts(path: Path) -> _Layouts:
    found = _Layouts([], [], [], [])
    for folder, subfolders, names in os.walk(path):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith((".", "_")))
        plain = [name for name in sorted(names) if not name.startswith(".")]
        for name in plain:
            file = Path(folder, name)
            if name.endswith(".tar"):
                found.tars.append(file)
            elif _COMPRESSED_TAR.search(name):
                found.compressed.append(file)
            elif name.endswith(".parquet") and is_image_table(file):
                found.tables.append(file)
        if any(os.path.splitext(name)[1].lower() in readable_extensions() for name in plain):
            found.folders.append(Path(folder))
    return found


def _unused(path: Path, shards: Sequence[Path]) -> Iterator[Skipped]:
    """Name what a folder holds beside the shards that are read."""
    if path.is_file():
        return
    layouts = _layouts(path)
    for file in layouts.compressed:
        reason = "compressed tar not read: decompress it first, for example with `gunzip -k`"
        yield Skipped(file.relative_to(path).as_posix(), str(file), reason)
    kind = "tar files" if layouts.tars else "Parquet files"
    for other in [*layouts.tables, *layouts.folders]:
        if other not in shards:
            what = "Parquet file" if other.is_file() else "folder of images"
            reason = f"{what} not read beside {kind}: prepare it by itself"
            yield Skipped(other.relative_to(path).as_posix(), str(other), reason)


def _splits_by_name(shards: Sequence[Path]) -> dict[Path, str]:
    """Return the splits that Hugging Face's file names say, if they say several."""
    names = {shard: _SHARD_OF_SPLIT.fullmatch(shard.name) for shard in shards}
    splits = {shard: split_named(found[1]) for shard, found in names.items() if found}
    if len(set(splits.values())) < 2 or None in splits.values() or len(splits) < len(shards):
        return {}
    return {shard: split for shard, split in splits.items() if split}


def _explain(path: Path) -> str:
    """Say why there is nothing to read at a path, and what to do."""
    compressed = _layouts(path).compressed if path.is_dir() else []
    if path.is_file() and _COMPRESSED_TAR.search(path.name):
        compressed = [path]
    if compressed:
        names = ", ".join(file.name for file in compressed[:3])
        return (
            f"{path} holds compressed tar files ({names}): images cannot be read from the middle "
            f"of them; decompress them first, for example with `gunzip -k {compressed[0]}`"
        )
    return url_table_advice(path) or (
        f"{path} holds no .tar shards, no .parquet shards with images and no images; "
        "give img2dataset's output folder, or the official TSV"
    )
