"""The house itself: lint, types, one-way imports, and a wheel that works elsewhere."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {
    "assets": {"assets"},
    "model": {"assets", "model"},
    "data_prep": {"assets", "model", "data_prep"},
    "explorer": {"assets", "model", "data_prep", "explorer"},
}


def run(*command: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, **options)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "command",
    [
        ("ruff", "check"),
        ("ruff", "format", "--check"),
        ("pyright",),
    ],
    ids=" ".join,
)
def test_lint_and_types(command: tuple[str, ...]) -> None:
    checked = run(sys.executable, "-m", *command)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("wing", ALLOWED)
def test_imports_run_one_way(wing: str) -> None:
    for path in (ROOT / wing).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            tops = {name.split(".")[0] for name in names}
            assert not (tops & set(ALLOWED)) - ALLOWED[wing], f"{path} imports {tops}"
            assert wing == "explorer" or "gradio" not in tops, f"{path} imports gradio"


def test_rooms_import_no_circle() -> None:
    imported: dict[str, set[str]] = {}
    for wing in sorted(set(ALLOWED) - {"assets"}):
        for path in (ROOT / wing).rglob("*.py"):
            room = _room(path.relative_to(ROOT).with_suffix("").parts)
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{wing}."):
                    target = _room((node.module or "").split("."))
                    imported.setdefault(room, set()).add(target)
    order = TopologicalSorter({room: others - {room} for room, others in imported.items()})
    rooms = list(order.static_order())  # raises CycleError, which names the circle
    assert {"sieve.data_prep.pipeline", "sieve.explorer.commands", "sieve.model.training"} <= set(
        rooms
    )


def _room(parts: Sequence[str]) -> str:
    """Name the room that a module stands in, or the module itself where it lies flat."""
    return ".".join(parts[:2])


def test_nothing_but_the_house_stands_at_the_top() -> None:
    tracked = run("git", "ls-files").stdout.splitlines()
    if not tracked:
        pytest.skip("not a git checkout")
    fixed = {"pyproject.toml", "README.md", "explorer", "model", "assets", "data_prep", "tests"}
    beside = {"LICENSE", "SECURITY.md", ".ci", ".gitignore"}
    assert {path.split("/")[0] for path in tracked} <= fixed | beside


@pytest.mark.parametrize("page", sorted([*ROOT.glob("[!.]*/**/*.md"), *ROOT.glob("*.md")]), ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        assert "://" in link or (page.parent / link).exists(), f"{page} links to {link}"


def test_the_wheel_searches_outside_the_repository(tmp_path: Path, scenes_home: Path) -> None:
    wheels, site = tmp_path / "wheels", tmp_path / "site"
    pip = (sys.executable, "-m", "pip", "install", "-q", "--no-deps")
    built = run(
        *(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"),
        *("-w", str(wheels), "."),
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = wheels.glob("*.whl")
    installed = run(*pip, "--target", str(site), str(wheel))
    assert installed.returncode == 0, installed.stderr
    environment = os.environ | {"PYTHONPATH": str(site), "SIEVE_HOME": str(scenes_home)}
    script = (
        "import explorer, sys; from sieve.explorer.cli import main; "
        f"assert explorer.__file__.startswith({str(site)!r}), explorer.__file__; main()"
    )
    searched = subprocess.run(
        [sys.executable, "-c", script, "search", "scenes", "a dog", "-k", "5", "--json"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert searched.returncode == 0, searched.stderr
    assert len(json.loads(searched.stdout)["results"]) == 5
