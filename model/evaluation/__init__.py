"""Evaluation of "A without B": pairs of concepts, exclusion rules and ranking metrics."""
