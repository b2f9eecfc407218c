"""The command line: `sieve explore | prepare | add | merge | train | search | …`.

Exit codes: 0 success, 1 an input error (one line on stderr), 2 a usage error (one line with a
suggestion), 130 Ctrl-C, 141 a closed pipe, 143 SIGTERM.

Importing this package loads neither torch nor gradio, so that `sieve --help` is fast: commands
import what they need in `run`.
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from functools import reduce
from importlib.metadata import version
from operator import or_
from typing import Annotated, Any, NoReturn, get_args, get_type_hints

import tyro
from tyro import _errors as tyro_errors
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, OmitSubcommandPrefixes, subcommand

from sieve.explorer.cli.experiments import Evaluate, Train, registry
from sieve.explorer.cli.explore import (
    AnnotationsCommand,
    Difference,
    Dimensions,
    Explore,
    Info,
    Regions,
    Search,
)
from sieve.explorer.cli.export import (
    Export,
    Figure,
    ImportEncoder,
    IndexCommand,
)
from sieve.explorer.cli.preparation import Add, Merge, Prepare
from sieve.explorer.cli.publish import Push
from sieve.explorer.cli.space import WriteSpace
from sieve.explorer.errors import one_line

log = logging.getLogger(__name__)

_COMMANDS: dict[str, type] = {
    "explore": Explore,
    "prepare": Prepare,
    "add": Add,
    "merge": Merge,
    "train": Train,
    "search": Search,
    "regions": Regions,
    "difference": Difference,
    "index": IndexCommand,
    "evaluate": Evaluate,
    "info": Info,
    "dimensions": Dimensions,
    "figure": Figure,
    "annotations": AnnotationsCommand,
    "export": Export,
    "import-encoder": ImportEncoder,
    "push": Push,
    "space": WriteSpace,
}
DESCRIPTION = """Explore sparse disentangled codes of images and texts, and search with dimensions
switched off. Example: sieve search scenes "a dog" --without "a beach"
"""
_SUCCESS, _INPUT_ERROR, _USAGE_ERROR, _INTERRUPTED, _TERMINATED, _BROKEN_PIPE = (
    0, 1, 2, 130, 143, 141,
)  # fmt: skip
_PYTHON_MESSAGES = {
    "invalid literal for int() with base 10:": "expected a whole number; got",
    "could not convert string to float:": "expected a number; got",
}
_OPTIONAL_PREFIX = re.compile(r"^no type matching .*<class '\w+'>: ", re.DOTALL)
"""Prefix of tyro's messages about invalid values of optional arguments."""
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")


class UsageError(Exception):
    """An invalid command line; the message is one line."""


@contextmanager
def usage_errors(arguments: list[str]) -> Iterator[None]:
    """Raise a one-line `UsageError` instead of printing tyro's report."""

    def fail(event: tyro_errors.ParseErrorEvent) -> NoReturn:
        words = [word for word in arguments[:1] if not word.startswith("-")]
        words += [word for word in arguments[1:2] if word in _subcommands(words)]
        command = " ".join(["sieve", *words])
        message = _unknown_option(arguments, words) or _message(event, command, _subcommands(words))
        raise UsageError(f"{' '.join(message.split())}; see `{command} --help`")

    with tyro_errors.on_parse_error(fail):
        yield


def _message(event: tyro_errors.ParseErrorEvent, command: str, subcommands: Sequence[str]) -> str:
    match event:
        case tyro_errors.UnrecognizedArgs(tokens=[token, *_]):
            if subcommands:
                return f"`{command}` has no subcommand '{token}'; {_nearest(token, subcommands)}"
            if token.startswith("-"):
                return f"there is no option {token}"
            return f"unexpected argument '{token}'; put text with spaces in quotes"
        case tyro_errors.MissingArgs(missing_arguments=missing):
            options = [one.arg.display_name() for one in missing if not one.arg.is_positional()]
            names = [one.arg.display_name() for one in missing if one.arg.is_positional()]
            positionals = [name.rpartition(".")[2].upper() for name in names]
            return f"`{command}` needs {' and '.join(positionals + options)}"
        case tyro_errors.MissingSubcommand(subcommand_spec=spec):
            return f"`{command}` needs one of {', '.join(spec.parser_from_name)}"
        case tyro_errors.InvalidChoice(argument=argument, value=value, choices=choices):
            near = _nearest(value, sorted(set(choices) - {"None"}))
            return f"{argument.display_name()}: invalid choice '{value}'; {near}"
        case tyro_errors.BadValue(argument=argument):
            return f"{argument.display_name()} needs a value"
        case tyro_errors.InstantiationFailure(message=message, argument=argument):
            message = _OPTIONAL_PREFIX.sub("", message)
            for python, plain in _PYTHON_MESSAGES.items():
                message = message.replace(python, plain)
            return f"{argument.display_name()}: {message}" if argument else message
        case _:
            return f"the options of `{command}` cannot be combined"


def _unknown_option(arguments: list[str], command: list[str]) -> str:
    """Describe the first option that the command does not have; empty if all exist."""
    printed = io.StringIO()
    with redirect_stdout(printed), suppress(SystemExit):
        parse([*command, "--help"])
    options = list(dict.fromkeys(_OPTION.findall(printed.getvalue())))
    for argument in arguments:
        flag = argument.partition("=")[0]
        if flag.startswith("--") and len(flag) > 2 and flag.replace("_", "-") not in options:
            near = difflib.get_close_matches(flag, options, n=1)
            return f"there is no option {flag}" + (f"; did you mean {near[0]}?" if near else "")
    return ""


def _nearest(value: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(value, names, n=1)
    return f"did you mean {near[0]}?" if near else f"choose one of {', '.join(names)}"


def _subcommands(command: list[str]) -> list[str]:
    """List the subcommands of a command; empty if it has none."""
    unions = {"prepare": (Prepare, "source"), "annotations": (AnnotationsCommand, "what")}
    owner, field = unions.get(" ".join(command), (None, ""))
    union = get_type_hints(owner, include_extras=True)[field] if owner else None
    return [alternative.__metadata__[0].name for alternative in get_args(union)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command, by default that of `sys.argv`, and exit."""
    _configure_output()
    try:
        code = _main(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has exited, as with `| head`; without this, Python fails again on exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = _BROKEN_PIPE
    sys.exit(code)


def _main(arguments: list[str]) -> int:
    if arguments == ["--version"]:
        sys.stdout.write(f"sieve {version('sieve-explorer')}\n")
        return _SUCCESS
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:], "--help"]
    if message := _unknown_command(arguments):
        return _report(message, _USAGE_ERROR)
    # Exit through Python, so that incomplete files are removed as on Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
    try:
        with usage_errors(arguments):
            command = parse(arguments)
    except UsageError as error:
        return _report(str(error), _USAGE_ERROR)
    except SystemExit as done:  # it printed help
        return int(done.code or _SUCCESS)
    try:
        command.run()
    except BrokenPipeError:
        raise
    except KeyboardInterrupt as stop:
        return _report(str(stop) or "stopped", _INTERRUPTED)
    except (ValueError, OSError) as error:
        log.debug("traceback of the error", exc_info=True)
        return _report(one_line(error), _INPUT_ERROR)
    return _SUCCESS


def parse(arguments: list[str]) -> Any:
    """Return the command as an instance of its dataclass."""
    commands = (Annotated[kind, subcommand(name)] for name, kind in _COMMANDS.items())
    union: Any = reduce(or_, commands)
    return tyro.cli(
        union,
        prog="sieve",
        description=DESCRIPTION,
        args=arguments,
        config=(FlagCreatePairsOff, OmitArgPrefixes, OmitSubcommandPrefixes),
        registry=registry,
    )


def _unknown_command(arguments: Sequence[str]) -> str:
    """Suggest a command for one that is missing or mistyped; empty if it exists."""
    if arguments and (arguments[0].startswith("-") or arguments[0] in _COMMANDS):
        return ""
    start = "`sieve explore` opens the explorer, `sieve --help` lists all commands"
    if not arguments:
        return f"no command given, expected one of {', '.join(_COMMANDS)}; {start}"
    if near := difflib.get_close_matches(arguments[0], _COMMANDS, n=1):
        return f"there is no command '{arguments[0]}'; did you mean `sieve {near[0]}`?"
    known = ", ".join(_COMMANDS)
    return f"there is no command '{arguments[0]}'; choose one of {known}; {start}"


def _report(message: str, code: int) -> int:
    sys.stderr.write(f"sieve: {message}\n")
    return code


def _configure_output() -> None:
    """Limit stderr to messages for users; SIEVE_LOG=debug shows everything."""
    # Names and captions may hold characters that the terminal's encoding, such as ASCII, lacks.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    level = os.environ.get("SIEVE_LOG", "warning").upper()
    levels = logging.getLevelNamesMapping()
    logging.basicConfig(level=levels.get(level, logging.WARNING), format="sieve: %(message)s")
    if level != "DEBUG":
        warnings.simplefilter("ignore")
