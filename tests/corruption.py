"""Corrupted and hostile files: damaged bytes, mutated JSON, and a pickle that leaves a trace."""

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sieve.model.collection import MANIFEST, file_sha256
from sieve.model.files import CHECKSUMS, write_checksums

Damage = Callable[[bytes], bytes]

SWAPS: tuple[Any, ...] = (
    None, [], {}, [1], {"a": 1}, True, -1, 1.5, 10**40, math.nan, math.inf, "", "x", "x" * 100_000,
    "two\nlines",
)  # fmt: skip
MISSING = object()


class PicklePayload:
    """A pickle that creates a folder when it is loaded."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


def damages(size: int) -> Iterator[tuple[str, Damage]]:
    """Yield named kinds of damage to the header, the data and the end of a file."""
    for offset in sorted(
        {0, 6, size // 100, size // 3, size // 2, size - size // 10, size - 8, size - 1}
    ):
        if 0 <= offset < size:
            bit = 1 << offset % 8
            yield f"bit at {offset}", lambda data, at=offset, bit=bit: _flip_bit(data, at, bit)
    for length in sorted({0, size // 2, size - 1}):
        yield f"cut to {length}", lambda data, length=length: data[:length]
    yield "one byte more", lambda data: data + b"\0"
    yield "zeros in the middle", lambda data: data[: size // 2] + bytes(16) + data[size // 2 + 16 :]


def _flip_bit(data: bytes, offset: int, bit: int) -> bytes:
    return data[:offset] + bytes([data[offset] ^ bit]) + data[offset + 1 :]


def damaged_files(paths: list[Path]) -> Iterator[tuple[Path, str]]:
    """Damage one file at a time in every way and restore it afterwards."""
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
    """Rewrite the checksums for the current files, as after a deliberate change."""
    listed = json.loads((folder / CHECKSUMS).read_text())
    write_checksums(folder, [name for name in listed if (folder / name).is_file()])


def put_file(folder: Path, name: str, data: bytes) -> None:
    """Write an untrusted file into a collection and list it in the manifest."""
    (folder / name).write_bytes(data)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][name] = {"bytes": len(data), "sha256": file_sha256(folder / name)}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    reseal(folder)


def json_paths(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Yield the path of every value in JSON; of lists only the first entry."""
    yield path
    entries = value.items() if isinstance(value, dict) else ()
    for key, part in entries or enumerate(value[:1] if isinstance(value, list) else ()):
        yield from json_paths(part, (*path, key))


def replace_at(value: Any, path: tuple, other: Any) -> Any:
    """Copy JSON with the value at a path replaced, or removed if `other` is `MISSING`."""
    if not path:
        return other
    key, *rest = path
    changed = copy.copy(value)
    if other is MISSING and not rest:
        del changed[key]
    else:
        changed[key] = replace_at(value[key], tuple(rest), other)
    return changed


def mutated_json(whole: Any) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each mutation of a JSON value."""
    for path in json_paths(whole):
        for other in (*SWAPS, *([MISSING] if path else [])):
            name = "missing" if other is MISSING else repr(other)[:20]
            yield f"{path} {name}", json.dumps(replace_at(whole, path, other))
