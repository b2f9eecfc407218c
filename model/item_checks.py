"""Checks of a collection's table of items, whoever wrote it: kinds of columns, ids, no holes.

An id becomes the name of a file and a part of addresses, captions and labels are joined as texts,
sizes are divided: what is checked here once need not be doubted anywhere else.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

ITEM_ID = r"^[0-9a-f]{16}$"


def items_fault(table: pa.Table) -> str:
    """Tell what is wrong with a table of items, in a few words; nothing where it is sound.

    Parameters
    ----------
    table : pyarrow.Table
        As it was read; columns that it lacks are not looked at.
    """
    doubled = {name for name in table.column_names if table.column_names.count(name) > 1}
    if doubled:
        return f"it has column {min(doubled)} twice"
    for names, is_right, kind in (
        (("id",), _is_text, "texts without a gap"),
        (("image", "split"), lambda column: _is_text(column, gaps=True), "texts"),
        (("captions", "labels"), _is_texts, "lists of texts without a gap"),
        (("width", "height"), _is_size, "whole numbers of at least 0"),
    ):
        for name in set(names) & set(table.column_names):
            if not is_right(table[name]):
                return f"column {name} must hold {kind}; it holds {table[name].type}"
    if "id" in table.column_names:
        good = pc.call_function(
            "match_substring_regex", [table["id"]], pc.MatchSubstringOptions(ITEM_ID)
        )
        if not pc.call_function("all", [good]).as_py() and len(table):
            return "an id is not 16 hex digits"
        if pc.call_function("count_distinct", [table["id"]]).as_py() < len(table):
            return "two items have the same id"
    return ""


def _is_text(column: pa.ChunkedArray, *, gaps: bool = False) -> bool:
    kind = column.type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return (is_text or (gaps and pa.types.is_null(kind))) and (gaps or not column.null_count)


def _is_texts(column: pa.ChunkedArray) -> bool:
    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or column.null_count:
        return False
    inner = pa.chunked_array([chunk.flatten() for chunk in column.chunks], kind.value_type)
    # Where no item has a label, there is no text to tell the kind by.
    return _is_text(inner) or (pa.types.is_null(inner.type) and not len(inner))


def _is_size(column: pa.ChunkedArray) -> bool:
    if not pa.types.is_integer(column.type) or column.null_count:
        return False
    return not len(column) or pc.call_function("min", [column]).as_py() >= 0
