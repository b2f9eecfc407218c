"""Notice when a file of an artifact changes while it is open.

Artifacts are immutable. Their large arrays are memory-mapped, so a file that is overwritten in
place would silently give other results, and one that is truncated would end the process by SIGBUS.
"""

from __future__ import annotations

import os
from pathlib import Path


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


def _state(path: str | Path) -> tuple[int, ...]:
    stat = os.stat(path)
    return stat.st_size, stat.st_mtime_ns, stat.st_ino, stat.st_dev
