"""Local image files: list a folder, match the image names of a table, open images.

Folders may come from others: links out of them are followed only on request. `find_images` and
`open_or_draw` serve external tables, whose images are shown if they are in a folder, else as
placeholders with their captions.
"""

from __future__ import annotations

import logging
import os
import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from PIL import Image

from sieve.data_prep.captions import tidy
from sieve.data_prep.captions.caption_table import ResolvedNames
from sieve.data_prep.captions.placeholder import draw_placeholder
from sieve.data_prep.images import UNREADABLE_IMAGES, load_image, readable_extensions
from sieve.data_prep.records import Record, Skipped

log = logging.getLogger(__name__)

_SYSTEM_FILES = {"thumbs.db", "desktop.ini", "icon\r"}
FOLLOW_LINKS = "use --follow-links to read it"


class FolderListing(NamedTuple):
    """The files of a folder."""

    files: dict[str, str]
    """Path of each image file inside the folder, by key: the path with composed accents (NFC)."""
    skipped: list[Skipped]
    """Linked folders, and names that are not UTF-8."""
    others: list[str]
    """Paths of all other files inside the folder, except hidden ones."""


def walk(
    directory: Path, extensionless: bool = False, follow_links: bool | None = False
) -> FolderListing:
    """List all files of a folder; image files are recognised by their extension.

    Parameters
    ----------
    directory : Path
    extensionless : bool
        Also list files without an extension as images, as some downloaders write them.
    follow_links : bool, optional
        Also list linked folders. None is False for sources without this option.
    """
    wanted = readable_extensions() | ({""} if extensionless else set())
    files: dict[str, str] = {}
    skipped: list[Skipped] = []
    others: list[str] = []
    root = os.fspath(directory)
    seen = {os.path.realpath(root)}
    for folder, subfolders, names in os.walk(root, followlinks=bool(follow_links)):
        inside = os.path.relpath(folder, root).replace(os.sep, "/")
        prefix = "" if inside == "." else f"{inside}/"
        kept = []
        for name in sorted(name for name in subfolders if not name.startswith(".")):
            path = os.path.join(folder, name)
            if os.path.islink(path):
                hint = "" if follow_links is None else f"; {FOLLOW_LINKS}"
                reason = f"linked folder: links are not followed{hint}"
                if follow_links:
                    target = os.path.realpath(path)
                    loops = any(target == one or one.startswith(target + os.sep) for one in seen)
                    reason = "linked folder: it holds a folder that has already been read"
                    if not loops:
                        seen.add(target)
                        kept.append(name)
                        continue
                skipped.append(Skipped(prefix + name, path, reason))
                continue
            kept.append(name)
        subfolders[:] = kept
        for name in sorted(names):
            if name.startswith(".") or name.lower() in _SYSTEM_FILES:
                continue
            path = prefix + name
            if os.path.splitext(name)[1].lower() not in wanted:
                others.append(path)
            elif any("\ud800" <= c <= "\udfff" for c in path):  # bytes that are not UTF-8
                reason = "file name is not UTF-8: rename it"
                skipped.append(Skipped(path, os.path.join(folder, name), reason))
            else:
                key = nfc(path)
                if key in files:  # both Unicode forms exist: each is its own key
                    other = files.pop(key)
                    files[other] = other
                    files[path] = path
                else:
                    files[key] = key if key == path else path  # one string, not two
    return FolderListing(files, skipped, others)


def open_inside(directory: Path, path: Path, follow_links: bool | None = None) -> Image.Image:
    """Open an image file that must be inside a folder; see `sieve.data_prep.images.load_image`.

    Parameters
    ----------
    directory, path : Path
    follow_links : bool, optional
        Also open the target of a link inside the folder, wherever it is. None is False for
        sources without this option.

    Raises
    ------
    ValueError
        In one line, if it cannot be used or leaves the folder.
    """
    if not Path(os.path.normpath(path)).is_relative_to(directory):
        raise ValueError("leaves the folder: only images inside it are read")
    if not follow_links and not path.resolve().is_relative_to(directory):
        hint = "" if follow_links is None else f"; {FOLLOW_LINKS}"
        raise ValueError(f"link leaves the folder: only images inside it are read{hint}")
    return load_image(path)


class Match(NamedTuple):
    """The image file that a name refers to."""

    key: str
    difference: str
    """How the name differs from the path."""


class ImageNames:
    """Matches the image names in a table or list to files.

    A name that is the path of a file inside the folder refers to that file. Any other name is
    matched regardless of letter case, accents, blanks, percent-encoding, extension and leading
    folders. Such a match is used only if exactly one file fits, and no other name refers to that
    file. Other folders are never substituted, and numbers within a name are not interpreted.

    Parameters
    ----------
    directory : Path
        Absolute.
    files : mapping of str to str
        Path by key, as `walk` lists them.
    """

    def __init__(self, directory: Path, files: Mapping[str, str]) -> None:
        self._directory = directory
        self._files = files
        self._by_path = {path: key for key, path in files.items() if path != key}
        self._keys: dict[str, str] = {}
        self.refused: dict[str, str] = {}
        """Reason, by name."""
        self.loose: dict[str, Match] = {}
        """Matches of names that are not the path of a file."""

    def resolve(self, names: Iterable[str]) -> ResolvedNames:
        """Find the image of each name of one table; a name that fits no file is its own key.

        Parameters
        ----------
        names : iterable of str
            All names, without duplicates; iterated twice.
        """
        stems: set[str] | None = None
        wanted: dict[str, _Folded] = {}
        for name in names:
            key = self._exact(name)
            if key is None:
                if stems is None:
                    stems = {_Folded.of(path).stem for path in self._files}
                folded = _Folded.of(name)
                if folded.stem in stems:
                    wanted[name] = folded
            elif key != name:
                self._keys[name] = key
        del stems  # of millions of files
        if wanted:
            self._match(names, wanted)
        return ResolvedNames(self._keys, self.refused)

    def key_of(self, name: str) -> str:
        """Return the key that was found for a name, or the name itself."""
        return self._keys.get(name, name)

    def describe_loose(self) -> str:
        """Return the number of loose matches by kind of difference, with an example each."""
        counts = Counter(match.difference for match in self.loose.values())
        example = {
            match.difference: (name, match.key) for name, match in reversed(self.loose.items())
        }
        return ", ".join(
            f"{count:,} by {difference} ({example[difference][0]} is {example[difference][1]})"
            for difference, count in counts.most_common()
        )

    def _exact(self, name: str) -> str | None:
        """Return the key of the file with this path, perhaps written with `./` or backslashes."""
        if self._files.get(name) == name:
            return name
        if name in self._by_path:
            return self._by_path[name]
        if name in self._files:  # composed accents in the table, decomposed ones on disk
            return None
        path = name.removeprefix("file://")
        for candidate in dict.fromkeys((path, path.replace("\\", "/"))):
            if os.path.isabs(candidate):
                inside = os.path.relpath(os.path.normpath(candidate), self._directory)
            else:
                inside = posixpath.normpath(candidate)
            inside = inside.replace(os.sep, "/")
            if inside.startswith("../") or inside in (".", "..") or os.path.isabs(inside):
                continue
            if self._files.get(inside) == inside:
                return inside
            if inside in self._by_path:
                return self._by_path[inside]
            # A table may name a file that does not have the extension of an image.
            unlisted = not _is_image_extension(posixpath.splitext(inside)[1].lower())
            unlisted = unlisted or inside.startswith(".") or "/." in inside
            if unlisted and os.path.isfile(self._directory / inside):
                return inside
        return None

    def _match(self, names: Iterable[str], wanted: Mapping[str, _Folded]) -> None:
        """Match names that are not paths."""
        stems = {folded.stem for folded in wanted.values()}
        by_stem: dict[str, list[tuple[str, _Folded]]] = {}
        for key in self._files:
            folded = _Folded.of(key)
            if folded.stem in stems:
                by_stem.setdefault(folded.stem, []).append((key, folded))
        matches: dict[str, Match] = {}
        for name, folded in wanted.items():
            candidates = [
                Match(key, difference)
                for key, other in by_stem.get(folded.stem, ())
                if (difference := folded.difference(other, name, self._files[key]))
            ]
            if len(candidates) > 1:
                self._refuse(name, candidates[0].key, candidates[1].key)
            elif candidates:
                matches[name] = candidates[0]
        by_key: dict[str, list[str]] = {}
        for name, match in matches.items():
            by_key.setdefault(match.key, []).append(name)
        for name in names:
            key = self._exact(name) if name not in wanted else None
            if key in by_key:
                by_key[key].append(name)
        for key, claims in by_key.items():
            for name in claims:
                if len(claims) == 1:
                    self.loose[name] = matches[name]
                    self._keys[name] = key
                elif name in matches:
                    other = next(one for one in claims if one != name)
                    self.refused[name] = (
                        f"ambiguous image name: {other[:200]} also refers to {key}; "
                        "write its path inside the folder"
                    )

    def _refuse(self, name: str, first: str, second: str) -> None:
        self.refused[name] = (
            f"ambiguous image name: it may be {first[:200]} or {second[:200]}; write its path "
            "inside the folder"
        )


class _Folded(NamedTuple):
    """A path without the details that tools often change."""

    folders: tuple[str, ...]
    stem: str
    extension: str

    @classmethod
    def of(cls, path: str) -> _Folded:
        """Normalise letter case, accents, blanks, percent-encoding and separators."""
        plain = nfc(unquote(path)).casefold().replace("\\", "/")
        *folders, name = [part.strip() for part in plain.split("/") if part not in ("", ".")] or [
            ""
        ]
        stem, extension = os.path.splitext(name)
        if re.fullmatch(r"\.\d", extension):  # Flickr8k's `a.jpg.1`
            inner, inner_extension = os.path.splitext(stem)
            if _is_image_extension(inner_extension):
                stem, extension = inner, inner_extension
        if not _is_image_extension(extension):
            stem, extension = name, ""
        return cls(tuple(folders), stem.strip(), extension)

    def difference(self, other: _Folded, name: str, path: str) -> str:
        """Describe how a name differs from a path that it may refer to; "" if it may not."""
        short, long = sorted((self.folders, other.folders), key=len)
        if len(short) and long[-len(short) :] != short:
            return ""
        differences = []
        if len(short) < len(long):
            differences.append("leading folder")
        if self.extension != other.extension:
            differences.append("extension")
        return " and ".join(differences) or _spelling(name, path)


def may_be_same(name: str, other: str) -> bool:
    """Return whether two names differ at most in spelling, extension and leading folders."""
    if name == other:
        return True
    ours, theirs = _Folded.of(name), _Folded.of(other)
    return ours.stem == theirs.stem and ours.difference(theirs, name, other) != ""


def _spelling(name: str, path: str) -> str:
    """Describe how two spellings of one path differ."""
    for difference, fold in (
        ("Unicode form", nfc),
        ("blanks", lambda text: "/".join(part.strip() for part in text.split("/"))),
        ("letter case", str.casefold),
        ("percent-encoding", unquote),
    ):
        if fold(name) == fold(path):
            return difference
    return "spelling"


def _is_image_extension(extension: str) -> bool:
    return extension in readable_extensions() or extension in UNREADABLE_IMAGES


def nfc(name: str) -> str:
    """Return a name with composed accents (NFC): file systems and tables differ in their form."""
    return unicodedata.normalize("NFC", name)


def find_images(folder: Path, names: Iterable[str]) -> dict[str, Path]:
    """Find the images that the names in a table refer to; see `ImageNames`.

    Log a warning about names that were matched loosely, and names that are ambiguous.

    Parameters
    ----------
    folder : Path
        Absolute.
    names : iterable of str
        All names of the table; iterated twice.

    Returns
    -------
    dict of str to Path
        Path by name, for the names whose image is found.
    """
    files = walk(folder).files
    resolver = ImageNames(folder, files)
    refused = resolver.resolve(names).refused
    if resolver.loose:
        log.warning(
            "some image names in the table differ from files in %s; matched if only one fits: %s",
            *(folder, tidy(resolver.describe_loose())),
        )
    if refused:
        log.warning(
            "%s images are shown as captions: %s",
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
    """Open a record's image if it is in a folder and readable, else draw its caption."""
    if os.path.isabs(record.image) and os.path.isfile(record.image):
        try:
            return open_inside(folder, Path(record.image))
        except ValueError:
            pass  # its embedding or code is known, so the item is usable without its image
    return draw_placeholder(record.captions[0] if record.captions else Path(record.key).name)
