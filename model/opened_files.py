"""Notice when a file of an artifact changes while it is open.

Artifacts are immutable. Their large arrays are memory-mapped, so a file that is overwritten in
place would silently give other results, and one that is truncated would end the process by SIGBUS.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap

_checked: ContextVar[set[OpenedFiles] | None] = ContextVar("checked files", default=None)


@contextmanager
def checked_once() -> Iterator[None]:
    """Check the same files only once in this block: for one request, which reads them often."""
    outer = _checked.get()
    token = _checked.set(set() if outer is None else outer)
    try:
        yield
    finally:
        _checked.reset(token)


class OpenedFiles:
    """The state of some files when they were opened.

    Parameters
    ----------
    *paths : Path
        Create the object before the files are verified and mapped, so that no change is missed.
    """

    def __init__(self, *paths: Path) -> None:
        self._opened = {os.fspath(path): _state(path) for path in paths}

    def check(self) -> None:
        """Compare the size, time and inode of each file; about 2 µs a file.

        Raises
        ------
        ValueError
            If a file has changed since it was opened; the message says to restart.
        """
        checked = _checked.get()
        if checked is not None and self in checked:
            return
        for path, opened in self._opened.items():
            try:
                is_same = _state(path) == opened
            except OSError:
                is_same = False
            if not is_same:
                raise ValueError(
                    f"{path} has changed or was removed while it was open; restart Sieve, and "
                    "write changes to a new folder instead"
                )
        if checked is not None:
            checked.add(self)


class MappedArray(np.memmap):
    """A read-only memory map of a `.npy` file that raises a ValueError once the file has changed.

    The file is checked at each indexing, so read large arrays in slices. Operations on the whole
    array check nothing, and a file that is truncated during a read still ends the process.
    """

    _opened: OpenedFiles | None = None

    @classmethod
    def open(cls, path: Path) -> MappedArray:
        """Map a file.

        Raises
        ------
        faults.UNREADABLE
            If it is no array of numbers.
        """
        opened = OpenedFiles(path)
        array = open_memmap(path, mode="r").view(cls)
        array._opened = opened
        return array

    def __array_finalize__(self, obj: Any) -> None:
        """Pass the file on to views of the array; copies have none."""
        super().__array_finalize__(obj)
        is_view = self._mmap is not None  # pyright: ignore[reportAttributeAccessIssue]
        self._opened = getattr(obj, "_opened", None) if is_view else None

    def __getitem__(self, key: Any, /) -> Any:
        """Return a view, or a copy as a plain array."""
        self.check()
        part = super().__getitem__(key)
        if isinstance(part, MappedArray) and part._opened is None:
            return part.view(np.ndarray)
        return part

    def check(self) -> None:
        """Raise a ValueError if the file has changed since it was mapped."""
        if self._opened is not None:
            self._opened.check()


def _state(path: str | Path) -> tuple[int, ...]:
    stat = os.stat(path)
    return stat.st_size, stat.st_mtime_ns, stat.st_ino, stat.st_dev
