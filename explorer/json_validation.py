"""Fields of JSON that strangers write: each is read, or refused in one line by its name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from sieve.data_prep.captions import tidy

MAX_TEXT = 1000
"""Characters of a text field."""
_SHOWN = 60


def read_object(value: Any, what: str) -> Mapping[str, Any]:
    """Read a JSON object; ValueError where it is something else."""
    if not isinstance(value, dict):
        raise ValueError(f"{what} is a JSON object; got {shown(value)}")
    return value


def refuse_unknown(given: Mapping[str, Any], known: set[str], what: str) -> None:
    """Raise a ValueError that names the first unknown field, and those that there are."""
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ValueError(
            f"{what} has no field {shown(unknown[0])}; it has: {', '.join(sorted(known))}"
        )


def read_text(name: str, value: Any) -> str:
    """Read a text as one line without control characters."""
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text; got {shown(value)}")
    if len(value) > MAX_TEXT:
        raise ValueError(f"{name} has {len(value):,} characters; at most {MAX_TEXT:,} can be read")
    # Half of a surrogate pair can stand in JSON, but in no file.
    return tidy(value.encode("utf-8", "replace").decode("utf-8"))


def read_number(name: str, value: Any) -> float:
    """Read a number; it may still be NaN or infinite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} must be a number; got {shown(value)}")
    try:
        return float(value)
    except OverflowError:
        return math.inf


def read_whole(name: str, value: Any) -> int:
    """Read a whole number, also where it is written 6.0."""
    number = read_number(name, value)
    if not (abs(number) < 2**31 and number == int(number)):
        raise ValueError(f"{name} must be a whole number; got {shown(value)}")
    return int(number)


def check_choice(name: str, value: Any, known: tuple[str, ...]) -> str:
    """Read one of a few words."""
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name}: there is no {shown(value)}; there are: {', '.join(known)}")
    return value


def check_number(name: str, value: Any, low: float, high: float, other: str = "") -> None:
    """Raise a ValueError unless a number is in a range; NaN never is."""
    if not isinstance(value, int | float) or not low <= value <= high:
        allowed = f"from {low:.3g} to {high:.3g}{' ' if other else ''}{other}"
        raise ValueError(f"{name} must be {allowed}; got {shown(value)}")


def shown(value: Any) -> str:
    """Quote a stranger's value, short enough for one line."""
    text = repr(value) if not isinstance(value, int) or abs(value) < 10**18 else "a huge number"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}…"
