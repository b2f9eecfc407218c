"""Delimited caption files: CSV and its variants, and the token files of Flickr8k and Flickr30k.

Flickr30k's `results.csv` separates fields with `|`. A `*.token` file has no header and numbers the
captions of an image (`1000092795.jpg#0`).
"""

from __future__ import annotations

import codecs
import csv
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import BinaryIO, NamedTuple, TextIO

from sieve.data_prep.captions.caption_rows import (
    IMAGE_SUFFIX,
    CaptionRow,
    ColumnRoles,
    ReportMalformed,
    find_columns,
    rows_of,
    without_number,
)
from sieve.data_prep.captions.caption_text import Columns

log = logging.getLogger(__name__)

MAX_LINE = 1 << 20
"""Longer lines are cut."""

_TOKEN_LINE = re.compile(
    r"(?i)(?:(?P<name>[^\t]+?\.[a-z0-9]{1,5}(?:\.\d)?\s*#(?:[a-z]{1,8}#)?\d{1,3}#?)\s*\t"
    r"|(?P<other>[^\t,;|]+?\.[a-z0-9]{1,5}(?:\.\d)?\s*#(?:[a-z]{1,8}#)?\d{1,3}#?)[ ,;|])"
    r"\s*(?P<caption>.*)$",
    re.S,
)
_DELIMITERS = (",", ";", "\t", "|")
_MAX_FIELD_LINES = 30
"""A quoted field with more lines is read as one with an unclosed quotation mark."""


def delimited_rows(path: Path, columns: Columns, report: ReportMalformed) -> Iterator[CaptionRow]:
    """Read the rows of a delimited file; see `sieve.data_prep.captions.formats.read_rows`."""
    encoding = columns.encoding or detect_encoding(path)
    try:
        with path.open(encoding=encoding, newline="") as stream:
            yield from _delimited(_lines(stream), path, columns, report)
    except LookupError:
        raise ValueError(
            f"there is no encoding {columns.encoding!r}; use utf-8, utf-16, latin-1 or cp1252"
        ) from None
    except UnicodeError as error:
        where = f" at byte {error.start}" if isinstance(error, UnicodeDecodeError) else ""
        reason = getattr(error, "reason", str(error))
        name = "UTF-8" if encoding == "utf-8-sig" else encoding
        raise ValueError(
            f"{path} is not {name} ({reason}{where}); save it as UTF-8, or name its encoding, "
            "such as --encoding latin-1"
        ) from None


def detect_encoding(path: Path) -> str:
    """Return the encoding that a byte-order mark indicates, else UTF-8."""
    with path.open("rb") as stream:
        start = stream.read(4)
    if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    return "utf-8-sig"


def _lines(stream: TextIO) -> Iterator[str]:
    """Yield lines with their line ending; cut a line at `MAX_LINE` characters."""
    while line := stream.readline(MAX_LINE):
        rest = line
        while rest and len(rest) == MAX_LINE and rest[-1] not in "\r\n":
            rest = stream.readline(MAX_LINE)
        yield line


class _Dialect(NamedTuple):
    """The delimiter and quoting of a table."""

    delimiter: str
    quoted: bool = True
    """Whether quotation marks enclose fields; in Flickr's files they are part of a caption."""
    skip_space: bool = False

    def cells(self, lines: Sequence[str]) -> list[str]:
        """Split one record, which may span several lines.

        Raises
        ------
        csv.Error
            If its quotation marks do not match.
        """
        quoting = csv.QUOTE_MINIMAL if self.quoted else csv.QUOTE_NONE
        reader = csv.reader(
            lines,
            delimiter=self.delimiter,
            quoting=quoting,
            strict=True,
            skipinitialspace=self.skip_space,
        )
        return next(iter(reader), [])

    def is_verbatim(self, record: _Record) -> bool:
        """Return whether no quotation mark of a record had a meaning."""
        return (
            not self.quoted
            or '"' not in record.raw
            or self.delimiter.join(record.cells) == record.raw.rstrip("\r\n")
        )


class _Record(NamedTuple):
    line: int
    cells: list[str]
    raw: str


def _delimited(
    lines: Iterator[str], path: Path, columns: Columns, report: ReportMalformed
) -> Iterator[CaptionRow]:
    pending: list[tuple[int, str]] = []
    numbered = enumerate(lines, 1)
    first = next(numbered, (1, ""))
    stated = re.fullmatch(r"(?i)\"?sep=(.)\"?\s*", first[1].rstrip("\r\n"))
    if stated:
        first = next(numbered, (2, ""))
    if _TOKEN_LINE.match(first[1].rstrip("\r\n")) and columns == Columns(encoding=columns.encoding):
        yield from _token_rows(first, numbered, report)
        return
    dialect, header = _dialect(first[1], stated[1] if stated else None, columns, path)
    if header is None:
        log.warning("%s has no header: its first column is the image, its second the caption", path)
        pending.append(first)
        header = ["image", "caption"]
    names = [name.strip() for name in header]
    roles = find_columns(names, columns, path)
    for name in filter(None, (roles.image, *roles.captions, roles.split, roles.labels)):
        if names.count(name) > 1:
            raise ValueError(f"{path} has two columns {name!r}; rename one of them")
    at_image = names.index(roles.image)
    at_captions = [names.index(name) for name in roles.captions]
    n_joined = 0
    for record in _records(pending, numbered, dialect, at_image, report):
        cells = record.cells
        name = without_number(cells[at_image]) if len(cells) > at_image else ""
        while len(cells) > len(names) and not cells[-1].strip():
            cells.pop()
        if len(cells) > len(names):
            # An unquoted comma in a caption is unambiguous only in the last column.
            two_rows = any(IMAGE_SUFFIX.search(cell.strip()) for cell in cells[len(names) - 1 :])
            last = at_captions == [len(names) - 1]
            if not last or two_rows or not dialect.is_verbatim(record):
                reason = f"too many fields: {len(cells)}, expected {len(names)}"
                report(record.line, name, f"{reason}; quote fields that hold a delimiter")
                continue
            cells = record.raw.rstrip("\r\n").split(dialect.delimiter, len(names) - 1)
            n_joined += 1
        if len(cells) <= max(at_image, *at_captions):
            report(record.line, name, f"too few fields: {len(cells)}, expected {len(names)}")
            continue
        value = dict(zip(names, cells, strict=False))
        yield from rows_of(record.line, value, roles, report)
    if n_joined:
        log.warning(
            "%s: %s rows have more fields than the header; the extra fields were added to the "
            "caption (%r is not quoted there)", path, f"{n_joined:,}", dialect.delimiter,
        )  # fmt: skip


def _dialect(
    first: str, stated: str | None, columns: Columns, path: Path
) -> tuple[_Dialect, list[str] | None]:
    """Detect the delimiter from the first line, and return its header; None if it is a row."""
    fault: ValueError | None = None
    dialects = []
    for delimiter in [stated] if stated else _DELIMITERS:
        spaced = first.count(delimiter) == first.count(f"{delimiter} ") > 0
        dialects.append(_Dialect(delimiter, delimiter != "|", spaced and delimiter in ",;"))
    for dialect in dialects:
        try:
            header = dialect.cells([first])
            find_columns([name.strip() for name in header], columns, path)
        except csv.Error:
            continue
        except ValueError as error:
            fault = error if fault is None or dialect.delimiter in first else fault
            continue
        return dialect, header
    if columns.image is None and columns.caption is None:
        for dialect in dialects:
            cells = first.rstrip("\r\n").split(dialect.delimiter)
            with suppress(csv.Error):
                cells = dialect.cells([first])
            named = [bool(IMAGE_SUFFIX.search(cell.strip())) for cell in cells]
            if named == [True, False]:
                return dialect, None
    raise fault or ValueError(f"{path} has no columns; expected a header such as image,caption")


def _records(
    pending: list[tuple[int, str]],
    lines: Iterator[tuple[int, str]],
    dialect: _Dialect,
    at_image: int,
    report: ReportMalformed,
) -> Iterator[_Record]:
    """Split lines into records; an unclosed quotation mark affects one line only."""

    def following() -> tuple[int, str] | None:
        return pending.pop(0) if pending else next(lines, None)

    while (current := following()) is not None:
        number, raw = current
        if not raw.strip():
            continue
        taken = [current]
        plain = raw.rstrip("\r\n").split(dialect.delimiter)
        name = plain[at_image] if len(plain) > at_image else ""
        while True:
            try:
                cells = dialect.cells([line for _, line in taken])
            except csv.Error as error:
                if "unexpected end of data" in str(error) and len(taken) < _MAX_FIELD_LINES:
                    more = following()
                    if more is not None:
                        taken.append(more)
                        if not _starts_a_row(more[1], dialect, at_image, name):
                            continue
                pending[:0] = taken[1:]
                if dialect.delimiter == "\t":  # quotation marks are part of a caption
                    yield _Record(number, plain, raw)
                else:
                    reason = "a quotation mark is not closed, or is inside a quoted field"
                    report(number, without_number(name.strip('" ')), f"not a CSV row: {reason}")
                break
            yield _Record(number, cells, "".join(line for _, line in taken))
            break


def _starts_a_row(line: str, dialect: _Dialect, at_image: int, name: str) -> bool:
    """Return whether a line inside a quoted field looks like the next row, with an image name."""
    cells = line.rstrip("\r\n").split(dialect.delimiter)
    if len(cells) <= max(at_image, 1):
        return False
    found = cells[at_image].strip()
    if found.count('"') % 2:  # the end of a quoted name that has a line break
        return False
    found = found.strip('"')
    if IMAGE_SUFFIX.search(name.strip().strip('"')):
        return bool(IMAGE_SUFFIX.search(found))
    return bool(found) and not re.search(r"\s", found)  # names without an extension, such as ids


def _token_rows(
    first: tuple[int, str], lines: Iterator[tuple[int, str]], report: ReportMalformed
) -> Iterator[CaptionRow]:
    """Read a token file: a numbered name and a caption on each line, without a header."""
    roles = ColumnRoles("image", ("caption",), None, None)
    for number, line in chain([first], lines):
        found = _TOKEN_LINE.match(line.rstrip("\r\n"))
        if found:
            value = {"image": found["name"] or found["other"], "caption": found["caption"]}
            yield from rows_of(number, value, roles, report)
        elif line.strip():
            reason = "no numbered image name, such as a.jpg#0, at the start of the line"
            report(number, line[:200], reason)


def numbered_lines(stream: BinaryIO, limit: int) -> Iterator[tuple[int, bytes]]:
    """Yield lines with their number, counted from 1; cut a line at `limit` bytes."""
    number = 0
    while line := stream.readline(limit):
        number += 1
        rest = line
        while rest and not rest.endswith(b"\n"):
            rest = stream.readline(limit)
        yield number, line
