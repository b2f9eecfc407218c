"""Test that `sieve figure` is deterministic and that its errors are one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Sieve, fault
from drawn import ALL, ROWS

from sieve.explorer.figures import parse_recipe
from sieve.explorer.figures.drawing import KINDS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]


def test_every_process_gives_the_same_bytes(
    sieve: Sieve, tiny_collection, tiny_checkpoint, tmp_path: Path
) -> None:
    short = tmp_path / "short.json"
    short.write_text(json.dumps({"rows": ROWS, "columns": 4, "width_cm": 9, "marks": ALL}))
    where = ("--checkpoint", str(tiny_checkpoint.path), "--collection", str(tiny_collection.path))
    for kind in KINDS:
        out = tmp_path / f"one.{kind}"
        assert sieve("figure", short, "-o", out, "--latex", "--recipe", *where).code == 0
    full = tmp_path / "one.json"
    commands = [["figure", str(full), "-o", str(tmp_path / f"two.{k}"), *where] for k in KINDS]
    script = (
        "import sys, json\nfrom sieve.explorer.cli import main\n"
        "for command in json.loads(sys.argv[1]):\n"
        "    try: main(command)\n    except SystemExit as end: assert not end.code, end.code\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    settings = {"PYTHONHASHSEED": "77", "TZ": "Asia/Tokyo", "SOURCE_DATE_EPOCH": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", script, json.dumps(commands)],
        cwd=ROOT, env=os.environ | settings, capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    for kind in KINDS:
        one, two = ((tmp_path / f"{name}.{kind}").read_bytes() for name in ("one", "two"))
        assert one == two, kind
    written = parse_recipe(full.read_text())
    assert written.checkpoint == tiny_checkpoint.sha256
    assert written.collection_sha256 == tiny_collection.sha256
    assert r"{one.png}" in (tmp_path / "one.tex").read_text()


def test_command_errors_are_one_line(sieve: Sieve, tiny_collection, tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({"rows": ROWS}))
    hashed = tmp_path / "hashed.json"
    hashed.write_text(json.dumps({"rows": ROWS, "checkpoint": "0123456789abcdef"}))
    out = tmp_path / "figure.pdf"
    there = ("--collection", tiny_collection.path)
    for arguments, line in (
        (
            (path, "-o", tmp_path / "figure.jpg"),
            "figure.jpg: a figure must end in .pdf, .svg or .png",
        ),
        ((path, "-o", tmp_path / "no" / "figure.pdf"), "there is no folder"),
        ((tmp_path / "none.json", "-o", out), "there is no recipe"),
        ((path, "-o", out), "has no collection; add one or give --collection"),
        (
            (hashed, "-o", out, *there),
            "there is no checkpoint with hash 0123456789ab; give its path",
        ),
    ):
        assert line in fault(sieve("figure", *arguments))
    assert sorted(tmp_path.glob("*figure*")) == []


def test_recipe_file_is_not_overwritten(
    sieve: Sieve, tiny_collection, tiny_checkpoint, tmp_path: Path
) -> None:
    path = tmp_path / "figure.json"
    path.write_text(json.dumps({"rows": ROWS, "columns": 4}))
    before = path.read_bytes()
    where = ("--checkpoint", tiny_checkpoint.path, "--collection", tiny_collection.path)
    message = fault(sieve("figure", path, "-o", tmp_path / "figure.pdf", "--recipe", *where))
    assert "figure.json would overwrite the recipe" in message
    assert path.read_bytes() == before
