"""A temporary folder of this process alone, for uploads and figures.

Gradio's own is shared: of two people on a machine the second cannot write into it, and each can
read what the other uploads.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

VARIABLE = "GRADIO_TEMP_DIR"


@cache
def private_folder() -> Path:
    """Make the folder with mode 0700, inside `$GRADIO_TEMP_DIR` if that is set; removed at exit."""
    parent = os.environ.get(VARIABLE) or None
    if parent:
        Path(parent).mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="sieve-", dir=parent)).resolve()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ[VARIABLE] = str(folder)
    return folder
