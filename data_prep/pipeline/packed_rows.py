"""Rows of a table that does not change, compressed chunk by chunk.

Keys, addresses and captions of millions of records take hundreds of megabytes as they are, and few
when compressed. They are read in order, some hundred rows at a time; so only one chunk lies open.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa


class PackedRows:
    """Rows of one schema.

    Parameters
    ----------
    schema : pa.Schema
    chunks : iterable of pa.RecordBatch
        Each is packed before the next is asked for.
    """

    def __init__(self, schema: pa.Schema, chunks: Iterable[pa.RecordBatch] = ()) -> None:
        self._schema = schema
        self._packed: list[bytes] = []
        self._starts = [0]
        self._open: tuple[int, pa.RecordBatch] | None = None
        for chunk in chunks:
            self.append(chunk)

    def __len__(self) -> int:
        """Count the rows."""
        return self._starts[-1]

    def append(self, chunk: pa.RecordBatch) -> None:
        """Pack some rows after those that are there."""
        sink = pa.BufferOutputStream()
        # No threads: decoders are forked, and would wait for those of their parent.
        options = pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)
        with pa.ipc.new_stream(sink, self._schema, options=options) as stream:
            stream.write_batch(chunk)
        self._packed.append(sink.getvalue().to_pybytes())
        self._starts.append(len(self) + len(chunk))

    def chunks(self) -> Iterable[pa.RecordBatch]:
        """Unpack all, one after the other."""
        return map(self._chunk, range(len(self._packed)))

    def take(self, rows: np.ndarray) -> pa.Table:
        """Unpack some rows, ascending: each chunk is opened at most once."""
        numbers = np.searchsorted(self._starts, rows, "right") - 1
        pieces = [
            self._chunk(number).take(pa.array(rows[numbers == number] - self._starts[number]))
            for number in np.unique(numbers).tolist()
        ]
        return pa.Table.from_batches(pieces, self._schema)

    def _chunk(self, number: int) -> pa.RecordBatch:
        if self._open is None or self._open[0] != number:
            options = pa.ipc.IpcReadOptions(use_threads=False)
            with pa.ipc.open_stream(self._packed[number], options=options) as stream:
                self._open = number, stream.read_next_batch()
        return self._open[1]
