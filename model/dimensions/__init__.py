"""Interpretation of dimensions: statistics, names, examples and clarity."""

from __future__ import annotations

from sieve.model.dimensions.code_cache import CodeCache, open_code_cache, read_measurements
from sieve.model.dimensions.page import (
    DimensionPage,
    Example,
    Histogram,
    Neighbour,
    describe_dimension,
)
from sieve.model.dimensions.table import clearest_dimension, rename_rows

__all__ = [
    "CodeCache",
    "DimensionPage",
    "Example",
    "Histogram",
    "Neighbour",
    "clearest_dimension",
    "describe_dimension",
    "open_code_cache",
    "read_measurements",
    "rename_rows",
]
