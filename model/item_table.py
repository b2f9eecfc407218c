"""The table of a collection's items: validation, texts, and names of the original files.

Ids become file names and parts of URLs, so `items_fault` validates the whole table when it is read;
no other module repeats these checks.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from operator import index
from typing import SupportsIndex

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

ITEM_ID = r"^[0-9a-f]{16}$"
_MEMBER = re.compile(r"(?P<tar>.+?)::(?P<member>.+)@\d+\+\d+", re.S)
_CELL = re.compile(r"(?P<table>.+\.parquet)::[^:\[\]]+\[(?P<group>\d+),(?P<row>\d+)\]", re.S)


def items_fault(table: pa.Table) -> str:
    """Return why a table of items is invalid, in a few words; empty if it is valid."""
    names = table.column_names
    if missing := [name for name in COLUMNS if name not in names]:
        return f"it lacks {', '.join(missing)}"
    for name, (is_right, kind) in COLUMNS.items():
        if names.count(name) > 1:
            return f"it has column {name} twice"
        if not is_right(table[name]):
            return f"column {name} must hold {kind}; it holds {table[name].type}"
    good = pc.call_function(
        "match_substring_regex", [table["id"]], pc.MatchSubstringOptions(ITEM_ID)
    )
    if not pc.call_function("all", [good]).as_py() and len(table):
        return "an id is not 16 hex digits"
    if pc.call_function("count_distinct", [table["id"]]).as_py() < len(table):
        return "two items have the same id"
    return ""


def _is_text_or_null(column: pa.ChunkedArray) -> bool:
    kind = column.type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)


def _is_text(column: pa.ChunkedArray) -> bool:
    return _is_text_or_null(column) and not column.null_count and not pa.types.is_null(column.type)


def _is_text_lists(column: pa.ChunkedArray) -> bool:
    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or column.null_count:
        return False
    inner = pa.chunked_array([chunk.flatten() for chunk in column.chunks], kind.value_type)
    # If no item has a label, the lists have no text type.
    return _is_text(inner) or (pa.types.is_null(inner.type) and not len(inner))


def _is_size(column: pa.ChunkedArray) -> bool:
    if not pa.types.is_integer(column.type) or column.null_count:
        return False
    return not len(column) or pc.call_function("min", [column]).as_py() >= 0


_LISTS, _SIZE = "lists of texts without a gap", "whole numbers of at least 0"
COLUMNS = {
    "id": (_is_text, "texts without a gap"),
    "image": (_is_text_or_null, "texts"),
    "captions": (_is_text_lists, _LISTS),
    "labels": (_is_text_lists, _LISTS),
    "split": (_is_text_or_null, "texts"),
    "width": (_is_size, _SIZE),
    "height": (_is_size, _SIZE),
}
"""For each column of the table, whether it is valid, and what it must hold."""


class Texts:
    """The strings in a column of lists of strings, stored in Arrow.

    Millions of Python strings would take gigabytes.
    """

    def __init__(self, lists: object) -> None:
        array = pa.array(lists, pa.list_(pa.string()))
        chunks = array.chunks if isinstance(array, pa.ChunkedArray) else [array]
        self.array = pa.chunked_array([chunk.flatten() for chunk in chunks], pa.string())

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, row: SupportsIndex) -> str:
        return self.array[index(row)].as_py()

    def __iter__(self) -> Iterator[str]:
        return map(pa.StringScalar.as_py, self.array)


class FileNames:
    """Names of the items' original files, from the column `image`, relative to the source folders.

    The column holds an original's location on the machine that prepared the collection: a path, a
    member of a tar file (`TAR::MEMBER@START+SIZE`), a cell of a Parquet file
    (`FILE.parquet::COLUMN[GROUP,ROW]`), or a scene (`scene:SEED:INDEX`). Files outside all source
    folders are named relative to the deepest folder that they have in common.
    """

    def __init__(self, images: pd.Series, roots: Sequence[str]) -> None:
        self._images = images
        # Longest first, because one source folder may be inside another.
        self._roots = sorted({_with_slash(root) for root in roots}, key=len, reverse=True)
        self._roots += _common_folder(images, self._roots)

    def __getitem__(self, row: int) -> str:
        """Return the name of an item's file: its path with forward slashes inside the source.

        It is `SHARD.tar/KEY` or `SHARD.parquet/GROUP-ROW` for images in shards.
        """
        image = self._images.iloc[row]
        if pd.isna(image):
            return ""
        path = _shard_path(str(image))
        root = next((root for root in self._roots if path.startswith(root)), None)
        if root is None and os.path.isabs(path):
            return path.rpartition("/")[2]
        return path.removeprefix(root or "")


def _shard_path(image: str) -> str:
    """Convert a reference into a shard to a path with forward slashes."""
    if "::" not in image:  # the common case, and the patterns are slow
        return image.replace(os.sep, "/")
    if member := _MEMBER.fullmatch(image):
        folder, _, name = member["member"].removeprefix("./").rpartition("/")
        key = name.rpartition(".")[0] or name
        image = "/".join(part for part in (member["tar"], folder, key) if part)
    elif cell := _CELL.fullmatch(image):
        image = f"{cell['table']}/{cell['group']}-{cell['row']}"
    return image.replace(os.sep, "/")


def _with_slash(root: str) -> str:
    return root.replace(os.sep, "/").rstrip("/") + "/"


def _common_folder(images: pd.Series, roots: Sequence[str]) -> list[str]:
    """Return the common folder of absolute paths outside the roots, unless it is `/`."""
    paths = pa.array(images, pa.string())
    outside = pc.call_function("starts_with", [paths], pc.MatchSubstringOptions("/"))
    for root in roots:
        inside = pc.call_function("starts_with", [paths], pc.MatchSubstringOptions(root))
        outside = pc.call_function("and_not", [outside, inside])
    ends = pc.call_function("min_max", [paths.filter(outside)]).as_py()
    if ends["min"] is None:
        return []
    # The common folder of the first and the last path in order is that of all.
    folder = os.path.commonpath(
        [os.path.dirname(path.partition("::")[0]) for path in ends.values()]
    )
    return [] if folder == os.sep else [_with_slash(folder)]
