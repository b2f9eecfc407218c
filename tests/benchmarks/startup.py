"""Measure the time from the command to the page and to the first search, and peak memory.

    python -m tests.benchmarks.startup [--runs 3] [--json]

*first* is `sieve explore scenes` with an empty $SIEVE_HOME, which renders the collection's images;
*again* is the same command a second time. The baseline is `bare_app.py`: Gradio, PyTorch and
open_clip with the same backbone and one text box, in a separate process; its first response is the
embedding of a text. Ratios compare medians of the same run. Memory is peak resident memory.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from tests.benchmarks.server_process import memory_mib, running, wait_for
from tests.page_api import call_server

FIRST_LIMIT, AGAIN_LIMIT = 60.0, 10.0
"""Limits on the seconds to the page."""


@dataclass(frozen=True)
class Start:
    """One start."""

    page_s: float
    """Seconds to the page."""
    search_s: float
    """Seconds to the first response."""
    most_mib: float


def search(web: httpx.Client) -> None:
    """Search for a dog in the explorer."""
    query = {"q": "a dog", "without": "a beach", "list": True}
    answer = call_server(web, "sieve_ask", query).raise_for_status().json()
    assert len(answer["results"]) == 24, answer


def embed(web: httpx.Client) -> None:
    """Request an embedding from the baseline."""
    answer = web.post("/gradio_api/run/embed", json={"data": ["a dog"]}).raise_for_status().json()
    assert len(answer["data"][0]) > 100, answer


def started(
    command: list[str], home: Path, port: int, first_search: Callable[[httpx.Client], None]
) -> Start:
    """Start a server, time it and stop it."""
    log, url = home.parent / "server.log", f"http://127.0.0.1:{port}"
    begun = time.perf_counter()
    with running([sys.executable, "-m", *command], {"SIEVE_HOME": str(home)}, log) as process:
        wait_for(url, process, log)
        page = time.perf_counter() - begun
        with httpx.Client(base_url=url, timeout=120, trust_env=False) as web:
            first_search(web)
        searched = time.perf_counter() - begun
        most = memory_mib(process.pid, "VmHWM")
    return Start(round(page, 2), round(searched, 2), round(most, 1))


def middle(starts: list[Start]) -> Start:
    """Return the median of each measurement."""
    return Start(
        *(median(values) for values in zip(*(asdict(s).values() for s in starts), strict=True))
    )


def measure(runs: int, port: int) -> dict[str, Any]:
    """Start the explorer and the baseline alternately."""
    load_before = os.getloadavg()[0]
    explore = ["sieve", "explore", "scenes", "--port", str(port)]
    bare = ["tests.benchmarks.bare_app", str(port)]
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        first = started(explore, home, port, search)
        pairs = [
            (started(explore, home, port, search), started(bare, home, port, embed))
            for _ in range(runs)
        ]
    again, baseline = (middle(list(starts)) for starts in zip(*pairs, strict=True))
    return {
        "runs": runs,
        "load_before": round(load_before, 2),
        "first": asdict(first),
        "again": asdict(again),
        "bare_app": asdict(baseline),
        "ratio": {
            name: round(asdict(again)[name] / asdict(baseline)[name], 2) for name in asdict(again)
        },
        "limits_s": {"first": FIRST_LIMIT, "again": AGAIN_LIMIT},
        "holds": first.page_s <= FIRST_LIMIT and again.page_s <= AGAIN_LIMIT,
    }


def main() -> None:
    """Run the benchmark and print its results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--runs", type=int, default=3, help="number of starts after the first")
    parser.add_argument("--port", type=int, default=7990)
    parser.add_argument("--json", action="store_true", help="print one line")
    args = parser.parse_args()
    found = measure(args.runs, args.port)
    print(json.dumps(found) if args.json else json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
