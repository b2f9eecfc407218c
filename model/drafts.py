"""Files and folders that appear under their name only when they are whole.

Each is written as a draft beside its place, under a name that begins with a dot, and renamed in one
step. What a failed or killed writer leaves is never found under the name. Their permissions follow
the umask, as those of any other program's files do.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sieve.model.faults import writing_in


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Make a folder; two writers at once cannot mix their files, and the first to finish wins.

    Parameters
    ----------
    target : Path
        Must not exist yet.

    Yields
    ------
    Path
        An empty folder beside `target` to write into.

    Raises
    ------
    FileExistsError
        If `target` exists already, also where another writer was faster.
    OSError
        In one line, where the disk is full.
    """
    if target.exists():
        raise FileExistsError(f"{target} exists already; choose another name or remove it first")
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = _draft_name(target)
    draft.mkdir()
    try:
        with writing_in(target.parent):
            yield draft
        try:
            draft.rename(target)
        except OSError as error:
            if target.exists():
                raise FileExistsError(f"{target} was made by another writer meanwhile") from None
            raise error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _draft_name(path: Path) -> Path:
    """Return an unused name; `tempfile` would ignore the umask and make its files private."""
    return path.with_name(f".{path.name}-{secrets.token_hex(4)}{path.suffix}")


@contextmanager
def draft_beside(path: Path) -> Iterator[Path]:
    """Make an empty draft of a file, with its ending; removed again unless it was renamed."""
    draft = _draft_name(path)
    try:
        draft.touch(exist_ok=False)
        yield draft
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Make a draft to be written, which takes the file's place when all went well.

    Raises
    ------
    OSError
        In one line, where the disk is full.
    """
    with writing_in(path.parent), draft_beside(path) as draft:
        yield draft
        draft.replace(path)


def take_name(draft: Path, path: Path) -> bool:
    """Give a whole draft its name, unless something has it meanwhile: then False."""
    try:
        os.link(draft, path)  # unlike a rename, it never replaces another's file
    except FileExistsError:
        return False
    except OSError:  # a file system without links
        if path.exists():
            return False
        draft.replace(path)
    return True
