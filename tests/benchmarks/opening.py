"""Opening a large collection whose codes exist: time to the first search, and memory.

    python -m tests.benchmarks.opening --folder BIG_DISK --items 1000000 [--keep] [--json]

The collection is made up: codes with the statistics of the bundled one's, a caption an item, and
embeddings that are all zero, as nothing reads them. A fresh process imports what it needs, then
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

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from model import collection as parts
from model.collection import Collection
from model.collection_writing import write_manifest
from model.dimensions import Derived
from model.dimensions.derived import derived_folder, keep_derived
from model.dimensions.table import VERSION
from model.home import new_folder
from tests.benchmarks.made_up import bundled_engine, codes_like
from tests.benchmarks.memory import caption

_SLICE = 100_000
SECONDS, RATIO = 5.0, 1.5


def make(folder: Path, n: int, home: str) -> None:
    """Write the collection, and its codes into a $SIEVE_HOME of its own."""
    real = bundled_engine()
    os.environ["SIEVE_HOME"] = home
    path = folder / "collection"
    with new_folder(path) as draft:
        _write_items(draft / parts.ITEMS, n)
        d = real.collection.backbone.width
        for name in (parts.IMAGE_EMBEDDINGS, parts.TEXT_EMBEDDINGS):
            np.lib.format.open_memmap(draft / name, "w+", np.float16, (n, d))
        np.save(draft / parts.CAPTION_ITEM, np.arange(n, dtype=np.int32))
        (draft / parts.SKIPPED).write_text("key,image,reason\n")
        write_manifest(
            draft,
            name="made-up",
            backbone=real.collection.backbone,
            source="made up",
            licence="CC0",
            counts={"items": n, "captions": n},
        )
    codes = codes_like(real.image_codes, n, real.checkpoint.encoder.config.k)
    made = Derived(Collection.open(path), codes, codes, real.dimension_table())
    keep_derived(derived_folder(made.collection, real.checkpoint, str(VERSION)), made.save)
    (folder / "checkpoint").write_text(str(real.checkpoint.path))


def _write_items(path: Path, n: int) -> None:
    """Write `items.parquet` as Conceptual Captions has it: a long address, one caption."""
    with pq.ParquetWriter(path, _rows(0, 1).schema) as writer:
        for start in range(0, n, _SLICE):
            writer.write_table(_rows(start, min(start + _SLICE, n)))


def _rows(start: int, end: int) -> pa.Table:
    numbers = range(start, end)
    texts = pa.list_(pa.string())
    return pa.table(
        {
            "id": [f"{row * 0x9E3779B97F4A7C15 % 2**64:016x}" for row in numbers],
            "image": [f"https://images.example.org/{row:07}/p.jpg" for row in numbers],
            "captions": pa.array([[caption(row)] for row in numbers], texts),
            "labels": pa.array([[] for _ in numbers], texts),
            "split": ["train" if row % 10 else "test" for row in numbers],
            "width": pa.array([640] * len(numbers), pa.int32()),
            "height": pa.array([480] * len(numbers), pa.int32()),
        }
    )


def resident() -> dict[str, float]:
    """Resident memory of this process in MiB: all of it, and what is mapped from files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    told = {name: int(rest.split()[0]) / 1024 for name, _, rest in (x.partition(":") for x in lines)
            if name in ("VmRSS", "RssFile")}  # fmt: skip
    return {"all": told["VmRSS"], "mapped": told["RssFile"]}


def opened(folder: Path) -> dict[str, Any]:
    """Open and search, in a process that has done nothing else."""
    from model.engine import Engine

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
