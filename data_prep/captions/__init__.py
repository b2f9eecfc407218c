"""Captions: text, files in any format, tables grouped by image, and placeholder images.

Only `caption_text` is imported here, so that the command line starts without pyarrow and
matplotlib.
"""

from __future__ import annotations

from sieve.data_prep.captions.caption_text import (
    Columns,
    ImageDescription,
    caption_fault,
    split_named,
    tidy,
)

__all__ = ["Columns", "ImageDescription", "caption_fault", "split_named", "tidy"]
