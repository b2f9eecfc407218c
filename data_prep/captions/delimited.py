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
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO, AnyStr, NamedTuple

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
DELIMITERS = (",", ";", "\t", "|")

_TOKEN_NAME = r"\.[a-z0-9]{1,5}(?:\.\d)?\s*#(?:[a-z]{1,8}#)?\d{1,3}#?"
_TOKEN_LINE = re.compile(
    rf"(?i)(?:(?P<name>[^\t]+?{_TOKEN_NAME})\s*\t|(?P<other>[^\t,;|]+?{_TOKEN_NAME})[ ,;|])"
    r"\s*(?P<caption>.*)$",
    re.S,
)
_MAX_FIELD_LINES = 30
"""A quoted field with more lines is read as one with an unclosed quotation mark."""

_Line = tuple[int, str]


def delimited_rows(path: Path, columns: Columns, report: ReportMalformed) -> Iterator[CaptionRow]:
    """Read the rows of a delimited file; see `sieve.data_prep.captions.formats.read_rows`."""
    encoding = columns.encoding or detect_encoding(path)
    try:
        with path.open(encoding=encoding, newline="") as stream:
            yield from _rows(numbered_lines(stream, MAX_LINE), path, columns, report)
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


def numbered_lines(stream: IO[AnyStr], limit: int) -> Iterator[tuple[int, AnyStr]]:
    """Yield lines with their number, counted from 1; cut a line at `limit` characters or bytes."""
    for number, line in enumerate(iter(partial(stream.readline, limit), stream.read(0)), 1):
        rest = line
        while len(rest) == limit and rest[-1:] not in ("\n", "\r", b"\n"):
            rest = stream.readline(limit)
        yield number, line


class _Dialect(NamedTuple):
    """The delimiter and quoting of a table."""

    delimiter: str
    quoted: bool = True
    """Whether quotation marks enclose fields; in Flickr's files they are part of a caption."""
    skip_space: bool = False

    @classmethod
    def of(cls, delimiter: str, header: str) -> _Dialect:
        spaced = header.count(delimiter) == header.count(f"{delimiter} ") > 0
        return cls(delimiter, delimiter != "|", spaced and delimiter in ",;")

    def cells(self, lines: Sequence[str]) -> list[str]:
        """Split one record; raise csv.Error if its quotation marks do not match."""
        quoting = csv.QUOTE_MINIMAL if self.quoted else csv.QUOTE_NONE
        style = {"delimiter": self.delimiter, "skipinitialspace": self.skip_space}
        return next(csv.reader(lines, quoting=quoting, strict=True, **style), [])

    def split(self, line: str, most: int = -1) -> list[str]:
        """Split a line at every delimiter, whatever its quotation marks."""
        return line.rstrip("\r\n").split(self.delimiter, most)


def _rows(
    lines: Iterator[_Line], path: Path, columns: Columns, report: ReportMalformed
) -> Iterator[CaptionRow]:
    first = next(lines, (1, ""))
    delimiters = DELIMITERS
    if stated := re.fullmatch(r"(?i)\"?sep=(.)\"?\s*", first[1]):
        delimiters, first = (stated[1],), next(lines, (2, ""))
    if _TOKEN_LINE.match(first[1]) and columns == Columns(encoding=columns.encoding):
        yield from _token_rows(chain([first], lines), report)
        return
    dialects = [_Dialect.of(delimiter, first[1]) for delimiter in delimiters]
    dialect, names, roles = _detect_columns(first[1], dialects, columns, path)
    if not names:
        log.warning("%s has no header: its first column is the image, its second the caption", path)
        lines, names = chain([first], lines), ["image", "caption"]
    for name in filter(None, (roles.image, *roles.captions, roles.split, roles.labels)):
        if names.count(name) > 1:
            raise ValueError(f"{path} has two columns {name!r}; rename one of them")
    at_image = names.index(roles.image)
    at_captions = [names.index(name) for name in roles.captions]
    n_joined = 0
    for number, cells, raw in _records(lines, dialect, at_image, report):
        name = without_number(cells[at_image]) if len(cells) > at_image else ""
        while len(cells) > len(names) and not cells[-1].strip():
            cells.pop()
        if len(cells) > len(names):
            # An unquoted comma in a caption is unambiguous only in the last column.
            two_rows = any(IMAGE_SUFFIX.search(cell.strip()) for cell in cells[len(names) - 1 :])
            verbatim = not dialect.quoted or '"' not in raw or cells == dialect.split(raw)
            if at_captions != [len(names) - 1] or two_rows or not verbatim:
                reason = f"too many fields: {len(cells)}, expected {len(names)}"
                report(number, name, f"{reason}; quote fields that hold a delimiter")
                continue
            cells = dialect.split(raw, len(names) - 1)
            n_joined += 1
        if len(cells) <= max(at_image, *at_captions):
            report(number, name, f"too few fields: {len(cells)}, expected {len(names)}")
            continue
        yield from rows_of(number, dict(zip(names, cells, strict=False)), roles, report)
    if n_joined:
        log.warning(
            "%s: %s rows have more fields than the header; the extra fields were added to the "
            "caption (%r is not quoted there)", path, f"{n_joined:,}", dialect.delimiter,
        )  # fmt: skip


def _detect_columns(
    first: str, dialects: Sequence[_Dialect], columns: Columns, path: Path
) -> tuple[_Dialect, list[str], ColumnRoles]:
    """Detect the delimiter and the columns from the first line; no names if it is a row."""
    fault: ValueError | None = None
    plain_rows = []
    for dialect in dialects:
        names: list[str] = []
        try:
            names = [name.strip() for name in dialect.cells([first])]
            return dialect, names, find_columns(names, columns, path)
        except csv.Error:
            names = dialect.split(first)
        except ValueError as error:
            fault = error if fault is None or dialect.delimiter in first else fault
        if [bool(IMAGE_SUFFIX.search(name.strip())) for name in names] == [True, False]:
            plain_rows.append(dialect)
    if plain_rows and columns.image is None and columns.caption is None:
        return plain_rows[0], [], ColumnRoles()
    raise fault or ValueError(f"{path} has no columns; expected a header such as image,caption")


def _records(
    lines: Iterator[_Line], dialect: _Dialect, at_image: int, report: ReportMalformed
) -> Iterator[tuple[int, list[str], str]]:
    """Yield the line, the cells and the text of each record.

    An unclosed quotation mark affects one line only.
    """
    pending: list[_Line] = []
    while current := pending.pop(0) if pending else next(lines, None):
        number, raw = current
        if not raw.strip():
            continue
        taken = [current]
        plain = dialect.split(raw)
        name = plain[at_image] if len(plain) > at_image else ""
        while True:
            try:
                cells = dialect.cells([line for _, line in taken])
            except csv.Error as error:
                if "unexpected end of data" in str(error) and len(taken) < _MAX_FIELD_LINES:
                    more = pending.pop(0) if pending else next(lines, None)
                    if more is not None:
                        taken.append(more)
                        if not _starts_a_row(more[1], dialect, at_image, name):
                            continue
                pending[:0] = taken[1:]
                if dialect.delimiter == "\t":  # quotation marks are part of a caption
                    yield number, plain, raw
                else:
                    reason = "a quotation mark is not closed, or is inside a quoted field"
                    report(number, without_number(name.strip('" ')), f"not a CSV row: {reason}")
                break
            yield number, cells, "".join(line for _, line in taken)
            break


def _starts_a_row(line: str, dialect: _Dialect, at_image: int, name: str) -> bool:
    """Return whether a line inside a quoted field looks like the next row, with an image name."""
    cells = dialect.split(line)
    if len(cells) <= max(at_image, 1):
        return False
    found = cells[at_image].strip()
    if found.count('"') % 2:  # the end of a quoted name that has a line break
        return False
    found = found.strip('"')
    if IMAGE_SUFFIX.search(name.strip().strip('"')):
        return bool(IMAGE_SUFFIX.search(found))
    return bool(found) and not re.search(r"\s", found)  # names without an extension, such as ids


def _token_rows(lines: Iterator[_Line], report: ReportMalformed) -> Iterator[CaptionRow]:
    """Read a token file: a numbered name and a caption on each line, without a header."""
    for number, line in lines:
        if found := _TOKEN_LINE.match(line):
            value = {"image": found["name"] or found["other"], "caption": found["caption"]}
            yield from rows_of(number, value, ColumnRoles(), report)
        elif line.strip():
            reason = "no numbered image name, such as a.jpg#0, at the start of the line"
            report(number, line[:200], reason)
