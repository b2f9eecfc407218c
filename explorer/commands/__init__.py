"""The subcommands of `sieve`, and what they print.

Nothing here loads torch or gradio before a command runs, so that `sieve --help` answers at once.
"""

from __future__ import annotations

from sieve.explorer.commands.exploring import Command

__all__ = ["Command"]
