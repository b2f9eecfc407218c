"""Image files on disk: walking folders, and finding the file that a caption file means.

Folders come from others: links out of them are not followed, and nothing outside them is read.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from PIL import Image

from sieve.data_prep.images import load_image, readable_extensions
from sieve.data_prep.skipped import Skipped


class Walked(NamedTuple):
    """What a folder holds."""

    files: dict[str, str]
    """Path of every image file inside the folder, by key: the same path in one form of accents."""
    skipped: list[Skipped]
    """Linked folders and names that are not UTF-8."""


def walk(directory: Path, extensionless: bool = False) -> Walked:
    """Find all image files by their extension; hidden ones are no part of a collection.

    Parameters
    ----------
    directory : Path
    extensionless : bool
        Also take files without an extension, as some downloaders write them.
    """
    wanted = readable_extensions() | ({""} if extensionless else set())
    files: dict[str, str] = {}
    skipped: list[Skipped] = []
    root = os.fspath(directory)
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        inside = os.path.relpath(folder, root).replace(os.sep, "/")
        prefix = "" if inside == "." else f"{inside}/"
        for name in subfolders:
            if os.path.islink(os.path.join(folder, name)):
                reason = "linked folder: links are not followed"
                skipped.append(Skipped(prefix + name, os.path.join(folder, name), reason))
        for name in sorted(names):
            if name.startswith(".") or os.path.splitext(name)[1].lower() not in wanted:
                continue
            path = prefix + name
            if any("\ud800" <= c <= "\udfff" for c in path):  # how Python marks undecodable bytes
                reason = "file name is not UTF-8: rename it"
                skipped.append(Skipped(path, os.path.join(folder, name), reason))
            else:
                key = normal(path)
                files[key] = key if key == path else path  # one string, not two
    return Walked(files, skipped)


def open_inside(directory: Path, path: Path) -> Image.Image:
    """Open an image file that must lie inside a folder; see `sieve.data_prep.images.load_image`.

    Raises
    ------
    ValueError
        With a one-line reason where it cannot be used or leaves the folder.
    """
    if not path.resolve().is_relative_to(directory):
        raise ValueError("leaves the folder: only images inside it are read")
    return load_image(path)


class Names:
    """Keys of the names by which caption files and lists call images.

    Parameters
    ----------
    directory : Path
        Absolute.
    files : mapping
        As `walk` finds them.
    """

    def __init__(self, directory: Path, files: Mapping[str, str]) -> None:
        self._directory = directory
        self._files = files
        self._by_file_name: dict[str, list[str]] | None = None

    def key_of(self, name: str) -> str:
        """Find the image that is meant; a name that fits none is its own key."""
        name = normal(name)
        if name in self._files:
            return name
        for candidate in dict.fromkeys((name, name.replace("\\", "/"))):
            path = PurePosixPath(candidate)
            if path.is_absolute() and path.is_relative_to(self._directory):
                path = path.relative_to(self._directory)
            key = path.as_posix()
            if key in self._files or os.path.isfile(self._directory / key):
                return key
            tail = f"/{key}"
            ending = [k for k in self._named(path.name) if k.endswith(tail)]
            if len(ending) == 1:
                return ending[0]
        return name

    def _named(self, file_name: str) -> list[str]:
        """Keys of the files of this name; sought only where full paths do not fit."""
        if self._by_file_name is None:
            self._by_file_name = {}
            for key in self._files:
                self._by_file_name.setdefault(key.rpartition("/")[2], []).append(key)
        return self._by_file_name.get(file_name, [])


def normal(name: str) -> str:
    """One form of each accented letter: file systems and caption files differ in it."""
    return unicodedata.normalize("NFC", name)
