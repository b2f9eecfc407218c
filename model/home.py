"""Where Sieve keeps what it makes: `$SIEVE_HOME`, by default the user's data folder."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def sieve_home() -> Path:
    """Root of collections, checkpoints and derived files."""
    return Path(os.environ.get("SIEVE_HOME") or platformdirs.user_data_dir("sieve"))
