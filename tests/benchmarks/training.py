"""Compare the throughput of training with a plain PyTorch loop of the same model and losses.

    python -m tests.benchmarks.training --json

Both train on the same batches of synthetic data (d = 512) with all default losses, over a complete
shortened schedule: k decreases from 4k to k as in real training. They alternate, so that other load
on the machine affects both equally.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from sieve.model.backbone.clip import resolve_device
from sieve.model.collection import BackboneIdentity, Collection
from sieve.model.hyperparameters import TrainingConfig
from sieve.model.training.data import Batch, TrainingData
from sieve.model.training.trainer import Trainer
from tests.benchmarks.plain_training import PlainModel, plain_losses
from tests.collection_files import write_collection

WIDTH, WORDS, PAIRS, BUDGET = 512, 3000, 600_000, 180.0
IDENTITY = BackboneIdentity("synthetic", "00" * 32, WIDTH)


def synthetic_collection(folder: Path, n_items: int, captions: int = 5) -> Collection:
    """Write items with five captions of ten words each, of frequent and rare words."""
    generator = np.random.default_rng(0)
    directions = word_directions()
    share = 1 / np.arange(10, WORDS + 10)
    words_of_captions = generator.choice(WORDS, (n_items * captions, 10), p=share / share.sum())
    texts = np.array([directions[words].sum(0) for words in words_of_captions])
    images = texts.reshape(n_items, captions, WIDTH).mean(1) + 0.5
    written = [" ".join(map(word_name, words)) for words in words_of_captions]
    captions_of = [written[i * captions : (i + 1) * captions] for i in range(n_items)]
    return Collection.open(
        write_collection(
            folder, IDENTITY, name="synthetic", captions=captions_of, images=unit(images),
            texts=unit(texts),
        )
    )  # fmt: skip


def word_directions() -> np.ndarray:
    """Return the direction of each word: (w, d) float32."""
    return np.random.default_rng(1).standard_normal((WORDS, WIDTH), np.float32)


def word_name(index: int) -> str:
    """Return an invented word of five letters."""
    return "zq" + "".join(chr(97 + index // 26**place % 26) for place in range(3))


def unit(vectors: np.ndarray) -> np.ndarray:
    """Divide rows by their norm."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def encode_texts(texts: list[str]) -> np.ndarray:
    """Embed a word in its prompt."""
    directions, index = word_directions(), {word_name(i): i for i in range(WORDS)}
    return unit(np.array([directions[index.get(text.split()[-1], 0)] for text in texts]))


class PlainLoop:
    """The baseline: the same steps as a plain loop."""

    def __init__(self, like: Trainer) -> None:
        self.like = like
        encoder = like.module.encoder
        self.model = PlainModel(WIDTH, like.config.m, encoder.centre.clone())
        with torch.no_grad():
            self.model.encode.weight.copy_(encoder.encode_md)
            self.model.decode.weight.copy_(encoder.decode_md.T)
            self.model.bias.copy_(encoder.bias)
            for name, learned in like.module.named_parameters(recurse=False):
                getattr(self.model, name).copy_(learned)
        self.model.to(like.device)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), weight_decay=like.config.weight_decay
        )

    def step(self) -> None:
        """Run the step that the trainer is at."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.like.learning_rate_now()
        batch = on_device(self.like.data.batch(self.like.step), self.like.device)
        losses = plain_losses(
            self.model, batch, self.like.config, self.like.k_now(), self.like.module.word_dimension
        )
        weights = asdict(self.like.config)
        total = torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()
        self.optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()


def on_device(batch: Batch, device: torch.device) -> Batch:
    """Move a batch to the device."""
    return Batch(*(part.to(device) for part in batch))


def seconds(what: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of one call."""
    started = time.perf_counter()
    what()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def disagreement(trainer: Trainer, plain: PlainLoop) -> float:
    """Return the largest relative difference between the losses of both, in float32."""
    batch, k = on_device(trainer.data.batch(0), trainer.device), trainer.config.k
    with torch.no_grad():
        ours, _ = trainer.objective.losses(trainer.module, batch, k, None)
        theirs = plain_losses(plain.model, batch, trainer.config, k, trainer.module.word_dimension)
    assert ours.keys() == theirs.keys(), (ours.keys(), theirs.keys())
    return max(abs(float(ours[name] / theirs[name]) - 1) for name in theirs)


def measure(data: TrainingData, config: TrainingConfig, device: torch.device) -> dict[str, object]:
    """Alternate between both over a complete schedule."""
    trainer = Trainer(data, config, device)
    for _ in range(3):  # warm-up: one-time initialisation, and weights that are no longer random
        trainer.train_step()
    plain = PlainLoop(trainer)
    agreed = disagreement(trainer, plain)
    times: dict[str, list[float]] = {"plain": [], "ours": [], "drawing": []}
    while trainer.step < trainer.n_steps:
        times["drawing"].append(seconds(lambda: data.batch(trainer.step), device))
        times["plain"].append(seconds(plain.step, device))
        times["ours"].append(seconds(trainer.train_step, device))
    # Other load on the machine affects the mean more than the median.
    took = {name: float(np.median(taken)) for name, taken in times.items()}
    rate = {name: data.batch_size / took[name] for name in ("plain", "ours")}
    return {
        "device": str(device),
        "threads": torch.get_num_threads(),
        "bfloat16": trainer.bfloat16,
        "d": WIDTH,
        "m": config.m,
        "batch": data.batch_size,
        "steps": len(times["ours"]),
        "losses_differ_by": agreed,
        "step_s": took["ours"],
        "of_that_drawing_s": took["drawing"],
        "plain_step_s": took["plain"],
        "pairs_per_s": rate["ours"],
        "plain_pairs_per_s": rate["plain"],
        "ratio": rate["ours"] / rate["plain"],
        "epoch_s": PAIRS / rate["ours"],
        "epoch_budget_s": BUDGET,
    }


def main() -> None:
    """Run the benchmark and print its results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument(
        "--steps", type=int, default=30, help="number of steps of the shortened schedule"
    )
    parser.add_argument(
        "--items", type=int, default=12_000, help="number of items, with five captions each"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        collection = synthetic_collection(Path(folder) / "synthetic", args.items)
        config = TrainingConfig(batch_size=args.batch, kinds=False)
        data = TrainingData(collection, encode_texts, config)
        data.pairs = data.pairs[: args.steps * data.batch_size]
        config = replace(config, epochs=max(args.steps // data.steps_per_epoch, 1))
        found = measure(data, config, resolve_device(args.device))
    if args.json:
        print(json.dumps(found, indent=1))
        return
    print(
        f"{found['pairs_per_s']:,.0f} pairs/s on {found['device']}, "
        f"{found['threads']} threads, batch {found['batch']} "
        f"({found['step_s']:.3f} s a step, {found['of_that_drawing_s']:.3f} s of it for sampling)\n"
        f"{found['plain_pairs_per_s']:,.0f} pairs/s in the plain loop; ratio {found['ratio']:.2f}; "
        f"losses of one batch differ by at most {found['losses_differ_by']:.1e}\n"
        f"an epoch of {PAIRS:,} pairs: {found['epoch_s']:.0f} s; budget {BUDGET:.0f} s on 2 cores"
    )


if __name__ == "__main__":
    main()
