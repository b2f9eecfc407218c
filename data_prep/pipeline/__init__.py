"""Pipeline that turns a source's records into a collection; see `sieve.data_prep.prepare`.

This module imports nothing, so that the command line can parse a shard without loading torch.
"""
