"""Sparse disentangled codes of image–text embeddings: explore them, search with dimensions off.

The folders at the top of the repository are its subpackages: `sieve.model` (the science),
`sieve.data_prep` (collections in), `sieve.explorer` (screens and command line out) and
`sieve.assets` (what ships). One import name keeps them apart from other code: many research
repositories have a `model.py` or an `assets` folder of their own.
"""
