"""Throughput of training steps, and of an epoch as large as Conceptual Captions."""

from __future__ import annotations

import importlib.util
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from sieve.model.collection import IMAGE_EMBEDDINGS, TEXT_EMBEDDINGS, Collection
from sieve.model.hyperparameters import TrainingConfig
from sieve.model.training.data import Batch, TrainingData
from sieve.model.training.trainer import Trainer
from sieve.model.words.text import WordPresence
from tests.benchmarks.gpu.measuring import (
    Case,
    Row,
    Setup,
    peak_memory_gib,
    reset_peak_memory,
    seconds_per_call,
    synchronize,
)
from tests.benchmarks.training import (
    IDENTITY,
    WIDTH,
    WORDS,
    PlainLoop,
    disagreement,
    encode_texts,
    on_device,
    word_directions,
    word_name,
)
from tests.collection_files import write_collection

_BLOCK = 100_000
_CAPTION_WORDS = 10
_BLOCKS = 3
"""Number of times that the timed steps are repeated."""


def large_data(folder: Path, n: int, config: TrainingConfig, device: torch.device) -> TrainingData:
    """Write pairs of embeddings to memory-mapped files, and sample batches of them.

    Embeddings are noisy sums of word directions, computed on the device. The words of each item
    are given, because reading them from millions of captions takes minutes.

    Parameters
    ----------
    folder : Path
        Receives the collection; one that is there already is used again.
    n : int
        Number of items, with one caption each.
    config : TrainingConfig
    device : torch.device
    """
    generator = np.random.default_rng(0)
    share = 1 / np.arange(10, WORDS + 10)
    words = generator.choice(WORDS, (n, _CAPTION_WORDS), p=share / share.sum()).astype(np.int32)
    if not folder.is_dir():
        folder.mkdir()
        _write_collection(folder, words, device)
    ones = np.ones(words.size, np.float32)
    starts = np.arange(0, words.size + 1, _CAPTION_WORDS)
    presence = csr_array((ones, words.ravel(), starts), shape=(n, WORDS))
    presence.sum_duplicates()
    presence.data[:] = 1
    return TrainingData(
        Collection.open(folder),
        encode_texts,
        config,
        words=WordPresence([word_name(index) for index in range(WORDS)], presence),
    )


def _write_collection(folder: Path, words: np.ndarray, device: torch.device) -> None:
    n = len(words)
    directions = torch.from_numpy(word_directions()).to(device)
    generator = torch.Generator(device).manual_seed(0)
    files = [
        np.lib.format.open_memmap(folder / name, "w+", np.float16, (n, WIDTH))
        for name in (IMAGE_EMBEDDINGS, TEXT_EMBEDDINGS)
    ]
    for start in range(0, n, _BLOCK):
        chosen = torch.from_numpy(words[start : start + _BLOCK].astype(np.int64)).to(device)
        texts = functional.embedding_bag(chosen, directions, mode="sum")
        noise = torch.randn(texts.shape, generator=generator, device=device)
        for file, embeddings in zip(files, (texts + noise + 0.5, texts), strict=True):
            unit = functional.normalize(embeddings, dim=1).half().cpu().numpy()
            file[start : start + len(unit)] = unit
    del files  # closes them
    captions = pa.ListArray.from_arrays(pa.array(np.arange(n + 1, dtype=np.int32)),
                                        pa.repeat("a photograph", n))  # fmt: skip
    write_collection(folder, IDENTITY, name="synthetic", captions=captions)


class TimedLoader:
    """A loader of batches that measures how long the training waits for it."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self.waited = 0.0
        """Seconds on the host, with the launch of the copies to the device."""

    def batch(self, step: int) -> Batch:
        """Return the batch of a step."""
        started = time.perf_counter()
        batch = self._loader.batch(step)
        self.waited += time.perf_counter() - started
        return batch


class FixedLoader:
    """A loader that always returns the same batch, which is on the device already."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def batch(self, step: int) -> Batch:  # noqa: ARG002
        """Return the batch."""
        return self._batch


def warm_up(trainer: Trainer) -> None:
    """Compile the losses for a fixed and a varying k, with and without dead dimensions."""
    for _ in range(3):
        trainer.train_step()
    trainer.idle[::2] = 1000
    for _ in range(2):
        trainer.train_step()
    trainer.idle.zero_()
    trainer.train_step()


def time_steps(trainer: Trainer, n: int, dead: bool = False) -> float:
    """Return the seconds of a training step, the mean of n steps without a pause."""
    trainer.idle.zero_()
    if dead:
        trainer.idle[::2] = 1_000_000
    synchronize(trainer.device)
    started = time.perf_counter()
    for _ in range(n):
        trainer.train_step()
    synchronize(trainer.device)
    return (time.perf_counter() - started) / n


def kernel_seconds(call: Callable[[], object], device: torch.device, n: int) -> float | str:
    """Return the seconds per call in which the GPU runs kernels or copies, or why not measured."""
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    try:
        with profile(activities=activities) as profiler:
            for _ in range(n):
                call()
            synchronize(device)
        spans = [
            (event.time_range.start, event.time_range.end)
            for event in profiler.events() or ()
            if event.device_type.name == "CUDA" and not getattr(event, "is_user_annotation", False)
        ]
    except (RuntimeError, AttributeError) as error:  # RuntimeError: no access to CUPTI
        return str(error)[:80]
    return covered(spans) / 1e6 / n if spans else "no kernel was recorded"


def covered(spans: list[tuple[float, float]]) -> float:
    """Return the length of the union of spans, each given by its start and end."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(end - max(start, reached), 0)
        reached = max(reached, end)
    return total


def matrix_products(batch_size: int, m: int, words: int, exclusions: int) -> list[list[int]]:
    """Return rows, inner and columns of all matrix products of a step, backward pass included.

    Without reviving dead dimensions.
    """
    forward = [
        # count, rows, inner, columns, whether the left side needs a gradient
        (2, batch_size, WIDTH, m, False),  # encode images and texts
        (1, words, WIDTH, m, False),  # encode words
        (4, batch_size, m, WIDTH, True),  # decode images and texts, at k and at 4k
        (1, batch_size, m, batch_size, True),  # contrast
        (3, batch_size, m, words, True),  # presence in images and in texts, narrow presence
        (1, exclusions, m, batch_size, True),  # exclusion
    ]
    products = []
    for count, rows, inner, columns, both in forward:
        products += count * [[rows, inner, columns], [inner, rows, columns]]
        products += count * [[rows, columns, inner]] if both else []
    return products


def matrix_seconds(products: list[list[int]], device: torch.device) -> float:
    """Return the seconds of matrix products in bfloat16, the sum of their measured times."""
    total = 0.0
    for shape in {tuple(product) for product in products}:
        rows, inner, columns = shape
        left, right = (
            torch.randn(size, device=device, dtype=torch.bfloat16)
            for size in ((rows, inner), (inner, columns))
        )
        once = seconds_per_call(partial(torch.mm, left, right), device, 10)
        total += once * products.count(list(shape))
    return total


def measure_step(setup: Setup, m: int, batch_size: int) -> Row:
    """Measure the training step of one shape, and its baselines."""
    device, sizes = setup.device, setup.sizes
    n = sizes.timed_steps
    config = replace(
        TrainingConfig(), m=m, k=sizes.k, batch_size=batch_size, n_words=sizes.n_words,
        kinds=False, anneal=0.0,
    )  # fmt: skip
    data = large_data(setup.folder / "pairs", sizes.pairs, config, device)
    steps_needed = (_BLOCKS + 3) * n + 30
    config = replace(config, epochs=steps_needed // data.steps_per_epoch + 1)
    trainer = Trainer(data, config, device)
    loader = TimedLoader(trainer.loader)
    trainer.loader = loader  # pyright: ignore[reportAttributeAccessIssue]
    warm_up(trainer)
    reset_peak_memory(device)
    loader.waited = 0.0
    blocks = [time_steps(trainer, n) for _ in range(_BLOCKS)]
    step = float(np.median(blocks))
    row: Row = {
        "pairs_per_s": batch_size / step,
        "step_ms": 1000 * step,
        "spread": max(blocks) / min(blocks) - 1,
        "compiled": trainer.is_compiled,
        "bfloat16": trainer.bfloat16,
        "peak_memory_gib": peak_memory_gib(device),
        "waited_for_data": loader.waited / (n * sum(blocks)),
    }
    trainer.idle.zero_()
    # The profiler slows the host down, so the kernels' time is divided by that of a timed step.
    busy = kernel_seconds(trainer.train_step, device, 5)
    row["gpu_busy"] = busy / step if isinstance(busy, float) else busy
    batch = loader.batch(trainer.step)
    row["with_dead_dimensions_ms"] = 1000 * time_steps(trainer, n, dead=True)
    trainer.loader = FixedLoader(batch)  # pyright: ignore[reportAttributeAccessIssue]
    row["without_feed_ms"] = 1000 * time_steps(trainer, n)
    products = matrix_products(batch_size, m, data.n_words, len(batch.exclusions))
    lower = matrix_seconds(products, device)
    work = sum(2 * rows * inner * columns for rows, inner, columns in products)
    row |= {
        "matrix_products_ms": 1000 * lower,
        "share_of_matrix_products": lower / step,
        "matrix_tflops": work / lower / 1e12,
    }
    row |= _plain(trainer, step)
    if importlib.util.find_spec("overcomplete"):
        row |= _overcomplete(data, m, sizes.k, device, batch_size / step)
    return row | _limits(setup, m, batch_size, row)


def _limits(setup: Setup, m: int, batch_size: int, row: Row) -> Row:
    if setup.is_tiny or batch_size != 4096:
        return {}
    if m == 1024:
        ratio = row.get("ratio_to_plain", 0.0)
        return {
            "must": ">= 300,000 pairs/s, >= 5 x plain",
            "reached": row["pairs_per_s"] >= 300_000 and ratio >= 5,
        }
    if m == 16_384:
        reached = row["share_of_matrix_products"] >= 0.4
        return {"must": "share of matrix products >= 0.4", "reached": reached}
    return {}


def _plain(trainer: Trainer, step_seconds: float) -> Row:
    """Measure the plain loop in float32 and under autocast, its batches drawn in the loop."""
    data, device = trainer.data, trainer.device
    row: Row = {}
    try:
        plain = PlainLoop(trainer)
        row["losses_differ_by"] = disagreement(trainer, plain)
        first = trainer.step

        def step() -> None:
            plain.step()
            trainer.step += 1  # the plain loop takes the batch of the trainer's step

        row["plain_ms"] = 1000 * seconds_per_call(step, device, 8, warm_up=2)
        draw = partial(_draw, data, device, first)
        row["plain_feed_ms"] = 1000 * seconds_per_call(draw, device, 4, warm_up=1)
        with torch.autocast(device.type, torch.bfloat16):
            row["plain_bfloat16_ms"] = 1000 * seconds_per_call(step, device, 8, warm_up=2)
        row["ratio_to_plain"] = row["plain_ms"] / 1000 / step_seconds
        row["ratio_to_plain_bfloat16"] = row["plain_bfloat16_ms"] / 1000 / step_seconds
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        row["plain_failed"] = " ".join(str(error).split())[:100]
    return row


def _draw(data: TrainingData, device: torch.device, step: int) -> Batch:
    return on_device(data.batch(step), device)


def _overcomplete(
    data: TrainingData, m: int, k: int, device: torch.device, pairs_per_s: float
) -> Row:
    """Measure the trainer of overcomplete, which only reconstructs: embeddings/s, two per pair."""
    from overcomplete.sae import TopKSAE, train_sae  # pyright: ignore[reportMissingImports]

    batch = data.batch(0)
    rows = torch.cat([batch.images, batch.texts])
    model = TopKSAE(rows.shape[1], nb_concepts=m, top_k=k, device=device.type)
    optimizer = torch.optim.AdamW(model.parameters())

    def error(x: Tensor, x_hat: Tensor, *_: object) -> Tensor:
        return (x - x_hat).square().mean()

    def epoch() -> None:
        train_sae(model, 10 * [rows], error, optimizer, nb_epochs=1, monitoring=0, device=device)

    rate = 10 * len(rows) / seconds_per_call(epoch, device, 2, warm_up=1)
    return {"overcomplete_embeddings_per_s": rate, "ratio_to_overcomplete": 2 * pairs_per_s / rate}


def step_cases(setup: Setup) -> list[Case]:
    """Return one case for each shape, the most important first."""
    return [
        Case(f"m = {m:,}, batch {b:,}", partial(measure_step, setup, m, b), 25.0)
        for m, b in setup.sizes.steps
    ]


def measure_epoch(setup: Setup) -> Row:
    """Train one epoch over many pairs, or as much of it as there is time for."""
    device, sizes = setup.device, setup.sizes
    config = replace(
        TrainingConfig(), epochs=1, batch_size=sizes.scaled_batch, n_words=sizes.n_words,
        kinds=False, **({"m": 64, "k": sizes.k} if setup.is_tiny else {}),
    )  # fmt: skip
    started = time.perf_counter()
    data = large_data(setup.folder / "scaled", sizes.scaled_pairs, config, device)
    written = time.perf_counter()
    trainer = Trainer(data, config, device)
    row: Row = {
        "pairs": sizes.scaled_pairs,
        "writing_and_opening_s": written - started,
        "starting_s": time.perf_counter() - written,
    }
    warm_up(trainer)
    loader = TimedLoader(trainer.loader)
    trainer.loader = loader  # pyright: ignore[reportAttributeAccessIssue]
    reset_peak_memory(device)
    first = trainer.step
    synchronize(device)
    started = time.perf_counter()
    while trainer.step < trainer.n_steps:
        if trainer.step % 20 == 0 and not setup.is_tiny and setup.clock.left < 0:
            break
        trainer.train_step()
    synchronize(device)
    seconds = time.perf_counter() - started
    trained = (trainer.step - first) * data.batch_size
    row |= {
        "steps": trainer.step - first,
        "of_steps": trainer.n_steps - first,
        "pairs_per_s": trained / seconds,
        "epoch_s": sizes.scaled_pairs / (trained / seconds),
        "waited_for_data": loader.waited / seconds,
        "peak_memory_gib": peak_memory_gib(device),
        "peak_host_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }
    if not setup.is_tiny:
        row |= {"must": "waited for data <= 0.1", "reached": row["waited_for_data"] <= 0.1}
    return row


def epoch_cases(setup: Setup) -> list[Case]:
    """Return the epoch of Conceptual Captions' size."""
    return [
        Case(f"{setup.sizes.scaled_pairs:,} pairs", partial(measure_epoch, setup), 60.0),
    ]
