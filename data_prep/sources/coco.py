"""MSCOCO as it is published: captions, categories and images, of which any part may be there.

An image's key is its number, the same in the releases of 2014 and 2017. Its labels are its
categories with their supercategories; as a supercategory comes with each of its own categories, the
benchmark sees that the one is a kind of the other, and never asks for both.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from sieve.data_prep.captions import caption_fault, split_named, tidy
from sieve.data_prep.records import DRAWN, Record
from sieve.data_prep.skipped import Skipped
from sieve.data_prep.sources.image_files import open_inside, walk
from sieve.data_prep.sources.noting import NotesSkipped

log = logging.getLogger(__name__)

LICENCE = "COCO annotations CC BY 4.0; images under the licences of their Flickr authors"
# What is read of an annotation file: its polygons, which are most of it, are dropped in parsing.
_FIELDS = frozenset(
    ("images", "annotations", "categories", "id", "image_id", "category_id", "caption", "name",
     "supercategory", "file_name", "cocoid", "split")
)  # fmt: skip
_LAST_NUMBER = re.compile(r"(\d{1,18})\D*$")


@dataclass(frozen=True)
class Coco(NotesSkipped):
    """Images that COCO's caption files describe and that are on this disk.

    Parameters
    ----------
    images : Path
        Folder of the photographs, with subfolders.
    captions : sequence of Path
        The official caption files.
    instances : sequence of Path
        The official instance files, for labels.
    splits : Path, optional
        Karpathy's `dataset_coco.json`: its train and restval train, its val selects, its test
        tests, and what it does not name stays out. Without it splits are drawn by image id.
    name : str
    licence : str

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

    def __str__(self) -> str:
        files = ", ".join(str(path.resolve()) for path in (*self.captions, *self.instances))
        return f"COCO images {self.images} with {files}"

    def open_image(self, record: Record, size: int) -> Image.Image:  # noqa: ARG002
        """Open the record's image; see `sieve.data_prep.images.load_image`."""
        return open_inside(self.images, Path(record.image))

    def _find(self, skipped: list[Skipped]) -> Iterator[Record]:
        """All images that are here, in the order of the caption files."""
        told = _read_captions(self.captions, skipped)
        labels = _read_labels(self.instances, skipped)
        splits = _read_splits(self.splits) if self.splits else None
        here = self._here(told.names, skipped)
        self._tell(len(told.names), len(here), len(here.keys() & labels.keys()))
        for number, name in told.names.items():
            if number not in here:
                skipped.append(Skipped(str(number), name, "not in the folder of images"))
            elif splits is not None and number not in splits:
                skipped.append(Skipped(str(number), name, "not in the file of splits"))
            else:
                record = Record(str(number), str(self.images / here[number]))
                yield Record(
                    record.key,
                    record.image,
                    tuple(told.captions.get(number, ())),
                    tuple(labels.get(number, ())),
                    DRAWN if splits is None else splits[number],
                )

    def _here(self, names: Mapping[int, str], skipped: list[Skipped]) -> dict[int, str]:
        """Find the files that are here: by their name, else by the number at its end.

        The releases of 2014 and 2017 call the same photograph by other names.
        """
        files, linked, _ = walk(self.images)
        skipped += linked
        by_name = {key.rpartition("/")[2]: path for key, path in files.items()}
        by_number = {_number_in(name): path for name, path in by_name.items()}
        found = {
            number: by_name.get(name.rpartition("/")[2]) or by_number.get(number)
            for number, name in names.items()
        }
        return {number: path for number, path in found.items() if path is not None}

    def _tell(self, n_named: int, n_here: int, n_labelled: int) -> None:
        """Say in a line how much of the data set is here."""
        if not n_here:
            raise ValueError(
                f"none of the {n_named:,} images that {self.captions[0]} names is in "
                f"{self.images}; check --images"
            )
        labelled = f"; {n_labelled:,} of them have labels" if self.instances else ""
        if n_here < n_named:
            log.warning(
                "%s of %s images are in %s%s; skipped.csv names the other %s",
                *(f"{n_here:,}", f"{n_named:,}", self.images, labelled, f"{n_named - n_here:,}"),
            )
        elif n_labelled < n_here and self.instances:
            log.warning("all %s images are in %s%s", f"{n_here:,}", self.images, labelled)


class _Told(NamedTuple):
    """What caption files say."""

    names: dict[int, str]
    """File name of every image, by its number."""
    captions: dict[int, dict[str, None]]
    """Each image's, in the order of the files, each once."""


def _read_captions(paths: Sequence[Path], skipped: list[Skipped]) -> _Told:
    told = _Told({}, {})
    for path in paths:
        parts = _read(path, ("images", "annotations"))
        for place, entry in enumerate(parts["images"]):
            number, name = _whole(entry, "id"), _text(entry, "file_name")
            if number is None or not name:
                reason = "an image without a number as id and a file_name"
                skipped.append(Skipped(f"{path.name}:images[{place}]", "", reason))
            else:
                told.names.setdefault(number, name)
        for place, entry in enumerate(parts["annotations"]):
            number = _whole(entry, "image_id")
            caption = tidy(_text(entry, "caption"))
            known = told.captions.setdefault(number, {}) if number in told.names else None
            fault = caption_fault(caption)
            if known is None:
                fault = "caption of an image that the file does not name"
            elif caption in known:
                fault = "duplicate caption"
            if fault or known is None:
                key = f"{path.name}:annotations[{place}]"
                skipped.append(Skipped(key, told.names.get(number or 0, ""), fault))
            else:
                known[caption] = None
    return told


def _read_labels(paths: Sequence[Path], skipped: list[Skipped]) -> dict[int, list[str]]:
    """Categories and supercategories of every image that instance files know, sorted."""
    found: dict[int, set[str]] = {}
    for path in paths:
        parts = _read(path, ("images", "annotations", "categories"))
        named: dict[int, set[str]] = {}
        for entry in parts["categories"]:
            number = _whole(entry, "id")
            names = (_text(entry, field) for field in ("name", "supercategory"))
            if number is not None:
                named[number] = {tidy(name) for name in names if name and tidy(name)}
        for entry in parts["images"]:
            number = _whole(entry, "id")
            if number is not None:
                found.setdefault(number, set())  # looked at, and perhaps none of the 80 is there
        for place, entry in enumerate(parts["annotations"]):
            image, category = _whole(entry, "image_id"), _whole(entry, "category_id")
            if image is None or category not in named:
                reason = f"unknown category {category}"
                skipped.append(Skipped(f"{path.name}:annotations[{place}]", str(image), reason))
            else:
                found.setdefault(image, set()).update(named[category])
    return {number: sorted(labels) for number, labels in found.items()}


def _read_splits(path: Path) -> dict[int, str]:
    """Split of every image that Karpathy's file names, by its COCO number."""
    splits: dict[int, str] = {}
    for place, entry in enumerate(_read(path, ("images",))["images"]):
        number, said = _whole(entry, "cocoid"), _text(entry, "split")
        split = split_named(said)
        if number is None or split is None:
            raise ValueError(
                f"{path}: images[{place}] has cocoid {number} and split {tidy(said)[:40]!r}; "
                "expected Karpathy's dataset_coco.json, with train, restval, val or test"
            )
        splits[number] = split
    return splits


def _read(path: Path, lists: Sequence[str]) -> dict[str, list[Any]]:
    """Parse an annotation file and take these lists of it.

    Raises
    ------
    ValueError
        If it is not JSON, or one of them is missing.
    """
    try:
        value = json.loads(path.read_bytes(), object_hook=_thin)
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ValueError(f"{path} is not JSON: {reason}; download it again") from None
    for name in lists:
        if not isinstance(value, dict) or not isinstance(value.get(name), list):
            raise ValueError(f"{path} has no list {name!r}; expected COCO's own JSON file")
    return value


def _thin(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: entry[key] for key in entry.keys() & _FIELDS}


def _whole(entry: Any, name: str) -> int | None:
    """Read a field that should be a whole number; None where it is not."""
    value = entry.get(name) if isinstance(entry, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(entry: Any, name: str) -> str:
    """Read a field that should be a text; empty where it is not."""
    value = entry.get(name) if isinstance(entry, dict) else None
    return value if isinstance(value, str) else ""


def _number_in(name: str) -> int:
    """Find the number at the end of a file name; -1 where there is none."""
    found = _LAST_NUMBER.search(name.rpartition(".")[0])
    return int(found[1]) if found else -1
