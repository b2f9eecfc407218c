"""Load-test one explorer: latency, errors and resource growth.

    python -m tests.benchmarks.load --sessions 50 --minutes 10 [--collection scenes] [--json]
    python -m tests.benchmarks.load --sessions 300 --minutes 1 --pause 0   # overload

The server is `sieve explore` in a separate process; the simulated users (`simulated_users.py`) run
on the same machine. At the end, the last response to each user is compared with the engine's own
results. Memory is the server's resident memory, sampled every five seconds. Its slope is fitted
after a warm-up of two fifths of the time; the standard error accounts for autocorrelation.
$SIEVE_HOME is a copy and temporary files go to a separate folder, so that everything the server
leaves behind is counted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np

from sieve.data_prep.bundled import locate_collection
from sieve.explorer.annotations.store import attach_annotations
from sieve.explorer.tabs.search import N_RESULTS
from sieve.model.engine import SearchEngine
from sieve.model.exclusion import Strictness
from sieve.model.files import sieve_home
from tests.benchmarks.server_process import folder_size, memory_mib, running, wait_for
from tests.benchmarks.simulated_users import Counts, visit

LIMIT_MS = 250.0
"""Latency limit of a toggle for a single user."""
SAMPLE_EVERY = 5.0
WARM_UP = 0.4


@dataclass(frozen=True)
class Sample:
    """Resources in use by the server at one time."""

    minute: float
    resident_mib: float
    temporary: int
    temporary_mib: float
    home_mib: float


def sampled(process: int, temporary: Path, home: Path, stop: Event) -> list[Sample]:
    """Sample a server's resources until `stop` is set."""
    begun, samples = time.monotonic(), []
    while not stop.is_set():
        minute = (time.monotonic() - begun) / 60
        count, size = folder_size(temporary)
        samples.append(Sample(minute, memory_mib(process), count, size, folder_size(home)[1]))
        stop.wait(SAMPLE_EVERY)
    return samples


def slope(minutes: np.ndarray, mib: np.ndarray) -> tuple[float, float]:
    """Fit a line by least squares; returns the slope and its standard error in MiB per minute.

    Parameters
    ----------
    minutes, mib : (n,) float
        Consecutive residuals have a correlation r, so n counts as n (1 - r) / (1 + r).
    """
    if len(minutes) < 4:
        return float("nan"), float("nan")
    (a, b), n = np.polyfit(minutes, mib, 1), len(minutes)
    left = mib - (a * minutes + b)
    alike = np.corrcoef(left[:-1], left[1:])[0, 1] if left.std() > 0 else 0.0
    effective = max(n * (1 - max(alike, 0)) / (1 + max(alike, 0)), 3.0)
    spread = np.sqrt((left**2).sum() / (effective - 2))
    return float(a), float(spread / np.sqrt(effective) / minutes.std())


def latencies(counts: Counts) -> dict[str, dict[str, float]]:
    """Summarise each kind of request in milliseconds."""
    summary = {}
    for kind, seconds in sorted(counts.seconds.items()):
        p50, p95, worst = 1000 * np.percentile(seconds, (50, 95, 100))
        summary[kind] = {"n": len(seconds)} | {
            name: round(float(ms), 1)
            for name, ms in (("p50_ms", p50), ("p95_ms", p95), ("worst_ms", worst))
        }
    return summary


def wrong_last_answers(engine: SearchEngine, counts: Counts) -> int:
    """Repeat each user's last query in the engine, and count the responses that differ.

    Searches by an uploaded image are ignored, because only the server has that image.
    """
    wrong = 0
    for request, answer in counts.last.values():
        if "q" not in request:
            continue
        query = engine.encode(request["q"], request["without"])
        outcome = engine.search(
            query, tuple(request["off"]), Strictness(never=request["never"]), N_RESULTS
        )
        shown = [(one["id"], one["score"]) for one in answer["results"]]
        right = [(one.id, one.score) for one in outcome.results]
        same = [a for a, _ in shown] == [a for a, _ in right]
        wrong += not (same and np.allclose([b for _, b in shown], [b for _, b in right], atol=1e-3))
    return wrong


def held(samples: list[Sample], minutes: float) -> dict[str, Any]:
    """Summarise memory and open files after the warm-up."""
    after = [one for one in samples if one.minute >= WARM_UP * minutes] or samples
    rise, error = slope(
        np.array([one.minute for one in after]), np.array([one.resident_mib for one in after])
    )
    first, last = after[0], after[-1]
    return {
        "resident_mib": {
            "start": round(samples[0].resident_mib, 1),
            "after_warm_up": round(first.resident_mib, 1),
            "end": round(last.resident_mib, 1),
            "most": round(max(one.resident_mib for one in samples), 1),
            "slope_mib_a_minute": round(rise, 3),
            "standard_error": round(error, 3),
            "slope_over_error": round(rise / error, 2) if error else 0.0,
        },
        "temporary_files": {
            "after_warm_up": first.temporary,
            "end": last.temporary,
            "most": max(one.temporary for one in samples),
            "most_mib": round(max(one.temporary_mib for one in samples), 2),
        },
        "home_grew_mib": round(last.home_mib - samples[0].home_mib, 3),
    }


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Start a server, run the simulated users and report what is left."""
    home, temporary, log = folder / "home", folder / "tmp", folder / "server.log"
    temporary.mkdir()
    path = locate_collection(args.collection)
    if sieve_home().is_dir():
        shutil.copytree(sieve_home(), home)
    environment = {
        "SIEVE_HOME": str(home),
        "TMPDIR": str(temporary),
        "GRADIO_TEMP_DIR": str(temporary / "gradio"),
    }
    url = f"http://127.0.0.1:{args.port}"
    command = [sys.executable, "-m", "sieve", "explore", str(path), "--port", str(args.port)]
    command += ["--checkpoint", args.checkpoint] if args.checkpoint else []
    load_before = os.getloadavg()[0]
    with running(command, environment, log) as process:
        wait_for(url, process, log)
        stop, samples = Event(), []
        watching = Thread(
            target=lambda: samples.extend(sampled(process.pid, temporary, home, stop))
        )
        watching.start()
        counts = asyncio.run(visit(url, args.sessions, 60 * args.minutes, args.pause))
        stop.set()
        watching.join()
        assert process.poll() is None, "the server exited"
    engine = SearchEngine.open(path, args.checkpoint, "cpu")
    attach_annotations(engine)
    answers = sum(map(len, counts.seconds.values()))
    found = latencies(counts)
    return {
        "collection": engine.collection.name,
        "items": engine.collection.n_items,
        "sessions": args.sessions,
        "minutes": args.minutes,
        "load_before": round(load_before, 2),
        "requests": answers,
        "requests_a_second": round(answers / args.minutes / 60, 1),
        "latency": found,
        "limit_ms": LIMIT_MS,
        "ratio_p95_limit": round(found["toggle"]["p95_ms"] / LIMIT_MS, 3)
        if "toggle" in found
        else None,
        "errors": dict(counts.faults),
        "busy_answers": counts.busy,
        "connections_reset": counts.resets,
        "lost_toggles": len(counts.lost),
        "last_answers_checked": sum("q" in request for request, _ in counts.last.values()),
        "last_answers_wrong": wrong_last_answers(engine, counts),
        "server_log": log.read_text()[-2000:].splitlines()[1:],
        **held(samples, args.minutes),
    }


def main() -> None:
    """Run the benchmark and print its results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--collection", default="scenes")
    parser.add_argument("--checkpoint")
    parser.add_argument("--sessions", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument(
        "--pause", type=float, default=1.0, help="mean seconds between two actions of a user"
    )
    parser.add_argument("--port", type=int, default=7980)
    parser.add_argument("--json", action="store_true", help="print one line")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(args, Path(folder))
    print(json.dumps(found) if args.json else json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
