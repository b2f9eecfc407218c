"""Measure the bundled checkpoint on Scenes, and write the results that ship with Sieve.

    python -m tests.benchmarks.shipped_results              # all methods, three seeds
    python -m tests.benchmarks.shipped_results --quick      # only methods without training

Measures the same as `sieve evaluate scenes --checkpoint scenes`, prints its table, and replaces
`scenes.json` and the plot `scenes.svg` in `assets/benchmark/results`. Run it after the bundled
checkpoint, the bundled scenes or the benchmark have changed; `tests/test_shipped.py` fails until
then.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from importlib.metadata import version
from pathlib import Path

import sieve.model
from sieve import assets
from sieve.data_prep.bundled import SCENES, locate_collection
from sieve.explorer.benchmark_report import save_plot, table_text, write_report
from sieve.model.benchmark.methods import METHODS, SHORT_METHODS
from sieve.model.benchmark.results import SHIPPED, BenchmarkConfig, evaluation_json
from sieve.model.benchmark.run import Benchmark
from sieve.model.checkpoint import Checkpoint
from sieve.model.collection import IMAGE_EMBEDDINGS, Collection
from sieve.model.files import atomic_file


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3, help="training seeds of baselines")
    parser.add_argument("--quick", action="store_true", help="only methods without training")
    parser.add_argument("--out", type=Path, help="also write the report of --out")
    options = parser.parse_args()
    started = time.perf_counter()
    collection = Collection.open(locate_collection(SCENES))
    config = BenchmarkConfig(
        methods=SHORT_METHODS if options.quick else METHODS, seeds=tuple(range(options.seeds))
    )
    checkpoint = Checkpoint.load(assets.ROOT / "checkpoints" / SCENES)
    result = Benchmark(collection, config, checkpoint=checkpoint).run()
    if options.out:
        write_report(result, options.out, collection)
    images = collection.manifest.files[IMAGE_EMBEDDINGS].sha256
    made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    entry = evaluation_json(result, SCENES, made) | {"images_sha256": images, "code": _code()}
    SHIPPED.mkdir(parents=True, exist_ok=True)
    with atomic_file(SHIPPED / f"{SCENES}.json") as path:
        path.write_text(json.dumps(entry, ensure_ascii=False), encoding="utf-8")
    # The plot of the README; the PNG is not needed.
    save_plot(result.tracks[0], SHIPPED / SCENES)
    (SHIPPED / f"{SCENES}.png").unlink()
    print(table_text(result))
    print(f"{time.perf_counter() - started:.0f} s wall, {time.process_time():.0f} s CPU")


def _code() -> str:
    """Return the version of the package, and a hash of the code that measures."""
    digest = hashlib.sha256()
    for path in sorted(Path(sieve.model.__path__[0]).rglob("*.py")):
        digest.update(path.read_bytes())
    return f"{version('sieve-explorer')} ({digest.hexdigest()[:12]})"


if __name__ == "__main__":
    main()
