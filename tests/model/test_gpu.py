"""Training and encoding on a GPU, and what can be checked of it without one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from sieve.model.encoder import SparseEncoder, SparseEncoderConfig
from sieve.model.hyperparameters import IMAGE, TrainingConfig
from sieve.model.training.data import Batch
from sieve.model.training.objectives import Compact, TrainingModule
from tests.benchmarks.gpu.correctness import CHECKS
from tests.benchmarks.gpu.measuring import Sizes
from tests.benchmarks.gpu.training_speed import covered

ROOT = Path(__file__).parents[2]
CONFIG = SparseEncoderConfig(d=16, m=32, k=4)
OBJECTIVE = Compact(None, TrainingConfig())  # type: ignore[arg-type]  # its losses read no data

# As on a machine where Sieve is not installed, with only the packages that training needs.
ALONE = """
import runpy, sys

sys.meta_path[:] = [f for f in sys.meta_path if "__editable__" not in repr(f)]
for name in ("gradio", "faiss", "plotly", "tyro", "matplotlib", "transformers", "qdrant_client"):
    sys.modules[name] = None
sys.argv[0] = "gpu"
runpy.run_module("tests.benchmarks.gpu", run_name="__main__")
"""


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("check", CHECKS)
def test_a_gpu_computes_what_the_cpu_does(check: str, tmp_path: Path) -> None:
    found = CHECKS[check](torch.device("cuda"), Sizes(), tmp_path)
    assert found["passed"], found


def batch_on(device: str) -> Batch:
    """Return a batch of 8 pairs, 6 words and 3 exclusions, without defined values."""
    exclusions = torch.empty(3, 2, dtype=torch.int64, device=device)
    return Batch(
        images=torch.empty(8, 16, device=device),
        texts=torch.empty(8, 16, device=device),
        items=torch.empty(8, dtype=torch.int64, device=device),
        words=torch.empty(6, 16, device=device),
        word_ids=torch.empty(6, dtype=torch.int64, device=device),
        presence=torch.empty(8, 6, device=device),
        text_presence=torch.empty(8, 6, device=device),
        frequent_ids=torch.empty(5, dtype=torch.int64, device=device),
        frequent_log_odds=torch.empty(5, device=device),
        frequent_directions=torch.empty(5, 16, device=device),
        frequent_similarity=torch.empty(5, device=device),
        frequent_presence=torch.empty(8, 5, device=device),
        exclusions=exclusions,
    )


def test_all_tensors_of_the_losses_and_codes_are_on_the_device() -> None:
    with FakeTensorMode():  # computes shapes and devices; raises an error if devices are mixed
        with torch.device("cuda"):
            module = TrainingModule(SparseEncoder(CONFIG), 20)
        dead = torch.empty(32, dtype=torch.bool, device="cuda")
        losses, fired = OBJECTIVE.losses(module, batch_on("cuda"), 8, dead)
        code = module.encoder.encode(torch.empty(8, 16, device="cuda"), IMAGE)
        devices = {part.device.type for part in (*losses.values(), fired, *code)}
    assert len(losses) == 10
    assert devices == {"cuda"}


def test_a_whole_step_runs_on_another_device() -> None:
    module = TrainingModule(SparseEncoder(CONFIG), 20).to("meta")
    optimizer = torch.optim.AdamW(module.parameters())
    dead = torch.empty(32, dtype=torch.bool, device="meta")
    losses, _ = OBJECTIVE.losses(module, batch_on("meta"), 8, dead)
    torch.stack(list(losses.values())).sum().backward()
    torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
    optimizer.step()
    assert {part.grad is not None and part.grad.device.type for part in module.parameters()} == {
        "meta"
    }


def test_overlapping_kernels_are_counted_once() -> None:
    assert covered([(5.0, 6.0), (0.0, 2.0), (1.0, 3.0), (1.5, 2.5)]) == 4.0


@pytest.mark.slow
def test_the_gpu_benchmark_runs_on_a_cpu_without_an_installation(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = (sys.executable, "-c", ALONE, "--out", str(out), "--device", "cpu", "--tiny")
    first = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert first.returncode == 0, first.stdout + first.stderr
    stored = json.loads((out / "results.json").read_text())
    assert list(stored["parts"]) == [
        "right", "fast", "scaled", "embedding", "search", "encoder that ships",
    ]  # fmt: skip
    assert stored["parts"]["right"].keys() == CHECKS.keys()
    assert stored["parts"]["fast"]["m = 64, batch 128"]["losses_differ_by"] < 1e-3
    table = (out / "table.md").read_text()
    assert table.index("| encoder that ships |") < table.index("| search |"), "newest first"
