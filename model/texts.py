"""Many texts, kept in Arrow: three million captions are no Python strings until they are read."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from typing import SupportsIndex, overload

import pyarrow as pa


class Texts(Sequence[str]):
    """The strings of lists of strings, one after the other, as a sequence.

    Parameters
    ----------
    lists : iterable of lists of str
        A pandas column, best one of Arrow's type.
    """

    def __init__(self, lists: object) -> None:
        array = pa.array(lists, pa.list_(pa.string()))
        chunks = array.chunks if isinstance(array, pa.ChunkedArray) else [array]
        self._texts = pa.chunked_array([chunk.flatten() for chunk in chunks], pa.string())

    def __len__(self) -> int:
        return len(self._texts)

    @overload
    def __getitem__(self, place: SupportsIndex) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: SupportsIndex | slice) -> str | list[str]:
        """Read one text, or a list of them."""
        if isinstance(place, slice):
            return self._texts[place].to_pylist()
        return self._texts[index(place)].as_py()
