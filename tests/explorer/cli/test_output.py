"""Test output of untrusted data: no control characters on a terminal, and lossless JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from sieve.explorer.cli import output as printing
from sieve.model.dimensions.table import COLUMNS

CONTROL = "a\x1b]0;owned\x07\x1b[2J\x9b31m\x7f\r\x08\x00b\nc"
REPORT = {
    "query": CONTROL,
    "notes": [CONTROL],
    "suggestion": {"query": CONTROL, "without": CONTROL},
    "terms": [{"term": CONTROL, "weight": 1.0, "excluded": excluded} for excluded in (False, True)],
    "off_concepts": [{"concept": 3, "name": CONTROL, "dimensions": [3, 5]}],
    "hides": CONTROL,
    "results": [
        {
            "score": 0.5,
            "id": "0" * 16,
            "file": CONTROL,
            "copies": [{"id": "0" * 16, "file": CONTROL}],
            "captions": [CONTROL],
            "labels": [CONTROL],
            "concepts": [{"name": CONTROL, "value": 0.5}],
        }
    ],
    "seconds": 0.001,
    "where": "",
}
PRINTED: dict[str, Callable[[], None]] = {
    "text": lambda: printing.print_text(CONTROL),
    "facts": lambda: printing.print_facts({"name": CONTROL, "licence": [CONTROL]}),
    "outcome": lambda: printing.print_outcome(REPORT),
    "sections": lambda: printing.print_sections({"a": CONTROL, CONTROL: {CONTROL: CONTROL}}),
    "dimensions": lambda: printing.print_dimensions(
        pd.DataFrame({column.name: [CONTROL] for column in COLUMNS}), "name"
    ),
    "json": lambda: printing.print_json({"name": CONTROL, CONTROL: REPORT}),
}


@pytest.mark.parametrize("kind", PRINTED)
def test_control_characters_are_not_printed(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    PRINTED[kind]()
    shown = capsys.readouterr().out
    assert "owned" in shown
    assert not {sign for sign in shown if not sign.isprintable() and sign != "\n"}


@pytest.mark.parametrize("kind", ["facts", "outcome", "dimensions"])
def test_text_is_printed_on_one_line(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    PRINTED[kind]()
    assert not [line for line in capsys.readouterr().out.splitlines() if line.startswith("c")]


def test_json_output_round_trips(capsys: pytest.CaptureFixture[str]) -> None:
    value: dict[str, Any] = {CONTROL: [CONTROL, "ü"]}
    printing.print_json(value)
    assert json.loads(capsys.readouterr().out) == value
