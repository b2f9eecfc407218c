"""The command line: `sieve explore | prepare | add | merge | train | search | …`.

Exit codes: 0 done, 1 a fault of the input in one line on stderr, 2 wrong usage, 130 Ctrl-C.

The subcommands of `sieve`, and what they print.

Nothing here loads torch or gradio before a command runs, so that `sieve --help` answers at once.

Wrong use of the command line, told in one line with a suggestion.
"""

from __future__ import annotations

import difflib
import io
import logging
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from importlib.metadata import version
from types import FrameType
from typing import NoReturn, get_args

import tyro
from tyro import _errors as tyro_errors
from tyro._parsers import ArgWithContext
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, OmitSubcommandPrefixes

from sieve.explorer.cli.explore import Command

__all__ = ["Command"]


_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")


class UsageError(Exception):
    """The command line cannot be read; the message is one line."""


Parse = Callable[[list[str]], object]
"""Reads a command line; prints help and exits if it asks for it."""


@contextmanager
def usage_errors(given: list[str], parse: Parse) -> Iterator[None]:
    """Raise a `UsageError` in place of tyro's box of text.

    Parameters
    ----------
    given : list of str
        The command line.
    parse : callable
    """

    def tell(event: tyro_errors.ParseErrorEvent) -> NoReturn:
        command = " ".join(["sieve", *_command_words(given, parse)])
        message = _unknown_option(given, command, parse) or _message(event, command, parse)
        raise UsageError(f"{' '.join(message.split())}; see `{command} --help`")

    with tyro_errors.on_parse_error(tell):
        yield


def _message(event: tyro_errors.ParseErrorEvent, command: str, parse: Parse) -> str:
    match event:
        case tyro_errors.UnrecognizedArgs(tokens=[token, *_]):
            if names := _subcommands(command.split()[1:], parse):
                return f"`{command}` has no '{token}'; {_nearest(token, names)}"
            if token.startswith("-"):
                return f"there is no option {token}"
            return f"'{token}' is one value too many; put a text with spaces in quotes"
        case tyro_errors.MissingArgs(missing_arguments=missing):
            names = (_positional(one) for one in missing if one.arg.is_positional())
            options = (one.arg.display_name() for one in missing if not one.arg.is_positional())
            return f"`{command}` needs {' and '.join([*names, *options])}"
        case tyro_errors.MissingSubcommand(subcommand_spec=spec):
            return f"`{command}` needs one of {', '.join(spec.parser_from_name)}"
        case tyro_errors.InvalidChoice(argument=argument, value=value, choices=choices):
            return f"{argument.display_name()} cannot be '{value}'; {_nearest(value, choices)}"
        case tyro_errors.BadValue(argument=argument):
            return f"{argument.display_name()} needs a value"
        case tyro_errors.InstantiationFailure(message=message, argument=argument):
            for python, plain in _PLAIN.items():
                message = message.replace(python, plain)
            return f"{argument.display_name()}: {message}" if argument else message
        case _:
            return f"the options of `{command}` do not fit together"


def _positional(missing: ArgWithContext) -> str:
    return missing.arg.display_name().rpartition(".")[2].upper()


_PLAIN = {
    "invalid literal for int() with base 10:": "expected a whole number; got",
    "could not convert string to float:": "expected a number; got",
}


def _unknown_option(given: list[str], command: str, parse: Parse) -> str:
    """Name the first option that the command does not have; nothing if it has all."""
    known = _options(command, parse)
    for token in given:
        flag = token.partition("=")[0]
        if flag.startswith("--") and len(flag) > 2 and flag.replace("_", "-") not in known:
            near = difflib.get_close_matches(flag, known, n=1)
            return f"there is no option {flag}" + (f"; did you mean {near[0]}?" if near else "")
    return ""


def _nearest(value: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(value, names, n=1)
    return f"did you mean {near[0]}?" if near else f"choose one of {', '.join(names)}"


def _command_words(given: list[str], parse: Parse) -> list[str]:
    """Return the names of the command and its subcommand that a command line begins with."""
    words: list[str] = []
    for word in given[:2]:
        if word.startswith("-") or (words and word not in _subcommands(words, parse)):
            break
        words.append(word)
    return words


def _subcommands(words: list[str], parse: Parse) -> list[str]:
    """List the subcommands of a command; nothing if it has none."""
    found: list[str] = []

    def take(event: tyro_errors.ParseErrorEvent) -> NoReturn:
        if isinstance(event, tyro_errors.MissingSubcommand):
            found.extend(event.subcommand_spec.parser_from_name)
        raise UsageError

    with tyro_errors.on_parse_error(take), suppress(UsageError):
        parse(words)
    return found


def _options(command: str, parse: Parse) -> list[str]:
    """List the options of a command, as its help has them."""
    printed = io.StringIO()
    with redirect_stdout(printed), suppress(SystemExit):
        parse([*command.split()[1:], "--help"])
    return list(dict.fromkeys(_OPTION.findall(printed.getvalue())))


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
