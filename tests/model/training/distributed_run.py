"""Train as one of the two processes that `test_distributed` starts: COLLECTION OUT.

Writes OUT/OBJECTIVE-RANK.pt for each objective, OUT/compiled-RANK.pt, and the
checkpoints OUT/unbroken and OUT/resumed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from conftest import WORDS, WordBackbone

from sieve.model.collection import Collection
from sieve.model.hyperparameters import PAPER, TrainingConfig
from sieve.model.training.data import TrainingData
from sieve.model.training.distributed import ALONE, World, process_group
from sieve.model.training.trainer import StepReport, Trainer, train

SHORT = TrainingConfig(m=64, k=8, epochs=2, batch_size=200, n_words=8, learning_rate=1e-3)
OBJECTIVES = {
    "compact": SHORT,
    "paper": replace(PAPER, m=64, k=16, epochs=2, batch_size=200),
    "vocabulary": replace(SHORT, objective="vocabulary", m=len(WORDS), k=4, activation="elu"),
}
STEPS = 4


def make_trainer(collection: Collection, config: TrainingConfig, world: World = ALONE) -> Trainer:
    """Create a trainer that multiplies in float32, so that shards and batches round equally."""
    config = replace(config, kinds=False)
    data = TrainingData(collection, WordBackbone().encode_texts, config)
    trainer = Trainer(data, config, torch.device("cpu"), world)
    trainer.bfloat16 = False
    return trainer


def short_training(
    collection: Collection, config: TrainingConfig, world: World = ALONE, backend: str = ""
) -> dict[str, torch.Tensor]:
    """Train a few steps; returns the first gradients, all losses and the last weights."""
    trainer = make_trainer(collection, config, world)
    if backend:
        trainer.compile(backend)
    # Half of the dimensions count as dead, so that the revive loss is active.
    trainer.idle[::2] = 1000
    found = {}
    for step in range(STEPS):
        report = trainer.train_step()
        found |= {f"loss.{step}.{name}": torch.tensor(v) for name, v in report.losses.items()}
        if step == 0:
            gradients = {n: p.grad for n, p in trainer.module.named_parameters()}
            # After clipping, as the optimiser uses them.
            found |= {f"gradient.{n}": g.clone() for n, g in gradients.items() if g is not None}
    found |= {f"weight.{name}": part for name, part in trainer.module.state_dict().items()}
    return {**found, "idle": trainer.idle}


def stop_at(step: int) -> Callable[[StepReport], None]:
    """Return a callback that kills training after a step."""

    def stop(report: StepReport) -> None:
        if report.step == step:
            raise KeyboardInterrupt

    return stop


def main() -> None:
    """Train as one of several processes."""
    collection, out = Collection.open(Path(sys.argv[1])), Path(sys.argv[2])
    with process_group(torch.device("cpu")) as world:
        for name, config in OBJECTIVES.items():
            found = short_training(collection, config, world)
            torch.save(found, out / f"{name}-{world.rank}.pt")
        found = short_training(collection, SHORT, world, "eager")
        torch.save(found, out / f"compiled-{world.rank}.pt")
        settings = {"device": "cpu", "backbone": WordBackbone(), "progress": True}
        train(collection, out / "unbroken", SHORT, **settings)
        try:
            train(collection, out / "resumed", SHORT, on_step=stop_at(5), **settings)
        except KeyboardInterrupt:
            world.wait()
        train(collection, out / "resumed", SHORT, **settings)


if __name__ == "__main__":
    main()
