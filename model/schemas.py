"""Schemas of the JSON files of artifacts, which are untrusted input."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from sieve.model.exclusion import Calibration
from sieve.model.hyperparameters import SparseEncoderConfig

MAX_HEAD_BYTES = 16 << 20
"""Maximum size of a manifest, a configuration or a list of checksums."""
MAX_JSON_BYTES = 1 << 29
"""Maximum size of a list with an entry for each dimension or item."""
_MAX = 2**31 - 1

Line = Annotated[str, StringConstraints(max_length=2000, pattern=r"^[^\x00-\x1f\x7f]*$")]
Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-z-]{0,64}$")]
Count = Annotated[int, Field(ge=0, le=_MAX)]
Size = Annotated[int, Field(ge=1, le=_MAX)]


class _Schema(BaseModel):
    """Strict schema: types are not converted."""

    model_config = ConfigDict(strict=True)


class _Backbone(_Schema):
    name: Line
    sha256: Hash
    d: Size


class _Codes(_Schema):
    m: Size
    sha256: Hash


class _Counts(_Schema):
    items: Count
    captions: Count


class _File(_Schema):
    bytes: Annotated[int, Field(ge=0)]
    sha256: Hash = ""


class Manifest(_Schema):
    """`collection.json`, without fields that only reports use."""

    name: Line
    source: Line
    licence: Line
    backbone: _Backbone | None
    codes: _Codes | None = None
    counts: _Counts
    files: dict[str, _File]
    follow_links: bool = False
    roots: list[str] = []


class CheckpointConfig(_Schema):
    """`config.json` of a checkpoint."""

    kind: str = ""
    encoder: SparseEncoderConfig | None = None
    backbone: _Backbone | None = None
    codes: _Codes | None = None
    calibration: Calibration
    trained_on: Line
    training: dict[str, Any] = {}
    text_encoder: str = ""


class _Name(_Schema):
    dimension: Count
    name: Line
    score: float
    runner_up: Line
    runner_up_score: float = 0.0
    source: Line = ""
    vocabulary: Line = ""
    vocabulary_score: float = 0.0
    vocabulary_runner_up: Line = ""
    vocabulary_runner_up_score: float = 0.0


Names = list[_Name]


class Training(_Schema):
    """The part of a checkpoint's `training.json` that is read again."""

    items: list[Line]


def check_size(path: Path, most: int) -> None:
    """Raise a ValueError if a file is larger than any that Sieve writes."""
    size = path.stat().st_size
    if size > most:
        raise ValueError(f"{path} has {size:,} bytes; expected at most {most:,}")


def read_limited(path: Path, most: int) -> bytes:
    """Read a file of at most `most` bytes; see `check_size`."""
    check_size(path, most)
    return path.read_bytes()


def check_json(schema: Any, data: bytes) -> None:
    """Raise a ValueError that names the first field that does not fit a schema."""
    try:
        TypeAdapter(schema).validate_json(data, strict=True)
    except ValidationError as error:
        raise ValueError(fault_in(error)) from None


def fault_in(error: ValidationError) -> str:
    """Return the first field that does not fit a schema, and why, in one line."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))[:80]
    found = " ".join(first["msg"].split())[:160]
    return f"{place}: {found}" if place else found
