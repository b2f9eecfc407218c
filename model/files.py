"""Files: atomic writes, checksums, changes while open, disk errors, CSV cells, `$SIEVE_HOME`.

The JSON files of artifacts are untrusted input, which is validated by a `Schema`. So are captions,
names, notes and file names: spreadsheets run a cell that begins like a formula, and a formula can
send the sheet's contents elsewhere. In a CSV, a leading apostrophe turns it into text. Cells that
already begin with apostrophes get one more, so that reading can remove one.

Files and folders are written under a temporary name that begins with a dot, and renamed in one step
when they are complete. Their permissions follow the umask.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tokenize import TokenError
from typing import Annotated, Any, TypeVar
from zipfile import BadZipFile

import numpy as np
import platformdirs
from numpy.lib.format import open_memmap
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import ErrorDetails, PydanticCustomError


def sieve_home() -> Path:
    """Return the folder of collections, checkpoints and caches, `$SIEVE_HOME` if it is set."""
    return Path(os.environ.get("SIEVE_HOME") or platformdirs.user_data_dir("sieve"))


UNREADABLE = (
    ValueError, OSError, EOFError, SyntaxError, TokenError, zlib.error, BadZipFile,
    TypeError, IndexError, OverflowError, MemoryError, RecursionError,
)  # fmt: skip
"""Exceptions of NumPy for an invalid array file, whose header it parses as Python literals."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_MESSAGES = ("No space left", "(os error 28)", "(os error 27)", "File too large")
_MIN_FREE_BYTES = 1 << 20
_ERRNO = re.compile(r"\[Errno -?\d+\] ")


def reason_of(error: BaseException, limit: int = 120) -> str:
    """Return an exception's message in one short line, or its type if it has no message."""
    message = _ERRNO.sub("", " ".join(str(error).split()))
    return message[:limit] or type(error).__name__


def disk_is_full(error: BaseException, folder: Path) -> bool:
    """Return whether an error of writing to a folder means that the disk is full.

    NumPy, Arrow and safetensors set no errno.
    """
    if getattr(error, "errno", None) in _FULL or any(text in str(error) for text in _FULL_MESSAGES):
        return True
    if not isinstance(error, OSError) or error.errno is not None:
        return False
    if "written" in str(error):
        return True
    return folder.is_dir() and shutil.disk_usage(folder).free < _MIN_FREE_BYTES


@contextmanager
def report_full_disk(folder: Path) -> Iterator[None]:
    """Turn any library's error about a full disk into an OSError of one line."""
    try:
        yield
    except Exception as error:
        if not disk_is_full(error, folder):
            raise
        raise OSError(
            f"the disk that holds {folder} is full; free some space and run again"
        ) from None


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
    first = error.errors(include_url=False)[0]
    # The other parts are names of pydantic for the members of a union.
    parts = [str(part) for part in first["loc"] if re.fullmatch(r"\w+", str(part))]
    place = ".".join(parts)[:80]
    found = " ".join(expectation(first).split())[:160]
    if found.startswith("must "):
        value = first["input"]
        kind = "a list" if isinstance(value, list) else "a JSON object"
        is_short = value is None or isinstance(value, str | int | float)
        text = json.dumps(value, ensure_ascii=False) if is_short else kind
        found += f"; got {text[:60]}"
        place = place or "it"
    is_predicate = found.startswith(("must ", "is ", "has "))
    return f"{place} {found}" if is_predicate else ": ".join(filter(None, [place, found]))


_EXPECTATIONS = {
    **dict.fromkeys(("string_type", "string_sub_type", "string_unicode"), "must be a string"),
    **dict.fromkeys(
        ("int_type", "int_parsing", "int_parsing_size", "int_from_float"), "must be a whole number"
    ),
    **dict.fromkeys(("float_type", "float_parsing"), "must be a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    **dict.fromkeys(
        ("list_type", "tuple_type", "set_type", "frozen_set_type", "iterable_type"),
        "must be a list",
    ),
    **dict.fromkeys(
        ("dict_type", "mapping_type", "dataclass_type", "model_type", "model_attributes_type"),
        "must be a JSON object",
    ),
    "none_required": "must be null",
    "missing": "is required",
    "string_pattern_mismatch": "has an unexpected format",
    **dict.fromkeys(("extra_forbidden", "unexpected_keyword_argument"), "is not a known field"),
}
"""Expectations by pydantic's type of error, in the words of JSON."""


def expectation(fault: ErrorDetails) -> str:
    """Return what was expected of a value, without the terms of pydantic: `must be a number`."""
    if known := _EXPECTATIONS.get(fault["type"]):
        return known
    message = re.sub(r" after validation, not .*|^Value error, ", "", fault["msg"])
    return re.sub(r"^\w+ should ", "must ", message)


def matching(pattern: str, expected: str) -> AfterValidator:
    """Return a validator of texts that match a pattern as a whole.

    `expected` describes the texts in messages and has an example: `must be …, such as …`.
    """
    compiled = re.compile(pattern)

    def check(text: str) -> str:
        if not compiled.fullmatch(text):
            raise PydanticCustomError("text_format", "{expected}", {"expected": expected})
        return text

    return AfterValidator(check)


CHECKSUMS = "checksums.json"
_CHUNK = 1 << 20


class FileSum(Schema):
    """Size and CRC-32 of a file when it was written.

    CRC-32 detects every error of up to 32 bits in a row, by a disk or a copy, at several gigabytes
    per second, but no deliberate changes.
    """

    bytes: int
    crc32: str


def write_checksums(folder: Path, names: Iterable[str]) -> None:
    """Write `checksums.json` of some complete files of a folder."""
    entries = {name: _sum(folder / name).model_dump() for name in sorted(names)}
    (folder / CHECKSUMS).write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")


def check_files(
    folder: Path,
    remedy: str,
    only: Iterable[str] | None = None,
    *,
    needs: Iterable[str] = (),
    required: bool = True,
) -> None:
    """Compare the files of a folder with its `checksums.json`.

    Parameters
    ----------
    folder : Path
    remedy : str
        What to do if a file is damaged, for the end of the message.
    only : iterable of str, optional
        Files to compare; by default all.
    needs : iterable of str
        Files that must have a checksum.
    required : bool
        Whether a folder without `checksums.json` is an error; not if Sieve may not have written it.

    Raises
    ------
    ValueError
        If a file, or `checksums.json` itself, is damaged or missing.
    """
    path = folder / CHECKSUMS
    if not path.is_file():
        if not required:
            return
        raise ValueError(
            f"{folder} has no {CHECKSUMS}, which is written with it: it is incomplete or was "
            f"changed; {remedy}"
        )
    sums: dict[str, FileSum] = read_json(path, dict[str, FileSum], remedy, MAX_HEAD_BYTES)
    for name in dict.fromkeys([*(sums if only is None else only), *needs]):
        if name not in sums:
            raise ValueError(f"{path} is damaged (it does not list {name}); {remedy}")
        part = folder / name
        if Path(name).name != name or not part.is_file():
            raise ValueError(f"{part} is missing; {remedy}")
        if part.stat().st_size != sums[name].bytes or _sum(part) != sums[name]:
            raise ValueError(f"{part} is damaged: its bytes have changed; {remedy}")


def _sum(path: Path) -> FileSum:
    """Checksum a file in chunks, not as a map, which would count as memory of this process."""
    size, crc, buffer = 0, 0, memoryview(bytearray(_CHUNK))
    with path.open("rb", buffering=0) as stream:
        while n := stream.readinto(buffer):
            size, crc = size + n, zlib.crc32(buffer[:n], crc)
    return FileSum(bytes=size, crc32=f"{crc:08x}")


class OpenedFiles:
    """The state of some files when they were opened.

    Create it before the files are verified and mapped, to detect every change. A mapped file that
    is overwritten in place gives other results, and a truncated one ends the process with SIGBUS.
    """

    def __init__(self, *paths: Path) -> None:
        self._opened = {os.fspath(path): _state(path) for path in paths}

    def check(self) -> None:
        """Raise a ValueError if a file has changed since it was opened.

        Compares its size, time and inode in about 2 µs.
        """
        for path, opened in self._opened.items():
            try:
                is_same = _state(path) == opened
            except OSError:
                is_same = False
            if not is_same:
                raise ValueError(
                    f"{path} has changed or was removed while it was open; restart Sieve, and "
                    "write changes to a new folder instead"
                )


class MappedArray(np.memmap):
    """A read-only memory map of a `.npy` file that raises a ValueError once the file has changed.

    Each indexing checks the file, so read large arrays in slices. Operations on the whole array
    check nothing, and a file that is truncated during a read still ends the process.
    """

    _opened: OpenedFiles | None = None

    @classmethod
    def open(cls, path: Path) -> MappedArray:
        """Map a file; raises one of `UNREADABLE` if it is no array of numbers."""
        opened = OpenedFiles(path)
        array = open_memmap(path, mode="r").view(cls)
        array._opened = opened
        return array

    def __array_finalize__(self, obj: Any) -> None:
        """Pass the file on to views of the array, but not to copies."""
        super().__array_finalize__(obj)
        is_view = self._mmap is not None  # pyright: ignore[reportAttributeAccessIssue]
        self._opened = getattr(obj, "_opened", None) if is_view else None

    def __getitem__(self, key: Any, /) -> Any:
        """Return a view, or a copy as a plain array."""
        self.check()
        part = super().__getitem__(key)
        if isinstance(part, MappedArray) and part._opened is None:
            return part.view(np.ndarray)
        return part

    def check(self) -> None:
        """Raise a ValueError if the file has changed since it was mapped."""
        if self._opened is not None:
            self._opened.check()


def _state(path: str | Path) -> tuple[int, ...]:
    stat = os.stat(path)
    return stat.st_size, stat.st_mtime_ns, stat.st_ino, stat.st_dev


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Write a new folder atomically; of two concurrent writers, the first to finish wins.

    Yields an empty temporary folder, which is renamed to `target` at the end.

    Raises
    ------
    FileExistsError
        If `target` exists already, or another writer has created it in between.
    OSError
        If the disk is full.
    """
    if target.exists():
        raise FileExistsError(f"{target} exists already; choose another name or remove it first")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_name(target)
    temporary.mkdir()
    try:
        with report_full_disk(target.parent):
            yield temporary
        try:
            temporary.rename(target)
        except OSError as error:
            if target.exists():
                raise FileExistsError(f"another process has just created {target}") from None
            raise error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _temporary_name(path: Path) -> Path:
    """Return an unused name; `tempfile` would ignore the umask and make its files private."""
    return path.with_name(f".{path.name}-{secrets.token_hex(4)}{path.suffix}")


@contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """Create an empty temporary file with the same suffix; it is removed unless it is renamed."""
    temporary = _temporary_name(path)
    try:
        temporary.touch(exist_ok=False)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Write a file atomically: yield a temporary file, which replaces it unless an error occurs.

    Raises an OSError if the disk is full.
    """
    with report_full_disk(path.parent), temporary_beside(path) as temporary:
        yield temporary
        temporary.replace(path)


def claim_name(temporary: Path, path: Path) -> bool:
    """Rename a temporary file; return False if the name has been taken in between."""
    try:
        os.link(temporary, path)  # unlike a rename, it never replaces a file
    except FileExistsError:
        return False
    except OSError:  # a file system without links
        if path.exists():
            return False
        temporary.replace(path)
    return True


def link_or_copy(path: Path, target: Path) -> None:
    """Make a symbolic or hard link to a file, or copy it if the file system has none."""
    source = path.resolve()
    for link in (os.symlink, os.link):
        with suppress(OSError):  # or the user may not create them
            link(source, target)
            return
    shutil.copyfile(source, target)


_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def safe_cell(value: Any) -> Any:
    """Return a value that is safe in a CSV file: text like a formula gets a leading apostrophe.

    Numbers are unchanged, even negative ones. Missing values and NaN become an empty cell; lists
    and objects become JSON.
    """
    if isinstance(value, str):
        return f"'{value}" if _FORMULA.match(value) else value
    if isinstance(value, list | tuple | dict):
        return json.dumps(value, ensure_ascii=False)
    import pandas as pd  # slow to import, and needed only here

    return "" if pd.isna(value) else value


def read_cell(cell: str) -> str:
    """Reverse `safe_cell` for a text."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
