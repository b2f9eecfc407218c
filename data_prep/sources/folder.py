"""A folder of images, with a caption file, caption files beside the images, or no captions."""

from __future__ import annotations

import heapq
import json
import logging
import os
import posixpath
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from sieve.data_prep.captions.caption_table import (
    CaptionsByImage,
    CaptionTableBuilder,
    read_captions,
)
from sieve.data_prep.captions.caption_text import (
    NULL_WORDS,
    CaptionRow,
    CellError,
    Columns,
    ImageDescription,
    caption_fault,
    captions_in,
    split_named,
    tidy,
)
from sieve.data_prep.captions.formats import SUFFIXES, detect_encoding, read_rows
from sieve.data_prep.images import UNREADABLE_IMAGES
from sieve.data_prep.records import Record, SkippedRows
from sieve.data_prep.sources import BaseSource, require_file, require_folder
from sieve.data_prep.sources.local_images import FOLLOW_LINKS, ImageNames, walk
from sieve.model.files import reason_of

log = logging.getLogger(__name__)

_METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
_MAX_SPLIT_DEPTH = 4
_SIDECAR_SUFFIXES = (".txt", ".caption", ".json")
_MAX_SIDECAR_BYTES = 1 << 20
_UNUSED_REASONS = {
    **dict.fromkeys(SUFFIXES, "caption file that is not read: specify it with --captions"),
    **dict.fromkeys(
        (".txt", ".caption"),
        "text file without an image of the same name: if it holds captions, use --captions",
    ),
    **dict.fromkeys(
        (".tar", ".gz", ".tgz", ".zip", ".7z", ".rar", ".bz2", ".xz", ".zst"),
        "archive: unpack it; tar shards are read by `sieve prepare conceptual-captions`",
    ),
    **dict.fromkeys(
        (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".3gp"),
        "video: save frames as images",
    ),
    "": "file without an extension: if it is an image, add an extension such as .jpg",
    **UNREADABLE_IMAGES,
}
"""Advice on files that were not used, by extension."""


@dataclass(frozen=True)
class Folder(BaseSource):
    """All images of a folder and its subfolders.

    An image's key is its path inside the folder, with forward slashes. A missing image that only
    the caption file or `only` names is a record too, so that it is reported. Files that are not
    used are skipped with the reason. By default the name is the folder's. Raise FileNotFoundError
    if the folder or a file is missing.
    """

    root: Path
    captions: Path | None = None
    """See `sieve.data_prep.captions.formats`. It names images by their path inside `root`; other
    names are matched if that is unique, see `ImageNames`. Without it, `metadata.jsonl`,
    `metadata.csv` or `metadata.parquet` in a folder describe its images (Hugging Face's
    `imagefolder`), else caption files beside the images, see `Sidecars`."""
    columns: Columns = Columns()
    only: Path | None = None
    """A text file with an image name on each line; all other images are excluded."""
    _: KW_ONLY
    follow_links: bool | None = False

    def __post_init__(self) -> None:
        if self.root.is_file():
            raise NotADirectoryError(
                f"{self.root} is a file; give the folder that holds the images"
                " (for tar and Parquet shards: `sieve prepare conceptual-captions`)"
            )
        require_folder(self.root, "give the folder that holds the images")
        for option, path in (("captions", self.captions), ("only", self.only)):
            if path is not None:
                require_file(path, f"check --{option}")
        root = self.root.resolve()
        vars(self).update(root=root, name=self.name or root.name)

    def __str__(self) -> str:
        described = f" with captions {self.captions.resolve()}" if self.captions else ""
        return f"folder {self.root}{described}"

    def _iter_records(self, skipped: SkippedRows) -> Iterator[Record]:
        files, linked, unused = walk(self.root, follow_links=self.follow_links)
        skipped += linked
        others = dict.fromkeys(unused)
        for path in filter(None, (self.captions, self.only)):
            others.pop(os.path.relpath(path, self.root).replace(os.sep, "/"), None)
        names = ImageNames(self.root, files)
        if self.captions is not None:
            table = read_captions(self.captions, self.columns, names.resolve)
            sidecars = Sidecars(self, {}, others)
        else:
            table = self._read_metadata(others, names, skipped)
            sidecars = Sidecars(self, files, others)
        others = dict.fromkeys(sidecars.unused)
        sidecars.skip_ambiguous(skipped)
        wanted = self._wanted(files, skipped)
        if table is not None:
            self._check(names, table, files)
            skipped.count_rows(table.skipped)
            skipped += (
                one for one in table.skipped
                if wanted is None or not one.image or names.key_of(one.image) in wanted
            )  # fmt: skip
        split_of = _folder_splits(files)
        n_images = n_undescribed = 0
        for key, number in _merged(files if wanted is None else wanted, table):
            if wanted is not None and key not in wanted:
                continue
            path = files.get(key, key)
            others.pop(path, None)
            if table is not None and number is not None:
                description = table.describe(number)
                sidecars.skip_unread(key, skipped)
            else:
                description = ImageDescription(sidecars.read(key, skipped))
                n_undescribed += table is not None and not description.captions
            n_images += 1
            yield description.record(key, str(self.root / path), split_of(key))
        if wanted is None:
            for path in others:
                suffix = os.path.splitext(path)[1].lower()
                other = f"other file ({suffix[:12]}): not an image"
                skipped.add(path, str(self.root / path), _UNUSED_REASONS.get(suffix, other))
        if n_undescribed:
            count = f"{n_undescribed:,} of {n_images:,}"
            log.warning("%s images have no row in %s, and no captions", count, self._described_by())

    def leaves(self, path: str, skipped: SkippedRows) -> bool:
        """Skip a caption file that must not be read because it links out of the folder."""
        file = self.root / path
        leaves = not self.follow_links and not file.resolve().is_relative_to(self.root)
        if leaves:
            skipped.add(path, str(file), f"caption file leaves the folder: {FOLLOW_LINKS}")
        return leaves

    def _read_metadata(
        self, others: dict[str, None], names: ImageNames, skipped: SkippedRows
    ) -> CaptionsByImage | None:
        """Read Hugging Face's metadata files, each of which describes the images of its folder."""
        builder = CaptionTableBuilder("")
        for path in [one for one in others if posixpath.basename(one) in _METADATA]:
            others.pop(path)
            builder.next_file(path)
            for row in self._metadata_rows(path, builder, skipped):
                inside = posixpath.join(posixpath.dirname(path), row.image) if row.image else ""
                builder.add(row._replace(image=inside))
        table = builder.build(names.resolve)
        return table if len(table) or table.skipped else None

    def _metadata_rows(
        self, path: str, builder: CaptionTableBuilder, skipped: SkippedRows
    ) -> Iterator[CaptionRow]:
        try:
            if not self.leaves(path, skipped):
                yield from read_rows(self.root / path, self.columns, builder.add_malformed)
        except ValueError as error:
            skipped.add(path, str(self.root / path), f"caption file not read: {error}")

    def _wanted(self, files: Mapping[str, str], skipped: SkippedRows) -> set[str] | None:
        """Return the keys of the images that `only` names; None for all images."""
        if self.only is None:
            return None
        try:
            text = self.only.read_text(encoding=detect_encoding(self.only))
        except UnicodeError as error:
            raise ValueError(f"{self.only} is not UTF-8 ({error}); save it as UTF-8") from None
        lines = dict.fromkeys(filter(None, map(str.strip, text.splitlines())))
        names = ImageNames(self.root, files)
        _, refused = names.resolve(lines)
        skipped.n_rows += len(lines)
        for name, reason in refused.items():
            skipped.add_malformed(f"{self.only.name}: {name}"[:200], name, reason)
        return {names.key_of(name) for name in lines if name not in refused}

    def _check(self, names: ImageNames, table: CaptionsByImage, files: Mapping[str, str]) -> None:
        """Report names that are not paths, and reject a table that names no image of the folder."""
        names.warn_about_loose(self._described_by())
        there = (key in files or os.path.isfile(self.root / key) for key in table)
        if len(table) and files and not any(there):
            first, held = next(iter(table)), next(iter(files))
            raise ValueError(
                f"none of the {len(table):,} images that {self._described_by()} names is in "
                f"{self.root}: it names {tidy(first)[:100]!r}, the folder holds "
                f"{tidy(held)[:100]!r}; give the folder that the names are relative to, or name "
                "the column with --image-column"
            )

    def _described_by(self) -> str:
        return self.captions.name if self.captions is not None else "metadata files"


class Sidecars:
    """The caption files beside the images of a folder: `a.txt`, `a.caption` or `a.json`.

    A file belongs to the image of the same name without its extension (`a.txt` and `a.jpg`), or
    with it (`a.jpg.txt`). If several images match, it belongs to none. `unused` lists the files
    that belong to no image.
    """

    def __init__(self, folder: Folder, files: Mapping[str, str], others: Iterable[str]) -> None:
        self._folder = folder
        self._by_image: defaultdict[str, list[str]] = defaultdict(list)
        self._ambiguous: dict[str, list[str]] = {}
        self.unused: list[str] = []
        stems = {os.path.splitext(path)[0] for path in others if _is_sidecar(path)}
        by_path: dict[str, list[str]] = {}
        by_stem: defaultdict[str, list[str]] = defaultdict(list)
        for key, path in files.items() if stems else ():
            stem = os.path.splitext(path)[0]
            if path in stems:
                by_path[path] = [key]
            if stem in stems:
                by_stem[stem].append(key)
        for path in others:
            stem = os.path.splitext(path)[0]
            owners = by_path.get(stem) or by_stem.get(stem, [])
            if not owners or not _is_sidecar(path):
                self.unused.append(path)
            elif len(owners) > 1:
                self._ambiguous[path] = owners
            else:
                self._by_image[owners[0]].append(path)
        for paths in self._by_image.values():
            paths.sort(key=lambda path: _SIDECAR_SUFFIXES.index(os.path.splitext(path)[1].lower()))

    def read(self, key: str, skipped: SkippedRows) -> list[str]:
        """Return the distinct captions of an image."""
        captions: dict[str, None] = {}
        for path in self._by_image.get(key, ()):
            skipped.n_rows += 1
            for number, caption in self._captions_in(path, skipped):
                fault = caption_fault(caption)
                if caption.lower() in NULL_WORDS:
                    fault = "empty caption"
                elif caption in captions and number:
                    fault = "duplicate caption"
                if fault:
                    skipped.add(f"{path}:{number}" if number else path, key, fault)
                else:
                    captions[caption] = None
        return list(captions)

    def skip_ambiguous(self, skipped: SkippedRows) -> None:
        """Skip files that may belong to several images."""
        for path, (first, second, *_) in self._ambiguous.items():
            skipped.n_rows += 1
            reason = f"ambiguous caption file: it may belong to {first} or {second}; name it"
            skipped.add_malformed(path, first, f"{reason} {first}{os.path.splitext(path)[1]}")

    def skip_unread(self, key: str, skipped: SkippedRows) -> None:
        """Skip the files of an image that another file describes."""
        for path in self._by_image.get(key, ()):
            skipped.add(path, key, "caption file beside an image: another file describes it")

    def _captions_in(self, path: str, skipped: SkippedRows) -> list[tuple[int, str]]:
        """Read the captions of a text file, with their line numbers, or of a JSON file."""
        file = self._folder.root / path
        if self._folder.leaves(path, skipped):
            return []
        try:
            if (size := file.stat().st_size) > _MAX_SIDECAR_BYTES:
                reason = f"huge caption file: {size:,} bytes, over {_MAX_SIDECAR_BYTES:,}"
                skipped.add(path, str(file), reason)
            elif path.lower().endswith(".json"):
                return [(0, caption) for caption in captions_in(json.loads(file.read_bytes()))]
            else:
                encoding = self._folder.columns.encoding or detect_encoding(file)
                lines = map(tidy, file.read_text(encoding=encoding).splitlines())
                return [(n, line) for n, line in enumerate(lines, 1) if line]
        except CellError as error:
            skipped.add(path, str(file), f"caption file without a caption: {error}")
        except (OSError, ValueError, LookupError, RecursionError) as error:
            reason = f"caption file cannot be read: {reason_of(error)}"
            skipped.add_malformed(path, str(file), reason)
        return []


def _is_sidecar(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in _SIDECAR_SUFFIXES


def _folder_splits(files: Iterable[str]) -> Callable[[str], str]:
    """Return a function that maps keys to splits, for a folder with split subfolders.

    It returns "" for all keys unless all images are in at least two folders named after splits.
    """
    for depth in range(_MAX_SPLIT_DEPTH):
        distinct = {_folder_at(key, depth) for key in files}
        splits = {name: split_named(name) or "" for name in distinct}
        if "" not in splits.values() and len(set(splits.values())) > 1:
            log.warning("using the folders %s as splits", ", ".join(sorted(distinct)))
            return lambda key, depth=depth: splits.get(_folder_at(key, depth), "")
        if len(distinct) != 1:
            break
    return lambda _: ""


def _folder_at(key: str, depth: int) -> str:
    *folders, _ = key.split("/", depth + 1)
    return folders[depth] if len(folders) > depth else ""


def _merged(keys: Iterable[str], table: CaptionsByImage | None) -> Iterator[tuple[str, int | None]]:
    """Yield the sorted union of the keys, each with its number in the table."""
    described = table.sorted_keys() if table is not None else ()
    both = heapq.merge(((key, None) for key in sorted(keys)), described, key=itemgetter(0))
    for key, group in groupby(both, key=itemgetter(0)):
        yield key, next((number for _, number in group if number is not None), None)
