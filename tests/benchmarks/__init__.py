"""Benchmarks to run by hand; each prints a ratio to a baseline or a limit from the same run."""
