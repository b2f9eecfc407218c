"""Opening a large collection whose codes exist: time to the first search, and memory.

    python -m tests.benchmarks.opening --folder BIG_DISK --items 1000000 [--keep] [--json]

The collection is made up (`made_up_collection.py`). A fresh process imports what it needs, then
opens the collection and searches it by an item, with a dimension off. Resident memory is told
over that of the process before opening, and of it what is mapped from files: the kernel takes that
back when others need it. A text is asked last, as it loads the backbone, which is no matter of
size. With --keep the folder stays, and the next run starts at once.
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
    """Resident memory of this process in MiB: all of it, and what is mapped from files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    told = {name: int(rest.split()[0]) / 1024 for name, _, rest in (x.partition(":") for x in lines)
            if name in ("VmRSS", "RssFile")}  # fmt: skip
    return {"all": told["VmRSS"], "mapped": told["RssFile"]}


def opened(folder: Path) -> dict[str, Any]:
    """Open and search, in a process that has done nothing else."""
    import pandas  # noqa: F401  (read tables; imported when one is opened)
    import pyarrow.parquet  # noqa: F401

    from sieve.model.engine import Engine

    checkpoint = (folder / "checkpoint").read_text()
    before, begun, worked = resident(), time.perf_counter(), time.process_time()
    engine = Engine.open(folder / "collection", checkpoint, "cpu")
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
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="made, and removed at the end")
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--keep", action="store_true", help="leave the folder for the next run")
    parser.add_argument("--opening", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    folder = given.folder.absolute()
    if given.opening:
        print(json.dumps(opened(folder)))
        return
    home = os.environ | {"SIEVE_HOME": str(folder / "home")}
    if not (folder / "checkpoint").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        make(folder, given.items, home["SIEVE_HOME"])
    command = [sys.executable, "-m", "tests.benchmarks.opening", "--opening"]
    try:
        child = subprocess.run(
            [*command, "--folder", str(folder)], env=home, check=True, stdout=subprocess.PIPE
        )
    finally:
        if not given.keep:
            shutil.rmtree(folder)
    report = json.loads(child.stdout)
    over = report["over_mib"]["all"] / report["codes_mib"]
    report["over_codes"] = round(over, 3)
    report["holds"] = report["seconds"]["first search"] <= SECONDS and over <= RATIO
    print(json.dumps(report) if given.json else json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
