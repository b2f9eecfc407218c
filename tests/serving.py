"""Serve an engine during a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sieve.model.engine import SearchEngine


@contextmanager
def serving(engine: SearchEngine, port: int, **options: Any) -> Iterator[str]:
    """Serve an engine, and yield the address of its page."""
    from sieve.explorer.app import start

    served = start(engine, port=port, **options)
    try:
        yield served.url
    finally:
        served.app.close()
