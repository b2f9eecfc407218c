"""The command line: `sieve explore | prepare | add | merge | train | search | …`.

Exit codes: 0 done, 1 a fault of the input in one line on stderr, 2 wrong usage, 130 Ctrl-C.
"""

from __future__ import annotations

import difflib
import io
import logging
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from types import FrameType
from typing import get_args

import tyro
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, OmitSubcommandPrefixes

from sieve.explorer.commands import Command
from sieve.explorer.usage_errors import UsageError, usage_errors

log = logging.getLogger(__name__)

DESCRIPTION = """Explore sparse disentangled codes of images and texts, and search with dimensions
switched off. Example: sieve search scenes "a dog" --without "a beach"
"""
_DONE, _FAULT, _WRONG_USAGE, _INTERRUPTED, _TERMINATED, _BROKEN_PIPE = 0, 1, 2, 130, 143, 141


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those of the process.
    """
    _set_up_messages()
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _main(given)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has gone, as with `| head`; Python would complain again while it closes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = _BROKEN_PIPE
    sys.exit(code)


def _main(given: list[str]) -> int:
    if given == ["--version"]:
        sys.stdout.write(f"sieve {version('sieve-explorer')}\n")
        return _DONE
    if given[:1] == ["help"]:
        given = [*given[1:], "--help"]
    if unknown := _unknown_command(given):
        return _tell(unknown, _WRONG_USAGE)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        with usage_errors(given, _parse):
            command = _parse(given)
    except UsageError as error:
        return _tell(str(error), _WRONG_USAGE)
    except SystemExit as done:  # it printed help
        return int(done.code or _DONE)
    return _run(command)


def _parse(given: list[str]) -> Command:
    return tyro.cli(
        Command,  # pyright: ignore[reportArgumentType]
        prog="sieve",
        description=DESCRIPTION,
        args=given,
        config=(FlagCreatePairsOff, OmitArgPrefixes, OmitSubcommandPrefixes),
    )


def _unknown_command(given: Sequence[str]) -> str:
    """Say in a line what to write in place of a command that is missing or mistyped."""
    names = [made.__metadata__[0].name for made in get_args(Command)]
    if given and (given[0].startswith("-") or given[0] in names):
        return ""
    start = "`sieve explore` opens the explorer, `sieve --help` tells all"
    if not given:
        return f"say what to do, one of {', '.join(names)}; {start}"
    near = difflib.get_close_matches(given[0], names, n=1)
    meant = f"did you mean `sieve {near[0]}`?" if near else f"there are {', '.join(names)}; {start}"
    return f"there is no command '{given[0]}'; {meant}"


def _run(command: Command) -> int:
    try:
        command.run()
        return _DONE
    except BrokenPipeError:
        raise
    except KeyboardInterrupt as stop:
        return _tell(str(stop) or "stopped", _INTERRUPTED)
    except (ValueError, OSError) as error:
        log.debug("the fault in full", exc_info=True)
        return _tell(_one_line(error), _FAULT)


def _tell(message: str, code: int) -> int:
    sys.stderr.write(f"sieve: {message}\n")
    return code


def _one_line(error: Exception) -> str:
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        text = f"{place}{error.strerror}"
    # Names in data are anybody's: what a terminal would obey is not written to one.
    shown = "".join(sign if sign.isprintable() else " " for sign in text)
    return " ".join(shown.split()) or type(error).__name__


def _terminate(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001
    """Leave as on Ctrl-C, so that nothing half-made stays behind."""
    sys.exit(_TERMINATED)


def _set_up_messages() -> None:
    """Keep stderr for what a person should read; SIEVE_LOG=debug shows everything."""
    # Names and captions may have signs that a terminal's encoding, such as ASCII, lacks.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    level = os.environ.get("SIEVE_LOG", "warning").upper()
    known = logging.getLevelNamesMapping()
    logging.basicConfig(level=known.get(level, logging.WARNING), format="sieve: %(message)s")
    if level != "DEBUG":
        warnings.simplefilter("ignore")
