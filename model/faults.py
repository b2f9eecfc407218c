"""Faults of disks, as the libraries that read and write here tell them."""

from __future__ import annotations

import errno
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError
from zipfile import BadZipFile

UNREADABLE = (
    ValueError, OSError, EOFError, SyntaxError, TokenError, zlib.error, BadZipFile,
    TypeError, IndexError, OverflowError, MemoryError, RecursionError,
)  # fmt: skip
"""What NumPy raises where a file is no array: it reads the head as Python's literals."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SAID = ("No space left", "(os error 28)", "(os error 27)", "File too large")
_LITTLE = 1 << 20


def reason_of(error: BaseException) -> str:
    """Tell in a few words on one line what a library said; its kind where it said nothing."""
    return " ".join(str(error).split())[:120] or type(error).__name__


def disk_is_full(error: BaseException, folder: Path) -> bool:
    """Tell whether something failed for want of room; NumPy, Arrow and safetensors say no number.

    Parameters
    ----------
    error : BaseException
    folder : Path
        Where it wrote.
    """
    if getattr(error, "errno", None) in _FULL or any(said in str(error) for said in _SAID):
        return True
    short = isinstance(error, OSError) and error.errno is None and "written" in str(error)
    silent = isinstance(error, OSError) and error.errno is None
    return short or (silent and folder.is_dir() and shutil.disk_usage(folder).free < _LITTLE)


@contextmanager
def writing_in(folder: Path) -> Iterator[None]:
    """Say in one line what a full disk is, whichever library met it.

    Raises
    ------
    OSError
        Where something failed for want of room in `folder`.
    """
    try:
        yield
    except Exception as error:
        if not disk_is_full(error, folder):
            raise
        raise OSError(
            f"the disk that holds {folder} is full; free some space and run again"
        ) from None
