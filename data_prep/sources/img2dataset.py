"""What img2dataset downloads, in any of its layouts: tar shards, Parquet shards or plain files.

An image's key is its shard and its name there (`00000/000000012`): the same in every layout. What
could not be downloaded is named with the reason that img2dataset gives.

Images inside Parquet files, as img2dataset and Hugging Face write them: read in place.

Shards of downloaded images with a caption each: tar files, Parquet files, or folders.

Each reader goes over one shard, in its order, without the images themselves; what is of no use is
noted on the way.
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

from sieve.data_prep.captions import caption_fault, split_named, tidy
from sieve.data_prep.captions.cell import CellError, as_text, captions_in, text_in
from sieve.data_prep.images import load_image_bytes, readable_extensions
from sieve.data_prep.records import HASH_SPLIT, SPLITS, Record, Skipped, SkippedRows
from sieve.data_prep.sources.base import BaseSource
from sieve.data_prep.sources.local_images import open_inside
from sieve.data_prep.sources.url_tables import CAPTION_FIELDS, url_table_advice
from sieve.data_prep.sources.webdataset import (
    MAX_TEXT_BYTES,
    Reference,
    Text,
    open_member,
    read_samples,
)

MAX_GROUP_BYTES = 1 << 30
"""Larger row groups are refused: one is read whole for each of its images."""

_COLUMNS = (
    "jpg",
    "jpeg",
    "png",
    "webp",
    "image",
    "img",
    "picture",
    "photo",
    "image_bytes",
    "bytes",
)
_REFERENCE = re.compile(
    r"(?P<file>.+\.parquet)::(?P<column>[^:\[\]]+)\[(?P<group>\d+),(?P<row>\d+)\]", re.S
)


class Cell(NamedTuple):
    """Where an image stands in a Parquet file; written `FILE::COLUMN[GROUP,ROW]`."""

    file: Path
    column: str
    group: int
    """Number of the row group."""
    row: int
    """In that group."""

    def __str__(self) -> str:
        return f"{self.file}::{self.column}[{self.group},{self.row}]"

    @classmethod
    def parse(cls, text: str) -> Cell | None:
        """Read a reference; None where it is none."""
        found = _REFERENCE.fullmatch(text)
        if not found:
            return None
        return cls(Path(found["file"]), found["column"], int(found["group"]), int(found["row"]))


def image_column(schema: pa.Schema) -> str | None:
    """Find the column that holds image files as bytes: by itself, or in Hugging Face's struct."""
    for wanted in _COLUMNS:
        for name in schema.names:
            if name.lower() == wanted and _holds_bytes(schema.field(name).type):
                return name
    return None


def open_cell(cell: Cell) -> Image.Image:
    """Open an image in a Parquet file; see `sieve.data_prep.images.load_image`."""
    value = _group(cell.file, cell.column, cell.group)[cell.row].as_py()
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


@lru_cache(maxsize=1)  # decoders open rows in order: the next is mostly of the same group
def _group(file: Path, column: str, group: int) -> Any:
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


NOT_DOWNLOADED = "not downloaded"
"""Begins the reason of every image that a downloader did not get."""

_NOTES = ("key", "url", "status", "error_message")
_SUCCESS = "success"
_BATCH = 1024


class ShardImage(NamedTuple):
    """One image of a shard."""

    key: str
    """Its name in the shard."""
    image: str
    """Where it is: a path, or a reference into a tar or Parquet file."""
    captions: list[str]
    split: str = ""
    """As the shard gives it, in Sieve's words; empty if it gives none."""
    fault: str = ""
    """Why its captions cannot be read, or nothing."""
    note: str = ""
    """What is left out beside captions that are read, or nothing."""


def is_image_table(path: Path) -> bool:
    """Whether a Parquet file holds images, and not only facts about them."""
    try:
        return image_column(pq.read_schema(path)) is not None
    except (pa.ArrowException, OSError):
        return False


def tar_images(path: Path, name: str, skipped: SkippedRows) -> Iterator[ShardImage]:
    """Find the images of a tar shard; see `_described` for their captions."""
    for sample in read_samples(path, name, skipped):
        yield _described(sample.key, str(sample.image), sample.texts)


def folder_images(path: Path, name: str, skipped: SkippedRows) -> Iterator[ShardImage]:
    """Find the images right inside a folder, with `.txt` and `.json` files beside them."""
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
        yield _described(stem, str(path / file), texts)


def table_images(path: Path, name: str, skipped: SkippedRows) -> Iterator[ShardImage]:
    """Find the images inside a Parquet file; rows that were not downloaded are noted."""
    try:
        with pq.ParquetFile(path) as table:
            present = table.schema_arrow.names
            column = image_column(table.schema_arrow)
            assert column is not None, f"{path} was taken for a shard"
            captions = [named for wanted in CAPTION_FIELDS for named in present
                        if named.lower() == wanted and named != column]  # fmt: skip
            split = next((named for named in present if named.lower() == "split"), None)
            wanted = [field for field in _NOTES if field in present]
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
                        said, fault = _first(value, captions)
                        given = read_split(value.get(split), f"{path}, row {key}") if split else ""
                        image = str(Cell(path, column, group, row))
                        yield ShardImage(key, image, said, given, fault)
                    start += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        skipped.append(_damaged(path, name, error))


def failures(path: Path, name: str, skipped: SkippedRows) -> None:
    """Note what could not be downloaded, by the facts that img2dataset writes beside a shard."""
    if not path.is_file():
        return
    try:
        with pq.ParquetFile(path) as table:
            wanted = [field for field in _NOTES if field in table.schema_arrow.names]
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
    """URL and reason of a row that was not downloaded."""
    status = value.get("status")
    if status is None or status == _SUCCESS:
        return None
    why = " ".join((as_text(value.get("error_message")) or as_text(status)).split())[:200]
    return as_text(value.get("url"))[:500], f"{NOT_DOWNLOADED}: {why}"


def _damaged(path: Path, name: str, error: Exception) -> Skipped:
    return Skipped(name, str(path), f"damaged Parquet file: {' '.join(str(error).split())[:120]}")


def _described(key: str, image: str, texts: Sequence[Text]) -> ShardImage:
    """Read the captions of an image: those of its plain texts, else of its `.json`.

    Several plain texts are several captions; a JSON file is an object with one of
    `CAPTION_FIELDS`, or a list of captions. One that disagrees with the plain texts is noted.
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
                found, fault = _first(value, fields)
            else:
                found, fault = _first({"captions": value}, ["captions"])
            if fault and not captions:
                raise CellError(fault)
            others = [caption for caption in found if caption not in captions]
            if fault and captions:
                note = f"JSON file not read: its caption: {fault}"
            elif captions and others:
                said = f".{text.extension} says {others[0][:80]!r}"
                note = f"caption not used: {said}; the text file counts"
            captions = captions or found
    except CellError as error:
        return ShardImage(key, image, [], split, str(error))
    return ShardImage(key, image, list(dict.fromkeys(captions)), split, note=note)


def _first(value: Mapping[str, Any], fields: Sequence[str]) -> tuple[list[str], str]:
    """Return the captions of the first field that has some, or why they cannot be read."""
    try:
        for field in fields:
            if captions := captions_in(value.get(field)):
                return list(dict.fromkeys(captions)), ""
    except CellError as error:
        return [], str(error)
    return [], ""


def read_split(said: Any, place: str) -> str:
    """Return Sieve's word for a split; ValueError if it is none that is known."""
    named = text_in(said).strip()
    if named and split_named(named) is None:
        raise ValueError(
            f"{place} has split {tidy(named)[:40]!r}; expected {', '.join(SPLITS)} (or val, "
            "validation, dev, restval), or nothing to have it drawn"
        )
    return split_named(named) or ""


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Img2Dataset(BaseSource):
    """A folder of shards, or one shard.

    Parameters
    ----------
    path : Path
        Holds `.tar` files, `.parquet` files with images in them, or subfolders of images with
        `.txt` and `.json` files beside them; or is such a file itself.
    name : str
        The collection's name; by default the folder's.
    licence : str

    Raises
    ------
    FileNotFoundError
        If there is nothing at `path`.
    ValueError
        If nothing of the kind is there.
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
            raise ValueError(_explain(self.path))

    @property
    def root(self) -> Path:
        """Folder that the images' files are named relative to."""
        return self.path if self.path.is_dir() else self.path.parent

    def __str__(self) -> str:
        return f"img2dataset {self.path}"

    def open_image(self, record: Record, size: int) -> Image.Image:  # noqa: ARG002
        """Open the record's image where it lies; see `sieve.data_prep.images.load_image`."""
        if member := Reference.parse(record.image):
            return open_member(member)
        if cell := Cell.parse(record.image):
            return open_cell(cell)
        return open_inside(self.path, Path(record.image))

    def _iter_records(self, skipped: SkippedRows) -> Iterator[Record]:
        shards = _shards(self.path)
        skipped += _unused(self.path, shards)
        splits = _splits_by_name(shards)
        n_found = 0
        said: Counter[str] = Counter()
        for shard in shards:
            name = shard.relative_to(self.root).as_posix()
            prefix = name.removesuffix(".tar").removesuffix(".parquet")
            read = _READERS.get(shard.suffix, folder_images) if shard.is_file() else folder_images
            for found in read(shard, name, skipped):
                key = found.key if prefix == "." else f"{prefix}/{found.key}"
                if found.fault:
                    reason = f"caption cannot be read: {found.fault}"
                    skipped.add_malformed(key, found.image, reason)
                if found.note:
                    skipped.add(key, found.image, found.note)
                captions = []
                for caption in found.captions:
                    if fault := caption_fault(caption):
                        skipped.append(Skipped(key, found.image, fault))
                    else:
                        captions.append(caption)
                if not found.captions and not found.fault:
                    skipped.append(Skipped(key, found.image, caption_fault("")))
                split = found.split or splits.get(shard, HASH_SPLIT)
                said[split] += 1
                yield Record(key, found.image, tuple(captions), split=split)
                n_found += 1
            if shard.suffix != ".parquet":
                failures(
                    shard.with_name(f"{shard.name.removesuffix('.tar')}.parquet"), name, skipped
                )
        n_failed = sum(entry.reason.startswith(NOT_DOWNLOADED) for entry in skipped)
        if n_failed:
            log.warning(
                "%s of %s images of %s were downloaded; skipped.csv names the others",
                *(f"{n_found:,}", f"{n_found + n_failed:,}", self.path),
            )
        if set(said) - {HASH_SPLIT}:
            counts = ", ".join(f"{said[split]:,} {split}" for split in SPLITS if said[split])
            drawn = f"; {said[HASH_SPLIT]:,} are drawn" if said[HASH_SPLIT] else ""
            log.warning("splits are those of the data set (val is select): %s%s", counts, drawn)


_READERS = {".tar": tar_images, ".parquet": table_images}
_COMPRESSED_TAR = re.compile(r"\.(?:tar\.\w+|tgz|tbz2?|txz)$", re.I)
_SHARD_OF_SPLIT = re.compile(r"([a-z]+)-\d+-of-\d+\.parquet", re.I)


def _shards(path: Path) -> list[Path]:
    """Find the shards of a data set, sorted: of one kind, tar files before all others."""
    if path.is_file():
        return [path] if path.suffix == ".tar" or is_image_table(path) else []
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


def _layouts(path: Path) -> _Layouts:
    found = _Layouts([], [], [], [])
    for folder, subfolders, names in os.walk(path):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith((".", "_")))
        plain = [name for name in sorted(names) if not name.startswith(".")]
        for name in plain:
            file = Path(folder, name)
            if name.endswith(".tar"):
                found.tars.append(file)
            elif _COMPRESSED_TAR.search(name):
                found.compressed.append(file)
            elif name.endswith(".parquet") and is_image_table(file):
                found.tables.append(file)
        if any(os.path.splitext(name)[1].lower() in readable_extensions() for name in plain):
            found.folders.append(Path(folder))
    return found


def _unused(path: Path, shards: Sequence[Path]) -> Iterator[Skipped]:
    """Name what a folder holds beside the shards that are read."""
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
            reason = f"{what} not read beside {kind}: prepare it by itself"
            yield Skipped(other.relative_to(path).as_posix(), str(other), reason)


def _splits_by_name(shards: Sequence[Path]) -> dict[Path, str]:
    """Return the splits that Hugging Face's file names say, if they say several."""
    names = {shard: _SHARD_OF_SPLIT.fullmatch(shard.name) for shard in shards}
    splits = {shard: split_named(found[1]) for shard, found in names.items() if found}
    if len(set(splits.values())) < 2 or None in splits.values() or len(splits) < len(shards):
        return {}
    return {shard: split for shard, split in splits.items() if split}


def _explain(path: Path) -> str:
    """Say why there is nothing to read at a path, and what to do."""
    compressed = _layouts(path).compressed if path.is_dir() else []
    if path.is_file() and _COMPRESSED_TAR.search(path.name):
        compressed = [path]
    if compressed:
        names = ", ".join(file.name for file in compressed[:3])
        return (
            f"{path} holds compressed tar files ({names}): images cannot be read from the middle "
            f"of them; decompress them first, for example with `gunzip -k {compressed[0]}`"
        )
    return url_table_advice(path) or (
        f"{path} holds no .tar shards, no .parquet shards with images and no images; "
        "give img2dataset's output folder, or the official TSV"
    )
