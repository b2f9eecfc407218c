"""JSON with one value at a time changed, as by another program or a stranger."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from typing import Any

SWAPS: tuple[Any, ...] = (
    None, [], {}, [1], {"a": 1}, True, -1, 1.5, 10**40, math.nan, math.inf, "", "x", "x" * 100_000,
    "two\nlines",
)  # fmt: skip
MISSING = object()


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Give the path of every value in JSON; of lists only the first entry."""
    yield path
    entries = value.items() if isinstance(value, dict) else ()
    for key, part in entries or enumerate(value[:1] if isinstance(value, list) else ()):
        yield from places(part, (*path, key))


def swapped(value: Any, path: tuple, other: Any) -> Any:
    """Copy JSON with another value in one place, or without it."""
    if not path:
        return other
    changed = copy.deepcopy(value)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    if other is MISSING:
        del inner[path[-1]]
    else:
        inner[path[-1]] = other
    return changed


def mutated_json(whole: Any) -> Iterator[tuple[str, str]]:
    """Name each mutation of a JSON value, and give its text."""
    for place in places(whole):
        for other in (*SWAPS, *([MISSING] if place else [])):
            name = "missing" if other is MISSING else repr(other)[:20]
            yield f"{place} {name}", json.dumps(swapped(whole, place, other))
