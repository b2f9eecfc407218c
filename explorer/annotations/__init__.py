"""User annotations of dimensions (names, notes, tags, stars) and saved searches."""

from __future__ import annotations
