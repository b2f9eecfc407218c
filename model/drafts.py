"""Files and folders that appear under their name only when they are whole.

Each is written as a draft beside its place, under a name that begins with a dot, and renamed in one
step. What a failed or killed writer leaves is never found under the name.
"""

from __future__ import annotations

import os
import shutil
import tempfile
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
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    draft.chmod(0o755)
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


@contextmanager
def draft_beside(path: Path) -> Iterator[Path]:
    """Make an empty draft of a file, with its ending; removed again unless it was renamed."""
    handle, name = tempfile.mkstemp(path.suffix, f".{path.name}-", path.parent)
    os.close(handle)
    draft = Path(name)
    try:
        draft.chmod(0o644)
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
