"""Sizes and CRC-32 of an artifact's files, written beside them and compared when it is opened.

A byte that a disk or a copy has changed is otherwise still a number, only another one. CRC-32
finds every fault of up to 32 bits in a row, and reads several gigabytes in a second; against
people who change files on purpose it is no help. They stand in a file of their own, so that an
artifact's identity, which is the hash of its other files, does not change with them. An artifact
without them is refused.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

CHECKSUMS = "checksums.json"
_CHUNK = 1 << 20
_MOST = 16 << 20
"""Bytes that a list of checksums can have."""


class _Sum(NamedTuple):
    """What a file was when it was written."""

    size: int
    crc32: str


def write_checksums(folder: Path, names: Iterable[str]) -> None:
    """Write `checksums.json` of some files of a folder, which are whole."""
    sums = {name: _sum(folder / name) for name in sorted(names)}
    told = {name: {"bytes": one.size, "crc32": one.crc32} for name, one in sums.items()}
    (folder / CHECKSUMS).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def check_files(
    folder: Path,
    remedy: str,
    only: Iterable[str] | None = None,
    *,
    needs: Iterable[str] = (),
    required: bool = True,
) -> bool:
    """Compare files with what they were when they were written.

    Parameters
    ----------
    folder : Path
    remedy : str
        What to do where one is damaged, to end the line with.
    only : iterable of str, optional
        Leave out the others.
    needs : iterable of str
        Files that must have a checksum.
    required : bool
        Refuse a folder without `checksums.json`; only a folder that Sieve did not write may lack
        it.

    Returns
    -------
    bool
        Whether there are checksums.

    Raises
    ------
    ValueError
        If a file, or `checksums.json` itself, is damaged or missing; in one line that names it.
    """
    path = folder / CHECKSUMS
    if not path.is_file():
        if required:
            raise ValueError(
                f"{folder} has no {CHECKSUMS}, which is written with it: it is incomplete or was "
                f"changed; {remedy}"
            )
        return False
    try:
        if path.stat().st_size > _MOST:
            raise ValueError(f"it has {path.stat().st_size:,} bytes")
        told = json.loads(path.read_text(encoding="utf-8"))
        sums = {name: _Sum(int(one["bytes"]), str(one["crc32"])) for name, one in told.items()}
        wanted = dict(sums) if only is None else {name: sums[name] for name in only}
        wanted |= {name: sums[name] for name in needs}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:80]
        raise ValueError(f"{path} is damaged ({reason}); {remedy}") from None
    for name, expected in wanted.items():
        if Path(name).name != name or not (folder / name).is_file():
            raise ValueError(f"{folder / name} is missing; {remedy}")
        size = (folder / name).stat().st_size
        if size != expected.size or _sum(folder / name) != expected:
            raise ValueError(f"{folder / name} is damaged: its bytes have changed; {remedy}")
    return True


def _sum(path: Path) -> _Sum:
    """Read a file without mapping it, so that none of it counts as memory of this process."""
    size, crc, buffer = 0, 0, memoryview(bytearray(_CHUNK))
    with path.open("rb", buffering=0) as stream:
        while n := stream.readinto(buffer):
            size, crc = size + n, zlib.crc32(buffer[:n], crc)
    return _Sum(size, f"{crc:08x}")
