"""Run all GPU measurements in one command, within a time limit.

    python -m tests.benchmarks.gpu --out DIR --minutes 6

Writes DIR/results.json and DIR/table.md after each case, so that a run that is stopped keeps its
results; the same command then continues with the missing cases. `--device cpu --tiny` checks
within seconds that everything runs.
"""

from __future__ import annotations

import argparse
import gc
import logging
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

from sieve.model.backbone.clip import resolve_device
from tests.benchmarks.gpu import correctness, embedding_speed, seeds, sparse_search, training_speed
from tests.benchmarks.gpu.measuring import (
    TINY,
    Case,
    Clock,
    Results,
    Setup,
    Sizes,
    environment,
    synchronize,
)

log = logging.getLogger("gpu")

PARTS: dict[str, tuple[Callable[[Setup], list[Case]], float]] = {
    "right": (correctness.cases, 0.3),
    "fast": (training_speed.step_cases, 0.45),
    "scaled": (training_speed.epoch_cases, 0.5),
    "embedding": (embedding_speed.cases, 0.5),
    "search": (sparse_search.cases, 0.7),
    "encoder that ships": (seeds.cases, 1.0),
}
"""The cases of each part, and the share that it may take of the time that is left."""


def run(setup: Setup, results: Results, parts: list[str]) -> None:
    """Measure all cases that have no result yet, while there is time."""
    for part in parts:
        make_cases, share = PARTS[part]
        setup.clock.start_part(share)
        for case in make_cases(setup):
            if results.has(part, case.name):
                continue
            started = time.perf_counter()
            if setup.clock.left < (0 if setup.is_tiny else case.seconds):
                row = {"skipped": f"{max(setup.clock.left, 0):.0f} s left for this part"}
            else:
                row = _measured(case, setup)
                row["took_s"] = time.perf_counter() - started
            results.add(part, case.name, row)
            log.info("%s, %s: %s", part, case.name, row)


def _measured(case: Case, setup: Setup) -> dict[str, object]:
    try:
        return case.measure()
    except Exception as error:  # the other cases are still worth measuring
        traceback.print_exc()
        reason = " ".join(str(error).split())[:300]
        return {"error": f"{type(error).__name__}: {reason}"}
    finally:
        gc.collect()
        torch.compiler.reset()
        if setup.device.type == "cuda":
            synchronize(setup.device)
            torch.cuda.empty_cache()


def main() -> int:
    """Run the benchmark; return 1 if a case failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--minutes", type=float, default=6.0, help="time limit")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--tiny", action="store_true", help="only check that everything runs")
    parser.add_argument("--parts", default=",".join(PARTS), help="comma-separated parts")
    parser.add_argument("--scratch", type=Path, help="folder for 15 GB of temporary data")
    parser.add_argument(
        "--collection", type=Path, action="append", default=[],
        help="prepared collection to train on with several seeds; may be repeated",
    )  # fmt: skip
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
    log.setLevel(logging.INFO)
    parts = [part.strip() for part in args.parts.split(",")]
    if unknown := set(parts) - set(PARTS):
        parser.error(f"--parts: {unknown} is unknown; expected some of {list(PARTS)}")
    clock = Clock(60 * args.minutes)
    sizes = TINY if args.tiny else Sizes()
    try:
        device = resolve_device(args.device)
        results = Results(args.out, environment(device, sizes))
    except ValueError as error:
        parser.error(str(error))
    with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
        setup = Setup(device, sizes, Path(folder), clock, tuple(args.collection))
        run(setup, results, parts)
    print(results.markdown())
    if results.failures:
        print(f"failed: {'; '.join(results.failures)}")
    return 1 if results.failures else 0


if __name__ == "__main__":
    sys.exit(main())
