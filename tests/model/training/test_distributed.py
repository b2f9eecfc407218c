from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from distributed_run import OBJECTIVES, SHORT, make_trainer, short_training
from processes import run_two

from sieve.model.checkpoint import Checkpoint
from sieve.model.collection import Collection
from sieve.model.training.distributed import World, world_from_env

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def trained_by_two(word_collection: Collection, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files written by two processes, which run once for all tests."""
    out = tmp_path_factory.mktemp("two")
    script = (
        f"import sys; sys.path[:0] = [{str(HERE)!r}, {str(HERE.parent)!r}]\n"
        "import distributed_run; distributed_run.main()"
    )
    done = run_two(["-c", script, word_collection.path, out])
    assert done.returncode == 0, done.stderr
    (out / "stderr.txt").write_text(done.stderr)
    return out


@pytest.mark.parametrize("objective", [*OBJECTIVES, "compiled"])
def test_two_processes_train_the_same_as_one(
    objective: str, word_collection: Collection, trained_by_two: Path
) -> None:
    alone = short_training(word_collection, OBJECTIVES.get(objective, SHORT))
    first, second = (torch.load(trained_by_two / f"{objective}-{rank}.pt") for rank in (0, 1))
    assert first.keys() == alone.keys() == second.keys()
    for name, expected in alone.items():
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=0)
        within = {"rtol": 1e-4, "atol": 1e-4 if name.startswith("weight") else 1e-6}
        reported = partial("{}: {}".format, name)
        torch.testing.assert_close(first[name], expected, **within, msg=reported)


def test_all_losses_were_compared(word_collection: Collection) -> None:
    found = short_training(word_collection, OBJECTIVES["compact"])
    losses = {name.split(".")[2] for name in found if name.startswith("loss.0")}
    assert losses == SHORT.weighted() | {"total"}


def test_killed_distributed_training_resumes_exactly(trained_by_two: Path) -> None:
    unbroken, resumed = (
        (Checkpoint.load(trained_by_two / name).path / "weights.safetensors").read_bytes()
        for name in ("unbroken", "resumed")
    )
    assert unbroken == resumed
    assert not list(trained_by_two.glob(".*")), "the unfinished state is cleared away"


def test_only_the_main_process_shows_progress(trained_by_two: Path) -> None:
    shown = (trained_by_two / "stderr.txt").read_text()
    assert shown.count("train:   0%") == 2, "of the unbroken and the killed training"


def test_indivisible_batch_is_rejected(word_collection: Collection) -> None:
    with pytest.raises(
        ValueError, match="200 pairs cannot be divided .* 3 processes; use --batch-size 198"
    ):
        make_trainer(word_collection, SHORT, World(0, 3))
    with pytest.raises(ValueError, match="use at most 2 processes"):
        World(0, 3).share(2)


@pytest.mark.parametrize("place", [("2", "2"), ("-1", "2"), ("0", "many")])
def test_invalid_rank_is_rejected(place: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", place[0])
    monkeypatch.setenv("WORLD_SIZE", place[1])
    with pytest.raises(ValueError, match="torchrun --nproc-per-node"):
        world_from_env()
