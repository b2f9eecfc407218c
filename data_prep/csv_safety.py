"""Cells of CSV that no spreadsheet runs.

Captions, names, notes and file names are anybody's words. A spreadsheet takes a cell that starts
like a formula for one, and a formula can send the sheet's contents away; an apostrophe before it
makes it text. What has apostrophes there already gets one more, so that reading can take one off.
"""

from __future__ import annotations

import json
import re
from typing import Any

_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def safe_cell(value: Any) -> Any:
    """Make a value safe to stand in CSV: a text that starts like a formula gets an apostrophe.

    Numbers stay as they are, also negative ones; what is missing or NaN becomes an empty cell;
    lists and objects become JSON.
    """
    if isinstance(value, str):
        return f"'{value}" if _FORMULA.match(value) else value
    if isinstance(value, list | tuple | dict):
        return json.dumps(value, ensure_ascii=False)
    import pandas as pd  # not before a table is written: it takes a while

    return "" if pd.isna(value) else value


def read_cell(cell: str) -> str:
    """Read a text as it was before `safe_cell`."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
