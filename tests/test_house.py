"""Test the repository: lint, types, one-way imports and the wheel."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from importlib import metadata
from pathlib import Path

import pytest

pytestmark = pytest.mark.house

ROOT = Path(__file__).parents[1]
ALLOWED = {
    "assets": {"assets"},
    "model": {"assets", "model"},
    "data_prep": {"assets", "model", "data_prep"},
    "explorer": {"assets", "model", "data_prep", "explorer"},
}


def run(*command: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, **options)  # type: ignore[call-overload]


@pytest.fixture(scope="module")
def import_names() -> None:
    """Link the folders to their import names for pyright, which ignores setuptools' mapping."""
    package = ROOT / "build" / "import_names" / "sieve"
    package.mkdir(parents=True, exist_ok=True)
    targets = {file.name: file for file in (ROOT / "explorer" / "sieve").glob("*.py")}
    targets |= {wing: ROOT / wing for wing in ALLOWED}
    for name, target in targets.items():
        if not (package / name).is_symlink():
            (package / name).symlink_to(target)


@pytest.mark.parametrize("command", [("check",), ("format", "--check")], ids=" ".join)
def test_lint(command: tuple[str, ...]) -> None:
    checked = run(sys.executable, "-m", "ruff", *command)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.usefixtures("import_names")
def test_types() -> None:
    """Run pyright, which takes a minute, unless it passed on the same files and packages."""
    passed = ROOT / "build" / "pyright_passed"
    state = _hash_of_typed_code()
    if passed.is_file() and passed.read_text() == state:
        pytest.skip(f"pyright passed before on the same files; delete {passed} to run it again")
    checked = run(sys.executable, "-m", "pyright")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    passed.write_text(state)


def _hash_of_typed_code() -> str:
    """Hash all that pyright reads: the sources, its configuration, Python and the packages."""
    files = sorted(path for wing in ALLOWED for path in (ROOT / wing).rglob("*.py*"))
    files = [path for path in files if path.suffix in (".py", ".pyi")]
    packages = sorted({f"{one.name} {one.version}" for one in metadata.distributions()})
    state = hashlib.sha256("\n".join([sys.version, *packages]).encode())
    for path in (ROOT / "pyproject.toml", *files):
        state.update(f"\0{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return state.hexdigest()


@pytest.mark.parametrize("wing", ALLOWED)
def test_imports_run_one_way(wing: str) -> None:
    for path in (ROOT / wing).rglob("*.py"):
        # Only the modules of the Python API import each other; they build on the wings.
        is_api = path.parent == ROOT / "explorer" / "sieve"
        private = {other.stem for other in path.parent.glob("_*.py")} if is_api else set()
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            wings = {name.split(".")[1] for name in names if name.startswith("sieve.")}
            assert wings <= ALLOWED[wing] | private, f"{path} imports {wings}"
            tops = {name.split(".")[0] for name in names}
            assert not tops & set(ALLOWED), f"{path} imports {tops}: their name is sieve.…"
            assert wing == "explorer" or "gradio" not in tops, f"{path} imports gradio"


def test_imports_have_no_cycle() -> None:
    modules = {_module(path): path for wing in ALLOWED for path in (ROOT / wing).rglob("*.py")}
    imported: dict[str, set[str]] = {}
    for name, path in modules.items():
        # Imports inside functions count too: they must not hide a cycle.
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sieve"):
                base = (node.module or "").removeprefix("sieve").removeprefix(".")
                parts = {f"{base}.{alias.name}".lstrip(".") for alias in node.names}
                imported.setdefault(name, set()).update(
                    (parts & set(modules)) or {base} & set(modules)
                )
    order = list(TopologicalSorter(imported).static_order())  # raises CycleError with the cycle
    assert order.index("model.exclusion") < order.index("model.engine") < len(order)


def _module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts[2:] if parts[:2] == ("explorer", "sieve") else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_public_class_names_are_unique() -> None:
    """A class can be found by its name alone."""
    seen: dict[str, list[str]] = {}
    for wing in ALLOWED:
        for file in (ROOT / wing).rglob("*.py"):
            for node in ast.parse(file.read_text("utf-8")).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    seen.setdefault(node.name, []).append(str(file.relative_to(ROOT)))
    assert {name: files for name, files in seen.items() if len(files) > 1} == {}


def test_top_level_has_only_expected_files() -> None:
    tracked = run("git", "ls-files").stdout.splitlines()
    if not tracked:
        pytest.skip("not a git checkout")
    fixed = {"pyproject.toml", "README.md", "explorer", "model", "assets", "data_prep", "tests"}
    documents = {"LICENSE", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff"}
    top = {path.split("/")[0] for path in tracked}
    assert {name for name in top if not name.startswith(".")} <= fixed | documents | {"Dockerfile"}


PAGES = [
    page
    for page in sorted([*ROOT.glob("[!.]*/**/*.md"), *ROOT.glob("*.md")])
    if page.relative_to(ROOT).parts[0] != "build"
]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_relative_links_exist(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        assert "://" in link or (page.parent / link).exists(), f"{page} links to {link}"


def test_wheel_works_next_to_modules_of_the_same_name(tmp_path: Path, scenes_home: Path) -> None:
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
    for shadow in ("model.py", "explorer.py", "assets.py"):
        (tmp_path / shadow).write_text("raise ImportError('this is not Sieve')\n")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(site)]),
        "SIEVE_HOME": str(scenes_home),
    }
    where = "import sieve.explorer; print(sieve.explorer.__file__)"
    options = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True}
    located = subprocess.run([sys.executable, "-c", where], **options)  # type: ignore[call-overload]
    assert located.stdout.startswith(str(site)), located.stdout + located.stderr
    searched = subprocess.run(
        [sys.executable, "-m", "sieve", "search", "scenes", "a dog", "-k", "5", "--json"],
        **options,  # type: ignore[call-overload]
    )
    assert searched.returncode == 0, searched.stderr
    assert len(json.loads(searched.stdout)["results"]) == 5
