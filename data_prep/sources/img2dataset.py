"""Data sets in img2dataset's layouts: tar shards, Parquet shards or folders of images.

An image's key is its shard and its name there (`00000/000000012`), the same in every layout. Images
are read in place, from inside tar files (`webdataset`) and Parquet files too. An image that could
not be downloaded is skipped with the reason that img2dataset recorded.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from sieve.data_prep.captions import caption_fault, split_named
from sieve.data_prep.captions.cell import CellError, as_text, captions_in, read_split
from sieve.data_prep.images import load_image_bytes, readable_extensions
from sieve.data_prep.records import HASH_SPLIT, SPLITS, Record, Skipped, SkippedRows
from sieve.data_prep.sources.base import BaseSource
from sieve.data_prep.sources.local_images import open_inside
from sieve.data_prep.sources.url_tables import CAPTION_FIELDS, url_table_advice
from sieve.data_prep.sources.webdataset import (
    MAX_TEXT_BYTES,
    TarReference,
    Text,
    open_member,
    read_samples,
)

log = logging.getLogger(__name__)

MAX_GROUP_BYTES = 1 << 30
"""Larger row groups are refused: one is read as a whole for each of its images."""
NOT_DOWNLOADED = "not downloaded"
"""Prefix of the reason for every image that a downloader could not fetch."""

_STATUS_COLUMNS = ("key", "url", "status", "error_message")
_SUCCESS = "success"
_BATCH = 1024
_IMAGE_COLUMNS = (
    "jpg", "jpeg", "png", "webp", "image", "img", "picture", "photo", "image_bytes", "bytes",
)  # fmt: skip
_REFERENCE = re.compile(
    r"(?P<file>.+\.parquet)::(?P<column>[^:\[\]]+)\[(?P<group>\d+),(?P<row>\d+)\]", re.S
)
_COMPRESSED_TAR = re.compile(r"\.(?:tar\.\w+|tgz|tbz2?|txz)$", re.I)
_SHARD_OF_SPLIT = re.compile(r"([a-z]+)-\d+-of-\d+\.parquet", re.I)


@dataclass(frozen=True)
class Img2Dataset(BaseSource):
    """Images of a folder of shards, or of one shard.

    Parameters
    ----------
    path : Path
        A folder of `.tar` files, of `.parquet` files with images in them, or of subfolders of
        images with `.txt` and `.json` files beside them; or one such file.
    name : str
        The collection's name; by default the folder's.
    licence : str

    Raises
    ------
    FileNotFoundError
        If `path` does not exist.
    ValueError
        If it holds no shards.
    """

    path: Path
    name: str = ""
    licence: str = "not stated"

    def __post_init__(self) -> None:
        if not self.path.exists():
            raise FileNotFoundError(f"there is no {self.path}; give the folder of the shards")
        object.__setattr__(self, "path", self.path.resolve())
        object.__setattr__(self, "name", self.name or self.path.stem)
        if not _shards(self.path):
            raise ValueError(_no_shards_message(self.path))

    @property
    def root(self) -> Path:
        """Folder that image paths are relative to."""
        return self.path if self.path.is_dir() else self.path.parent

    def __str__(self) -> str:
        return f"img2dataset {self.path}"

    def open_image(self, record: Record, size: int) -> Image.Image:  # noqa: ARG002
        """Open the record's image in place; see `sieve.data_prep.images.load_image`."""
        if member := TarReference.parse(record.image):
            return open_member(member)
        if cell := ParquetReference.parse(record.image):
            return _open_parquet_image(cell)
        return open_inside(self.path, Path(record.image))

    def _iter_records(self, skipped: SkippedRows) -> Iterator[Record]:
        shards = _shards(self.path)
        skipped += _unused(self.path, shards)
        splits = _splits_by_name(shards)
        n_images = 0
        n_by_split: Counter[str] = Counter()
        for shard in shards:
            name = shard.relative_to(self.root).as_posix()
            prefix = name.removesuffix(".tar").removesuffix(".parquet")
            for image in _read_shard(shard, name, skipped):
                key = image.key if prefix == "." else f"{prefix}/{image.key}"
                if image.fault:
                    reason = f"caption cannot be read: {image.fault}"
                    skipped.add_malformed(key, image.location, reason)
                if image.note:
                    skipped.add(key, image.location, image.note)
                captions = []
                for caption in image.captions:
                    if fault := caption_fault(caption):
                        skipped.append(Skipped(key, image.location, fault))
                    else:
                        captions.append(caption)
                if not image.captions and not image.fault:
                    skipped.append(Skipped(key, image.location, caption_fault("")))
                split = image.split or splits.get(shard, HASH_SPLIT)
                n_by_split[split] += 1
                yield Record(key, image.location, tuple(captions), split=split)
                n_images += 1
            if shard.suffix != ".parquet":
                facts = shard.with_name(f"{shard.name.removesuffix('.tar')}.parquet")
                _skip_failed_downloads(facts, name, skipped)
        n_failed = sum(entry.reason.startswith(NOT_DOWNLOADED) for entry in skipped)
        if n_failed:
            log.warning(
                "%s of %s images of %s were downloaded; skipped.csv lists the others",
                *(f"{n_images:,}", f"{n_images + n_failed:,}", self.path),
            )
        if set(n_by_split) - {HASH_SPLIT}:
            counts = ", ".join(
                f"{n_by_split[name]:,} {name}" for name in SPLITS if n_by_split[name]
            )
            n_drawn = n_by_split[HASH_SPLIT]
            drawn = f"; {n_drawn:,} are split by image hash" if n_drawn else ""
            log.warning("using the data set's splits (val is select): %s%s", counts, drawn)


def _shards(path: Path) -> list[Path]:
    """Return the shards of a data set, sorted: of one layout, tar files before others."""
    layouts = _layouts(path)
    return sorted(layouts.tars or layouts.tables or layouts.folders)


class _Layouts(NamedTuple):
    """Contents of a folder, by layout."""

    tars: list[Path]
    tables: list[Path]
    """Parquet files with images in them."""
    folders: list[Path]
    """Folders with image files."""
    compressed: list[Path]
    """Compressed tar files."""

    def add(self, file: Path) -> None:
        if file.suffix == ".tar":
            self.tars.append(file)
        elif _COMPRESSED_TAR.search(file.name):
            self.compressed.append(file)
        elif file.suffix == ".parquet" and _is_image_table(file):
            self.tables.append(file)


def _layouts(path: Path) -> _Layouts:
    """Classify a file, or all files of a folder and its subfolders."""
    layouts = _Layouts([], [], [], [])
    if path.is_file():
        layouts.add(path)
        return layouts
    for folder, subfolders, names in os.walk(path):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith((".", "_")))
        visible = [name for name in sorted(names) if not name.startswith(".")]
        for name in visible:
            layouts.add(Path(folder, name))
        if any(os.path.splitext(name)[1].lower() in readable_extensions() for name in visible):
            layouts.folders.append(Path(folder))
    return layouts


def _unused(path: Path, shards: Sequence[Path]) -> Iterator[Skipped]:
    """Yield what a folder holds beside the shards that are read."""
    if path.is_file():
        return
    layouts = _layouts(path)
    for file in layouts.compressed:
        reason = "compressed tar not read: decompress it first, for example with `gunzip -k`"
        yield Skipped(file.relative_to(path).as_posix(), str(file), reason)
    kind = "tar files" if layouts.tars else "Parquet files"
    for other in [*layouts.tables, *layouts.folders]:
        if other not in shards:
            what = "Parquet file" if other.is_file() else "folder of images"
            reason = f"{what} not read beside {kind}: prepare it separately"
            yield Skipped(other.relative_to(path).as_posix(), str(other), reason)


def _splits_by_name(shards: Sequence[Path]) -> dict[Path, str]:
    """Return the splits in Hugging Face's file names, if there are several."""
    names = {shard: _SHARD_OF_SPLIT.fullmatch(shard.name) for shard in shards}
    splits = {shard: split_named(found[1]) for shard, found in names.items() if found}
    if len(set(splits.values())) < 2 or None in splits.values() or len(splits) < len(shards):
        return {}
    return {shard: split for shard, split in splits.items() if split}


def _no_shards_message(path: Path) -> str:
    """Explain why a path holds no shards, and what to do."""
    if compressed := _layouts(path).compressed:
        names = ", ".join(file.name for file in compressed[:3])
        return (
            f"{path} holds compressed tar files ({names}): images inside them cannot be "
            f"read in place; decompress them first, for example with `gunzip -k {compressed[0]}`"
        )
    return url_table_advice(path) or (
        f"{path} holds no .tar shards, no .parquet shards with images and no images; "
        "give img2dataset's output folder, or the official TSV"
    )


class ShardImage(NamedTuple):
    """One image of a shard."""

    key: str
    """Its name in the shard."""
    location: str
    """A path, or a reference into a tar or Parquet file."""
    captions: list[str]
    split: str = ""
    """Sieve's name of the split that the shard states; empty if it states none."""
    fault: str = ""
    """Reason why its captions cannot be read, or empty."""
    note: str = ""
    """Text that was skipped although captions were read, or empty."""


def _is_image_table(path: Path) -> bool:
    """Return whether a Parquet file holds images, and not only metadata of images."""
    try:
        return _image_column(pq.read_schema(path)) is not None
    except (pa.ArrowException, OSError):
        return False


def _read_shard(path: Path, name: str, skipped: SkippedRows) -> Iterator[ShardImage]:
    """Yield the images of a shard without their pixels; add what is not used to `skipped`."""
    if path.is_dir():
        return _folder_images(path, name, skipped)
    read = _tar_images if path.suffix == ".tar" else _table_images
    return read(path, name, skipped)


def _tar_images(path: Path, name: str, skipped: SkippedRows) -> Iterator[ShardImage]:
    """Yield the images of a tar shard."""
    for sample in read_samples(path, name, skipped):
        yield _shard_image(sample.key, str(sample.image), sample.texts)


def _folder_images(path: Path, name: str, skipped: SkippedRows) -> Iterator[ShardImage]:
    """Yield the images of a folder, with the `.txt` and `.json` files beside them."""
    for file in sorted(os.listdir(path)):
        stem, suffix = os.path.splitext(file)
        if file.startswith(".") or suffix.lower() not in readable_extensions():
            continue
        texts: list[Text] = []
        for kind in ("txt", "caption", "text", "json"):
            beside = path / f"{stem}.{kind}"
            if not beside.is_file() or beside.is_symlink():
                continue
            if beside.stat().st_size > MAX_TEXT_BYTES:
                reason = f"too large: over {MAX_TEXT_BYTES:,} bytes"
                skipped.append(Skipped(f"{name}/{beside.name}", str(beside), reason))
            else:
                texts.append(Text(kind, beside.read_bytes()))
        skipped.n_rows += 1
        yield _shard_image(stem, str(path / file), texts)


def _table_images(path: Path, name: str, skipped: SkippedRows) -> Iterator[ShardImage]:
    """Yield the images inside a Parquet file; skip rows that were not downloaded."""
    try:
        with pq.ParquetFile(path) as table:
            present = table.schema_arrow.names
            column = _image_column(table.schema_arrow)
            assert column is not None, f"{path} has no column of images"
            captions = [field for wanted in CAPTION_FIELDS for field in present
                        if field.lower() == wanted and field != column]  # fmt: skip
            split = next((field for field in present if field.lower() == "split"), None)
            wanted = [field for field in _STATUS_COLUMNS if field in present]
            wanted += [*captions, *([split] if split else [])]
            for group in range(table.num_row_groups):
                start = 0
                for batch in table.iter_batches(_BATCH, row_groups=[group], columns=wanted):
                    for row, value in enumerate(_rows(batch), start):
                        key = as_text(value.get("key")) or f"{group}-{row}"
                        if failed := _failure(value):
                            skipped.append(Skipped(f"{name}/{key}", failed[0], failed[1]))
                            continue
                        skipped.n_rows += 1
                        texts, fault = _first_captions(value, captions)
                        named = read_split(value.get(split), f"{path}, row {key}") if split else ""
                        image = str(ParquetReference(path, column, group, row))
                        yield ShardImage(key, image, texts, named, fault)
                    start += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        skipped.append(_damaged(path, name, error))


def _skip_failed_downloads(path: Path, name: str, skipped: SkippedRows) -> None:
    """Skip images that were not downloaded, as the table beside a shard reports them."""
    if not path.is_file():
        return
    try:
        with pq.ParquetFile(path) as table:
            wanted = [field for field in _STATUS_COLUMNS if field in table.schema_arrow.names]
            if "status" not in wanted:
                return
            for batch in table.iter_batches(_BATCH, columns=wanted):
                for value in _rows(batch):
                    if failed := _failure(value):
                        key = f"{name}/{as_text(value.get('key'))}"
                        skipped.append(Skipped(key, failed[0], failed[1]))
    except (pa.ArrowException, OSError) as error:
        skipped.append(_damaged(path, name, error))


def _rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    return batch.to_pylist() if batch.num_columns else [{}] * batch.num_rows


def _failure(value: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the URL and reason of a row that was not downloaded; None if it was."""
    status = value.get("status")
    if status is None or status == _SUCCESS:
        return None
    reason = " ".join((as_text(value.get("error_message")) or as_text(status)).split())[:200]
    return as_text(value.get("url"))[:500], f"{NOT_DOWNLOADED}: {reason}"


def _damaged(path: Path, name: str, error: Exception) -> Skipped:
    return Skipped(name, str(path), f"damaged Parquet file: {' '.join(str(error).split())[:120]}")


def _shard_image(key: str, image: str, texts: Sequence[Text]) -> ShardImage:
    """Read the captions of an image: from its plain texts, else from its `.json`.

    Several plain texts are several captions; a JSON file is an object with one of
    `CAPTION_FIELDS`, or a list of captions. `note` reports one that disagrees with the texts.
    """
    captions: list[str] = []
    split = note = ""
    try:
        for text in texts:
            content = text.content.decode("utf-8-sig", "replace")
            if not text.extension.endswith("json"):
                captions += captions_in(content)
                continue
            try:
                value = json.loads(content)
            except (ValueError, RecursionError) as error:
                if captions:
                    note = f"JSON file not read: .{text.extension} is not JSON"
                    continue
                raise CellError(f"not JSON, {' '.join(str(error).split())[:80]}") from None
            if isinstance(value, dict):
                split = split or split_named(as_text(value.get("split"))) or ""
                fields = [name for wanted in CAPTION_FIELDS for name in value
                          if name.lower() == wanted]  # fmt: skip
                values, fault = _first_captions(value, fields)
            else:
                values, fault = _first_captions({"captions": value}, ["captions"])
            if fault and not captions:
                raise CellError(fault)
            others = [caption for caption in values if caption not in captions]
            if fault and captions:
                note = f"JSON file not read: its caption: {fault}"
            elif captions and others:
                other = f".{text.extension} has {others[0][:80]!r}"
                note = f"caption not used: {other}; the text file takes precedence"
            captions = captions or values
    except CellError as error:
        return ShardImage(key, image, [], split, str(error))
    return ShardImage(key, image, list(dict.fromkeys(captions)), split, note=note)


def _first_captions(value: Mapping[str, Any], fields: Sequence[str]) -> tuple[list[str], str]:
    """Return the captions of the first field that has some, and the reason if it is unreadable."""
    try:
        for field in fields:
            if captions := captions_in(value.get(field)):
                return list(dict.fromkeys(captions)), ""
    except CellError as error:
        return [], str(error)
    return [], ""


class ParquetReference(NamedTuple):
    """Location of an image in a Parquet file, written `FILE::COLUMN[GROUP,ROW]`."""

    file: Path
    column: str
    group: int
    """Index of the row group."""
    row: int
    """Index in that group."""

    def __str__(self) -> str:
        return f"{self.file}::{self.column}[{self.group},{self.row}]"

    @classmethod
    def parse(cls, text: str) -> ParquetReference | None:
        """Parse a reference; None if the text is not one."""
        found = _REFERENCE.fullmatch(text)
        if not found:
            return None
        return cls(Path(found["file"]), found["column"], int(found["group"]), int(found["row"]))


def _image_column(schema: pa.Schema) -> str | None:
    """Return the column of image files as bytes, plain or in Hugging Face's struct."""
    for wanted in _IMAGE_COLUMNS:
        for name in schema.names:
            if name.lower() == wanted and _holds_bytes(schema.field(name).type):
                return name
    return None


def _open_parquet_image(cell: ParquetReference) -> Image.Image:
    """Open an image in a Parquet file; see `sieve.data_prep.images.load_image`."""
    value = _row_group(cell.file, cell.column, cell.group)[cell.row].as_py()
    data = value.get("bytes") if isinstance(value, dict) else value
    if data is None:
        path = value.get("path") if isinstance(value, dict) else None
        named = f": only its path, {str(path)[:100]}" if path else ""
        raise ValueError(f"no image in this row{named}")
    return load_image_bytes(data)


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_bytes(kind.field("bytes").type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


@lru_cache(maxsize=1)  # decoders open rows in order: the next is usually in the same group
def _row_group(file: Path, column: str, group: int) -> Any:
    try:
        with pq.ParquetFile(file) as table:
            facts = table.metadata.row_group(group)
            parts = [facts.column(at) for at in range(facts.num_columns)]
            own = [part for part in parts if part.path_in_schema.split(".")[0] == column]
            size = sum(part.total_uncompressed_size for part in own)
            if size > MAX_GROUP_BYTES:
                raise ValueError(
                    f"too large: row group {group} has {size:,} bytes, over {MAX_GROUP_BYTES:,}; "
                    "write the file again with smaller row groups"
                )
            return table.read_row_group(group, columns=[column]).column(0)
    except pa.ArrowException as error:
        reason = " ".join(str(error).split())[:120]
        raise ValueError(f"damaged Parquet file: {reason}") from None
