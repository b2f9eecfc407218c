"""Ways in which a disk or a broken copy damages a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from sieve.model.files import CHECKSUMS, write_checksums

Damage = Callable[[bytes], bytes]


def damages(size: int) -> Iterator[tuple[str, Damage]]:
    """Name ways that reach every region of a file: its head, its data, its tail and its end."""
    for place in sorted(
        {0, 6, size // 100, size // 3, size // 2, size - size // 10, size - 8, size - 1}
    ):
        if 0 <= place < size:
            bit = 1 << place % 8
            yield f"bit at {place}", lambda data, at=place, bit=bit: _flipped(data, at, bit)
    for length in sorted({0, size // 2, size - 1}):
        yield f"cut to {length}", lambda data, length=length: data[:length]
    yield "one byte more", lambda data: data + b"\0"
    yield "zeros amidst", lambda data: data[: size // 2] + bytes(16) + data[size // 2 + 16 :]


def _flipped(data: bytes, place: int, bit: int) -> bytes:
    return data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :]


def damaged_files(paths: list[Path]) -> Iterator[tuple[Path, str]]:
    """Damage one file at a time in every way, and mend it again."""
    for path in paths:
        whole = path.read_bytes()
        for name, damage in damages(len(whole)):
            if (broken := damage(whole)) == whole:
                continue
            path.write_bytes(broken)
            yield path, name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(whole)


def reseal(folder: Path) -> None:
    """Write checksums of the files as they are now, as people do who change them on purpose."""
    listed = json.loads((folder / CHECKSUMS).read_text())
    write_checksums(folder, [name for name in listed if (folder / name).is_file()])
