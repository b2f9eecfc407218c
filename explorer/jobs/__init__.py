"""Long work that the page starts: in a process of its own, one at a time, found again.

What a job does is its own room's: `sieve.explorer.training` and `sieve.explorer.benchmark` have one
each.
"""
