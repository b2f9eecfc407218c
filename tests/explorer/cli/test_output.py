"""What is printed of a stranger's data: a terminal obeys none of it, and scripts read it back."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from sieve.explorer.cli import output as printing

OBEYED = "a\x1b]0;owned\x07\x1b[2J\x9b31m\x7f\r\x08\x00b\nc"
REPORT = {
    "query": OBEYED,
    "notes": [OBEYED],
    "suggestion": {"query": OBEYED, "without": OBEYED},
    "excluded": [OBEYED],
    "off": [{"dimension": 3, "name": OBEYED}],
    "results": [
        {
            "score": 0.5,
            "id": "0" * 16,
            "file": OBEYED,
            "copies": [{"id": "0" * 16, "file": OBEYED}],
            "captions": [OBEYED],
            "labels": [OBEYED],
            "contributions": [{"name": OBEYED, "value": 0.5}],
        }
    ],
    "seconds": 0.001,
}
COLUMNS = (
    *("dimension", "name", "name_source", "runner_up", "firing_images", "firing_texts"),
    *("agreement", "monosemanticity", "label", "label_auc"),
)
PRINTED: dict[str, Callable[[], None]] = {
    "text": lambda: printing.print_text(OBEYED),
    "facts": lambda: printing.print_facts({"name": OBEYED, "licence": [OBEYED]}),
    "outcome": lambda: printing.print_outcome(REPORT),
    "sections": lambda: printing.print_sections({"a": OBEYED, OBEYED: {OBEYED: OBEYED}}),
    "dimensions": lambda: printing.print_dimensions(
        pd.DataFrame({name: [OBEYED] for name in COLUMNS}), "name"
    ),
    "json": lambda: printing.print_json({"name": OBEYED, OBEYED: REPORT}),
}


@pytest.mark.parametrize("kind", PRINTED)
def test_a_terminal_obeys_nothing(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    PRINTED[kind]()
    shown = capsys.readouterr().out
    assert "owned" in shown
    assert not {sign for sign in shown if not sign.isprintable() and sign != "\n"}


@pytest.mark.parametrize("kind", ["facts", "outcome", "dimensions"])
def test_a_text_is_one_line(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    PRINTED[kind]()
    assert not [line for line in capsys.readouterr().out.splitlines() if line.startswith("c")]


def test_json_is_read_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    told: dict[str, Any] = {OBEYED: [OBEYED, "ü"]}
    printing.print_json(told)
    assert json.loads(capsys.readouterr().out) == told
