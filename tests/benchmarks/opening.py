"""Measure opening a large collection with cached codes: time to the first search, and memory.

    python -m tests.benchmarks.opening --folder BIG_DISK --items 1000000 [--keep] [--json]

The collection is synthetic (`synthetic_collection.py`). A new process imports Sieve, opens the
collection and searches by an item with one dimension off. Memory is the increase of resident
memory since before opening; the part that is mapped from files is reported separately, because the
kernel can reclaim it. A text search comes last, because it loads the backbone, whose cost does not
depend on the collection. With --keep the folder is not removed and the next run reuses it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.synthetic_collection import make

SECONDS, RATIO = 5.0, 1.5


def resident() -> dict[str, float]:
    """Return the resident memory of this process in MiB: in total, and mapped from files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    mib = {name: int(rest.split()[0]) / 1024 for name, _, rest in (x.partition(":") for x in lines)
            if name in ("VmRSS", "RssFile")}  # fmt: skip
    return {"all": mib["VmRSS"], "mapped": mib["RssFile"]}


def opened(folder: Path) -> dict[str, Any]:
    """Open and search in a new process."""
    import pandas  # noqa: F401  (read tables; imported when one is opened)
    import pyarrow.parquet  # noqa: F401

    from sieve.model.engine import SearchEngine

    checkpoint = (folder / "checkpoint").read_text()
    before, begun, worked = resident(), time.perf_counter(), time.process_time()
    engine = SearchEngine.open(folder / "collection", checkpoint, "cpu")
    seconds = {"open": time.perf_counter() - begun}
    query = engine.encode(item=engine.collection.items["id"].iloc[engine.collection.n_items // 2])
    found = engine.search(query, off=(query.dimensions[0].dimension,))
    assert len(found.results) == 24, found
    seconds["first search"] = time.perf_counter() - begun
    seconds["of it this process worked"] = time.process_time() - worked
    after = resident()
    again = time.perf_counter()
    engine.search(query, off=(query.dimensions[1].dimension,))
    seconds["second search"] = time.perf_counter() - again
    engine.search(engine.encode("a dog", "a beach"))
    entries = engine.image_codes.by_row.nnz
    return {
        "items": engine.collection.n_items,
        "seconds": seconds,
        "empty_mib": before["all"],
        "over_mib": {part: after[part] - before[part] for part in after},
        "codes_mib": 8 * entries / 2**20,
        "with_backbone_mib": resident()["all"] - before["all"],
    }


def main() -> None:
    """Run the benchmark and print its results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--folder", type=Path, required=True, help="created, and removed at the end"
    )
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--keep", action="store_true", help="do not remove the folder")
    parser.add_argument("--opening", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    folder = args.folder.absolute()
    if args.opening:
        print(json.dumps(opened(folder)))
        return
    home = os.environ | {"SIEVE_HOME": str(folder / "home")}
    if not (folder / "checkpoint").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        make(folder, args.items, home["SIEVE_HOME"])
    command = [sys.executable, "-m", "tests.benchmarks.opening", "--opening"]
    try:
        child = subprocess.run(
            [*command, "--folder", str(folder)], env=home, check=True, stdout=subprocess.PIPE
        )
    finally:
        if not args.keep:
            shutil.rmtree(folder)
    report = json.loads(child.stdout)
    over = report["over_mib"]["all"] / report["codes_mib"]
    report["over_codes"] = round(over, 3)
    report["holds"] = report["seconds"]["first search"] <= SECONDS and over <= RATIO
    print(json.dumps(report) if args.json else json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
