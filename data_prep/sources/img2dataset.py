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
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from sieve.data_prep.captions import split_named
from sieve.data_prep.captions.caption_rows import (
    CAPTION_NAMES,
    URL_NAMES,
    column_of,
    columns_of_names,
)
from sieve.data_prep.captions.caption_text import CellError, as_text, captions_in, read_split
from sieve.data_prep.captions.formats import parquet_values
from sieve.data_prep.images import load_image_bytes, readable_extensions
from sieve.data_prep.records import HASH_SPLIT, SPLITS, Record, Skipped, SkippedRows
from sieve.data_prep.sources.base import BaseSource, usable_captions
from sieve.data_prep.sources.embedding_files import read_table
from sieve.data_prep.sources.webdataset import (
    MAX_TEXT_BYTES,
    Sample,
    open_member,
    read_samples,
)
from sieve.model.files import reason_of

log = logging.getLogger(__name__)

MAX_GROUP_BYTES = 1 << 30
"""Larger row groups are refused: one is read as a whole for each of its images."""
NOT_DOWNLOADED = "not downloaded"
"""Prefix of the reason for every image that a downloader could not fetch."""

_STATUS_COLUMNS = ("key", "url", "status", "error_message")
_IMAGE_COLUMNS = (
    "jpg", "jpeg", "png", "webp", "image", "img", "picture", "photo", "image_bytes", "bytes",
)  # fmt: skip
_LOCATION = re.compile(
    r"(?P<file>.+\.parquet)::(?P<column>[^:\[\]]+)\[(?P<group>\d+),(?P<row>\d+)\]", re.S
)
_COMPRESSED_TAR = re.compile(r"\.(?:tar\.\w+|tgz|tbz2?|txz)$", re.I)
_SHARD_OF_SPLIT = re.compile(r"([a-z]+)-\d+-of-\d+\.parquet", re.I)
_URL_TABLES = {".parquet": "parquet", ".tsv": "tsv", ".csv": "csv", ".jsonl": "jsonl"}


@dataclass(frozen=True)
class Img2Dataset(BaseSource):
    """Images of a folder of shards, or of one shard.

    Parameters
    ----------
    path : Path
        A folder of `.tar` files, of `.parquet` files with images in them, or of subfolders of
        images with `.txt` and `.json` files beside them; or one such file.
    name, licence
        See `BaseSource`; by default the name is the folder's.

    Raises
    ------
    FileNotFoundError
        If `path` does not exist.
    ValueError
        If it holds no shards.
    """

    path: Path
    root: Path = field(init=False)

    def __post_init__(self) -> None:
        if not self.path.exists():
            raise FileNotFoundError(f"there is no {self.path}; give the folder of the shards")
        path = self.path.resolve()
        root = path if path.is_dir() else path.parent
        vars(self).update(path=path, root=root, name=self.name or path.stem)
        layouts = _find_layouts(path)
        if not layouts.shards:
            raise ValueError(_no_shards_message(path, layouts.compressed))

    def __str__(self) -> str:
        return f"img2dataset {self.path}"

    def open_image(self, record: Record, size: int) -> Image.Image:
        """Open the record's image in place; see `sieve.data_prep.images.load_image`."""
        return (
            open_member(record.image)
            or _open_cell(record.image)
            or super().open_image(record, size)
        )

    def _iter_records(self, skipped: SkippedRows) -> Iterator[Record]:
        layouts = _find_layouts(self.path)
        shards = layouts.shards
        if self.path.is_dir():
            skipped += layouts.unused(self.path)
        splits = _splits_by_name(shards)
        n_by_split: Counter[str] = Counter()
        for shard in shards:
            name = shard.relative_to(self.root).as_posix()
            for record in _read_shard(shard, name, splits.get(shard, HASH_SPLIT), skipped):
                n_by_split[record.split] += 1
                yield record
            facts = shard.with_name(f"{shard.name.removesuffix('.tar')}.parquet")
            if facts != shard and facts.is_file():
                deque(_downloaded_rows(facts, name, (), skipped), maxlen=0)
        n_images = n_by_split.total()
        n_failed = sum(entry.reason.startswith(NOT_DOWNLOADED) for entry in skipped)
        if n_failed:
            log.warning(
                "%s of %s images of %s were downloaded; skipped.csv lists the others",
                *(f"{n_images:,}", f"{n_images + n_failed:,}", self.path),
            )
        counts = ", ".join(f"{n_by_split[name]:,} {name}" for name in SPLITS if n_by_split[name])
        if counts:
            n_drawn = n_by_split[HASH_SPLIT]
            drawn = f"; {n_drawn:,} are split by image hash" if n_drawn else ""
            log.warning("using the data set's splits (val is select): %s%s", counts, drawn)


class _Layouts(NamedTuple):
    """Contents of a file or folder, by layout."""

    tars: list[Path]
    tables: list[Path]
    """Parquet files with images in them."""
    folders: list[Path]
    """Folders with image files."""
    compressed: list[Path]
    """Compressed tar files."""

    @property
    def shards(self) -> list[Path]:
        """The shards of one layout, sorted: tar files before others."""
        return sorted(self.tars or self.tables or self.folders)

    def unused(self, path: Path) -> Iterator[Skipped]:
        """Yield what a folder holds beside the shards that are read."""
        advice = "decompress it first, for example with `gunzip -k`"
        reasons = dict.fromkeys(self.compressed, f"compressed tar not read: {advice}")
        kind = "tar files" if self.tars else "Parquet files"
        reason = f"not read beside {kind}: prepare it separately"
        if self.tars:
            reasons |= dict.fromkeys(self.tables, f"Parquet file {reason}")
        if self.tars or self.tables:
            reasons |= dict.fromkeys(self.folders, f"folder of images {reason}")
        for other, reason in reasons.items():
            yield Skipped(other.relative_to(path).as_posix(), str(other), reason)


def _find_layouts(path: Path) -> _Layouts:
    """Classify a file, or all files of a folder and its subfolders."""
    layouts = _Layouts([], [], [], [])
    for folder, subfolders, names in (
        os.walk(path) if path.is_dir() else [(path.parent, [], [path.name])]
    ):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith((".", "_")))
        files = [Path(folder, name) for name in sorted(names) if not name.startswith(".")]
        layouts.tars.extend(file for file in files if file.suffix == ".tar")
        layouts.compressed.extend(file for file in files if _COMPRESSED_TAR.search(file.name))
        layouts.tables.extend(file for file in files if _is_image_table(file))
        has_images = any(file.suffix.lower() in readable_extensions() for file in files)
        if path.is_dir() and has_images:
            layouts.folders.append(Path(folder))
    return layouts


def _splits_by_name(shards: Sequence[Path]) -> dict[Path, str]:
    """Return the splits in Hugging Face's file names, if there are several."""
    names = {shard: _SHARD_OF_SPLIT.fullmatch(shard.name) for shard in shards}
    splits = {shard: split_named(found[1]) for shard, found in names.items() if found}
    if len(set(splits.values())) < 2 or None in splits.values() or len(splits) < len(shards):
        return {}
    return {shard: split for shard, split in splits.items() if split}


def _no_shards_message(path: Path, compressed: Sequence[Path]) -> str:
    """Explain why a path holds no shards, and what to do."""
    if compressed:
        names = ", ".join(file.name for file in compressed[:3])
        return (
            f"{path} holds compressed tar files ({names}): images inside them cannot be read in "
            f"place; decompress them first, for example with `gunzip -k {compressed[0]}`"
        )
    return url_table_advice(path) or (
        f"{path} holds no .tar shards, no .parquet shards with images and no images; "
        "give img2dataset's output folder, or the official TSV"
    )


def url_table_advice(path: Path) -> str:
    """Explain how to download the images of a table of URLs; empty if there is none."""
    for file in [path] if path.is_file() else sorted(path.rglob("*")):
        kind = _URL_TABLES.get(file.suffix.lower())
        columns = _table_columns(file) if kind is not None and file.is_file() else []
        if url := column_of(URL_NAMES, columns):
            caption = column_of(CAPTION_NAMES, columns)
            captions = f" --caption_col {caption}" if caption else ""
            return (
                f"{file} holds URLs (column {url}), not images: run img2dataset first: "
                f"`img2dataset --url_list {path} --input_format {kind} --url_col {url}{captions} "
                "--output_format webdataset --output_folder images`, then "
                "`sieve prepare conceptual-captions images`"
            )
    return ""


def _table_columns(file: Path) -> list[str]:
    """Return the column names of a table; empty if it cannot be read."""
    try:
        return list(next(read_table(file), {}))
    except ValueError:
        return []


def _read_shard(path: Path, name: str, split: str, skipped: SkippedRows) -> Iterator[Record]:
    """Yield the images of a shard without their pixels; `split` is that of the shard."""
    prefix = "" if name == "." else f"{name.removesuffix('.tar').removesuffix('.parquet')}/"
    if path.suffix == ".parquet" and path.is_file():
        yield from _table_images(path, name, prefix, split, skipped)
        return
    samples = _folder_samples if path.is_dir() else read_samples
    for sample in samples(path, name, skipped):
        key = prefix + sample.key
        captions, stated = _read_texts(key, sample, skipped)
        captions = usable_captions(captions, key, sample.image, skipped)
        yield Record(key, sample.image, captions, split=stated or split)


def _folder_samples(path: Path, name: str, skipped: SkippedRows) -> Iterator[Sample]:
    """Yield the images of a folder, with the `.txt` and `.json` files beside them."""
    for file in sorted(os.listdir(path)):
        stem, suffix = os.path.splitext(file)
        if file.startswith(".") or suffix.lower() not in readable_extensions():
            continue
        texts = []
        for kind in ("txt", "caption", "text", "json"):
            beside = path / f"{stem}.{kind}"
            if not beside.is_file() or beside.is_symlink():
                continue
            if beside.stat().st_size > MAX_TEXT_BYTES:
                reason = f"too large: over {MAX_TEXT_BYTES:,} bytes"
                skipped.add(f"{name}/{beside.name}", str(beside), reason)
            else:
                texts.append((kind, beside.read_bytes()))
        skipped.n_rows += 1
        yield Sample(stem, str(path / file), texts)


def _table_images(
    path: Path, name: str, prefix: str, split: str, skipped: SkippedRows
) -> Iterator[Record]:
    """Yield the images inside a Parquet file; skip rows that were not downloaded."""
    schema = pq.read_schema(path)
    column = _image_column(schema)
    fields = [one for one in columns_of_names(CAPTION_NAMES, schema.names) if one != column]
    split_column = column_of(["split"], schema.names) or ""
    for place, value in _downloaded_rows(path, name, (*fields, split_column), skipped):
        skipped.n_rows += 1
        row_key = as_text(value.get("key")) or place.replace(",", "-")
        key, location = prefix + row_key, f"{path}::{column}[{place}]"
        stated = read_split(value.get(split_column), f"{path}, row {row_key}")
        captions = []
        try:
            captions = _first_captions(value, fields) or [""]
        except CellError as error:
            skipped.add_malformed(key, location, f"caption cannot be read: {error}")
        captions = usable_captions(captions, key, location, skipped)
        yield Record(key, location, captions, split=stated or split)


def _downloaded_rows(
    path: Path, name: str, columns: Sequence[str], skipped: SkippedRows
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of a Parquet file, each with its place: `GROUP,ROW`.

    Rows that img2dataset could not download are skipped, with the reason that it recorded.
    """
    try:
        with pq.ParquetFile(path) as table:
            present = set(table.schema_arrow.names)
            wanted = [column for column in (*_STATUS_COLUMNS, *columns) if column in present]
            for group in range(table.num_row_groups):
                for row, value in enumerate(parquet_values(table, wanted, [group])):
                    status = as_text(value.get("status"))
                    if status in ("", "success"):
                        yield f"{group},{row}", value
                        continue
                    key = as_text(value.get("key")) or f"{group}-{row}"
                    reason = " ".join((as_text(value.get("error_message")) or status).split())
                    url = as_text(value.get("url"))[:500]
                    skipped.add(f"{name}/{key}", url, f"{NOT_DOWNLOADED}: {reason[:200]}")
    except (pa.ArrowException, OSError) as error:
        skipped.add(name, str(path), f"damaged Parquet file: {reason_of(error)}")


def _read_texts(key: str, sample: Sample, skipped: SkippedRows) -> tuple[list[str], str]:
    """Return the captions and the split of a sample: from its plain texts, else its `.json`.

    Several plain texts are several captions; a JSON file is an object with one of
    `CAPTION_NAMES`, or a list of captions. One that disagrees with the texts is skipped.
    """
    captions: list[str] = []
    split = ""
    try:
        for extension, data in sample.texts:
            content = data.decode("utf-8-sig", "replace")
            if not extension.endswith("json"):
                captions += captions_in(content)
                continue
            try:
                value = _json_object(content)
                split = split or split_named(as_text(value.get("split"))) or ""
                values = _first_captions(value, columns_of_names(CAPTION_NAMES, list(value)))
            except CellError as error:
                if not captions:
                    raise
                skipped.add(key, sample.image, f"JSON file not read: {error}")
                continue
            others = [caption for caption in values if caption not in captions]
            if captions and others:
                other = f".{extension} has {others[0][:80]!r}"
                reason = f"caption not used: {other}; the text file takes precedence"
                skipped.add(key, sample.image, reason)
            captions = captions or values
    except CellError as error:
        skipped.add_malformed(key, sample.image, f"caption cannot be read: {error}")
        return [], split
    return list(dict.fromkeys(captions)) or [""], split


def _json_object(content: str) -> dict[str, Any]:
    """Parse the JSON file of an image: an object, or its captions."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CellError(f"not JSON, {reason_of(error)}") from None
    return value if isinstance(value, dict) else {"captions": value}


def _first_captions(value: Mapping[str, Any], fields: Sequence[str]) -> list[str]:
    """Return the captions of the first field that has some; raise CellError if it is unreadable."""
    found = (captions_in(value.get(field)) for field in fields)
    return list(dict.fromkeys(next(filter(None, found), ())))


def _is_image_table(path: Path) -> bool:
    """Return whether a file is a Parquet file with images, and not only metadata of images."""
    try:
        return path.suffix == ".parquet" and _image_column(pq.read_schema(path)) is not None
    except (pa.ArrowException, OSError):
        return False


def _image_column(schema: pa.Schema) -> str | None:
    """Return the column of image files as bytes, plain or in Hugging Face's struct."""
    names = columns_of_names(_IMAGE_COLUMNS, schema.names)
    return next((name for name in names if _holds_bytes(schema.field(name).type)), None)


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_bytes(kind.field("bytes").type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _open_cell(location: str) -> Image.Image | None:
    """Open an image in a Parquet file; None if a text is not the location of one."""
    found = _LOCATION.fullmatch(location)
    if not found:
        return None
    group = _row_group(Path(found["file"]), found["column"], int(found["group"]))
    value = group[int(found["row"])].as_py()
    data = value.get("bytes") if isinstance(value, dict) else value
    if data is None:
        path = value.get("path") if isinstance(value, dict) else None
        named = f": only its path, {str(path)[:100]}" if path else ""
        raise ValueError(f"no image in this row{named}")
    return load_image_bytes(data)


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
        raise ValueError(f"damaged Parquet file: {reason_of(error)}") from None
