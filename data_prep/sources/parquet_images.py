"""Images inside Parquet files, as img2dataset and Hugging Face write them: read in place."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from sieve.data_prep.images import load_image_bytes

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
