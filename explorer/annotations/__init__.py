"""What people keep about dimensions: names, notes, tags, stars, and saved searches."""

from __future__ import annotations
