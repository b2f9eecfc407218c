"""Test that usage errors are one line, and closed pipes and limited encodings no errors."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Sieve
from processes import ForkedPython

pytestmark = pytest.mark.slow

CASES = {
    "search scenes dog --stictness 1": "there is no option --stictness; did you mean --strictness?",
    "train x --epoch 3": "there is no option --epoch; did you mean --epochs?",
    "prepare folder x --cptions y": "there is no option --cptions; did you mean --captions?",
    "--hlp": "there is no option --hlp; did you mean --help?",
    "search scenes -x": "there is no option -x",
    "serch": "there is no command 'serch'; did you mean `sieve search`?",
    "prepare foldr x": "`sieve prepare` has no subcommand 'foldr'; did you mean folder?",
    "annotations exprt": "`sieve annotations` has no subcommand 'exprt'; did you mean export?",
    "prepare": "`sieve prepare` needs one of folder, coco,",
    "search": "`sieve search` needs COLLECTION",
    "prepare folder": "`sieve prepare folder` needs DIRECTORY",
    "export scenes results": "`sieve export` needs -o/--out",
    "search scenes a dog": "unexpected argument 'dog'; put text with spaces in quotes",
    "search scenes dog -k": "-k/--top needs a value",
    "search scenes dog -k x": "-k/--top: expected a whole number; got 'x'",
    "train x --epochs 1.5": "sieve: --epochs: expected a whole number; got '1.5'; see",
    "search scenes dog --off a,b": "--off: a dimension is a whole number of at least 0; got 'a'",
    "search scenes dog --strictness banana": "number from 0 to 1, or never; got 'banana'",
    "search scenes dog --strictness 7": "a number from 0 to 1, or never; got '7'",
    "search scenes dog --device gpu": "--device: invalid choice 'gpu'; did you mean cpu?",
    "export scenes all -o x.csv": "'all'; choose one of codes, dimensions, items, results; see",
    "export scenes reslts -o x.csv": "invalid choice 'reslts'; did you mean results?",
}


@pytest.mark.parametrize("line", CASES)
def test_usage_errors_are_one_line(sieve: Sieve, line: str) -> None:
    answer = sieve(*line.split())
    assert answer.code == 2 and answer.out == ""
    assert re.fullmatch(r"sieve: [^\n]+\n", answer.err), answer.err
    assert CASES[line] in answer.err


@pytest.mark.parametrize("arguments", [["search", "--help"], ["dimensions", "--csv"]])
def test_closed_output_pipe_is_not_an_error(
    arguments: list[str], home: Path, opened: tuple
) -> None:
    if arguments[0] == "dimensions":
        arguments = [arguments[0], *map(str, opened), *arguments[1:]]
    reading, writing = os.pipe()
    os.close(reading)
    running = ForkedPython(
        [sys.executable, "-m", "sieve", *arguments],
        env={**os.environ, "SIEVE_HOME": str(home)},
        stdout=writing,
        stderr=subprocess.PIPE,
    )
    os.close(writing)
    assert (running.communicate(timeout=120)[1], running.returncode) == ("", 141)


RUN_ALL = """
import json, sys
from sieve.explorer.cli import main
for encoding in ("ascii", "latin-1"):
    sys.stdout.reconfigure(encoding=encoding)
    sys.stderr.reconfigure(encoding=encoding)
    for command in json.loads(sys.argv[1]):
        try:
            main(command)
        except SystemExit as end:
            print("\\0", end.code, "\\0", sep="", end="", flush=True)
"""


def test_output_is_printed_in_any_encoding(home: Path, opened: tuple) -> None:
    commands = [
        ["search", *map(str, opened), "café 🐕 犬", "--json"],
        ["search", *map(str, opened), "a circle but not in the night"],
        ["dimensions", *map(str, opened)],
        ["dimensions", *map(str, opened), "--csv"],
        ["search", "--help"],
        ["info", "café-犬"],
    ]
    plain = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL, json.dumps(commands)],
        env={**os.environ, "SIEVE_HOME": str(home), **plain},
        capture_output=True,
        timeout=120,
        check=True,
    )
    *printed, _ = done.stdout.decode("latin-1").split("\0")
    half = len(printed) // 2
    for shown in (printed[:half], printed[half:]):
        assert shown[1::2] == ["0", "0", "0", "0", "0", "1"]
        assert all(shown[:-2:2]), "each prints something"
        assert json.loads(shown[0])["query"] == "café 🐕 犬"
    assert "".join(printed[:half]).isascii()
    assert re.fullmatch(r"(sieve: [^\n]+\n){2}", done.stderr.decode("latin-1"))
