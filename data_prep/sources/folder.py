"""A folder of images, with a caption file or without: how most people keep theirs."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from PIL import Image

from sieve.data_prep.captions import Columns, Described, read_side_file
from sieve.data_prep.captions.table import CaptionsByImage, read_captions
from sieve.data_prep.records import Record
from sieve.data_prep.skipped import Skipped
from sieve.data_prep.sources.image_files import Names, open_inside, walk
from sieve.data_prep.sources.noting import NotesSkipped


@dataclass(frozen=True)
class Folder(NotesSkipped):
    """All images of a folder and its subfolders.

    An image's key is its path inside the folder, with forward slashes. What only the caption file
    or `only` names is a record too, so that each missing image is named when it is left out.

    Parameters
    ----------
    directory : Path
    captions : Path, optional
        See `sieve.data_prep.captions.formats`. It names images by their path inside `directory`, or
        by the end of that path where only one image has it. Without it, a text file beside an image
        (`a.txt` beside `a.jpg`) holds its captions, one a line.
    columns : Columns
    only : Path, optional
        A text file with an image's name a line: all others stay out.
    name : str
        The collection's name; by default the directory's.
    licence : str

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

    def __str__(self) -> str:
        described = f" with captions {self.captions.resolve()}" if self.captions else ""
        return f"folder {self.directory}{described}"

    def open_image(self, record: Record, size: int) -> Image.Image:  # noqa: ARG002
        """Open the record's image; see `sieve.data_prep.images.load_image`."""
        return open_inside(self.directory, Path(record.image))

    def _find(self, skipped: list[Skipped]) -> Iterator[Record]:
        """Put the walk, the caption file and `only` together: all images, by key."""
        files, linked = walk(self.directory)
        names = Names(self.directory, files)
        table = None
        if self.captions is not None:
            table = read_captions(self.captions, self.columns, names.key_of)
        wanted = None if self.only is None else {names.key_of(name) for name in _lines(self.only)}
        left_out = [*linked, *(table.skipped if table else ())]
        skipped += (
            entry
            for entry in left_out
            if wanted is None or not entry.image or names.key_of(entry.image) in wanted
        )
        for key, number in _merged(files if wanted is None else wanted, table):
            if wanted is not None and key not in wanted:
                continue
            path = self.directory / files.get(key, key)
            if table is None or number is None:
                said = self._described_beside(key, path, skipped)
            else:
                said = table.describe(number)
            yield Record(
                key=key,
                image=str(path),
                captions=tuple(said.captions),
                labels=tuple(said.labels),
                split=said.split,
            )

    def _described_beside(self, key: str, path: Path, skipped: list[Skipped]) -> Described:
        """Read the captions in the text file beside an image, where there is no caption file."""
        side = path.with_suffix(".txt")
        if self.captions is not None or not side.is_file():
            return Described()
        if not side.resolve().is_relative_to(self.directory):
            skipped.append(Skipped(key, str(side), "caption file leaves the folder"))
            return Described()
        read = read_side_file(side, side.relative_to(self.directory).as_posix())
        skipped += read.skipped
        return Described(read.captions)


def _merged(keys: Iterable[str], table: CaptionsByImage | None) -> Iterator[tuple[str, int | None]]:
    """All keys of both, sorted, each once, with its number in the table."""
    told = table.in_order() if table else ()
    both = heapq.merge(((key, None) for key in sorted(keys)), told, key=itemgetter(0))
    for key, group in groupby(both, key=itemgetter(0)):
        yield key, next((number for _, number in group if number is not None), None)


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from None
    return [line.strip() for line in lines if line.strip()]
