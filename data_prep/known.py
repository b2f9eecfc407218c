"""Embeddings that are known before a collection is prepared: no backbone has to make them again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


class Rows(Protocol):
    """What is read of a two-dimensional array: its shape, and slices of its rows.

    NumPy's own arrays are of this kind, memory-mapped ones too.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, width)."""
        ...

    def __getitem__(self, rows: slice, /) -> np.ndarray:
        """Give the rows of a slice: (r, width)."""
        ...


@dataclass(frozen=True)
class KnownEmbeddings:
    """Embeddings of a source's records, in the source's own order.

    They need not be of length 1. They are read a slice at a time, so that memory-mapped files of
    any size can be given.

    Parameters
    ----------
    images : (r, d) float
        One row for each of the r records that `Source.records` yields.
    texts : (c, d) float, optional
        One row for each caption: those of the first record, then of the second, and so on. Without
        them the backbone embeds the captions.
    """

    images: Rows
    texts: Rows | None = None

    def check(self, n_records: int, n_captions: int, width: int, source: str) -> None:
        """Refuse arrays that cannot belong to a source's records.

        Raises
        ------
        ValueError
            Where a shape differs from (records, width) or (captions, width).
        """
        expected = [("images", self.images, n_records, "record")]
        if self.texts is not None:
            expected.append(("texts", self.texts, n_captions, "caption"))
        for name, rows, count, of in expected:
            if tuple(rows.shape) != (count, width):
                raise ValueError(
                    f"known {name} have shape {tuple(rows.shape)}, expected {(count, width)}: "
                    f"one row a {of} of {source}"
                )


class Joined:
    """Several arrays read as one, such as the numbered files of one large data set.

    Parameters
    ----------
    parts : sequence of (r_i, d) arrays
        At least one, all of one width.
    """

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        self._parts = list(parts)
        self._ends = np.cumsum([len(part) for part in self._parts])
        widths = {part.shape[1] for part in self._parts}
        if len(widths) != 1:
            raise ValueError(f"arrays of one width are expected; these have {sorted(widths)}")
        self.shape = (int(self._ends[-1]), widths.pop())

    def __getitem__(self, rows: slice, /) -> np.ndarray:
        """Give the rows of a slice: (r, d)."""
        start, stop, _ = rows.indices(self.shape[0])
        first = int(np.searchsorted(self._ends, start, "right"))
        pieces = [self._parts[0][:0]]
        for part, end in zip(self._parts[first:], self._ends[first:], strict=True):
            begin = int(end) - len(part)
            if begin >= stop:
                break
            pieces.append(part[max(start - begin, 0) : stop - begin])
        return np.concatenate(pieces)
