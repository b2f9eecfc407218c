"""Shards of downloaded images with a caption each: tar files, Parquet files, or folders.

Each reader goes over one shard, in its order, without the images themselves; what is of no use is
noted on the way.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from sieve.data_prep.captions.formats import as_text
from sieve.data_prep.images import readable_extensions
from sieve.data_prep.skipped import Skipped
from sieve.data_prep.sources.parquet_images import Cell, image_column
from sieve.data_prep.sources.tars import MAX_TEXT_BYTES, read_samples

NOT_DOWNLOADED = "not downloaded"
"""Begins the reason of every image that a downloader did not get."""

_CAPTIONS = ("caption", "txt", "text", "TEXT")
_NOTES = ("key", "url", "status", "error_message")
_SUCCESS = "success"
_BATCH = 1024


class Found(NamedTuple):
    """One image of a shard."""

    key: str
    """Its name in the shard."""
    image: str
    """Where it is: a path, or a reference into a tar or Parquet file."""
    caption: str
    """As it stands there; empty where there is none."""


def is_image_table(path: Path) -> bool:
    """Whether a Parquet file holds images, and not only facts about them."""
    try:
        return image_column(pq.read_schema(path)) is not None
    except (pa.ArrowException, OSError):
        return False


def tar_images(path: Path, name: str, skipped: list[Skipped]) -> Iterator[Found]:
    """Find the images of a tar shard; captions stand in `.txt`, else in the `.json`."""
    for sample in read_samples(path, name, skipped):
        yield Found(sample.key.removeprefix("./"), str(sample.image), _caption_in(sample.texts))


def folder_images(path: Path, name: str, skipped: list[Skipped]) -> Iterator[Found]:
    """Find the images right inside a folder, with `.txt` and `.json` files beside them."""
    for file in sorted(os.listdir(path)):
        stem, suffix = os.path.splitext(file)
        if file.startswith(".") or suffix.lower() not in readable_extensions():
            continue
        texts: dict[str, bytes] = {}
        for kind in (".txt", ".json"):
            beside = path / f"{stem}{kind}"
            if not beside.is_file() or beside.is_symlink():
                continue
            if beside.stat().st_size > MAX_TEXT_BYTES:
                reason = f"too large: over {MAX_TEXT_BYTES:,} bytes"
                skipped.append(Skipped(f"{name}/{beside.name}", str(beside), reason))
            else:
                texts[kind] = beside.read_bytes()
        yield Found(stem, str(path / file), _caption_in(texts))


def table_images(path: Path, name: str, skipped: list[Skipped]) -> Iterator[Found]:
    """Find the images inside a Parquet file; rows that were not downloaded are noted."""
    try:
        with pq.ParquetFile(path) as table:
            column = image_column(table.schema_arrow)
            assert column is not None, f"{path} was taken for a shard"
            present = table.schema_arrow.names
            wanted = [field for field in (*_NOTES, *_CAPTIONS) if field in present]
            for group in range(table.num_row_groups):
                start = 0
                for batch in table.iter_batches(_BATCH, row_groups=[group], columns=wanted):
                    for row, value in enumerate(_rows(batch), start):
                        key = as_text(value.get("key")) or f"{group}-{row}"
                        if failed := _failure(value):
                            skipped.append(Skipped(f"{name}/{key}", failed[0], failed[1]))
                        else:
                            yield Found(key, str(Cell(path, column, group, row)), _first(value))
                    start += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        skipped.append(_damaged(path, name, error))


def failures(path: Path, name: str, skipped: list[Skipped]) -> None:
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


def _caption_in(texts: Mapping[str, bytes]) -> str:
    """Caption of a `.txt`, else of the `.json`."""
    plain = texts.get(".txt", b"").decode("utf-8-sig", "replace")
    if plain.strip() or ".json" not in texts:
        return plain
    try:
        value = json.loads(texts[".json"])
    except (ValueError, RecursionError):
        return ""
    return _first(value) if isinstance(value, dict) else ""


def _first(value: Mapping[str, Any], names: Sequence[str] = _CAPTIONS) -> str:
    """Take the first of these fields that says something."""
    return next((text for name in names if (text := as_text(value.get(name)))), "")
