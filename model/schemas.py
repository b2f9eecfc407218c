"""Validation of the JSON files of artifacts, which are untrusted input."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

MAX_HEAD_BYTES = 16 << 20
"""Maximum size of a manifest, a configuration or a list of checksums."""
MAX_JSON_BYTES = 1 << 29
"""Maximum size of a list with an entry for each dimension or item."""
_MAX = 2**31 - 1

Line = Annotated[str, StringConstraints(max_length=2000, pattern=r"^[^\x00-\x1f\x7f]*$")]
Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-z-]{0,64}$")]
Count = Annotated[int, Field(ge=0, le=_MAX)]
Size = Annotated[int, Field(ge=1, le=_MAX)]


class Schema(BaseModel):
    """Strict, immutable schema: types are not converted, unknown fields are ignored."""

    model_config = ConfigDict(strict=True, frozen=True)


class _Versioned(Schema):
    schema_version: Any


AnySchema = TypeVar("AnySchema", bound=Schema)


def read_limited(path: Path, most: int) -> bytes:
    """Read a file; raise a ValueError if it is larger than any that Sieve writes."""
    if (size := path.stat().st_size) > most:
        raise ValueError(f"{path} has {size:,} bytes; expected at most {most:,}")
    return path.read_bytes()


def read_json(path: Path, schema: Any, remedy: str, most: int = MAX_JSON_BYTES) -> Any:
    """Read a JSON file as an instance of anything that pydantic can validate.

    Raises a ValueError if it has more than `most` bytes, or a field does not fit; the message names
    the first one and ends with the remedy.
    """
    data = read_limited(path, most)
    try:
        return TypeAdapter(schema).validate_json(data, strict=True)
    except ValidationError as error:
        raise ValueError(f"{path} is damaged ({fault_in(error)}); {remedy}") from None


def read_head(path: Path, schema: type[AnySchema], remedy: str, *versions: int) -> AnySchema:
    """Read the main JSON file of an artifact; raise a ValueError if it has another version."""
    found = read_json(path, _Versioned, remedy, MAX_HEAD_BYTES).schema_version
    if found is True or found not in versions:
        known = " or ".join(map(str, versions))
        raise ValueError(
            f"{path} has schema_version {repr(found)[:40]}, this Sieve reads {known}; {remedy}"
        )
    return read_json(path, schema, remedy, MAX_HEAD_BYTES)


def fault_in(error: ValidationError) -> str:
    """Return the first field that does not fit a schema, and why, in one line."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))[:80]
    found = " ".join(first["msg"].split())[:160]
    return f"{place}: {found}" if place else found
