"""`python -m explorer` is `sieve`."""

from explorer.cli import main

main()
