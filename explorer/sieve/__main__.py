"""Run the command line: `python -m sieve`."""

from sieve.explorer.cli import main

main()
