"""Caption files beside images: `a.txt`, `a.caption` or `a.json` beside `a.jpg`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from sieve.data_prep.captions import caption_fault, tidy
from sieve.data_prep.captions.cell import NULL_WORDS, CellError, captions_in
from sieve.data_prep.captions.delimited import detect_encoding
from sieve.data_prep.captions.formats import SUFFIXES
from sieve.data_prep.images import UNREADABLE_IMAGES
from sieve.data_prep.records import SkippedRows
from sieve.data_prep.sources.local_images import FOLLOW_LINKS

MAX_BYTES = 1 << 20
"""Larger files beside images are not read as captions."""

_SUFFIXES = (".txt", ".caption", ".json")
_ARCHIVES = {".tar", ".gz", ".tgz", ".zip", ".7z", ".rar", ".bz2", ".xz", ".zst"}
_VIDEOS = {".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".3gp"}


class Sidecars:
    """The caption files beside the images of a folder, each read together with its image.

    A file belongs to the image of the same name without its extension (`a.txt` and `a.jpg`), or
    with it (`a.jpg.txt`). If several images match, it belongs to none.

    Parameters
    ----------
    directory : Path
        Absolute.
    files : mapping of str to str
        Images: path by key.
    others : iterable of str
        Paths of all other files.
    encoding : str, optional
        Encoding of text files; by default UTF-8, or as the byte-order mark states.
    follow_links : bool
        Also read files that link out of the folder.

    Attributes
    ----------
    unused : list of str
        Paths of the other files that belong to no image.
    """

    def __init__(
        self,
        directory: Path,
        files: Mapping[str, str],
        others: Iterable[str],
        encoding: str | None = None,
        follow_links: bool = False,
    ) -> None:
        self._directory, self._encoding, self._follow_links = directory, encoding, follow_links
        self._by_image: dict[str, list[str]] = {}
        self.unused: list[str] = []
        self._ambiguous: dict[str, list[str]] = {}
        texts = [path for path in others if os.path.splitext(path)[1].lower() in _SUFFIXES]
        stems = {os.path.splitext(path)[0] for path in texts}
        keys = {path: key for key, path in files.items()} if texts else {}
        by_stem: dict[str, list[str]] = {}
        for key, path in files.items() if texts else ():
            stem = os.path.splitext(path)[0]
            if stem in stems:
                by_stem.setdefault(stem, []).append(key)
        for path in others:
            stem, suffix = os.path.splitext(path)
            owners = [keys[stem]] if stem in keys else by_stem.get(stem, [])
            if suffix.lower() not in _SUFFIXES or not owners:
                self.unused.append(path)
            elif len(owners) > 1:
                self._ambiguous[path] = owners
            else:
                self._by_image.setdefault(owners[0], []).append(path)
        for paths in self._by_image.values():
            paths.sort(key=lambda path: _SUFFIXES.index(os.path.splitext(path)[1].lower()))

    def read(self, key: str, skipped: SkippedRows) -> list[str]:
        """Return the distinct captions of an image."""
        captions: dict[str, None] = {}
        for path in self._by_image.get(key, ()):
            skipped.n_rows += 1
            for number, caption in self._captions_in(path, skipped):
                place = f"{path}:{number}" if number else path
                fault = caption_fault(caption)
                if caption.lower() in NULL_WORDS:
                    fault = "empty caption"
                elif caption in captions and number:
                    fault = "duplicate caption"
                if fault:
                    skipped.add(place, key, fault)
                captions.update({} if fault else {caption: None})
        return list(captions)

    def skip_ambiguous(self, skipped: SkippedRows) -> None:
        """Skip files that may belong to several images."""
        for path, owners in self._ambiguous.items():
            skipped.n_rows += 1
            skipped.add_malformed(
                path,
                owners[0],
                f"ambiguous caption file: it may belong to {owners[0]} or {owners[1]}; name it "
                f"{owners[0]}{os.path.splitext(path)[1]}",
            )

    def skip_unread(self, key: str, skipped: SkippedRows) -> None:
        """Skip the files of an image that another file describes."""
        for path in self._by_image.get(key, ()):
            skipped.add(path, key, "caption file beside an image: another file describes it")

    def _captions_in(self, path: str, skipped: SkippedRows) -> list[tuple[int, str]]:
        """Read the captions of a text file, with their line numbers, or of a JSON file."""
        file = self._directory / path
        if not self._follow_links and not file.resolve().is_relative_to(self._directory):
            skipped.add(path, str(file), f"caption file leaves the folder: {FOLLOW_LINKS}")
            return []
        try:
            if (size := file.stat().st_size) > MAX_BYTES:
                reason = f"huge caption file: {size:,} bytes, over {MAX_BYTES:,}"
                skipped.add(path, str(file), reason)
                return []
            if path.lower().endswith(".json"):
                return [(0, caption) for caption in captions_in(json.loads(file.read_bytes()))]
            text = file.read_text(encoding=self._encoding or detect_encoding(file))
            return [(n, line) for n, line in enumerate(map(tidy, text.splitlines()), 1) if line]
        except CellError as error:
            skipped.add(path, str(file), f"caption file without a caption: {error}")
        except (OSError, ValueError, LookupError, RecursionError) as error:
            reason = " ".join(f"caption file cannot be read: {error}".split())[:200]
            skipped.add_malformed(path, str(file), reason)
        return []


def unused_reason(path: str) -> str:
    """Return why a file was not used, and what to do about it."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix in UNREADABLE_IMAGES:
        return UNREADABLE_IMAGES[suffix]
    if not suffix:
        return "file without an extension: if it is an image, add an extension such as .jpg"
    if suffix in _ARCHIVES:
        return "archive: unpack it; tar shards are read by `sieve prepare conceptual-captions`"
    if suffix in _VIDEOS:
        return "video: save frames as images"
    if suffix in (".txt", ".caption"):
        return "text file without an image of the same name: if it holds captions, use --captions"
    if suffix in SUFFIXES:
        return "caption file that is not read: specify it with --captions"
    return f"other file ({suffix[:12]}): not an image"
