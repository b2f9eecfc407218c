"""Local image files: list a folder, match the image names of a table, open or replace images.

Folders may come from others: links out of them are followed only on request.
"""

from __future__ import annotations

import logging
import os
import posixpath
import re
import textwrap
import unicodedata
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import matplotlib
from PIL import Image, ImageDraw, ImageFont

from sieve.data_prep.captions.caption_text import tidy
from sieve.data_prep.images import UNREADABLE_IMAGES, load_image, readable_extensions
from sieve.data_prep.records import Record, Skipped, is_utf8

log = logging.getLogger(__name__)

FOLLOW_LINKS = "use --follow-links to read it"
_SYSTEM_FILES = {"thumbs.db", "desktop.ini", "icon\r"}


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
    """List all files of a folder; images have an image's extension, or none if `extensionless`."""
    wanted = readable_extensions() | ({""} if extensionless else set())
    files: dict[str, str] = {}
    skipped: list[Skipped] = []
    others: list[str] = []
    root = os.fspath(directory)
    seen = {os.path.realpath(root)}
    for folder, subfolders, names in os.walk(root, followlinks=bool(follow_links)):
        inside = os.path.relpath(folder, root).replace(os.sep, "/")
        prefix = "" if inside == "." else f"{inside}/"
        visible, subfolders[:] = sorted(n for n in subfolders if not n.startswith(".")), []
        for name in visible:
            path = os.path.join(folder, name)
            if fault := _link_fault(path, seen, follow_links):
                skipped.append(Skipped(prefix + name, path, fault))
            else:
                subfolders.append(name)
        for name in sorted(names):
            if name.startswith(".") or name.lower() in _SYSTEM_FILES:
                continue
            path = prefix + name
            if os.path.splitext(name)[1].lower() not in wanted:
                others.append(path)
            elif not is_utf8(path):
                reason = "file name is not UTF-8: rename it"
                skipped.append(Skipped(path, os.path.join(folder, name), reason))
            elif (key := _nfc(path)) in files:  # both Unicode forms exist: each is its own key
                other = files.pop(key)
                files |= {other: other, path: path}
            else:
                files[key] = key if key == path else path  # one string, not two
    return FolderListing(files, skipped, others)


def _link_fault(path: str, seen: set[str], follow_links: bool | None) -> str:
    """Return why a subfolder is not read, else an empty text; remember the targets of links."""
    if not os.path.islink(path):
        return ""
    if not follow_links:
        hint = "" if follow_links is None else f"; {FOLLOW_LINKS}"
        return f"linked folder: links are not followed{hint}"
    target = os.path.realpath(path)
    if any(target == one or one.startswith(target + os.sep) for one in seen):
        return "linked folder: it holds a folder that has already been read"
    seen.add(target)
    return ""


def open_inside(directory: Path, path: Path, follow_links: bool | None = None) -> Image.Image:
    """Open an image file; raise ValueError if it cannot be used or leaves the folder."""
    if not Path(os.path.normpath(path)).is_relative_to(directory):
        raise ValueError("leaves the folder: only images inside it are read")
    if not follow_links and not path.resolve().is_relative_to(directory):
        hint = "" if follow_links is None else f"; {FOLLOW_LINKS}"
        raise ValueError(f"link leaves the folder: only images inside it are read{hint}")
    return load_image(path)


class ImageNames:
    """Matches the image names in a table or list to files.

    A name that is the path of a file inside the folder refers to that file. Any other name is
    matched regardless of letter case, accents, blanks, percent-encoding, extension and leading
    folders. Such a match is used only if exactly one file fits, and no other name refers to that
    file. Other folders are never substituted, and numbers within a name are not interpreted.
    `files` are the paths inside the absolute `directory` by key, as `walk` lists them.
    """

    def __init__(self, directory: Path, files: Mapping[str, str]) -> None:
        self._directory, self._files = directory, files
        self._by_path = {path: key for key, path in files.items() if path != key}
        self._keys: dict[str, str] = {}
        self._examples: dict[str, list[str]] = {}
        """Matches of names that are not paths, by kind of difference."""
        self.refused: dict[str, str] = {}
        """Reason, by name."""

    def resolve(self, names: Iterable[str]) -> tuple[dict[str, str], dict[str, str]]:
        """Find the image of each name of one table; a name that fits no file is its own key.

        Return the keys of the images by name, and reasons by ambiguous name. `names` has no
        duplicates and is iterated twice.
        """
        stems: set[str] = set()
        wanted: dict[str, _Folded] = {}
        for name in names:
            key = self._exact(name)
            if key is None:
                stems = stems or {_Folded.of(path).stem for path in self._files}
                if (folded := _Folded.of(name)).stem in stems:
                    wanted[name] = folded
            elif key != name:
                self._keys[name] = key
        del stems  # of millions of files
        if wanted:
            self._match(names, wanted)
        return self._keys, self.refused

    def key_of(self, name: str) -> str:
        """Return the key that was found for a name, or the name itself."""
        return self._keys.get(name, name)

    def path_of(self, name: str) -> str | None:
        """Return the path of the file that was found for a name; None if there is none."""
        return None if name in self.refused else self._files.get(self.key_of(name))

    def warn_about_loose(self, table: str) -> None:
        """Log how many names of a table are not paths, by kind of difference, with examples."""
        kinds = sorted(self._examples.items(), key=lambda kind: -len(kind[1]))
        if kinds:
            log.warning(
                "some image names in %s differ from the files in %s; matched if only one fits: %s",
                table, self._directory,
                tidy(", ".join(f"{len(all_):,} by {how} ({all_[0]})" for how, all_ in kinds)),
            )  # fmt: skip

    def _exact(self, name: str) -> str | None:
        """Return the key of the file with this path, perhaps written with `./` or backslashes."""
        if (key := self._key_at(name)) or name in self._files:
            return key  # None: composed accents in the table, decomposed ones on disk
        path = name.removeprefix("file://")
        for candidate in dict.fromkeys((path, path.replace("\\", "/"))):
            if os.path.isabs(candidate):
                inside = os.path.relpath(os.path.normpath(candidate), self._directory)
            else:
                inside = posixpath.normpath(candidate)
            inside = inside.replace(os.sep, "/")
            if inside.startswith("../") or inside in (".", "..") or os.path.isabs(inside):
                continue
            if key := self._key_at(inside):
                return key
            # A table may name a file that does not have the extension of an image.
            listed = _is_image_extension(posixpath.splitext(inside)[1].lower())
            if (not listed or "/." in f"/{inside}") and os.path.isfile(self._directory / inside):
                return inside
        return None

    def _key_at(self, path: str) -> str | None:
        return path if self._files.get(path) == path else self._by_path.get(path)

    def _match(self, names: Iterable[str], wanted: Mapping[str, _Folded]) -> None:
        """Match names that are not paths."""
        stems = {folded.stem for folded in wanted.values()}
        by_stem: dict[str, list[tuple[str, _Folded]]] = {}
        for key in self._files:
            if (folded := _Folded.of(key)).stem in stems:
                by_stem.setdefault(folded.stem, []).append((key, folded))
        matches: dict[str, tuple[str, str]] = {}
        claims: dict[str, list[str]] = {}
        for name, folded in wanted.items():
            options = ((key, folded.difference(o)) for key, o in by_stem.get(folded.stem, ()))
            found = [(key, difference) for key, difference in options if difference]
            if len(found) > 1:
                both = " or ".join(key[:200] for key, _ in found[:2])
                self.refused[name] = _ambiguous(f"it may be {both}")
            elif found:
                matches[name] = found[0]
                claims.setdefault(found[0][0], []).append(name)
        for name in names:
            if name not in wanted and (key := self._exact(name)) in claims:
                claims[key].append(name)
        for name, (key, difference) in matches.items():
            other = next((one for one in claims[key] if one != name), None)
            if other is not None:
                self.refused[name] = _ambiguous(f"{other[:200]} also refers to {key}")
            else:
                self._examples.setdefault(difference, []).append(f"{name} is {key}")
                self._keys[name] = key


def _ambiguous(what: str) -> str:
    return f"ambiguous image name: {what}; write its path inside the folder"


class _Folded(NamedTuple):
    """A path without the details that tools often change."""

    folders: tuple[str, ...]
    stem: str
    extension: str

    @classmethod
    def of(cls, path: str) -> _Folded:
        """Normalise letter case, accents, blanks, percent-encoding and separators."""
        plain = _nfc(unquote(path)).casefold().replace("\\", "/")
        parts = [part.strip() for part in plain.split("/") if part not in ("", ".")]
        *folders, name = parts or [""]
        stem, extension = os.path.splitext(name)
        inner = os.path.splitext(stem)
        if re.fullmatch(r"\.\d", extension) and _is_image_extension(inner[1]):
            stem, extension = inner  # Flickr8k's `a.jpg.1`
        if not _is_image_extension(extension):
            stem, extension = name, ""
        return cls(tuple(folders), stem.strip(), extension)

    def difference(self, other: _Folded) -> str:
        """Describe how a name differs from a path that it may refer to; "" if it may not."""
        short, long = sorted((self.folders, other.folders), key=len)
        if short and long[-len(short) :] != short:
            return ""
        differences = ["leading folder"] if len(short) < len(long) else []
        if self.extension != other.extension:
            differences.append("extension")
        return " and ".join(differences) or "spelling"


def may_be_same(name: str, other: str) -> bool:
    """Return whether two names differ at most in spelling, extension and leading folders."""
    if name == other:
        return True
    ours, theirs = _Folded.of(name), _Folded.of(other)
    return ours.stem == theirs.stem and ours.difference(theirs) != ""


def _is_image_extension(extension: str) -> bool:
    return extension in readable_extensions() or extension in UNREADABLE_IMAGES


def _nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)  # file systems and tables differ in their form


def find_images(
    folder: Path, names: Iterable[str], follow_links: bool | None = False
) -> dict[str, Path]:
    """Return the paths of the images in a folder that names refer to, by name.

    Names are matched by `ImageNames`; a warning reports loose matches, ambiguous names, and links
    that are not followed.
    """
    files, linked, _ = walk(folder, follow_links=follow_links)
    if linked:
        log.warning("%s: %s", tidy(linked[0].key), linked[0].reason)
    resolver = ImageNames(folder, files)
    _, refused = resolver.resolve(names)
    resolver.warn_about_loose("the table")
    if refused:
        example = tidy(next(iter(refused.values())))
        log.warning("%s images are shown as captions: %s", f"{len(refused):,}", example)
    found, outside = {}, []
    for name in names:
        key = resolver.key_of(name)
        if name not in refused and (key in files or os.path.isfile(folder / key)):
            path = folder / files.get(key, key)
            # After a link, ".." would lead to the parent of its target.
            is_inside = path.is_relative_to(folder) and ".." not in path.parts
            if (follow_links and is_inside) or path.resolve().is_relative_to(folder):
                found[name] = path
            else:
                outside.append(name)
    if outside:
        what = "" if follow_links else "links to files "
        option = "" if follow_links else "use --follow-links to read them, or "
        log.warning(
            "%s images, such as %s, are %soutside %s, which are not read; %sgive the folder that "
            "they are in",
            f"{len(outside):,}", tidy(outside[0]), what, folder, option,
        )  # fmt: skip
    return found


def open_or_draw(folder: Path, record: Record, follow_links: bool | None = False) -> Image.Image:
    """Open a record's image if it is in a folder and readable, else draw its caption."""
    if os.path.isabs(record.image) and os.path.isfile(record.image):
        with suppress(ValueError):
            return open_inside(folder, Path(record.image), follow_links)
    return draw_placeholder(record.captions[0] if record.captions else Path(record.key).name)


_WIDTH, _HEIGHT = 320, 240
_PAPER, _INK, _RULE = "#eceae6", "#3d3b38", "#c9c5be"
_MARGIN, _SIZE, _LEADING = 22, 19, 26
_COLUMNS, _LINES, _LONGEST = 34, 7, 400


def draw_placeholder(text: str) -> Image.Image:
    """Draw wrapped text on a background that suits light and dark themes: (240, 320) RGB."""
    image = Image.new("RGB", (_WIDTH, _HEIGHT), _PAPER)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, _WIDTH - 1, _HEIGHT - 1), outline=_RULE, width=2)
    lines: list[str] = []
    for columns in range(_COLUMNS, 0, -1):
        lines = textwrap.wrap(text[:_LONGEST], columns, max_lines=_LINES, placeholder=" …")
        if max(map(_font().getlength, lines), default=0) <= _WIDTH - 2 * _MARGIN:
            break
    lines = lines or ["no caption"]
    top = (_HEIGHT - _LEADING * len(lines)) / 2
    for number, line in enumerate(lines):
        draw.text((_MARGIN, top + _LEADING * number), line, _INK, _font())
    return image


@cache
def _font() -> ImageFont.FreeTypeFont:
    """Load matplotlib's DejaVu Sans, which covers most scripts except East Asian ones."""
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(path, _SIZE)
