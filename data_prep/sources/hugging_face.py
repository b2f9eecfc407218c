"""Data sets of the library `datasets`: of the Hugging Face Hub, or local ones.

Local ones are a folder that `save_to_disk` wrote, a folder of Parquet files with images in them, or
an image folder with `metadata.jsonl`. `datasets` downloads and converts them once into its cache,
from which rows are read one by one. It executes no code of a data set since version 4.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from sieve.data_prep.captions.caption_text import (
    CAPTION_NAMES,
    CellError,
    captions_in,
    columns_of_names,
    split_named,
)
from sieve.data_prep.images import load_image_bytes
from sieve.data_prep.records import HASH_SPLIT, Record, SkippedRows
from sieve.data_prep.sources import BaseSource, usable_captions
from sieve.data_prep.sources.img2dataset import IMAGE_COLUMNS, holds_image_bytes
from sieve.data_prep.sources.local_images import open_inside
from sieve.model.files import reason_of
from sieve.model.hub import HubReference, is_reference

log = logging.getLogger(__name__)

Dataset = Any
"""`datasets.Dataset`; the library is optional."""
_ON_DISK = ("state.json", "dataset_dict.json")
"""Files by which a folder of `save_to_disk` is recognised."""
_BATCH = 1000
_LABELS = ("label", "labels")


@dataclass(frozen=True)
class HuggingFace(BaseSource):
    """Rows of a data set with an image column.

    Raise FileNotFoundError or ValueError in one line if it cannot be loaded or has no image column.
    """

    dataset: str
    """`ORG/NAME` of the Hub, `hf://ORG/NAME@REVISION`, or the path of a local data set."""
    _: KW_ONLY
    image_column: str = ""
    """By default the only image column, or the one with a usual name."""
    caption_column: str = ""
    """By default those with a usual name."""
    split: str = ""
    """Split, such as `train` or `train[:1000]`; by default all."""
    subset: str = ""
    """Configuration, if the data set has several."""
    revision: str = ""
    root: Path = field(init=False)
    is_local: bool = field(init=False)
    parts: Mapping[str, Dataset] = field(init=False)
    """The data of each split, with images as files."""

    def __post_init__(self) -> None:
        path = Path(self.dataset).expanduser()
        is_local = not is_reference(self.dataset) and path.exists()
        reference = None if is_local else HubReference.parse(self.dataset)
        if reference is not None and self.revision:
            reference = reference._replace(revision=self.revision)
        parts = _load(reference or path.resolve(), self.subset, self.split)
        columns = _choose_column(self.dataset, next(iter(parts.values())), self.image_column)
        vars(self).update(
            root=_cache_folders()[0] if reference else path.resolve(),
            is_local=is_local,
            image_column=columns,
            parts={name: _with_files(part, columns) for name, part in parts.items()},
            name=self.name or (path.stem if reference is None else reference.repository),
        )
        if self.caption_column and self.caption_column not in self._features:
            raise ValueError(
                f"{self.dataset} has no column {self.caption_column!r}; it has "
                f"{_listed(self._features)}"
            )

    def __str__(self) -> str:
        split = f", split {self.split}" if self.split else ""
        return f"Hugging Face data set {self.dataset}{split}"

    @cached_property
    def _features(self) -> Mapping[str, Any]:
        return next(iter(self.parts.values())).features

    def _iter_records(self, skipped: SkippedRows) -> Iterator[Record]:
        # A split that was chosen, or the only one, is divided into Sieve's splits.
        stated = {} if len(self.parts) == 1 else {name: split_named(name) for name in self.parts}
        captions = [self.caption_column] if self.caption_column else []
        captions = captions or columns_of_names(CAPTION_NAMES, list(self._features))
        captions = [name for name in captions if name != self.image_column]
        for name, part in self.parts.items():
            number = 0
            for batch in part.with_format("arrow").iter(_BATCH):
                images = batch[self.image_column]
                paths = pc.call_function(
                    "struct_field", [images], pc.StructFieldOptions(["path"])
                ).to_pylist()
                labels = self._labels(batch)
                rows = batch.select(captions).to_pylist()
                for row, (value, path) in enumerate(zip(rows, paths, strict=True)):
                    key, image = f"{name}/{number}", self._location(name, number, path)
                    texts = self._captions(value, captions, key, image, skipped)
                    split = stated.get(name) or HASH_SPLIT
                    skipped.n_rows += 1
                    yield Record(key, image, texts, labels[row], split)
                    number += 1

    def _location(self, split: str, number: int, path: str | None) -> str:
        """Return the path of an image on disk, or a name inside the data set."""
        if path and self.is_local and Path(path).is_relative_to(self.root):
            return path
        return "/".join((split, str(number), *([Path(path).name] if path else ())))

    def _captions(
        self,
        value: Mapping[str, Any],
        columns: list[str],
        key: str,
        image: str,
        skipped: SkippedRows,
    ) -> tuple[str, ...]:
        found: list[str] = []
        for column in columns:
            try:
                found += captions_in(value[column])
            except CellError as error:
                skipped.add_malformed(key, image, f"caption cannot be read: {error}")
        return usable_captions(dict.fromkeys(found), key, image, skipped) if found else ()

    def _labels(self, batch: pa.Table) -> list[tuple[str, ...]]:
        """Return the class labels of each row, by name."""
        for column in _LABELS:
            feature = self._features.get(column)
            feature = getattr(feature, "feature", feature)  # of a list
            if names := getattr(feature, "names", None):
                values = batch[column].to_pylist()
                lists = [value if isinstance(value, list) else [value] for value in values]
                return [tuple(names[j] for j in one if j in range(len(names))) for one in lists]
        return [()] * len(batch)

    def open_image(self, record: Record, size: int) -> Image.Image:  # noqa: ARG002
        """Open the record's image: the bytes in the data set, or a file inside its folder."""
        split, _, number = record.key.rpartition("/")
        value = self.parts[split][int(number)][self.image_column]
        if not value or not (value["bytes"] or value["path"]):
            raise ValueError("no image in this row")
        if value["bytes"]:
            return load_image_bytes(value["bytes"])
        path, folders = Path(value["path"]), (self.root, *_cache_folders())
        inside = next((one for one in folders if path.is_relative_to(one)), self.root)
        return open_inside(inside, path)


def _library() -> Any:
    try:
        return import_module("datasets")
    except ImportError:
        raise ValueError(
            "`sieve prepare hf` needs the library datasets; install it with "
            '`pip install "sieve-explorer[hf]"`'
        ) from None


def _load(place: Path | HubReference, subset: str, split: str) -> dict[str, Dataset]:
    """Load the splits of a data set; raise one-line errors."""
    datasets = _library()
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    options: dict[str, Any] = {"split": split or None}
    try:
        with _quiet_libraries():
            if isinstance(place, HubReference):
                found = datasets.load_dataset(
                    place.repository, subset or None, revision=place.revision, **options
                )
            elif any((place / name).is_file() for name in _ON_DISK):
                found = datasets.load_from_disk(str(place))
                found = found[split] if split else found
            elif place.is_file():
                found = datasets.load_dataset("parquet", data_files=str(place), **options)
            else:
                found = datasets.load_dataset(str(place), subset or None, **options)
    except Exception as error:  # of datasets, of its builders, and of huggingface_hub
        check = "--subset and --split"
        if isinstance(place, HubReference):
            check += ", the name and the connection; if it is gated or private, `hf auth login`"
        raise ValueError(
            f"data set {place} cannot be loaded ({reason_of(error, 200)}); check {check}"
        ) from error
    parts = found if isinstance(found, dict) else {split.partition("[")[0] or "train": found}
    if not any(len(part) for part in parts.values()):
        raise ValueError(f"data set {place} has no rows; give another --split")
    return {str(name): part for name, part in parts.items()}


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Suppress the warnings of libraries about each retry; the error says the same in one line."""
    libraries = [logging.getLogger(name) for name in ("datasets", "huggingface_hub")]
    levels = [library.level for library in libraries]
    try:
        if not log.isEnabledFor(logging.DEBUG):
            for library in libraries:
                library.setLevel(logging.CRITICAL)
        yield
    finally:
        for library, level in zip(libraries, levels, strict=True):
            library.setLevel(level)


def _cache_folders() -> tuple[Path, Path]:
    """Return the folders of downloaded files, and of those that `datasets` extracts."""
    from huggingface_hub import constants

    extracted = _library().config.HF_DATASETS_CACHE
    return Path(constants.HF_HUB_CACHE).resolve(), Path(extracted).resolve()


def _choose_column(name: str, part: Dataset, wanted: str) -> str:
    """Return the column of the images; raise a ValueError if there is none, or several."""
    schema = part.features.arrow_schema
    images = [
        column
        for column, feature in part.features.items()
        if isinstance(feature, _library().Image) or holds_image_bytes(schema.field(column).type)
    ]
    if wanted in images:
        return wanted
    columns = _listed(part.features)
    if wanted or not images:
        what = f"no image column {wanted!r}" if wanted else "no image column"
        raise ValueError(f"{name} has {what}; its columns are {columns}; give --image-column")
    usual = columns_of_names(IMAGE_COLUMNS, images)
    if len(images) > 1 and not usual:
        raise ValueError(f"{name} has several image columns; give --image-column, of {columns}")
    return (usual or images)[0]


def _listed(features: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} ({type(one).__name__})" for name, one in list(features.items())[:12])


def _with_files(part: Dataset, column: str) -> Dataset:
    """Return a data set whose images are not decoded, but given as bytes or a path."""
    return part.cast_column(column, _library().Image(decode=False))
