"""Whether a GPU computes the same codes, losses, gradients and training curves as the CPU.

The reference is always float32 on the CPU. Each check returns `passed` and what it measured;
`tests/model/test_gpu.py` runs the same checks.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sieve.model.checkpoint import Checkpoint, save_checkpoint
from sieve.model.codes import SparseCodes, encode_codes
from sieve.model.encoder import SparseEncoder
from sieve.model.exclusion import Calibration
from sieve.model.hyperparameters import IMAGE, TEXT, SparseEncoderConfig, TrainingConfig
from sieve.model.training.data import Batch, TrainingData
from sieve.model.training.trainer import Trainer
from tests.benchmarks.gpu.measuring import Case, Row, Setup, Sizes
from tests.benchmarks.training import WIDTH, encode_texts, on_device, synthetic_collection

FLOAT32, BFLOAT16 = 1e-5, 2.0**-6
"""Tolerances of activations, relative to the largest one of a row; bfloat16 has 8 bits."""


def example_encoder(m: int, k: int) -> SparseEncoder:
    """Create an encoder with random weights, biases and centres."""
    generator = torch.Generator().manual_seed(0)
    encoder = SparseEncoder(SparseEncoderConfig(WIDTH, m, k), generator)
    with torch.no_grad():
        encoder.bias.copy_(0.01 * torch.randn(encoder.bias.shape, generator=generator))
        encoder.centre.copy_(0.02 * torch.randn(encoder.centre.shape, generator=generator))
    return encoder.requires_grad_(False)


def example_embeddings(n: int) -> np.ndarray:
    """Return random unit rows: (n, d) float32."""
    rows = np.random.default_rng(0).standard_normal((n, WIDTH), np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def compare_codes(device: torch.device, sizes: Sizes, kind: torch.dtype) -> Row:
    """Compare active dimensions and values with activations in float32 on the CPU.

    Any choice between dimensions whose activations differ by no more than the tolerance is right.
    """
    encoder = example_encoder(*sizes.encoder)
    embeddings = torch.from_numpy(example_embeddings(sizes.n_codes))
    tolerance = FLOAT32 if kind == torch.float32 else BFLOAT16
    found: Row = {"passed": True}
    for modality in (IMAGE, TEXT):
        expected = encoder.activations(encoder.centred(embeddings, modality), modality)  # (n, m)
        best = expected.topk(encoder.config.active(modality)).values  # (n, k)
        moved = copy.deepcopy(encoder).to(device)
        with torch.autocast(device.type, kind, enabled=kind != torch.float32):
            code = moved.encode(embeddings.to(device), modality)
        values, indices = code.values.float().cpu(), code.indices.cpu()
        chosen = expected.gather(1, indices)
        scale = best[:, :1]
        error = float(((values - chosen).abs() / scale).max())
        below = float(((best[:, -1:] - chosen) / scale).max())
        distinct = bool((indices.sort(1).values.diff(dim=1) > 0).all())
        cosine = float(functional.cosine_similarity(values, chosen, dim=1).min())
        same = float((indices.sort(1).values == expected.topk(best.shape[1]).indices.sort(1).values)
                     .all(1).float().mean())  # fmt: skip
        found |= {
            f"{modality}_largest_error": error,
            f"{modality}_below_threshold": max(below, 0.0),
            f"{modality}_lowest_cosine": cosine,
            f"{modality}_rows_of_equal_dimensions": same,
        }
        found["passed"] &= distinct and max(error, below) <= tolerance and cosine >= 0.999
    return {**found, "must": f"error <= {tolerance:.0e}, cosine >= 0.999"}


def same_codes(found: SparseCodes, expected: SparseCodes) -> Row:
    """Compare the sorted values of each row, which ties do not change."""
    pairs = [codes.by_row.toarray() for codes in (found, expected)]
    values = [np.sort(dense, axis=1) for dense in pairs]
    error = float(np.abs(values[0] - values[1]).max())
    differ = float(((pairs[0] > 0) != (pairs[1] > 0)).any(1).mean())
    return {
        "passed": error <= FLOAT32 and differ <= 0.01,
        "largest_error": error,
        "rows_of_other_dimensions": differ,
        "must": f"error <= {FLOAT32:.0e}, other dimensions (ties) in <= 1% of rows",
    }


def compare_batch_sizes(device: torch.device, sizes: Sizes) -> Row:
    """Compare codes encoded in many small batches on the device with the CPU's."""
    encoder, embeddings = example_encoder(*sizes.encoder), example_embeddings(sizes.n_codes)
    expected = encode_codes(encoder, embeddings, IMAGE)
    moved = copy.deepcopy(encoder).to(device)
    return same_codes(encode_codes(moved, embeddings, IMAGE, batch_size=37), expected)


def run_out_of_memory(device: torch.device, sizes: Sizes) -> Row:
    """Limit the memory of the device so that a batch does not fit, and encode it."""
    encoder = example_encoder(sizes.oom_dimensions, sizes.encoder[1])
    embeddings = example_embeddings(sizes.oom_rows)
    expected = encode_codes(encoder, embeddings[:64], IMAGE)
    moved = copy.deepcopy(encoder).to(device)
    # The linear layer alone takes this much, and ReLU and TopK more.
    needed = 4 * sizes.oom_rows * sizes.oom_dimensions
    with _limited_memory(device, needed), _warnings("sieve.model.codes") as logged:
        codes = encode_codes(moved, embeddings, IMAGE, batch_size=sizes.oom_rows)
    halved = [line for line in logged if "out of memory" in line]
    found = same_codes(codes.take(np.arange(64)), expected)
    found["passed"] &= bool(halved) or device.type != "cuda"
    return {**found, "logged": "; ".join(halved) or "nothing", "must": "halved, logged, same codes"}


@contextmanager
def _limited_memory(device: torch.device, free: int) -> Iterator[None]:
    """Let PyTorch allocate at most `free` more bytes."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(device).total_memory
    allowed = torch.cuda.memory_reserved(device) + free
    torch.cuda.set_per_process_memory_fraction(min(allowed / total, 1.0), device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
        torch.cuda.empty_cache()


@contextmanager
def _warnings(logger: str) -> Iterator[list[str]]:
    """Collect the warnings that a logger emits."""
    lines: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())
    logging.getLogger(logger).addHandler(handler)
    try:
        yield lines
    finally:
        logging.getLogger(logger).removeHandler(handler)


def example_data(folder: Path, sizes: Sizes, **changes: Any) -> tuple[TrainingData, TrainingConfig]:
    """Create training data with captions, and the configuration of the compared trainings."""
    path = folder / "compared"
    collection = synthetic_collection(path, sizes.training_items, 2)
    m, k, batch_size = sizes.curve_shape
    epochs = sizes.curve_steps * batch_size // (2 * sizes.training_items) + 2
    config = replace(
        TrainingConfig(), m=m, k=k, batch_size=batch_size, n_words=sizes.n_words, epochs=epochs,
        kinds=False, **changes,
    )  # fmt: skip
    return TrainingData(collection, encode_texts, config), config


StepResult = tuple[dict[str, float], dict[str, Tensor]]


def differentiate(
    trainer: Trainer, batch: Batch, losses: Callable[..., Any], kind: torch.dtype = torch.float32
) -> StepResult:
    """Return losses and gradients of a batch at k, with every second dimension dead."""
    dead = torch.zeros(trainer.config.m, dtype=torch.bool, device=trainer.device)
    dead[::2] = True
    trainer.module.zero_grad(set_to_none=True)
    with torch.autocast(trainer.device.type, kind, enabled=kind != torch.float32):
        terms, _ = losses(trainer.module, on_device(batch, trainer.device), trainer.config.k, dead)
    weights = asdict(trainer.config)
    torch.stack([weights[name] * term for name, term in terms.items()]).sum().backward()
    gradients = {
        name: part.grad.detach().float().cpu().clone()
        for name, part in trainer.module.named_parameters()
        if part.grad is not None
    }
    return {name: float(term.detach()) for name, term in terms.items()}, gradients


def same_step(
    found: StepResult, expected: StepResult, of_losses: float, of_gradients: float
) -> Row:
    """Compare losses, and gradients by the norm of their difference, with relative tolerances.

    Rounding decides which of two nearly equal activations a row keeps, so gradients differ more.
    """
    loss_error = max(abs(found[0][n] - v) / max(abs(v), 1e-3) for n, v in expected[0].items())
    errors = {
        name: float((found[1][name] - part).norm() / part.norm().clamp(min=1e-12))
        for name, part in expected[1].items()
        if part.ndim  # the scalars' gradients are small differences of large sums
    }
    worst = max(errors, key=lambda name: errors[name])
    return {
        "passed": found[0].keys() == expected[0].keys()
        and loss_error <= of_losses
        and errors[worst] <= of_gradients,
        "largest_loss_error": loss_error,
        "largest_gradient_error": errors[worst],
        "of": worst,
        "must": f"relative error of losses <= {of_losses}, of gradients <= {of_gradients}",
    }


def compare_step(device: torch.device, sizes: Sizes, folder: Path, kind: torch.dtype) -> Row:
    """Compare the losses and gradients of one step with float32 on the CPU."""
    data, config = example_data(folder, sizes)
    batch = data.batch(0)
    cpu, other = (Trainer(data, config, where) for where in (torch.device("cpu"), device))
    expected = differentiate(cpu, batch, cpu.objective.losses)
    found = differentiate(other, batch, other.objective.losses, kind)
    return same_step(found, expected, *((1e-4, 0.01) if kind == torch.float32 else (0.04, 0.25)))


def compare_compiled(device: torch.device, sizes: Sizes, folder: Path) -> Row:
    """Compare a compiled step with an eager one, both in float32 on the device."""
    data, config = example_data(folder, sizes)
    batch, trainer = data.batch(0), Trainer(data, config, device)
    expected = differentiate(trainer, batch, trainer.objective.losses)
    backend = "inductor" if device.type == "cuda" else "eager"
    compiled = torch.compile(trainer.objective.losses, backend=backend)
    return same_step(differentiate(trainer, batch, compiled), expected, 1e-4, 0.01)


def compare_noise(device: torch.device, sizes: Sizes, folder: Path) -> Row:
    """Check the norm of the noise drawn on the device, and that a share gets the same noise."""
    data, config = example_data(folder, sizes)
    clean = on_device(data.batch(0, noisy=False), device)
    half = slice(0, data.batch_size // 2)
    whole = data.device_noise(clean.images, clean.texts, 0, slice(None))
    part = data.device_noise(clean.images[half], clean.texts[half], 0, half)
    norm = float((whole[0] - clean.images.float()).norm(dim=1).mean())
    equal = all(torch.equal(rows[half], own) for rows, own in zip(whole, part, strict=True))
    return {
        "passed": equal and abs(norm / config.noise - 1) <= 0.02,
        "norm": norm,
        "same_for_a_share": equal,
        "must": f"norm {config.noise} +- 2%",
    }


def compare_curves(device: torch.device, sizes: Sizes, folder: Path) -> Row:
    """Compare the loss curves of trainings with the same seed, without noise.

    The noise is drawn on the device, so with noise only the batches would be the same.
    """
    data, config = example_data(folder, sizes, noise=0.0)
    window = max(sizes.curve_steps // 10, 1)

    def curve(where: torch.device, bfloat16: bool, backend: str) -> np.ndarray:
        trainer = Trainer(data, config, where)
        trainer.bfloat16 = bfloat16
        if backend:
            trainer.compile(backend)
        totals = [trainer.train_step().losses["total"] for _ in range(sizes.curve_steps)]
        if backend and not trainer.is_compiled:
            raise RuntimeError("torch.compile failed; see the log")
        torch.compiler.reset()
        return np.array(totals[: len(totals) // window * window]).reshape(-1, window).mean(1)

    expected = curve(torch.device("cpu"), False, "")
    # On CUDA a trainer compiles by itself; the backend "eager" runs the operations as they are.
    uncompiled, backend = ("eager", "inductor") if device.type == "cuda" else ("", "")
    errors = {
        "float32": float(np.abs(curve(device, False, uncompiled) / expected - 1).max()),
        "compiled_bfloat16": float(np.abs(curve(device, True, backend) / expected - 1).max()),
    }
    return {
        "passed": errors["float32"] <= 0.01 and errors["compiled_bfloat16"] <= 0.03,
        "steps": sizes.curve_steps,
        "first_loss": float(expected[0]),
        "last_loss": float(expected[-1]),
        **{f"largest_difference_{name}": error for name, error in errors.items()},
        "must": f"means of {window} steps within 1% (float32) and 3% (bfloat16)",
    }


def load_on_cpu(device: torch.device, sizes: Sizes, folder: Path) -> Row:
    """Train on the device, and compare the codes of the saved checkpoint on both."""
    data, config = example_data(folder, sizes)
    trainer = Trainer(data, config, device)
    for _ in range(5):
        trainer.train_step()
    collection, path = data.collection, folder / f"checkpoint-{device.type}"
    save_checkpoint(
        path, trainer.export(), backbone=collection.backbone, calibration=Calibration(),
        trained_on=collection.name, settings=asdict(config), training={}, names={},
    )  # fmt: skip
    encoder = Checkpoint.load(path).encoder
    expected = encode_codes(encoder, collection.image_embeddings, IMAGE)
    moved = copy.deepcopy(encoder).to(device)
    return same_codes(encode_codes(moved, collection.image_embeddings, IMAGE), expected)


CHECKS: dict[str, Callable[[torch.device, Sizes, Path], Row]] = {
    "codes in float32": lambda device, sizes, _: compare_codes(device, sizes, torch.float32),
    "codes in bfloat16": lambda device, sizes, _: compare_codes(device, sizes, torch.bfloat16),
    "codes in small batches": lambda device, sizes, _: compare_batch_sizes(device, sizes),
    "out of memory": lambda device, sizes, _: run_out_of_memory(device, sizes),
    "step in float32": partial(compare_step, kind=torch.float32),
    "step in bfloat16": partial(compare_step, kind=torch.bfloat16),
    "noise": compare_noise,
    "checkpoint on the CPU": load_on_cpu,
    "compiled step": compare_compiled,
    "training curves": compare_curves,
}


def cases(setup: Setup) -> list[Case]:
    """Return all checks, quick ones first."""
    estimates = {"compiled step": 30.0, "training curves": 45.0, "out of memory": 8.0}
    return [
        Case(name, partial(_isolated, check, setup, name), estimates.get(name, 5.0))
        for name, check in CHECKS.items()
    ]


def _isolated(check: Callable[..., Row], setup: Setup, name: str) -> Row:
    """Run a check in full float32 precision, whatever the settings of the process."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    folder = setup.folder / name.replace(" ", "-")
    folder.mkdir(exist_ok=True)
    try:
        return check(setup.device, setup.sizes, folder)
    finally:
        torch.set_float32_matmul_precision(precision)
