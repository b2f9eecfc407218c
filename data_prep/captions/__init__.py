"""Captions: as text, in files of any format, put together by image, and drawn as a picture.

Only `text.py` is imported here: the command line uses it, and waits for no pyarrow or matplotlib.
"""

from __future__ import annotations

from sieve.data_prep.captions.caption_text import (
    Columns,
    Described,
    caption_fault,
    split_named,
    tidy,
)

__all__ = ["Columns", "Described", "caption_fault", "split_named", "tidy"]
