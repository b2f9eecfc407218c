"""Test the command line: help, one-line errors and exit codes."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Sieve, fault
from corruption import reseal

from sieve.explorer.cli import parse
from sieve.explorer.cli.explore import Explore
from sieve.model.engine import SearchEngine

ROOT = Path(__file__).parents[3]
COMMANDS = ("explore", "prepare", "prepare folder", "prepare coco", "prepare conceptual-captions",
            "prepare embeddings", "prepare codes", "prepare scenes", "add", "merge", "train",
            "search", "regions", "difference", "index", "evaluate", "info",
            "dimensions", "figure", "annotations",
            "annotations export", "annotations import", "export")  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_an_example(sieve: Sieve, command: str) -> None:
    answer = sieve(*command.split(), "--help")
    assert answer.code == 0
    assert f"Example: sieve {command}" in " ".join(answer.out.split())


def test_help_imports_no_heavy_library() -> None:
    look = (
        "import sys, sieve.explorer.cli\n"
        "try: sieve.explorer.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(' '.join({'torch', 'gradio', 'pandas', 'open_clip'} & set(sys.modules)) or 0)"
    )
    ran = subprocess.run([sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "{explore,prepare,add,merge,train,search,regions,difference," in ran.stdout


def test_reading_commands_import_no_slow_library(
    sieve: Sieve, scenes_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIEVE_HOME", str(scenes_home))
    assert sieve("info", "scenes").code == 0  # caches codes, which needs torch once
    commands = [
        ["info", "scenes"],
        ["dimensions", "scenes"],
        ["difference", "scenes", "label:dog", "label:cat"],
        ["search", "scenes", "a dog"],
    ]
    look = (
        "import sys, sieve.explorer.cli\n"
        f"for words in {commands}:\n"
        "    try: sieve.explorer.cli.main(words)\n"
        "    except SystemExit as done: assert done.code == 0\n"
        "    slow = {'torchvision', 'open_clip'} if 'search' in words else {'torch', 'sklearn'}\n"
        "    assert not slow & set(sys.modules), words"
    )
    ran = subprocess.run([sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("fly",),
        ("search",),
        ("search", "scenes", "a dog", "--strictness", "1.5"),
        ("search", "scenes", "a dog", "--strictness", "always"),
        ("search", "scenes", "a dog", "--off", "17,dog"),
        ("search", "scenes", "a dog", "-k", "many"),
        ("prepare", "folder"),
        ("prepare", "coco", "--images", "val2017"),
        ("prepare", "embeddings", "embeddings"),
        ("train", "scenes", "--preset", "huge"),
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2(sieve: Sieve, arguments: tuple[str, ...]) -> None:
    answer = sieve(*arguments)
    assert answer.code == 2
    assert answer.out == ""
    assert answer.err


def test_mistyped_command_error_suggests_the_correct_one(sieve: Sieve) -> None:
    for words, line in (
        (("explor", "scenes"), "there is no command 'explor'; did you mean `sieve explore`?"),
        (("fly",), "there is no command 'fly'; choose one of explore, prepare, "),
        ((), "no command given, expected one of explore, prepare, "),
    ):
        answer = sieve(*words)
        assert (answer.code, answer.err.count("\n")) == (2, 1)
        assert answer.err.startswith(f"sieve: {line}")


def test_help_is_also_a_command(sieve: Sieve) -> None:
    assert sieve("help").out == sieve("--help").out
    assert sieve("help", "prepare", "folder").out == sieve("prepare", "folder", "--help").out
    assert re.fullmatch(r"sieve \d+\.\d+\.\d+\n", sieve("--version").out)


def test_errors_are_one_line(sieve: Sieve, opened: tuple, tmp_path: Path) -> None:
    (tmp_path / "page.jpg").write_text("<html>")
    search = ("search", *opened)
    for arguments, line in (
        ((*search, ""), "nothing to search for: give a text, an image or an item"),
        ((*search, "x", "--off", "640"), "there is no dimension 640; this checkpoint has 0 to 63"),
        ((*search, "x", "-k", "0"), "top must be between 1 and 200; got 0"),
        ((*search, "--item", "17"), "collection tiny has no item '17'; item ids are"),
        ((*search, "--image", tmp_path / "page.jpg"), "not an image of a known format"),
        ((*search, "--image", tmp_path / "none.jpg"), "none.jpg: file is missing"),
        (("search", "nowhere", "x"), "there is no collection 'nowhere'; there are: scenes"),
        (("search", tmp_path, "x"), "is not a collection (no collection.json); make one with"),
        (("search", opened[0], "x"), "no checkpoint fits backbone local-dir:"),
        (("search", opened[0], "x", "--checkpoint", "best"), "there is no checkpoint 'best'"),
        (("search", opened[0], "x", "--checkpoint", tmp_path), "is not a complete checkpoint"),
        (("dimensions", *opened, "--sort", "beauty"), "cannot sort by 'beauty'; columns are: "),
        (("dimensions", *opened, "--csv", "--json"), "give --csv or --json, not both"),
        (("dimensions", *opened, "--where", "dog"), "a set of items is label:…, split:…"),
        (("dimensions", *opened, "--csv", "--summary"), "give --csv or --summary, not both"),
        (("dimensions", *opened, "--summary", "--match", "a"), "--summary covers all dimensions"),
        (("prepare", "scenes", "--count", "3"), "have a default folder; give --out"),
        (("prepare", "folder", tmp_path / "no", "--out", tmp_path / "c"), "there is no folder"),
        (("prepare", "folder", tmp_path, "--out", tmp_path), "exists already; choose another"),
    ):
        assert line in fault(sieve(*arguments)), arguments


def test_incompatible_artifacts_are_one_line(sieve: Sieve, opened: tuple, tmp_path: Path) -> None:
    def changed(**facts: object) -> Path:
        copy = tmp_path / f"copy{len(list(tmp_path.iterdir()))}"
        shutil.copytree(opened[0], copy)
        manifest = json.loads((copy / "collection.json").read_text())
        (copy / "collection.json").write_text(json.dumps(manifest | facts))
        reseal(copy)
        return copy

    older = changed(schema_version=0)
    assert "has schema_version 0, this Sieve reads 1; prepare" in fault(sieve("info", older))
    other = changed(backbone={"name": "other", "sha256": "ab" * 32, "d": 32})
    line = fault(sieve("search", other, "x", *opened[1:]))
    assert "tiny reads backbone local-dir:" in line and "other" in line and "sieve train" in line
    torn = changed()
    (torn / "image_embeddings.npy").write_bytes(b"\x93NUMPY")
    assert "image_embeddings.npy has 6 bytes, expected" in fault(sieve("info", torn))


def test_closed_output_pipe_is_not_an_error(
    sieve: Sieve, opened: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as gone:
        monkeypatch.setattr(sys, "stdout", gone)
        answer = sieve("dimensions", *opened, "--csv")
    assert (answer.code, answer.err) == (141, "")


def test_interrupt_is_one_line(
    sieve: Sieve, opened: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(SearchEngine, "search", stopped)
    answer = sieve("search", *opened, "a circle")
    assert answer == (130, "", "sieve: stopped\n")


def documented_commands() -> Iterator[list[str]]:
    """Yield the arguments of the `sieve` commands in README, guide and Dockerfile."""
    pages = [(ROOT / page).read_text("utf-8") for page in ("README.md", "explorer/GUIDE.md")]
    blocks = re.findall(r"```sh\n(.*?)```", "\n".join(pages), re.DOTALL)
    for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
        for words in (shlex.split(part, comments=True) for part in re.split(r" && | \| ", line)):
            if words[:1] == ["sieve"]:
                yield words[1:]
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    yield json.loads(dockerfile.rpartition("\nCMD ")[2])
    yield from (shlex.split(args) for args in re.findall(r"^RUN sieve (.*) >", dockerfile, re.M))


@pytest.mark.parametrize("arguments", list(documented_commands()), ids=" ".join)
def test_documented_commands_parse(arguments: list[str]) -> None:
    parsed = parse(arguments)
    if isinstance(parsed, Explore):
        parsed.access.check_host(parsed.host)
