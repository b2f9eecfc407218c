"""List the public interface as text: commands, options, endpoints, addresses and Python names.

`tests/explorer/test_public_interface.py` compares it with the recorded text; the golden outputs of
`tests.benchmarks.golden` contain it too.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

CHECKPOINT, COLLECTION, N_DIMENSIONS = "default", "scenes", 1024
_SHARED = f"&collection={COLLECTION}&checkpoint={CHECKPOINT}"
ADDRESSES = (
    "",
    "?tab=benchmark",
    f"?q=a+dog{_SHARED}",
    f"?q=a+dog&without=a+beach{_SHARED}",
    f"?q=a+dog&without=a+beach&off=17,203&strictness=1{_SHARED}",
    f"?q=a+dog&without=a+beach&off=17,203&strictness=0.5{_SHARED}",
    f"?q=a+dog&without=a+beach&off=17,203&strictness=0{_SHARED}",
    f"?q=a+dog&without=a+beach&off=203,17,17&strictness=never&compare=1{_SHARED}",
    f"?q=a+dog&without=a+beach&off={_SHARED}",
    f"?q=Hund+%26+Stra%C3%9Fe%3F&without=%F0%9F%8F%96{_SHARED}",
    f"?item=5e14a15d8edcf462&without=a+beach{_SHARED}",
    f"?q=a+dog&tab=dimensions&dimension=58&atlas=map%3Aagreement+images%3A0.01..0.2+only%3A3,17-20{_SHARED}",
    f"?tab=inspect&inspect=left%3Aa+dog,right%3Asnow{_SHARED}",
    f"?tab=inspect&inspect=left%3Aa+dog,off%3A3{_SHARED}",
    f"?tab=compare&versus=q%3Aa+dog,without%3Asnow,method%3Aliteral{_SHARED}",
    "?tab=figure&figure=%7B%22rows%22%3A%5B%7B%22query%22%3A%22a+dog%22%7D%5D,%22columns%22%3A4%7D"
    + _SHARED,
    f"?tab=benchmark&benchmark=20260101-120000-quick,label,dog+-+beach,literal{_SHARED}",
    f"?tab=train{_SHARED}",
    # of another checkpoint or collection
    "?q=a+dog&off=17,203&strictness=1&collection=scenes&checkpoint=mine",
    "?tab=dimensions&dimension=58&atlas=only%3A3&collection=scenes&checkpoint=mine",
    "?tab=figure&figure=%7B%22rows%22%3A%5B%7B%22dimension%22%3A7%7D%5D%7D&checkpoint=mine",
    "?q=a+dog&off=1&collection=photos&checkpoint=default",
    # values that cannot be used
    "?q=a+dog&off=17,x",
    "?q=a+dog&off=1024",
    "?q=a+dog&off=1&strictness=2",
    "?q=a+dog&tab=admin&dimension=-1",
    "?item=../etc/passwd&q=a+dog",
    "?q=a+dog&unknown=1&q=a+cat",
)
"""URLs written by the page, and invalid ones."""


def rewrite_address(address: str) -> tuple[str, int]:
    """Parse a URL as the page does and write it again.

    The only place here that imports Sieve's view state.

    Returns
    -------
    str
        The query string; unchanged if the input is valid and in canonical order.
    int
        Number of notes about ignored values.
    """
    from sieve.explorer.view_state import read_link, write_link

    state, notes = read_link(address, COLLECTION, CHECKPOINT, N_DIMENSIONS)
    return write_link(state, COLLECTION, CHECKPOINT), len(notes)


def address_lines() -> list[str]:
    """Return two lines for each of `ADDRESSES`: the input, and the URL written again."""
    lines = []
    for address in ADDRESSES:
        written, n_notes = rewrite_address(address)
        lines += [address or "(none)", f"  {written or '(none)'}  notes: {n_notes}"]
    return lines


_FLAG = re.compile(r"(?<!\S)--?[A-Za-z0-9][\w-]*")
_CHOICES = re.compile(r"\{[^}]*\}")
_DEFAULT = re.compile(r"\(default: (\S+)\)")
_USAGE_OPTION = re.compile(r"\[[^]]*\]|--?[a-z][\w-]* [^ -]\S*")
_ENTRY = re.compile(r"^  (--?[A-Za-z0-9].*(?:\n {4,}\S.*)*)", re.MULTILINE)
_SUBCOMMAND = re.compile(r"^    • (\S+)", re.MULTILINE)
HELP_WIDTH = 1000
"""Terminal width at which no line of help is wrapped."""


def command_lines(print_help: Callable[[tuple[str, ...]], str]) -> list[str]:
    """List all commands with their options, without their descriptions.

    Parameters
    ----------
    print_help : callable
        Returns what `sieve WORDS --help` prints on a terminal of `HELP_WIDTH` columns.

    Returns
    -------
    list of str
        `command: arguments` and one indented line per option with its choices and default.
    """
    lines: list[str] = []
    waiting: list[tuple[str, ...]] = [()]
    while waiting:
        words = waiting.pop(0)
        # Without borders, which are drawn only if the output is UTF-8.
        text = re.sub(r" *│?$", "", print_help(words).replace("\n│", "\n "), flags=re.MULTILINE)
        arguments = _USAGE_OPTION.sub("", text.splitlines()[0].partition("[-h]")[2])
        lines.append(" ".join(["sieve", *words]) + ": " + " ".join(arguments.split()))
        lines += sorted(map(_option, _ENTRY.findall(text)))
        waiting += [(*words, name) for name in sorted(_SUBCOMMAND.findall(text))]
    return lines


def _option(entry: str) -> str:
    """Shorten an option's entry in the help to its names, choices and a default without blanks."""
    head = entry.partition("  ")[0].partition("\n")[0]
    default = _DEFAULT.search(" ".join(entry.split()))
    parts = [*_FLAG.findall(head), *_CHOICES.findall(head)]
    return "  " + " ".join([*parts, *([f"= {default[1]}"] if default else [])])


def endpoint_lines(info: Mapping[str, Any]) -> list[str]:
    """List the public endpoints with their parameters and returned values.

    Parameters
    ----------
    info : mapping
        Of `gradio.Blocks.get_api_info` or `gradio_client.Client.view_api`.
    """
    lines = []
    for name, endpoint in sorted(info["named_endpoints"].items()):
        parameters = [
            parameter["parameter_name"]
            + (
                f"={json.dumps(parameter['parameter_default'])}"
                if parameter["parameter_has_default"]
                else ""
            )
            for parameter in endpoint["parameters"]
        ]
        returned = [value["label"] for value in endpoint["returns"]]
        lines.append(f"{name}({', '.join(parameters)}) -> {', '.join(returned)}")
    return lines


def python_lines() -> list[str]:
    """List the names of the Python API with their parameters and defaults."""
    import sieve

    lines = []
    for name in sorted(sieve.__all__):
        public = getattr(sieve, name)
        if not isinstance(public, type):
            lines.append(name + _parameters(public))
            continue
        lines.append(name)
        for member in sorted(member for member in vars(public) if not member.startswith("_")):
            value = getattr(public, member)
            lines.append(f"  {member}{_parameters(value) if callable(value) else ''}")
    return lines


def _parameters(function: Callable[..., Any]) -> str:
    signature = inspect.signature(function)
    plain = [part.replace(annotation=part.empty) for part in signature.parameters.values()]
    return str(signature.replace(parameters=plain, return_annotation=signature.empty))
