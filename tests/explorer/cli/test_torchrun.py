from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from processes import torchrun

from sieve.model.checkpoint import Checkpoint

pytestmark = pytest.mark.slow


def train(collection, out: Path, batch_size: int):
    # Without the two dashes, torchrun would parse --m as an abbreviation of its own option.
    return torchrun(
        *("-m", "--", "sieve", "train", collection.path, "--out", out, "--m", 32, "--k", 4),
        *("--epochs", 2, "--batch-size", batch_size, "--device", "cpu", "--json"),
    )


def test_two_processes_train_one_checkpoint(tiny_collection, tmp_path: Path) -> None:
    out = tmp_path / "codes"
    done = train(tiny_collection, out, 24)
    assert done.returncode == 0, done.stderr
    assert isinstance(json.loads(done.stdout), dict), "one of the two reports"
    assert torch.isfinite(Checkpoint.load(out).encoder.encode_md).all()
