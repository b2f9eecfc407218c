"""Texts as cells of CSV that no spreadsheet runs.

File names, captions and notes are anybody's words. A spreadsheet takes a cell that starts like a
formula for one, and a formula can send the sheet's contents away; an apostrophe before it makes it
text. What has apostrophes there already gets one more, so that reading can take one off.
"""

from __future__ import annotations

import re

_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def safe_text(text: str) -> str:
    """Write a text so that it is one in a spreadsheet too."""
    return f"'{text}" if _FORMULA.match(text) else text


def read_text(cell: str) -> str:
    """Read a text as it was before `safe_text`."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
