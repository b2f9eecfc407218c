"""What dimensions mean: statistics, names, examples, and how clear all of it is."""

from __future__ import annotations

from model.dimensions.derived import Derived, derive
from model.dimensions.page import DimensionPage, Example, Histogram, Neighbour, describe_dimension

__all__ = [
    "Derived",
    "DimensionPage",
    "Example",
    "Histogram",
    "Neighbour",
    "derive",
    "describe_dimension",
]
