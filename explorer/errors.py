"""Error messages: user errors as one line, internal errors in the log."""

from __future__ import annotations

import builtins
import inspect
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache, wraps
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from sieve.explorer.json_validation import short_repr

P = ParamSpec("P")
R = TypeVar("R")

log = logging.getLogger(__name__)

INTERNAL_ERROR = "An internal error occurred; see the log in the terminal"


class RefusedError(Exception):
    """A web request that is refused; the message is the reason in one line."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        """HTTP status code."""


def json_errors(handler: Callable[[Any], dict[str, Any]]) -> Callable[[Any], dict[str, Any]]:
    """Decorate a handler to return `{"error": message}` instead of raising.

    The page shows the message in place and leaves the rest unchanged.
    """

    @wraps(handler)
    def call(payload: Any) -> dict[str, Any]:
        try:
            return handler(payload)
        except (ValueError, FileNotFoundError) as error:
            return {"error": sentence(error)}
        except Exception:
            log.exception("%s failed", handler.__name__)
            return {"error": f"{INTERNAL_ERROR}."}

    return call


def one_line(error: BaseException) -> str:
    """Return the message of an error as one printable line, or its type if it has no message."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        file = f"{error.filename}: " if error.filename else ""
        text = f"{file}{error.strerror}"
    # Text from data is untrusted and may hold terminal control sequences.
    shown = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(shown.split()) or type(error).__name__


def sentence(error: BaseException) -> str:
    """Return the message of an error as a sentence, with a capital letter and a full stop."""
    line = one_line(error)
    return line[0].upper() + line[1:] + ("" if line[-1] in ".!?…" else ".")


def python_errors(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a public function of the Python API to raise its documented errors only.

    A message has one line, and names arguments instead of options of the command line. The
    traceback ends at the function. An argument of a wrong type is a ValueError that names it.
    """
    signature = inspect.signature(function)

    @cache
    def hints() -> dict[str, Any]:
        known = _Names(function.__globals__)  # pyright: ignore[reportFunctionMemberAccess]
        return get_type_hints(function, localns=known)  # pyright: ignore[reportArgumentType]

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        given = signature.bind(*args, **kwargs).arguments
        try:
            check_types(given, {name: hint for name, hint in hints().items() if _is_plain(hint)})
            try:
                return function(*args, **kwargs)
            except (TypeError, AttributeError, KeyError):
                check_types(given, hints())
                raise
        except FileNotFoundError as error:
            raised = FileNotFoundError(python_terms(one_line(error)))
        except FileExistsError as error:
            raised = FileExistsError(python_terms(one_line(error)))
        except ValueError as error:
            raised = ValueError(python_terms(one_line(error)))
        raise raised

    return call


def check_types(values: Mapping[str, Any], hints: Mapping[str, Any]) -> None:
    """Raise a ValueError for the first value that is not of the type that is hinted."""
    for name, value in values.items():
        if name in hints and not _fits(value, hints[name]):
            expected = " or ".join(_describe(hints[name]))
            raise ValueError(f"{name} must be {expected}; got {short_repr(value)}")


class _Names(dict[str, Any]):
    """Names of a module; those that are imported for type checking only may be anything."""

    def __missing__(self, name: str) -> Any:
        return getattr(builtins, name, Any)


_DESCRIPTIONS = {
    "str": "a string",
    "int": "a whole number",
    "float": "a number",
    "bool": "True or False",
    "Path": "a path",
    "Image": "a PIL image",
    "ndarray": "an array",
    "Sequence": "a list",
    "Iterable": "a list",
    "Mapping": "a dict",
    "NoneType": "None",
}


def _members(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _is_plain(hint: Any) -> bool:
    """Return whether a hint allows only names, paths, switches and choices."""
    return all(
        one in (str, bool, NoneType) or get_origin(one) is Literal or one.__module__ == "pathlib"
        for one in _members(hint)
    )


def _fits(value: Any, hint: Any) -> bool:
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in get_args(hint))
    if origin is Literal:
        return isinstance(value, str) and value in get_args(hint)
    kind = origin or hint
    if kind is Any or kind.__name__ == "ndarray":
        return True
    if kind in (int, float):
        return isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    if kind.__name__ in ("Sequence", "Iterable"):
        return isinstance(value, Iterable) and not isinstance(value, str | bytes)
    return isinstance(value, kind)


def _describe(hint: Any) -> list[str]:
    members = [one for one in _members(hint) if one is not NoneType]
    names = [getattr(get_origin(one) or one, "__name__", "") for one in members]
    shown = []
    for name, one in zip(names, members, strict=True):
        if get_origin(one) is Literal:
            choices = [choice for choice in get_args(one) if choice]
            shown.append("one of " + ", ".join(choices))
        elif name != "str" or "Path" not in names:
            shown.append(_DESCRIPTIONS.get(name, f"a {name}"))
    return shown


_SWITCHES = {"allow-code", "trust-backbone", "keep-going", "any-hook", "centred-input"}
_OPTION = re.compile(
    r"--(?P<name>"
    + "|".join(sorted(_SWITCHES))
    + r"|activation|any-hook|backbone|batch-size|caption-column|captions|checkpoint|collection"
    r"|device|image-column|input-scale|k|learning-rate|log|modality|out|strictness|tensors"
    r"|text-encoder|threshold|top|where|without|workers)(?![\w-])"
    r"(?: (?P<value>[A-Z]+\b|\S+=NAME\b|\S+[:/][^\s;]+|(?:image|text|cpu|cuda|mps|relu|topk"
    r"|jumprelu|batchtopk|tensorboard|wandb)\b))?"
)
_COMMANDS = (
    (
        re.compile(r"`sieve prepare folder DIR --captions CSV --out COLLECTION`"),
        "`sieve.prepare_folder(DIR, CSV, out=COLLECTION)`",
    ),
    (re.compile(r"`sieve train ([A-Z]+)`"), r"`sieve.train(\1)`"),
    (re.compile(r"`sieve train ([^` ]+)`"), r'`sieve.train("\1")`'),
)


def python_terms(message: str) -> str:
    """Rewrite the options and commands in a message as arguments and calls of the Python API."""
    for pattern, call in _COMMANDS:
        message = pattern.sub(call, message)
    parts = message.split("`")  # other commands stay as they are
    parts[::2] = [_OPTION.sub(_argument, part) for part in parts[::2]]
    return "`".join(parts)


def _argument(option: re.Match[str]) -> str:
    name, value = option["name"].replace("-", "_"), option["value"]
    if option["name"] in _SWITCHES:
        return f"{name}=True" + (f" {value}" if value else "")
    if not value:
        return f"{name}="
    if name == "tensors":
        pairs = (pair.partition("=") for pair in value.split(","))
        return "tensors={" + ", ".join(f'"{part}": {tensor}' for part, _, tensor in pairs) + "}"
    return f"{name}={value}" if value.isupper() else f'{name}="{value}"'
