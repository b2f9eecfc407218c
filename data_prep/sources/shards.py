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

from sieve.data_prep.captions import split_named, tidy
from sieve.data_prep.captions.cell import CellError, captions_in, text_in
from sieve.data_prep.captions.formats import as_text
from sieve.data_prep.images import readable_extensions
from sieve.data_prep.records import SPLITS
from sieve.data_prep.skipped import Skipped, SkippedRows
from sieve.data_prep.sources.parquet_images import Cell, image_column
from sieve.data_prep.sources.tars import MAX_TEXT_BYTES, Text, read_samples

NOT_DOWNLOADED = "not downloaded"
"""Begins the reason of every image that a downloader did not get."""

CAPTION_FIELDS = (
    "caption", "captions", "txt", "text", "title", "prompt", "sentences", "sentence", "raw",
    "description", "comment",
)  # fmt: skip
"""Names of columns and JSON fields that hold captions, in any case; the first with one counts."""
_NOTES = ("key", "url", "status", "error_message")
_SUCCESS = "success"
_BATCH = 1024


class Found(NamedTuple):
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


def tar_images(path: Path, name: str, skipped: SkippedRows) -> Iterator[Found]:
    """Find the images of a tar shard; see `_described` for their captions."""
    for sample in read_samples(path, name, skipped):
        yield _described(sample.key, str(sample.image), sample.texts)


def folder_images(path: Path, name: str, skipped: SkippedRows) -> Iterator[Found]:
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


def table_images(path: Path, name: str, skipped: SkippedRows) -> Iterator[Found]:
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
                        yield Found(key, image, said, given, fault)
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


def _described(key: str, image: str, texts: Sequence[Text]) -> Found:
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
        return Found(key, image, [], split, str(error))
    return Found(key, image, list(dict.fromkeys(captions)), split, note=note)


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
