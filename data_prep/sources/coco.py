"""MSCOCO and data sets in its format: captions, categories, and images that may be missing.

An image's key is its id, the same in the releases of 2014 and 2017. Its labels are its categories
and their supercategories. As a supercategory occurs with each of its categories, the benchmark
detects that it is their hypernym, and never combines them in a query.
"""

from __future__ import annotations

import json
import logging
import os
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

from sieve.data_prep.captions.caption_text import CellError, captions_in, split_named, tidy
from sieve.data_prep.images import UNREADABLE_IMAGES
from sieve.data_prep.records import HASH_SPLIT, Record, SkippedRows
from sieve.data_prep.sources import BaseSource, require_file, require_folder, usable_captions
from sieve.data_prep.sources.local_images import ImageNames, may_be_same, walk
from sieve.model.files import reason_of

log = logging.getLogger(__name__)

LICENCE = "COCO annotations CC BY 4.0; images under the licences of their Flickr authors"
# Other fields, in particular polygons, are dropped while the JSON is parsed.
_FIELDS = frozenset(
    ("images", "annotations", "categories", "id", "image_id", "category_id", "caption", "name",
     "supercategory", "file_name", "coco_url", "width", "height", "cocoid", "filename", "split",
     "raw", "text", "sentences")
)  # fmt: skip
# One release names a photograph 000000000139.jpg, another COCO_val2014_000000000139.jpg.
_RELEASE_NAME = re.compile(r"(?:COCO_(?:train|val|test)\d{4}_)?(\d{12})\.jpg")


@dataclass(frozen=True)
class Coco(BaseSource):
    """The local images that caption files in COCO's format describe.

    Raise FileNotFoundError if the folder or a file is missing.
    """

    root: Path
    """Folder of the photographs, with subfolders."""
    captions: tuple[Path, ...]
    """The official caption files."""
    instances: tuple[Path, ...] = ()
    """The official instance files, for labels."""
    splits: Path | None = None
    """Karpathy's `dataset_coco.json`: train and restval become train, val becomes select, and
    images that it does not name are excluded. By default, splits are assigned by hash."""
    _: KW_ONLY
    name: str = "coco"
    licence: str = LICENCE
    follow_links: bool | None = False

    def __post_init__(self) -> None:
        require_folder(self.root, "check --images")
        if not self.captions:
            raise ValueError("no caption file is given; name one or more with --captions")
        splits = (self.splits,) if self.splits else ()
        files = {"captions": self.captions, "instances": self.instances, "splits": splits}
        for option, paths in files.items():
            for path in paths:
                require_file(path, f"check --{option}")
        vars(self).update(root=self.root.resolve())

    def __str__(self) -> str:
        files = ", ".join(str(path.resolve()) for path in (*self.captions, *self.instances))
        return f"COCO images {self.root} with {files}"

    def _iter_records(self, skipped: SkippedRows) -> Iterator[Record]:
        images = _read_captions(self.captions, skipped)
        labels = _read_labels(self.instances, images, skipped)
        splits = _read_splits(self.splits, images) if self.splits else None
        files = self._find_files(images, skipped)
        self._report_coverage(images, len(files), len(files.keys() & labels.keys()))
        for image_id, path in files.items():
            image, named = images[image_id], tuple(labels.get(image_id, ()))
            split = HASH_SPLIT if splits is None else splits.get(image_id)
            if split is None:
                skipped.add(image_id, image.name, "not in the splits file")
            else:
                yield Record(image_id, str(self.root / path), tuple(image.captions), named, split)

    def _find_files(self, images: Mapping[str, _Image], skipped: SkippedRows) -> dict[str, str]:
        """Return the path of each local image, by image id, in the order of the images.

        An image is found by its `file_name`, else by the end of its `coco_url`, else by the name
        of the same photograph in another release.
        """
        files, linked, others = walk(self.root, follow_links=self.follow_links)
        skipped += linked
        by_name = ImageNames(self.root, files)
        found = _matched(by_name, {i: image.name for i, image in images.items()}, {})
        by_name.warn_about_loose("the caption files")
        urls = {i: image.url for i, image in images.items() if i not in found and image.url}
        by_url = _matched(ImageNames(self.root, files), urls, found)
        by_release = _found_by_release(images, files.values(), found | by_url)
        for more, how in ((by_url, "coco_url"), (by_release, "name in another release")):
            found |= more
            if more:
                log.warning("%s images were found by their %s", f"{len(more):,}", how)
        for image_id, image in images.items():
            if image_id not in found and image.name in by_name.refused:
                skipped.add_malformed(image_id, image.name, by_name.refused[image.name])
            elif image_id not in found:
                skipped.add(image_id, image.name, "not in the folder of images")
        used = set(found.values())
        for key, path in files.items():
            if path not in used:
                skipped.add(key, str(self.root / path), "image not named in any caption file")
        for path in others:
            if reason := UNREADABLE_IMAGES.get(os.path.splitext(path)[1].lower()):
                skipped.add(path, str(self.root / path), reason)
        return {image_id: found[image_id] for image_id in images if image_id in found}

    def _report_coverage(self, images: Mapping[str, _Image], n_found: int, n_labelled: int) -> None:
        """Log how many of the images are local; raise ValueError if none is."""
        if not n_found:
            first = f"; it names {next(iter(images.values())).name[:100]!r}" if images else ""
            raise ValueError(
                f"none of the {len(images):,} images that {self.captions[0]} names is in "
                f"{self.root}; check --images{first}"
            )
        labelled = f"; {n_labelled:,} of them have labels" if self.instances else ""
        if n_missing := len(images) - n_found:
            count = f"{n_found:,} of {len(images):,} images are in {self.root}{labelled}"
            log.warning("%s; skipped.csv lists the other %s", count, f"{n_missing:,}")
        elif n_labelled < n_found and self.instances:
            log.warning("all %s images are in %s%s", f"{n_found:,}", self.root, labelled)


def _matched(
    names: ImageNames, wanted: Mapping[str, str], found: Mapping[str, str]
) -> dict[str, str]:
    """Return the path of each image whose name fits a file that no image has yet, by image id."""
    names.resolve(dict.fromkeys(wanted.values()))
    used = set(found.values())
    paths = {image_id: names.path_of(name) for image_id, name in wanted.items()}
    return {i: path for i, path in paths.items() if path is not None and path not in used}


def _found_by_release(
    images: Mapping[str, _Image], paths: Iterable[str], found: Mapping[str, str]
) -> dict[str, str]:
    """Return the path of each official photograph by its name in another release, by image id."""
    by_number: dict[str | None, list[str]] = {}
    for path in paths:
        by_number.setdefault(_release_number(path), []).append(path)
    used = set(found.values())
    wanted = [i for i in images if i not in found and _release_number(images[i].name) == i]
    candidates = {i: by_number[i] for i in wanted if i in by_number}
    return {i: one for i, (one, *more) in candidates.items() if not more and one not in used}


def _release_number(path: str) -> str | None:
    """Return the image id in the name of an official photograph; None for any other name."""
    found = _RELEASE_NAME.fullmatch(posixpath.basename(path))
    return str(int(found[1])) if found else None


@dataclass
class _Image:
    """An image's entry in an annotation file."""

    name: str
    """The `file_name`, else the end of `coco_url`."""
    url: str
    """The last folder and the name in `coco_url`, or empty."""
    size: tuple[Any, Any]
    """Width and height, or None."""
    file: str
    """The annotation file."""
    captions: dict[str, None] = field(default_factory=dict)
    """Distinct captions, in file order."""

    def may_be(self, other: _Image) -> bool:
        """Return whether two entries with one id may describe the same image."""
        if None not in (*self.size, *other.size) and self.size != other.size:
            return False
        ours, theirs = _release_number(self.name), _release_number(other.name)
        return ours == theirs if ours and theirs else may_be_same(self.name, other.name)

    def conflict(self, image_id: str, other: _Image) -> str:
        """Return the message that two entries with one id describe different images."""
        both = (f"{image.name[:200]} in {image.file}" for image in (self, other))
        return f"ambiguous image id: {image_id} is {' and '.join(both)}"


def _read_captions(paths: Sequence[Path], skipped: SkippedRows) -> dict[str, _Image]:
    """Return the images of caption files by id, with their captions."""
    images: dict[str, _Image] = {}
    ambiguous: set[str] = set()
    for path in paths:
        lists = _read(path, ("images", "annotations"))
        objects = [entry for entry in lists["annotations"] if isinstance(entry, dict)]
        if objects and not any("caption" in entry for entry in objects):
            raise ValueError(
                f"no annotation of {path} has a caption; give instance files with --instances"
            )
        for key, entry in _numbered(path, "images", lists, skipped):
            image_id, image = _id(entry, "id"), _image(entry, path)
            if image_id is None or image is None:
                skipped.add_malformed(key, "", "an image without an id and a file_name")
            elif not (known := images.setdefault(image_id, image)).may_be(image):
                ambiguous.add(image_id)
                reason = f"{known.conflict(image_id, image)}; prepare the files separately"
                skipped.add_malformed(key, image.name, reason)
        for key, entry in _numbered(path, "annotations", lists, skipped):
            image = images.get(_id(entry, "image_id") or "")
            if image is None:
                skipped.add(key, "", "caption of an image that is not in the file")
                continue
            try:
                captions = captions_in(entry.get("caption"))
            except CellError as error:
                skipped.add_malformed(key, image.name, f"caption cannot be read: {error}")
                continue
            kept = usable_captions([*image.captions, *(captions or [""])], key, image.name, skipped)
            image.captions = dict.fromkeys(kept)
    return {image_id: image for image_id, image in images.items() if image_id not in ambiguous}


def _read_labels(
    paths: Sequence[Path], images: Mapping[str, _Image], skipped: SkippedRows
) -> dict[str, list[str]]:
    """Return the sorted categories and supercategories of each image in instance files."""
    found: dict[str, set[str]] = {}
    others: set[str] = set()
    for path in paths:
        lists = _read(path, ("images", "annotations", "categories"))
        named: dict[str | None, set[str]] = {}
        for entry in lists["categories"]:
            names = (tidy(_text(entry, field)) for field in ("name", "supercategory"))
            named[_id(entry, "id")] = set(filter(None, names))
        named.pop(None, None)
        for key, entry in _numbered(path, "images", lists, skipped):
            image_id, image = _id(entry, "id"), _image(entry, path)
            if image_id is None:
                continue
            known = images.get(image_id)
            if known is not None and image is not None and not known.may_be(image):
                others.add(image_id)
                reason = f"{image.conflict(image_id, known)}; its labels are ignored"
                skipped.add_malformed(key, image.name, reason)
            found.setdefault(image_id, set())  # annotated, perhaps without any category
        for key, entry in _numbered(path, "annotations", lists, skipped):
            image_id, category = _id(entry, "image_id"), _id(entry, "category_id")
            if image_id is None or category not in named:
                skipped.add(key, str(image_id), f"unknown category {category}")
            else:
                found.setdefault(image_id, set()).update(named[category])
    return {i: sorted(labels) for i, labels in found.items() if i not in others}


def _read_splits(path: Path, images: Mapping[str, _Image]) -> dict[str, str]:
    """Return the split of each image in Karpathy's file, by COCO id."""
    splits: dict[str, str] = {}
    for place, entry in enumerate(_read(path, ("images",))["images"]):
        image_id, split_name = _id(entry, "cocoid"), _text(entry, "split")
        split = split_named(split_name)
        if image_id is None or split is None:
            raise ValueError(
                f"{path}: images[{place}] has cocoid {image_id} and split {tidy(split_name)[:40]!r}"
                "; expected Karpathy's dataset_coco.json, with train, restval, val or test"
            )
        name, known = _text(entry, "filename"), images.get(image_id)
        if name and known and not known.may_be(_Image(name, "", (None, None), path.name)):
            raise ValueError(
                f"{path}: cocoid {image_id} is {name[:200]}, but {known.name[:200]} in "
                f"{known.file}; they are of different data sets"
            )
        splits[image_id] = split
    return splits


def _numbered(
    path: Path, name: str, lists: Mapping[str, list[Any]], skipped: SkippedRows
) -> Iterator[tuple[str, Any]]:
    """Yield the entries of a list, each with its key for `skipped`, and count them as rows."""
    for place, entry in enumerate(lists[name]):
        skipped.n_rows += 1
        yield f"{path.name}:{name}[{place}]", entry


def _read(path: Path, lists: Sequence[str]) -> dict[str, list[Any]]:
    """Parse an annotation file; raise ValueError unless it has these lists."""

    def without_unused(entry: dict[str, Any]) -> dict[str, Any]:
        return {key: entry[key] for key in entry.keys() & _FIELDS}

    try:
        value = json.loads(path.read_bytes(), object_hook=without_unused)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {reason_of(error)}; download it again") from None
    for name in lists:
        if not isinstance(value, dict) or not isinstance(value.get(name), list):
            raise ValueError(
                f"{path} has no list {name!r}; expected COCO's own JSON file (for Karpathy's file "
                "and other layouts, use --splits, or `sieve prepare folder --captions`)"
            )
    return value


def _image(entry: Any, path: Path) -> _Image | None:
    """Parse an entry of `images`; None if it names no file."""
    url = "/".join(_text(entry, "coco_url").split("/")[-2:])
    if name := _text(entry, "file_name") or url:
        return _Image(name, url, (entry.get("width"), entry.get("height")), path.name)
    return None


def _id(entry: Any, name: str) -> str | None:
    """Return a field that should be an id, an integer or a text; None if it is not."""
    value = entry.get(name) if isinstance(entry, dict) else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    is_id = isinstance(value, int | str) and not isinstance(value, bool)
    return str(value).strip() or None if is_id else None


def _text(entry: Any, name: str) -> str:
    """Return a field that should be a text; empty if it is not."""
    value = entry.get(name) if isinstance(entry, dict) else None
    return value if isinstance(value, str) else ""
