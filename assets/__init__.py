"""What ships with Sieve: scene sprites, the bundled backbone, checkpoints and embeddings."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

ROOT = Path(str(files(__name__)))
"""Folder of the shipped files. Wheels are unpacked on install, so this is a real path."""
