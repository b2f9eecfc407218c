"""Wrong use of the command line, told in one line with a suggestion."""

from __future__ import annotations

import difflib
import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from typing import NoReturn

from tyro import _errors as tyro_errors
from tyro._parsers import ArgWithContext

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
