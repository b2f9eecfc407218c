"""Protect CSV cells against formula injection.

Captions, names, notes and file names are untrusted. Spreadsheets run a cell that begins like a
formula, and a formula can send the sheet's contents elsewhere. A leading apostrophe turns it into
text. Cells that already begin with apostrophes get one more, so that reading can remove one.
"""

from __future__ import annotations

import json
import re
from typing import Any

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
