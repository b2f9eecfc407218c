"""Files that commands write over: whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from model.faults import writing_in


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a draft to be written, which takes the file's place when all went well."""
    with writing_in(path.parent):
        yield from _draft_of(path)


def _draft_of(path: Path) -> Iterator[Path]:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    os.close(handle)
    draft = Path(name)
    try:
        yield draft
        draft.chmod(0o644)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def kind_of(path: Path, kinds: tuple[str, ...], what: str) -> str:
    """Tell by its ending what a file is to be.

    Raises
    ------
    ValueError
        If it is none of `kinds`.
    FileNotFoundError
        If there is no folder for it.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in kinds:
        *first, last = (f".{each}" for each in kinds)
        raise ValueError(f"{path}: {what} is a {', '.join(first)} or {last}; choose another name")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent}; make it first")
    return kind
