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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from sieve.data_prep.captions import caption_fault, split_named, tidy
from sieve.data_prep.captions.cell import CellError, captions_in
from sieve.data_prep.images import UNREADABLE_IMAGES
from sieve.data_prep.records import HASH_SPLIT, Record, SkippedRows
from sieve.data_prep.sources.base import BaseSource
from sieve.data_prep.sources.local_images import ImageNames, may_be_same, open_inside, walk
from sieve.data_prep.sources.sidecars import unused_reason

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

    Parameters
    ----------
    images : Path
        Folder of the photographs, with subfolders.
    captions : sequence of Path
        The official caption files.
    instances : sequence of Path
        The official instance files, for labels.
    splits : Path, optional
        Karpathy's `dataset_coco.json`: train and restval become train, val becomes select, and
        images that it does not name are excluded. By default, splits are assigned by hash.
    name : str
    licence : str
    follow_links : bool
        Also read the targets of links inside the folder, wherever they are.

    Raises
    ------
    FileNotFoundError
        If the folder or a file is missing.
    """

    images: Path
    captions: tuple[Path, ...]
    instances: tuple[Path, ...] = ()
    splits: Path | None = None
    name: str = "coco"
    licence: str = LICENCE
    follow_links: bool = False

    def __post_init__(self) -> None:
        if not self.images.is_dir():
            raise FileNotFoundError(f"there is no folder {self.images}; check --images")
        if not self.captions:
            raise ValueError("no caption file is given; name one or more with --captions")
        given = [("--captions", path) for path in self.captions]
        given += [("--instances", path) for path in self.instances]
        given += [("--splits", self.splits)] if self.splits else []
        for option, path in given:
            if not path.is_file():
                raise FileNotFoundError(f"there is no file {path}; check {option}")
        object.__setattr__(self, "images", self.images.resolve())

    @property
    def root(self) -> Path:
        """Folder that image paths are relative to."""
        return self.images

    def __str__(self) -> str:
        files = ", ".join(str(path.resolve()) for path in (*self.captions, *self.instances))
        return f"COCO images {self.images} with {files}"

    def open_image(self, record: Record, size: int) -> Image.Image:  # noqa: ARG002
        """Open the record's image; see `sieve.data_prep.images.load_image`."""
        return open_inside(self.images, Path(record.image), self.follow_links)

    def _iter_records(self, skipped: SkippedRows) -> Iterator[Record]:
        """Yield all local images, in the order of the caption files."""
        annotated = _read_captions(self.captions, skipped)
        labels = _read_labels(self.instances, annotated.images, skipped)
        splits = _read_splits(self.splits, annotated.images) if self.splits else None
        files = self._find_files(annotated.images, skipped)
        self._report_coverage(annotated.images, files, len(files.keys() & labels.keys()))
        for image_id, entry in annotated.images.items():
            if image_id not in files:
                continue
            if splits is not None and image_id not in splits:
                skipped.add(image_id, entry.name, "not in the splits file")
                continue
            yield Record(
                image_id,
                str(self.images / files[image_id]),
                tuple(annotated.captions.get(image_id, ())),
                tuple(labels.get(image_id, ())),
                HASH_SPLIT if splits is None else splits[image_id],
            )

    def _find_files(self, images: Mapping[str, _Image], skipped: SkippedRows) -> dict[str, str]:
        """Return the path of each local image, by image id.

        An image is found by its `file_name`, else by the end of its `coco_url`, else by the name
        of the same photograph in another release.
        """
        files, linked, others = walk(self.images, follow_links=self.follow_links)
        skipped += linked
        by_name = ImageNames(self.images, files)
        refused = by_name.resolve(dict.fromkeys(image.name for image in images.values())).refused
        found: dict[str, str] = {}
        for image_id, image in images.items():
            if image.name not in refused and by_name.key_of(image.name) in files:
                found[image_id] = by_name.key_of(image.name)
        n_found = len(found)
        self._find_by_url(images, files, found)
        n_by_release = self._find_by_release(images, files, found)
        if by_name.loose:
            log.warning(
                "some image names differ from the files in %s; matched if only one fits: %s",
                *(self.images, tidy(by_name.describe_loose())),
            )
        if n_by_url := len(found) - n_found - n_by_release:
            log.warning("%s images were found by their coco_url", f"{n_by_url:,}")
        if n_by_release:
            log.warning(
                "%s images were found by their name in another release", f"{n_by_release:,}"
            )
        for image_id, image in images.items():
            if image_id in found:
                continue
            if image.name in refused:
                skipped.add_malformed(image_id, image.name, refused[image.name])
            else:
                skipped.add(image_id, image.name, "not in the folder of images")
        used = set(found.values())
        for key, path in files.items():
            if key not in used:
                skipped.add(key, str(self.images / path), "image not named in any caption file")
        for path in others:
            if os.path.splitext(path)[1].lower() in UNREADABLE_IMAGES:
                skipped.add(path, str(self.images / path), unused_reason(path))
        return {image_id: files[key] for image_id, key in found.items()}

    def _find_by_url(
        self, images: Mapping[str, _Image], files: Mapping[str, str], found: dict[str, str]
    ) -> None:
        """Find images by the last folder and the name in their URL."""
        urls = {i: image.url for i, image in images.items() if i not in found and image.url}
        names = ImageNames(self.images, files)
        refused = names.resolve(dict.fromkeys(urls.values())).refused
        used = set(found.values())
        for image_id, url in urls.items():
            key = names.key_of(url)
            if url not in refused and key in files and key not in used:
                found[image_id] = key

    def _find_by_release(
        self, images: Mapping[str, _Image], files: Mapping[str, str], found: dict[str, str]
    ) -> int:
        """Find official photographs by their name in another release, and return their number."""
        by_number: dict[str, list[str]] = {}
        for key in files:
            if name := _RELEASE_NAME.fullmatch(posixpath.basename(key)):
                by_number.setdefault(str(int(name[1])), []).append(key)
        used = set(found.values())
        n_found = 0
        for image_id, image in images.items():
            name = _RELEASE_NAME.fullmatch(posixpath.basename(image.name))
            keys = by_number.get(image_id, [])
            if image_id in found or name is None or str(int(name[1])) != image_id:
                continue
            if len(keys) == 1 and keys[0] not in used:
                found[image_id] = keys[0]
                n_found += 1
        return n_found

    def _report_coverage(
        self, images: Mapping[str, _Image], files: Mapping[str, str], n_labelled: int
    ) -> None:
        """Log how many of the images are local, and raise an error if none is."""
        n_named, n_found = len(images), len(files)
        if not n_found:
            first = f"; it names {next(iter(images.values())).name[:100]!r}" if images else ""
            raise ValueError(
                f"none of the {n_named:,} images that {self.captions[0]} names is in "
                f"{self.images}; check --images{first}"
            )
        labelled = f"; {n_labelled:,} of them have labels" if self.instances else ""
        if n_found < n_named:
            log.warning(
                "%s of %s images are in %s%s; skipped.csv lists the other %s",
                *(f"{n_found:,}", f"{n_named:,}", self.images, labelled, f"{n_named - n_found:,}"),
            )
        elif n_labelled < n_found and self.instances:
            log.warning("all %s images are in %s%s", f"{n_found:,}", self.images, labelled)


class _Image(NamedTuple):
    """An image's entry in an annotation file."""

    name: str
    """The `file_name`, else the end of `coco_url`."""
    url: str
    """The last folder and the name in `coco_url`, or empty."""
    size: tuple[Any, Any]
    """Width and height, or None."""
    file: str
    """The annotation file."""

    def may_be(self, other: _Image) -> bool:
        """Return whether two entries with one id may describe the same image."""
        sizes = [size for size in (self.size, other.size) if None not in size]
        if len(sizes) == 2 and sizes[0] != sizes[1]:
            return False
        ours, theirs = (posixpath.basename(image.name) for image in (self, other))
        both = _RELEASE_NAME.fullmatch(ours), _RELEASE_NAME.fullmatch(theirs)
        if both[0] and both[1]:
            return both[0][1] == both[1][1]
        return may_be_same(self.name, other.name)


class _Annotations(NamedTuple):
    """The content of caption files."""

    images: dict[str, _Image]
    """By id."""
    captions: dict[str, dict[str, None]]
    """Distinct captions by image id, in file order."""


def _read_captions(paths: Sequence[Path], skipped: SkippedRows) -> _Annotations:
    annotated = _Annotations({}, {})
    ambiguous: set[str] = set()
    for path in paths:
        parts = _read(path, ("images", "annotations"))
        annotations = parts["annotations"]
        objects = [entry for entry in annotations if isinstance(entry, dict)]
        if objects and not any("caption" in entry for entry in objects):
            raise ValueError(
                f"no annotation of {path} has a caption; give instance files with --instances"
            )
        for place, entry in enumerate(parts["images"]):
            skipped.n_rows += 1
            key = f"{path.name}:images[{place}]"
            image_id, image = _id(entry, "id"), _image(entry, path)
            if image_id is None or image is None:
                skipped.add_malformed(key, "", "an image without an id and a file_name")
                continue
            known = annotated.images.setdefault(image_id, image)
            if known is not image and not known.may_be(image):
                ambiguous.add(image_id)
                skipped.add_malformed(
                    key, image.name,
                    f"ambiguous image id: {image_id} is {known.name[:200]} in {known.file} and "
                    f"{image.name[:200]} in {image.file}; prepare the files separately",
                )  # fmt: skip
        for place, entry in enumerate(annotations):
            skipped.n_rows += 1
            _read_caption(f"{path.name}:annotations[{place}]", entry, annotated, skipped)
    for image_id in ambiguous:
        annotated.images.pop(image_id)
        annotated.captions.pop(image_id, None)
    return annotated


def _read_caption(key: str, entry: Any, annotated: _Annotations, skipped: SkippedRows) -> None:
    """Add the captions of one annotation."""
    image_id = _id(entry, "image_id")
    if image_id is None or image_id not in annotated.images:
        skipped.add(key, "", "caption of an image that is not in the file")
        return
    name = annotated.images[image_id].name
    try:
        captions = captions_in(entry.get("caption"))
    except CellError as error:
        skipped.add_malformed(key, name, f"caption cannot be read: {error}")
        return
    known = annotated.captions.setdefault(image_id, {})
    for caption in captions or [""]:
        fault = "duplicate caption" if caption in known else caption_fault(caption)
        if fault:
            skipped.add(key, name, fault)
        else:
            known[caption] = None


def _read_labels(
    paths: Sequence[Path], images: Mapping[str, _Image], skipped: SkippedRows
) -> dict[str, list[str]]:
    """Return the sorted categories and supercategories of each image in instance files."""
    found: dict[str, set[str]] = {}
    others: set[str] = set()
    for path in paths:
        parts = _read(path, ("images", "annotations", "categories"))
        named: dict[str, set[str]] = {}
        for entry in parts["categories"]:
            category = _id(entry, "id")
            names = (_text(entry, field) for field in ("name", "supercategory"))
            if category is not None:
                named[category] = {tidy(name) for name in names if name and tidy(name)}
        for place, entry in enumerate(parts["images"]):
            skipped.n_rows += 1
            image_id, image = _id(entry, "id"), _image(entry, path)
            if image_id is None:
                continue
            known = images.get(image_id)
            if known is not None and image is not None and not known.may_be(image):
                others.add(image_id)
                skipped.add_malformed(
                    f"{path.name}:images[{place}]", image.name,
                    f"ambiguous image id: {image_id} is {image.name[:200]} in {path.name} and "
                    f"{known.name[:200]} in {known.file}; its labels are ignored",
                )  # fmt: skip
            found.setdefault(image_id, set())  # annotated, perhaps without any category
        for place, entry in enumerate(parts["annotations"]):
            skipped.n_rows += 1
            image_id, category = _id(entry, "image_id"), _id(entry, "category_id")
            if image_id is None or category not in named:
                reason = f"unknown category {category}"
                skipped.add(f"{path.name}:annotations[{place}]", str(image_id), reason)
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


def _read(path: Path, lists: Sequence[str]) -> dict[str, list[Any]]:
    """Parse an annotation file, and check that it has these lists.

    Raises
    ------
    ValueError
        If it is not JSON, or one of them is missing.
    """
    try:
        value = json.loads(path.read_bytes(), object_hook=_drop_unused_fields)
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ValueError(f"{path} is not JSON: {reason}; download it again") from None
    for name in lists:
        if not isinstance(value, dict) or not isinstance(value.get(name), list):
            raise ValueError(
                f"{path} has no list {name!r}; expected COCO's own JSON file (for Karpathy's file "
                "and other layouts, use --splits, or `sieve prepare folder --captions`)"
            )
    return value


def _drop_unused_fields(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: entry[key] for key in entry.keys() & _FIELDS}


def _image(entry: Any, path: Path) -> _Image | None:
    """Parse an entry of `images`; None if it names no file."""
    url = "/".join(_text(entry, "coco_url").split("/")[-2:])
    name = _text(entry, "file_name") or url
    if not name:
        return None
    return _Image(name, url, (entry.get("width"), entry.get("height")), path.name)


def _id(entry: Any, name: str) -> str | None:
    """Return a field that should be an id, an integer or a text; None if it is not."""
    value = entry.get(name) if isinstance(entry, dict) else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    return str(value).strip() or None


def _text(entry: Any, name: str) -> str:
    """Return a field that should be a text; empty if it is not."""
    value = entry.get(name) if isinstance(entry, dict) else None
    return value if isinstance(value, str) else ""
