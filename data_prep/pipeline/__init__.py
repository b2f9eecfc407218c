"""From records to a collection, step by step; `sieve.data_prep.prepare` runs the steps.

The command line reads a shard's name before torch is needed, so nothing is imported here.
"""
