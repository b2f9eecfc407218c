"""Data sets in img2dataset's layouts: tar shards, Parquet shards or folders of images.

An image's key is its shard and its name there (`00000/000000012`), the same in every layout. Images
are read in place. One that could not be downloaded is skipped with the reason that was recorded.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from sieve.data_prep.captions.caption_text import (
    CAPTION_NAMES,
    URL_NAMES,
    CellError,
    as_text,
    captions_in,
    column_of,
    columns_of_names,
    read_split,
    split_named,
)
from sieve.data_prep.captions.formats import parquet_values
from sieve.data_prep.images import load_image_bytes, readable_extensions
from sieve.data_prep.records import HASH_SPLIT, SPLITS, Record, Skipped, SkippedRows
from sieve.data_prep.sources import BaseSource, usable_captions
from sieve.data_prep.sources.embedding_files import read_table
from sieve.data_prep.sources.webdataset import MAX_TEXT_BYTES, Sample, open_member, read_samples
from sieve.model.files import reason_of

log = logging.getLogger(__name__)

MAX_GROUP_BYTES = 1 << 30
"""Larger row groups are refused: one is read as a whole for each of its images."""
NOT_DOWNLOADED = "not downloaded"
"""Prefix of the reason for every image that a downloader could not fetch."""

_STATUS_COLUMNS = ("key", "url", "status", "error_message")
IMAGE_COLUMNS = (
    "jpg", "jpeg", "png", "webp", "image", "img", "picture", "photo", "image_bytes", "bytes",
)  # fmt: skip
_LOCATION = re.compile(
    r"(?P<file>.+\.parquet)::(?P<column>[^:\[\]]+)\[(?P<group>\d+),(?P<row>\d+)\]", re.S
)
_COMPRESSED_TAR = re.compile(r"\.(?:tar\.\w+|tgz|tbz2?|txz)$", re.I)
_SHARD_OF_SPLIT = re.compile(r"([a-z]+)-\d+-of-\d+\.parquet", re.I)
_URL_TABLES = {".parquet": "parquet", ".tsv": "tsv", ".csv": "csv", ".jsonl": "jsonl"}


_Layouts = dict[str, list[Path]]
"""Paths of one file or folder, by kind: tar, Parquet, folder, compressed."""


@dataclass(frozen=True)
class Img2Dataset(BaseSource):
    """Images of a folder of shards, or of one shard; by default the name is the folder's.

    Raise FileNotFoundError if `path` does not exist, and ValueError if it holds no shards.
    """

    path: Path
    """A folder of `.tar` files, of `.parquet` files with images in them, or of subfolders of
    images with `.txt` and `.json` files beside them; or one such file."""
    root: Path = field(init=False)

    def __post_init__(self) -> None:
        if not self.path.exists():
            raise FileNotFoundError(f"there is no {self.path}; give the folder of the shards")
        path = self.path.resolve()
        root = path if path.is_dir() else path.parent
        vars(self).update(path=path, root=root, name=self.name or path.stem)
        layouts = _find_layouts(path)
        if not _shards(layouts):
            raise ValueError(_no_shards_message(path, layouts["compressed"]))

    def __str__(self) -> str:
        return f"img2dataset {self.path}"

    def open_image(self, record: Record, size: int) -> Image.Image:
        """Open the record's image in place; see `sieve.data_prep.images.load_image`."""
        image = open_member(record.image) or _open_cell(record.image)
        return image or super().open_image(record, size)

    def _iter_records(self, skipped: SkippedRows) -> Iterator[Record]:
        layouts = _find_layouts(self.path)
        shards = _shards(layouts)
        if self.path.is_dir():
            skipped += _unused(layouts, self.path)
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
        if n_failed := sum(entry.reason.startswith(NOT_DOWNLOADED) for entry in skipped):
            count = f"{n_images:,} of {n_images + n_failed:,} images of {self.path}"
            log.warning("%s were downloaded; skipped.csv lists the others", count)
        counts = ", ".join(f"{n_by_split[name]:,} {name}" for name in SPLITS if n_by_split[name])
        if counts:
            n_drawn = n_by_split[HASH_SPLIT]
            drawn = f"; {n_drawn:,} are split by image hash" if n_drawn else ""
            log.warning("using the data set's splits (val is select): %s%s", counts, drawn)


def _find_layouts(path: Path) -> _Layouts:
    """Classify a file, or all files of a folder and its subfolders."""
    layouts: _Layouts = {"tar": [], "Parquet": [], "folder": [], "compressed": []}
    for folder, subfolders, names in (
        os.walk(path) if path.is_dir() else [(path.parent, [], [path.name])]
    ):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith((".", "_")))
        files = [Path(folder, name) for name in sorted(names) if not name.startswith(".")]
        layouts["tar"] += [file for file in files if file.suffix == ".tar"]
        layouts["compressed"] += [file for file in files if _COMPRESSED_TAR.search(file.name)]
        layouts["Parquet"] += [file for file in files if _image_column(file) is not None]
        has_images = any(file.suffix.lower() in readable_extensions() for file in files)
        if path.is_dir() and has_images:
            layouts["folder"].append(Path(folder))
    return layouts


def _shards(layouts: _Layouts) -> list[Path]:
    """Return the shards of one layout, sorted: tar files before others."""
    return sorted(layouts["tar"] or layouts["Parquet"] or layouts["folder"])


def _unused(layouts: _Layouts, path: Path) -> Iterator[Skipped]:
    """Yield what a folder holds beside the shards that are read."""
    advice = "decompress it first, for example with `gunzip -k`"
    reasons = dict.fromkeys(layouts["compressed"], f"compressed tar not read: {advice}")
    kind = "tar files" if layouts["tar"] else "Parquet files"
    reason = f"not read beside {kind}: prepare it separately"
    if layouts["tar"]:
        reasons |= dict.fromkeys(layouts["Parquet"], f"Parquet file {reason}")
    if layouts["tar"] or layouts["Parquet"]:
        reasons |= dict.fromkeys(layouts["folder"], f"folder of images {reason}")
    for other, reason in reasons.items():
        yield Skipped(other.relative_to(path).as_posix(), str(other), reason)


def _splits_by_name(shards: Sequence[Path]) -> dict[Path, str]:
    """Return the splits in Hugging Face's file names, if there are several."""
    names = {shard: _SHARD_OF_SPLIT.fullmatch(shard.name) for shard in shards}
    found = {shard: split_named(name[1]) if name else None for shard, name in names.items()}
    splits = {shard: split for shard, split in found.items() if split}
    return splits if len(splits) == len(shards) and len(set(splits.values())) > 1 else {}


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
        kind, columns = _URL_TABLES.get(file.suffix.lower()), []
        if kind is not None and file.is_file():
            with suppress(ValueError):  # it is no table
                columns = list(next(read_table(file), {}))
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
    column, names = _image_column(path), pq.read_schema(path).names
    fields = [one for one in columns_of_names(CAPTION_NAMES, names) if one != column]
    split_column = column_of(["split"], names) or ""
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
    """Yield the downloaded rows of a Parquet file, each with its place: `GROUP,ROW`."""
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


def _image_column(path: Path) -> str | None:
    """Return the column of image files as bytes, plain or in Hugging Face's struct, if any."""
    if path.suffix != ".parquet":
        return None
    with suppress(pa.ArrowException, OSError):
        schema = pq.read_schema(path)
        names = columns_of_names(IMAGE_COLUMNS, schema.names)
        return next((name for name in names if holds_image_bytes(schema.field(name).type)), None)
    return None


def holds_image_bytes(kind: pa.DataType) -> bool:
    """Return whether a column holds image files as bytes, plain or in Hugging Face's struct."""
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and holds_image_bytes(kind.field("bytes").type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _open_cell(location: str) -> Image.Image | None:
    """Open an image in a Parquet file; None if a text is not the location of one."""
    found = _LOCATION.fullmatch(location)
    if not found:
        return None
    group = _row_group(Path(found["file"]), found["column"], int(found["group"]))
    value = group[int(found["row"])].as_py()
    value = value if isinstance(value, dict) else {"bytes": value}
    if value["bytes"] is None:
        named = f": only its path, {str(value['path'])[:100]}" if value.get("path") else ""
        raise ValueError(f"no image in this row{named}")
    return load_image_bytes(value["bytes"])


@lru_cache(maxsize=1)  # decoders open rows in order: the next is usually in the same group
def _row_group(file: Path, column: str, group: int) -> Any:
    try:
        with pq.ParquetFile(file) as table:
            facts = table.metadata.row_group(group)
            parts = map(facts.column, range(facts.num_columns))
            own = (part for part in parts if part.path_in_schema.split(".")[0] == column)
            if (size := sum(part.total_uncompressed_size for part in own)) > MAX_GROUP_BYTES:
                raise ValueError(
                    f"too large: row group {group} has {size:,} bytes, over {MAX_GROUP_BYTES:,}; "
                    "write the file again with smaller row groups"
                )
            return table.read_row_group(group, columns=[column]).column(0)
    except pa.ArrowException as error:
        raise ValueError(f"damaged Parquet file: {reason_of(error)}") from None
