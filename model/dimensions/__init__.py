"""What dimensions mean: statistics, names, examples, and how clear all of it is."""

from __future__ import annotations

from sieve.model.dimensions.cache import CodeCache, derive
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
    "derive",
    "describe_dimension",
    "rename_rows",
]
