"""Pipeline that turns a source's records into a collection; see `sieve.data_prep.prepare`."""
