"""Test that all commands accept the same backbone names and give the same errors."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from command_line import Sieve, fault

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("openai/clip-vit-base-patch32", "use ViT-B-32/openai, which reads the same weights"),
        ("no-backbone", "unknown backbone"),
        ("ViT-B-32//path/to/file.pt", "there is no file /path/to/file.pt; check the path"),
    ],
)
def test_equivalent_names_get_the_same_answer(
    sieve: Sieve, pictures: Path, tmp_path: Path, opened: tuple, name: str, message: str
) -> None:
    images = pictures / "images"
    out = ("--out", tmp_path / "made")
    commands: list[tuple[object, ...]] = [
        ("prepare", "folder", images, "--backbone", name, *out),
        ("prepare", "scenes", "--count", "3", "--backbone", name, *out),
        ("prepare", "conceptual-captions", images, "--backbone", name, *out),
        ("add", opened[0], images, "--backbone", name, *out),
        ("search", *opened, "a circle", "--text-encoder", name),
    ]
    for command in commands:
        answer = sieve(*command)
        lines = answer.err.splitlines()
        assert answer.code == 1 and message in lines[-1], answer


def test_embeddings_accept_the_transformers_name(sieve: Sieve, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    np.save(folder / "images.npy", np.eye(6, 512, dtype=np.float32))
    (folder / "items.csv").write_text("image\n" + "".join(f"{n}.jpg\n" for n in range(6)))
    answer = sieve("prepare", "embeddings", folder, "--backbone", "openai/clip-vit-base-patch32",
                   "--out", tmp_path / "made")  # fmt: skip
    assert answer.code == 1 and "use ViT-B-32/openai" in answer.err


def test_offline_error_is_reported_quickly(pictures: Path, tmp_path: Path, home: Path) -> None:
    began = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", "sieve", "prepare", "folder", str(pictures / "images"),
         "--backbone", "ViT-B-32/laion2b_s34b_b79k", "--out", str(tmp_path / "made")],
        env=os.environ | {"SIEVE_HOME": str(home), "HF_ENDPOINT": "http://127.0.0.1:9",
                          "HF_HOME": str(tmp_path / "hub")},
        stderr=subprocess.PIPE, text=True,
    ) as running:  # fmt: skip
        assert running.stderr is not None
        first = running.stderr.readline()
        _, rest = running.communicate(timeout=60)
    assert time.monotonic() - began < 60  # 20 s on an idle machine
    assert first == (
        "sieve: loading backbone ViT-B-32/laion2b_s34b_b79k; missing files are downloaded\n"
    )
    assert re.fullmatch(
        r"sieve: downloading laion/[^\n]+ from http://127.0.0.1:9; this happens once\n"
        r"sieve: backbone 'ViT-B-32/laion2b_s34b_b79k' cannot be opened: http://127.0.0.1:9 cannot "
        r"be reached: [^\n]+\n",
        rest,
    ), rest


@pytest.mark.parametrize(
    "command",
    [
        ("prepare", "folder", ".", "--backbone", "ViT-B-32/openai", "--out", "made"),
        ("add", "made-before", "."),
        ("search", "made-before", "a dog"),
        ("export", "made-before", "results", "--query", "a dog", "-o", "r.csv"),
        ("train", "made-before"),
        ("evaluate", "made-before"),
        ("explore", "made-before"),
    ],
    ids=lambda command: command[0],
)
def test_backbone_name_is_checked_before_slow_imports(
    tmp_path: Path, home: Path, command: tuple[str, ...]
) -> None:
    """Importing PyTorch takes seconds, during which no output would be shown."""
    (tmp_path / "torch.py").write_text("import sys; sys.exit('torch is imported')")
    made = home / "collections" / "made-before"
    made.mkdir(parents=True)
    (made / "collection.json").write_text('{"backbone": {"name": "ViT-B-32/openai"}}')
    run = subprocess.run(
        [sys.executable, "-m", "sieve", *command],
        cwd=tmp_path, env=os.environ | {"SIEVE_HOME": str(home), "PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    first, *rest = run.stderr.splitlines()
    assert re.match("sieve: (loading|looking for).* backbone,? ViT-B-32/openai", first), run
    if command[0] in ("search", "export"):  # these read the collection before they import torch
        assert len(rest) == 1 and "collection.json is damaged" in rest[0]
    else:
        assert rest == ["torch is imported"]


def test_bundled_backbone_needs_no_loading_notice(
    sieve: Sieve, pictures: Path, tmp_path: Path
) -> None:
    line = fault(sieve("prepare", "folder", pictures / "none", "--out", tmp_path / "made"))
    assert "loading backbone" not in line, "the bundled one needs no notice"
