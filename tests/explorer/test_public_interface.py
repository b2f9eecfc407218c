"""Test that commands, options, endpoints, view URLs and Python names are unchanged."""

from __future__ import annotations

import difflib
import os
from inspect import getsource
from pathlib import Path

import pytest

import sieve
from sieve.explorer import api
from sieve.explorer.cli import main
from sieve.model.exclusion import PRESENCE_LIMIT
from tests.public_interface import (
    HELP_WIDTH,
    address_lines,
    command_lines,
    endpoint_lines,
    python_lines,
)

RECORDED = Path(__file__).with_suffix(".txt")
UPDATE = "SIEVE_UPDATE_INTERFACE"


def test_help_states_the_default_limit_of_never(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["search", "--help"])
    texts = [capsys.readouterr().out, sieve.Engine.search.__doc__, getsource(api)]
    for text in texts:
        words = " ".join(str(text).replace("│", " ").split())
        assert f"with a probability of at least {PRESENCE_LIMIT}" in words


def test_public_interface_equals_the_recorded_one(
    tiny_engine, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sieve.explorer.app import build_app

    monkeypatch.setenv("COLUMNS", str(HELP_WIDTH))

    def print_help(words: tuple[str, ...]) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([*words, "--help"])
        assert not ended.value.code
        return capsys.readouterr().out

    sections = {
        "Commands and options": command_lines(print_help),
        "API endpoints": endpoint_lines(build_app(tiny_engine).get_api_info()),
        "Addresses: given, and as they are written once read": address_lines(),
        "Python API": python_lines(),
    }
    lines = [line for title, part in sections.items() for line in (f"## {title}", *part, "")]
    if os.environ.get(UPDATE):
        RECORDED.write_text("\n".join(lines), encoding="utf-8")
    recorded = RECORDED.read_text(encoding="utf-8").split("\n")
    changes = difflib.unified_diff(recorded, lines, "recorded", "now", n=1, lineterm="")
    assert recorded == lines, (
        "users would notice these changes; undo them, or if they are meant, record them with "
        f"`{UPDATE}=1 pytest tests/explorer/{Path(__file__).name}`:\n" + "\n".join(changes)
    )
