"""Test the wording of the code base: no private vocabulary, and docstrings with a verb."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.house

ROOT = Path(__file__).parents[1]
SUFFIXES = {".py", ".js", ".html", ".css", ".md", ".toml"}
BANNED = re.compile(r"\b(whoever|anew|meanwhile|nobody|told apart)\b", re.IGNORECASE)
NOT_A_VERB = ("Tell", "What", "Which", "Where")
FILES = sorted(
    path
    for folder in ("assets", "data_prep", "explorer", "model", "tests")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in SUFFIXES and path.name != Path(__file__).name
) + sorted(ROOT.glob("*.md"))


def test_no_private_vocabulary() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in FILES
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if BANNED.search(line)
    ]
    assert not found, "\n".join(found)


def test_docstrings_begin_with_a_verb() -> None:
    found = []
    for path in FILES:
        if path.suffix != ".py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
                first = (ast.get_docstring(node) or "").split(maxsplit=1)
                if first and first[0] in NOT_A_VERB:
                    line = getattr(node, "lineno", 1)
                    found.append(
                        f"{path.relative_to(ROOT)}:{line}: {ast.get_docstring(node)!r:.80}"
                    )
    assert not found, "\n".join(found)
