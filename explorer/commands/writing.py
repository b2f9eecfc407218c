"""Which kind of file a command is to write."""

from __future__ import annotations

from pathlib import Path


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
