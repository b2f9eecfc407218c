"""How a parser is asked by the fuzzing: it reads, or refuses in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks.fuzzing import FAULT

_TOLD = (ValueError, OSError)
"""What the command line tells in one line."""


def parsed(read: Callable[[Any], object]) -> Callable[[Any], str]:
    """Have a value read, and tell in a word how that ended."""

    def ask(value: Any) -> str:
        try:
            read(value)
        except _TOLD as error:
            line = " ".join(str(error).split())
            return "refused" if line else f"{FAULT}{type(error).__name__} says nothing"
        return "read"

    return ask


def reading_file(path: Path, read: Callable[[Path], object]) -> Callable[[bytes], str]:
    """Write the bytes, in folders that are made once, and read."""
    path.parent.mkdir(parents=True, exist_ok=True)

    def read_written(data: bytes) -> object:
        path.write_bytes(data)
        return read(path)

    return parsed(read_written)
