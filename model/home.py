"""Where Sieve keeps what it makes: `$SIEVE_HOME`, by default the user's data folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from model.faults import writing_in


def sieve_home() -> Path:
    """Root of collections, checkpoints and derived files."""
    return Path(os.environ.get("SIEVE_HOME") or platformdirs.user_data_dir("sieve"))


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Make a folder under a temporary name and rename it when whole.

    Two writers at once cannot mix their files: each has its own folder, and the first to finish
    wins. What a failed or killed writer leaves is never found under `target`.

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
