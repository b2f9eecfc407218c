"""Test the documentation of the Python API: notebook, guide and API reference."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from processes import run_python

import sieve
from sieve import assets

pytestmark = pytest.mark.slow

NOTEBOOK = assets.ROOT / "notebooks" / "quickstart.ipynb"
ROOT = Path(__file__).parents[3]


def test_notebook_is_stored_without_outputs() -> None:
    for cell in nbformat.read(NOTEBOOK, 4).cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None


@pytest.fixture(scope="module")
def executed(scenes_home: Path) -> nbformat.NotebookNode:
    """The notebook, run with two more cells, which open and close the explorer."""
    notebook = nbformat.read(NOTEBOOK, 4)
    for source in ("explorer = sieve.launch(engine)", "explorer.close()"):
        notebook.cells.append(nbformat.v4.new_code_cell(source))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIEVE_HOME", str(scenes_home))
        started = time.perf_counter()
        NotebookClient(notebook, timeout=120).execute()
    assert time.perf_counter() - started < 60
    return notebook


def test_notebook_runs_in_a_minute(executed: nbformat.NotebookNode) -> None:
    shown = [
        (kind, content)
        for cell in executed.cells[:-2]
        for output in cell.get("outputs", ())
        for kind, content in output.get("data", {}).items()
    ]
    pages = [content for kind, content in shown if kind == "text/html"]
    assert sum("data:image/webp;base64," in page for page in pages) >= 5
    assert any("without “a beach”" in page for page in pages)
    assert any(kind == "image/png" for kind, _ in shown)


def test_launch_shows_the_page_in_a_notebook(executed: nbformat.NotebookNode) -> None:
    pages = [output["data"]["text/html"] for output in executed.cells[-2].outputs]
    assert len(pages) == 1 and 'src="http://127.0.0.1:' in pages[0] and "<iframe" in pages[0]


def test_example_of_the_guide_runs(
    scenes_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIEVE_HOME", str(scenes_home))
    monkeypatch.chdir(tmp_path)
    guide = (ROOT / "explorer" / "GUIDE.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    (block,) = (block for block in blocks if "import sieve" in block)
    names: dict[str, Any] = {}
    exec(block, names)
    names["explorer"].close()
    assert len(names["results"]) == 24 and names["codes"].shape == (2, 1024)
    assert (tmp_path / "dogs.pdf").read_bytes().startswith(b"%PDF")


def test_api_reference_is_built_without_warnings(tmp_path: Path) -> None:
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (line,) = [line for line in contributing.splitlines() if "pdoc" in line and "-c" in line]
    program = line.split('"')[1].replace("build/reference", str(tmp_path))
    strict = "import warnings; warnings.simplefilter('error', UserWarning)"
    built = run_python(["-c", f"{strict}; {program}"])
    assert built.returncode == 0, built.stderr
    assert not built.stderr.strip()
    page = (tmp_path / "sieve.html").read_text(encoding="utf-8")
    for name in sieve.__all__:
        assert f'id="{name}"' in page
    assert not list(tmp_path.glob("sieve/*.html"))
