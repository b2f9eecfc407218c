"""Validation of untrusted JSON: each function returns a valid value or raises ValueError.

The message is one line with the name of the field, what was expected and what was received.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, ValidationError

from sieve.data_prep.captions.caption_text import tidy
from sieve.model.exclusion import NEVER, PRESENCE_LIMIT, Strictness
from sieve.model.files import expectation

T = TypeVar("T")

MAX_TEXT = 1000
"""Maximum length of a text field, in characters."""
MAX_OFF = 4096
"""Maximum number of dimensions that are off."""
_MAX_REPR = 60


def without_surrogates(value: Any) -> Any:
    """Replace lone surrogates, which JSON may contain but which cannot be encoded."""
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value


Storable = BeforeValidator(without_surrogates)
Line = Annotated[str, Field(max_length=MAX_TEXT), Storable, AfterValidator(tidy)]
"""A text field without line breaks and control characters."""


def validate(kind: type[T], value: Any, what: str) -> T:
    """Return a JSON value as an instance of a pydantic type.

    `what` is the name of the value in messages, with its article. Raises a ValueError if a field
    does not fit; the message names the first one.
    """
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
    *outer, field = [part for part in fault["loc"] if part != "[key]"] or [what]
    if isinstance(field, int):
        outer, field = [*outer, field], "it"
    place = ".".join(str(part + 1) if isinstance(part, int) else part for part in outer)
    place = re.sub(r"s\.(\d+)", r" \1", place) + (": " if outer else "")  # such as "row 2: "
    if fault["type"] == "value_error":  # its message names the field
        raise ValueError(place + str(fault.get("ctx", {})["error"]))
    if fault["type"] == "unexpected_keyword_argument":
        known = "" if outer else ", ".join(sorted(getattr(kind, "__pydantic_fields__", ())))
        owner = place.rstrip(": ") or what
        raise ValueError(f"{owner} has no field {field!r:.40}" + (known and f"; it has: {known}"))
    raise ValueError(f"{place}{field} {expectation(fault)}; got {short_repr(fault['input'])}")


def parse_json(text: str) -> Any:
    """Parse untrusted JSON text; raise a ValueError of one line if it is invalid."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"invalid JSON: {' '.join(str(error).split())[:120]}") from None


def read_object(value: Any, what: str) -> Mapping[str, Any]:
    """Return a value if it is a JSON object."""
    if not isinstance(value, dict):
        raise ValueError(f"{what} must be a JSON object; got {short_repr(value)}")
    return value


def check_text(name: str, value: Any, most: int = MAX_TEXT) -> str:
    """Return a value if it is text of at most `most` characters."""
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a string; got {short_repr(value)}")
    if len(value) > most:
        raise ValueError(f"{name} has {len(value):,} characters; at most {most:,} are allowed")
    return value


def read_number(name: str, value: Any) -> float:
    """Return a number as a float, which may be NaN or infinite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} must be a number; got {short_repr(value)}")
    try:
        return float(value)
    except OverflowError:
        return math.inf


def read_whole(name: str, value: Any) -> int:
    """Return a whole number as an int; 6.0 counts as 6."""
    number = read_number(name, value)
    if not (abs(number) < 2**31 and number == int(number)):
        raise ValueError(f"{name} must be a whole number; got {short_repr(value)}")
    return int(number)


def check_choice(name: str, value: Any, known: tuple[str, ...]) -> str:
    """Return a value if it is one of the known words."""
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}; got {short_repr(value)}")
    return value


Whole = Annotated[int, BeforeValidator(lambda value, info: read_whole(str(info.field_name), value))]
"""A field with a whole number, as from `read_whole`."""


def read_limit(value: Any) -> float:
    """Return the probability from which `never` hides items, given as a number or its digits."""
    limit = _as_float(value)
    if not 0 < limit <= 1:
        raise ValueError(
            f"the limit of {NEVER} must be a number above 0 and at most 1, as in {NEVER}:0.35; "
            f"got {short_repr(value)}"
        )
    return limit


def read_strictness(value: Any) -> Strictness:
    """Return a strictness, given as a number from 0 to 1, its digits, "never" or "never:0.35"."""
    if isinstance(value, str) and value.partition(":")[0] == NEVER:
        _, colon, limit = value.partition(":")
        return Strictness(never=True, limit=read_limit(limit) if colon else PRESENCE_LIMIT)
    number = _as_float(value)
    if not 0 <= number <= 1:
        got = short_repr(value)
        raise ValueError(f"strictness must be a number from 0 to 1, or {NEVER}; got {got}")
    return Strictness(number)


def _as_float(value: Any) -> float:
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def read_off(value: Any) -> tuple[int, ...]:
    """Return off dimensions, given as a list of whole numbers or their digits, sorted."""
    if not isinstance(value, list | tuple):
        raise ValueError(f"off must be a list of dimensions; got {short_repr(value)}")
    if len(value) > MAX_OFF:
        raise ValueError(f"off may have at most {MAX_OFF:,} dimensions; got {len(value):,}")
    return tuple(sorted(set(map(read_dimension, value))))


def read_dimension(value: Any) -> int:
    """Return the number of a dimension, given as a whole number or its digits."""
    text = value.strip() if isinstance(value, str) else ""
    if text.isascii() and text.isdigit() and len(text) < 10:
        return int(text)
    number = math.nan if isinstance(value, str) else read_number("dimension", value)
    if not (0 <= number < 2**31 and number == int(number)):
        raise ValueError(f"a dimension is a whole number of at least 0; got {short_repr(value)}")
    return int(number)


def split_list(text: str) -> list[str]:
    """Split a comma-separated list; empty parts are left out."""
    return [part.strip() for part in text.split(",") if part.strip()]


def short_repr(value: Any) -> str:
    """Return the repr of a value, shortened for an error message."""
    text = repr(value) if not isinstance(value, int) or abs(value) < 10**18 else "a huge number"
    text = " ".join(text.split())
    return text if len(text) <= _MAX_REPR else f"{text[: _MAX_REPR - 3]}…"
