"""A folder of images, with a caption file or without: how most people keep theirs."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from PIL import Image

from data_prep.captions import Columns, Described, read_captions
from data_prep.images import load_image, readable_extensions
from data_prep.records import Record
from data_prep.skipped import Skipped

_TRAIN_SHARE, _SELECT_SHARE = 0.8, 0.1


def drawn_split(item_id: str) -> str:
    """Draw an item's split from its id alone: 80 % train, 10 % select, 10 % test."""
    place = int(item_id[:8], 16) / 16**8
    if place < _TRAIN_SHARE:
        return "train"
    return "select" if place < _TRAIN_SHARE + _SELECT_SHARE else "test"


@dataclass(frozen=True)
class Folder:
    """All images of a folder and its subfolders.

    An image's key is its path inside the folder, with forward slashes. What only the caption file
    or `only` names is a record too, so that each missing image is named when it is left out.

    Parameters
    ----------
    directory : Path
    captions : Path, optional
        A CSV; see `data_prep.captions`. It names images by their path inside `directory`, or by
        the end of that path where only one image has it.
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
        if not self.directory.is_dir():
            raise FileNotFoundError(
                f"there is no folder {self.directory}; give the folder that holds the images"
            )
        for path, option in ((self.captions, "--captions"), (self.only, "--only")):
            if path is not None and not path.is_file():
                raise FileNotFoundError(f"there is no file {path}; check {option}")
        object.__setattr__(self, "directory", self.directory.resolve())
        object.__setattr__(self, "name", self.name or self.directory.name)

    def __str__(self) -> str:
        described = f" with captions {self.captions.resolve()}" if self.captions else ""
        return f"folder {self.directory}{described}"

    def __getstate__(self) -> dict[str, Any]:
        """Leave the listing behind: decoder processes need only the directory."""
        return {key: value for key, value in self.__dict__.items() if not key.startswith("_")}

    def records(self) -> Iterator[Record]:
        """All images, by key."""
        for key, described in sorted(self._listing.described.items()):
            yield Record(
                key=key,
                image=str(self._walked.files.get(key, self.directory / key)),
                captions=tuple(described.captions),
                labels=tuple(described.labels),
                split=described.split or drawn_split(Record(key, "").id),
            )

    def skipped_rows(self) -> list[Skipped]:
        """Caption rows that are left out, and what is no record at all."""
        return self._listing.skipped

    def open_image(self, record: Record, size: int) -> Image.Image:  # noqa: ARG002
        """Open the record's image; see `data_prep.images.load_image`."""
        path = Path(record.image)
        if not path.resolve().is_relative_to(self.directory):
            raise ValueError("leaves the folder: only images inside it are read")
        return load_image(path)

    @cached_property
    def _walked(self) -> _Walked:
        return _walk(self.directory)

    @cached_property
    def _listing(self) -> _Listing:
        """Put the walk, the caption file and `only` together."""
        names = _Names(self.directory, self._walked.files)
        table = read_captions(self.captions, self.columns) if self.captions else None
        described = {key: Described() for key in self._walked.files}
        for name, found in table.images.items() if table else ():
            described.setdefault(names.key_of(name), Described()).add(found)
        skipped = [*self._walked.skipped, *(table.skipped if table else ())]
        if self.only is not None:
            wanted = {names.key_of(name) for name in _lines(self.only)}
            described = {key: described.get(key, Described()) for key in wanted}
            skipped = [s for s in skipped if not s.image or names.key_of(s.image) in wanted]
        return _Listing(described, skipped)


class _Listing(NamedTuple):
    described: dict[str, Described]
    """By key."""
    skipped: list[Skipped]


class _Walked(NamedTuple):
    files: dict[str, Path]
    """Image files by key."""
    skipped: list[Skipped]


def _walk(directory: Path) -> _Walked:
    """Find all image files by their extension; hidden ones are no part of a collection."""
    files: dict[str, Path] = {}
    skipped: list[Skipped] = []
    for folder, subfolders, names in os.walk(directory):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for path in (Path(folder, name) for name in subfolders):
            if path.is_symlink():
                key = path.relative_to(directory).as_posix()
                skipped.append(Skipped(key, str(path), "linked folder: links are not followed"))
        for path in (Path(folder, name) for name in sorted(names) if not name.startswith(".")):
            if path.suffix.lower() not in readable_extensions():
                continue
            key = _normal(path.relative_to(directory).as_posix())
            if any("\ud800" <= c <= "\udfff" for c in key):  # how Python marks undecodable bytes
                skipped.append(Skipped(key, str(path), "file name is not UTF-8: rename it"))
            else:
                files[key] = path
    return _Walked(files, skipped)


class _Names:
    """Keys of the names by which caption files and lists call images."""

    def __init__(self, directory: Path, files: dict[str, Path]) -> None:
        self._directory = directory
        self._files = files
        self._by_file_name: dict[str, list[str]] = {}
        for key in files:
            self._by_file_name.setdefault(key.rpartition("/")[2], []).append(key)

    def key_of(self, name: str) -> str:
        """Find the image that is meant; a name that fits none is its own key."""
        name = _normal(name)
        for candidate in dict.fromkeys((name, name.replace("\\", "/"))):
            path = PurePosixPath(candidate)
            if path.is_absolute() and path.is_relative_to(self._directory):
                path = path.relative_to(self._directory)
            key = path.as_posix()
            if key in self._files or os.path.isfile(self._directory / key):
                return key
            tail = f"/{key}"
            ending = [k for k in self._by_file_name.get(path.name, ()) if k.endswith(tail)]
            if len(ending) == 1:
                return ending[0]
        return name


def _normal(name: str) -> str:
    """One form of each accented letter: file systems and caption files differ in it."""
    return unicodedata.normalize("NFC", name)


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from None
    return [line.strip() for line in lines if line.strip()]
