"""The exclusion benchmark told and drawn.

Only `sieve evaluate` needs either, once its numbers are there, so nothing is imported here.
"""
