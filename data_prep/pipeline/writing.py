"""Writing a collection's files row by row, so that no list ever holds all of it.

The bytes depend on the rows alone, not on how they came in: a collection that was made in one go,
in shards, or by a run that was killed and went on is the same file by file.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sieve.model import collection as layout

_ROW_GROUP = 1 << 16
ITEMS_SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "image": pa.string(),
        "captions": pa.list_(pa.string()),
        "labels": pa.list_(pa.string()),
        "split": pa.string(),
        "width": pa.int32(),
        "height": pa.int32(),
    }
)


class Rows(NamedTuple):
    """Some items with their embeddings."""

    items: pa.Table
    """b rows of `ITEMS_SCHEMA`"""
    images: np.ndarray
    """(b, d) float16"""
    texts: np.ndarray
    """(c, d) float16: of all captions of the b items, in their order"""


class CollectionWriter:
    """Writes items and embeddings into a folder.

    Parameters
    ----------
    folder : Path
    n_items, n_captions, width : int
        Of all that will be added. Embeddings of no width are not written.
    """

    def __init__(self, folder: Path, n_items: int, n_captions: int, width: int) -> None:
        self._items = pq.ParquetWriter(folder / layout.ITEMS, ITEMS_SCHEMA, compression="zstd")
        self._embeddings: tuple[BinaryIO, ...] = ()
        if width:
            self._embeddings = (
                _array(folder / layout.IMAGE_EMBEDDINGS, np.float16, (n_items, width)),
                _array(folder / layout.TEXT_EMBEDDINGS, np.float16, (n_captions, width)),
            )
        self._owners = _array(folder / layout.CAPTION_ITEM, np.int32, (n_captions,))
        self._waiting = ITEMS_SCHEMA.empty_table()
        self._expected = (n_items, n_captions)
        self._written = (0, 0)

    def add(self, rows: Rows) -> None:
        """Write some rows after those that are there."""
        counts = pc.call_function("list_value_length", [rows.items["captions"]]).to_numpy()
        n_items, n_captions = self._written
        owners = np.repeat(np.arange(n_items, n_items + len(counts)), counts)
        assert len(rows.images) == len(counts) and len(rows.texts) == len(owners)
        for stream, part in zip(self._embeddings, (rows.images, rows.texts), strict=False):
            stream.write(part.tobytes())
        self._owners.write(owners.astype(np.int32).tobytes())
        self._written = (n_items + len(counts), n_captions + len(owners))
        self._waiting = pa.concat_tables([self._waiting, rows.items])
        while len(self._waiting) >= _ROW_GROUP:
            self._write_group(_ROW_GROUP)

    def close(self) -> None:
        """Write what is left."""
        if len(self._waiting):
            self._write_group(len(self._waiting))
        for stream in (self._items, *self._embeddings, self._owners):
            stream.close()
        assert self._written == self._expected, (self._written, self._expected)

    def _write_group(self, size: int) -> None:
        group = self._waiting.slice(0, size).combine_chunks()
        self._items.write_table(group, row_group_size=size)
        self._waiting = self._waiting.slice(size)


def _array(path: Path, kind: type[np.generic], shape: tuple[int, ...]) -> BinaryIO:
    """Begin an `.npy` file as `np.save` does."""
    stream = path.open("wb")
    header = {"descr": np.dtype(kind).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream
