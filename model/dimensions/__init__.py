"""Interpretation of dimensions: statistics, names, examples and clarity."""
