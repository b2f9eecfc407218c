"""Shipped files: scene sprites, word lists, the bundled backbone, checkpoints and embeddings."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

ROOT = Path(str(files(__name__)))
"""Folder of the shipped files; a real path, because wheels are unpacked on install."""
