"""A folder of images, with a caption file, caption files beside the images, or no captions."""

from __future__ import annotations

import heapq
import logging
import os
import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from PIL import Image

from sieve.data_prep.captions import Columns, ImageDescription, split_named, tidy
from sieve.data_prep.captions.caption_table import (
    CaptionsByImage,
    CaptionTableBuilder,
    read_captions,
)
from sieve.data_prep.captions.delimited import detect_encoding
from sieve.data_prep.captions.formats import read_rows
from sieve.data_prep.records import Record, SkippedRows
from sieve.data_prep.sources.base import BaseSource
from sieve.data_prep.sources.local_images import FOLLOW_LINKS, ImageNames, open_inside, walk
from sieve.data_prep.sources.sidecars import Sidecars, unused_reason

log = logging.getLogger(__name__)

_METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
_MAX_SPLIT_DEPTH, _MAX_SPLIT_FOLDERS = 4, 12


@dataclass(frozen=True)
class Folder(BaseSource):
    """All images of a folder and its subfolders.

    An image's key is its path inside the folder, with forward slashes. A missing image that only
    the caption file or `only` names is a record too, so that it is reported. Files that are not
    used are skipped with the reason.

    Parameters
    ----------
    directory : Path
    captions : Path, optional
        See `sieve.data_prep.captions.formats`. It names images by their path inside `directory`;
        other names are matched if that is unique, see `ImageNames`. Without it, `metadata.jsonl`,
        `metadata.csv` or `metadata.parquet` in a folder describe its images (Hugging Face's
        `imagefolder`), else caption files beside the images, see `Sidecars`.
    columns : Columns
    only : Path, optional
        A text file with an image name on each line; all other images are excluded.
    name : str
        The collection's name; by default the directory's.
    licence : str
    follow_links : bool
        Also read the targets of links inside the folder, wherever they are.

    Raises
    ------
    FileNotFoundError
        If the directory or a file is missing.
    """

    directory: Path
    captions: Path | None = None
    columns: Columns = Columns()
    only: Path | None = None
    name: str = ""
    licence: str = "not stated"
    follow_links: bool = False

    def __post_init__(self) -> None:
        if self.directory.is_file():
            raise NotADirectoryError(
                f"{self.directory} is a file; give the folder that holds the images"
                " (for tar and Parquet shards: `sieve prepare conceptual-captions`)"
            )
        if not self.directory.is_dir():
            raise FileNotFoundError(
                f"there is no folder {self.directory}; give the folder that holds the images"
            )
        for path, option in ((self.captions, "--captions"), (self.only, "--only")):
            if path is not None and path.is_dir():
                raise IsADirectoryError(f"{path} is a folder; {option} is a file")
            if path is not None and not path.is_file():
                raise FileNotFoundError(f"there is no file {path}; check {option}")
        object.__setattr__(self, "directory", self.directory.resolve())
        object.__setattr__(self, "name", self.name or self.directory.name)

    @property
    def root(self) -> Path:
        """Folder that image paths are relative to."""
        return self.directory

    def __str__(self) -> str:
        described = f" with captions {self.captions.resolve()}" if self.captions else ""
        return f"folder {self.directory}{described}"

    def open_image(self, record: Record, size: int) -> Image.Image:  # noqa: ARG002
        """Open the record's image; see `sieve.data_prep.images.load_image`."""
        return open_inside(self.directory, Path(record.image), self.follow_links)

    def _iter_records(self, skipped: SkippedRows) -> Iterator[Record]:
        """Yield all images by key, with their descriptions, limited to `only` if given."""
        walked = walk(self.directory, follow_links=self.follow_links)
        files, others = walked.files, dict.fromkeys(walked.others)
        skipped += walked.skipped
        for path in (self.captions, self.only):
            if path is not None and path.absolute().is_relative_to(self.directory):
                others.pop(path.absolute().relative_to(self.directory).as_posix(), None)
        names = ImageNames(self.directory, files)
        table, sidecars = None, None
        if self.captions is not None:
            table = read_captions(self.captions, self.columns, names)
        else:
            table = self._read_metadata(others, names, skipped)
            encoding = self.columns.encoding
            sidecars = Sidecars(self.directory, files, others, encoding, self.follow_links)
            others = dict.fromkeys(sidecars.unused)
            sidecars.skip_ambiguous(skipped)
        wanted = self._wanted(files, skipped)
        if table is not None:
            self._check(names, table, files)
            skipped.count_rows(table.skipped)
            skipped += (
                entry
                for entry in table.skipped
                if wanted is None or not entry.image or names.key_of(entry.image) in wanted
            )
        split_of = _folder_splits(files)
        n_images = n_undescribed = 0
        for key, number in _merged(files if wanted is None else wanted, table):
            if wanted is not None and key not in wanted:
                continue
            path = files.get(key, key)
            others.pop(path, None)
            description = ImageDescription()
            if table is not None and number is not None:
                description = table.describe(number)
                if sidecars is not None:
                    sidecars.skip_unread(key, skipped)
            elif sidecars is not None:
                description = ImageDescription(sidecars.read(key, skipped))
            n_images += 1
            n_undescribed += table is not None and number is None and not description.captions
            yield Record(
                key=key,
                image=str(self.directory / path),
                captions=tuple(description.captions),
                labels=tuple(description.labels),
                split=description.split or split_of(key),
            )
        if wanted is None:
            for path in others:
                skipped.add(path, str(self.directory / path), unused_reason(path))
        if n_undescribed:
            log.warning(
                "%s of %s images have no row in %s and therefore no captions",
                *(f"{n_undescribed:,}", f"{n_images:,}", self._described_by()),
            )

    def _read_metadata(
        self, others: dict[str, None], names: ImageNames, skipped: SkippedRows
    ) -> CaptionsByImage | None:
        """Read Hugging Face's metadata files, each of which describes the images of its folder."""
        builder: CaptionTableBuilder | None = None
        for path in [one for one in others if posixpath.basename(one) in _METADATA]:
            others.pop(path)
            file = self.directory / path
            if not self.follow_links and not file.resolve().is_relative_to(self.directory):
                skipped.add(path, str(file), f"caption file leaves the folder: {FOLLOW_LINKS}")
                continue
            if builder is None:
                builder = CaptionTableBuilder(path)
            else:
                builder.next_file(path)
            rows = read_rows(file, self.columns, builder.add_malformed)
            while True:
                try:
                    row = next(rows, None)
                except ValueError as error:
                    skipped.add(path, str(file), f"caption file not read: {error}")
                    break
                if row is None:
                    break
                inside = posixpath.join(posixpath.dirname(path), row.image) if row.image else ""
                builder.add(row._replace(image=inside))
        table = None if builder is None else builder.build(names)
        return table if table else None

    def _wanted(self, files: Mapping[str, str], skipped: SkippedRows) -> set[str] | None:
        """Return the keys of the images that `only` names; None for all images."""
        if self.only is None:
            return None
        names = ImageNames(self.directory, files)
        lines = dict.fromkeys(_lines(self.only))
        refused = names.resolve(lines).refused
        skipped.n_rows += len(lines)
        for name in refused:
            skipped.add_malformed(f"{self.only.name}: {name}"[:200], name, refused[name])
        return {names.key_of(name) for name in lines if name not in refused}

    def _check(self, names: ImageNames, table: CaptionsByImage, files: Mapping[str, str]) -> None:
        """Report names that are not paths, and reject a table that names no image of the folder."""
        where = self._described_by()
        if names.loose:
            log.warning(
                "some image names in %s differ from the files; matched if only one fits: %s",
                *(where, tidy(names.describe_loose())),
            )
        there = (key in files or os.path.isfile(self.directory / key) for key in table)
        if len(table) and files and not any(there):
            first, held = next(iter(table)), next(iter(files))
            raise ValueError(
                f"none of the {len(table):,} images that {where} names is in {self.directory}: it "
                f"names {tidy(first)[:100]!r}, the folder holds {tidy(held)[:100]!r}; give the "
                "folder that the names are relative to, or name the column with --image-column"
            )

    def _described_by(self) -> str:
        return self.captions.name if self.captions is not None else "metadata files"


def _folder_splits(files: Iterable[str]) -> Callable[[str], str]:
    """Return a function that maps keys to splits, for a folder with split subfolders.

    It returns "" for all keys unless all images are in at least two folders named after splits.
    """
    for depth in range(_MAX_SPLIT_DEPTH):
        distinct: set[str] = set()
        for key in files:
            distinct.add(_folder_at(key, depth))
            if len(distinct) > _MAX_SPLIT_FOLDERS:
                return lambda _: ""
        splits = {name: split_named(name) or "" for name in distinct}
        if "" not in splits.values() and len(set(splits.values())) > 1:
            log.warning("using the folders %s as splits", ", ".join(sorted(distinct)))
            return lambda key, depth=depth: splits.get(_folder_at(key, depth), "")
        if len(distinct) != 1:
            break
    return lambda _: ""


def _folder_at(key: str, depth: int) -> str:
    parts = key.split("/", depth + 1)
    return parts[depth] if len(parts) > depth + 1 else ""


def _merged(keys: Iterable[str], table: CaptionsByImage | None) -> Iterator[tuple[str, int | None]]:
    """Yield the sorted union of the keys, each with its number in the table."""
    described = table.sorted_keys() if table is not None else ()
    both = heapq.merge(((key, None) for key in sorted(keys)), described, key=itemgetter(0))
    for key, group in groupby(both, key=itemgetter(0)):
        yield key, next((number for _, number in group if number is not None), None)


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding=detect_encoding(path)).splitlines()
    except UnicodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error}); save it as UTF-8") from None
    return [line.strip() for line in lines if line.strip()]
