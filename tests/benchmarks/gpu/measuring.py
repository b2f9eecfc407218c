"""Sizes, time budget, timers and stored results of the GPU benchmark."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from sieve.model.files import atomic_file

Row = dict[str, Any]
"""Result of a case, JSON-compatible; `must` and `reached` are the limit and whether it was met."""


@dataclass(frozen=True)
class Sizes:
    """Problem sizes."""

    n_codes: int = 4096
    """Embeddings whose codes are compared."""
    encoder: tuple[int, int] = (1024, 64)
    """m and k of these codes."""
    oom_rows: int = 131_072
    """Embeddings that do not fit into the limited memory at once."""
    oom_dimensions: int = 16_384
    curve_steps: int = 200
    curve_shape: tuple[int, int, int] = (512, 32, 512)
    """m, k and batch size of the compared curves."""
    training_items: int = 2000
    """Items, with two captions each, of the compared trainings."""
    pairs: int = 400_000
    steps: tuple[tuple[int, int], ...] = (
        (1024, 4096), (16_384, 4096), (4096, 4096), (1024, 16_384), (1024, 1024),
        (16_384, 16_384), (4096, 16_384), (4096, 1024), (16_384, 1024),
    )  # fmt: skip
    """m and batch size of the timed steps; the most important first."""
    k: int = 64
    n_words: int = 256
    timed_steps: int = 30
    scaled_pairs: int = 3_300_000
    scaled_batch: int = 4096
    architecture: str = "ViT-B-32"
    images: int = 4096
    image_batches: tuple[int, ...] = (32, 256)
    search_items: tuple[int, ...] = (1_000_000, 10_000_000)
    active: int = 32
    """Active dimensions of a searched code."""
    seeds: int = 5


TINY = Sizes(
    n_codes=64, encoder=(64, 8), oom_rows=64, oom_dimensions=64, curve_steps=2,
    curve_shape=(32, 4, 32), training_items=60, pairs=2000, steps=((64, 128),), k=4, n_words=64,
    timed_steps=2, scaled_pairs=600, scaled_batch=64, architecture="tiny", images=4,
    image_batches=(2,), search_items=(500,), active=8, seeds=2,
)  # fmt: skip
"""For a check that everything runs."""


class Clock:
    """Time budget of a run, and of its current part."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._part_end = self._end

    def start_part(self, share: float) -> None:
        """Give the current part a share of the time that is left."""
        self._part_end = time.monotonic() + share * max(self._end - time.monotonic(), 0)

    @property
    def left(self) -> float:
        """Seconds that the current part has left; negative once it is over."""
        return self._part_end - time.monotonic()


@dataclass(frozen=True)
class Setup:
    """Device, sizes, time budget and folders, shared by all measurements."""

    device: torch.device
    sizes: Sizes
    folder: Path
    """For temporary data."""
    clock: Clock
    collections: tuple[Path, ...] = ()
    """Collections to train on with several seeds."""

    @property
    def is_tiny(self) -> bool:
        """Whether this only checks that everything runs, so that no limit applies."""
        return self.sizes == TINY


class Case(NamedTuple):
    """One measurement."""

    name: str
    measure: Callable[[], Row]
    seconds: float
    """Estimated duration at full size; it is skipped if its part has less time left."""


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_per_call(
    call: Callable[[], object], device: torch.device, repeats: int, warm_up: int = 3
) -> float:
    """Return the mean seconds of consecutive calls, from CUDA events on a GPU."""
    for _ in range(warm_up):
        call()
    synchronize(device)
    if device.type != "cuda":
        started = time.perf_counter()
        for _ in range(repeats):
            call()
        return (time.perf_counter() - started) / repeats
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    for _ in range(repeats):
        call()
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / 1000 / repeats


def median_seconds(call: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Return the median wall-clock seconds of single calls, each synchronised."""
    taken = []
    for _ in range(repeats):
        synchronize(device)
        started = time.perf_counter()
        call()
        synchronize(device)
        taken.append(time.perf_counter() - started)
    return float(np.median(taken))


def reset_peak_memory(device: torch.device) -> None:
    """Start a new measurement of the peak memory of the device."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_gib(device: torch.device) -> float | None:
    """Return the peak of allocated memory in GiB; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None


def environment(device: torch.device, sizes: Sizes) -> Row:
    """Describe the device, the versions and the precision settings."""
    found: Row = {
        "device": device.type,
        "name": platform.processor() or platform.machine(),
        "tiny": sizes == TINY,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cpu_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "cpu_threads": torch.get_num_threads(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "tf32_convolutions": torch.backends.cudnn.allow_tf32,
        **{name: _version(name) for name in ("numpy", "scipy", "open_clip_torch", "triton")},
    }
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        found |= {
            "name": card.name,
            "memory_gib": card.total_memory / 2**30,
            "capability": f"{card.major}.{card.minor}",
            "multiprocessors": card.multi_processor_count,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return found


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


class Results:
    """Results of a run, written to `results.json` and `table.md` after each case.

    Parameters
    ----------
    out : Path
        Results of an earlier run on the same device with the same sizes are continued.
    environment : dict
    """

    def __init__(self, out: Path, environment: Row) -> None:
        self.out = out
        self.environment = environment
        self.parts: dict[str, dict[str, Row]] = {}
        out.mkdir(parents=True, exist_ok=True)
        path = out / "results.json"
        if path.is_file():
            earlier = json.loads(path.read_text(encoding="utf-8"))
            if any(earlier["environment"][n] != environment[n] for n in ("device", "name", "tiny")):
                raise ValueError(
                    f"{path} has results of {earlier['environment']['name']} "
                    f"(tiny: {earlier['environment']['tiny']}), not of {environment['name']}; "
                    "choose another --out"
                )
            self.parts = earlier["parts"]

    def has(self, part: str, case: str) -> bool:
        """Return whether a case was measured without an error."""
        row = self.parts.get(part, {}).get(case)
        return row is not None and "error" not in row and "skipped" not in row

    def add(self, part: str, case: str, row: Row) -> None:
        """Store the result of a case, and write all results."""
        rows = self.parts.pop(part, {})
        self.parts[part] = {**rows, case: row}  # the newest part is last
        text = json.dumps({"environment": self.environment, "parts": self.parts}, indent=1)
        for name, content in (("results.json", text), ("table.md", self.markdown())):
            with atomic_file(self.out / name) as draft:
                draft.write_text(content + "\n", encoding="utf-8")

    @property
    def failures(self) -> list[str]:
        """Cases that raised an error, or whose result is wrong."""
        return [
            f"{part}: {case}"
            for part, rows in self.parts.items()
            for case, row in rows.items()
            if "error" in row or row.get("passed") is False
        ]

    def markdown(self) -> str:
        """Return all results as a Markdown table, the newest part first."""
        described = ", ".join(f"{n} {_shown(v)}" for n, v in self.environment.items() if v)
        lines = [f"Measured on: {described}.", "", "| part | case | result | limit | met |"]
        lines.append("|---|---|---|---|---|")
        for part, rows in reversed(self.parts.items()):
            for case, row in rows.items():
                lines.append(f"| {part} | {case} | {' | '.join(_cells(row))} |")
        return "\n".join(lines)


def _cells(row: Row) -> Iterator[str]:
    yield "; ".join(
        f"{name.replace('_', ' ')} {_shown(value)}"
        for name, value in row.items()
        if value is not None and name not in ("must", "reached", "passed")
    ).replace("|", "\\|")
    yield str(row.get("must", ""))
    met = row.get("reached", row.get("passed"))
    yield "" if met is None else "yes" if met else "**no**"


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if type(value) is int else str(value)
