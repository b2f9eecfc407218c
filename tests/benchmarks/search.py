"""Compare exclusion search with other engines on synthetic codes with realistic statistics.

    python -m tests.benchmarks.search --items 118000,1000000
    python -m tests.benchmarks.search --items 118000 --baselines all --json

All engines run the same queries alternately on one thread, so that noise affects all equally;
medians are reported. The limit is the time that the measured memory bandwidth allows for reading
the postings, updating the scores and selecting the top results once each.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import faiss
import numpy as np

from sieve.model.codes import SparseCodes
from sieve.model.exclusion import Hits, Query, RowFilter, search
from tests.benchmarks.search_baselines import Dense, FlatCodes, RowProduct, SearchEngine, Seismic
from tests.benchmarks.synthetic_codes import bundled_engine, codes_like, questions

TOP = 24
OFF = (0, 1, 5, 20)
STRICTNESS = {"half": (0.5, False), "push": (1.0, False), "never": (1.0, True)}
BASELINES: dict[str, Callable[[SparseCodes], SearchEngine]] = {
    "flat": FlatCodes,
    "csr": RowProduct,
    "dense-flat": lambda codes: Dense(codes, "Flat"),
    "dense-ivf": lambda codes: Dense(codes, f"IVF{int(4 * codes.n**0.5)},Flat"),
    "dense-hnsw": lambda codes: Dense(codes, "HNSW32,Flat"),
    "seismic": Seismic,
}
COMMON = "flat,csr,dense-flat,dense-ivf"


class Sieve:
    """Sieve's search."""

    name, exact = "Sieve", True

    def __init__(self, codes: SparseCodes) -> None:
        self._codes = codes
        codes.postings(0)  # build the index before the first query

    def search(self, query: Query, top: int) -> Hits:
        """Return the best rows and their scores."""
        return search(self._codes, query, top)


def bandwidth() -> float:
    """Measure memory bandwidth in bytes per second of one thread: the best of some 512 MiB sums."""
    block = np.ones(1 << 26, np.float64)
    return max(block.nbytes / _timed(block.sum)[0] for _ in range(5))


def limit_seconds(codes: SparseCodes, query: Query, bytes_a_second: float) -> float:
    """Compute the lower limit of the time of a search from the memory bandwidth.

    Each posting takes 8 bytes, and its score is read and written; all scores are initialised and
    read once.
    """
    dimensions = set(np.flatnonzero(query.code).tolist()) | set(query.off)
    touched = sum(len(codes.postings(j)[0]) for j in dimensions)
    return (touched * (8 + 8) + codes.n * (4 + 4)) / bytes_a_second


def select_queries(kinds: dict[int, list[Query]], off: int, strictness: str) -> list[Query]:
    """Return the queries with `off` dimensions off and one strictness."""
    amount, never = STRICTNESS[strictness]

    def hides(query: Query) -> RowFilter:
        return lambda codes, _: codes[:, list(query.off)].sum(axis=1) > 0

    return [
        replace(query, strictness=amount, hides=hides(query) if never else None)
        for query in kinds[off]
    ]


def same(ours: Hits, theirs: Hits) -> bool:
    """Return whether two rankings agree, except for the order of equal float32 scores."""
    if len(ours.rows) != len(theirs.rows):
        return False
    return bool(np.allclose(ours.scores, theirs.scores, atol=2e-6))


def share(ours: Hits, theirs: Hits) -> float:
    """Return the share of Sieve's rows that a baseline finds."""
    return len(np.intersect1d(ours.rows, theirs.rows)) / max(len(ours.rows), 1)


def run(
    codes: SparseCodes, kinds: dict[int, list[Query]], engines: list[SearchEngine]
) -> dict[str, Any]:
    """Measure one collection size."""
    speed = bandwidth()
    rows = []
    for off, strictness in itertools.product(OFF, STRICTNESS):
        if off == 0 and strictness != "push":
            continue
        queries = select_queries(kinds, off, strictness)
        seconds: dict[str, list[float]] = {engine.name: [] for engine in engines}
        agreed: dict[str, list[float]] = {engine.name: [] for engine in engines}
        for query in queries:
            ours = engines[0].search(query, TOP)
            for engine in engines:
                engine.search(query, TOP)  # warm-up
                took, hits = _timed(lambda engine=engine, query=query: engine.search(query, TOP))
                seconds[engine.name].append(took)
                if engine.exact and not same(ours, hits):
                    raise SystemExit(f"{engine.name} and Sieve differ with {off} dimensions off")
                agreed[engine.name].append(share(ours, hits))
        limit = float(np.median([limit_seconds(codes, query, speed) for query in queries]))
        for engine in engines:
            rows.append(
                {
                    "off": off,
                    "strictness": strictness,
                    "engine": engine.name,
                    "seconds": float(np.median(seconds[engine.name])),
                    "p95": float(np.quantile(seconds[engine.name], 0.95)),
                    "found": float(np.mean(agreed[engine.name])),
                    "limit": limit,
                }
            )
    return {"items": codes.n, "bytes_a_second": speed, "rows": rows, **_summary(rows)}


def _summary(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Summarise searches with five dimensions off: seconds, and ratios to Sieve."""
    five = {r["engine"]: r for r in rows if r["off"] == 5 and r["strictness"] == "push"}
    ours = five["Sieve"]["seconds"]
    summary = {"seconds": ours, "limit_ratio": ours / five["Sieve"]["limit"]}
    flat = five.get(FlatCodes.name)
    return summary | ({"ratio_faiss_flat": flat["seconds"] / ours} if flat else {})


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.perf_counter()
    result = call()
    return time.perf_counter() - begun, result


def _print(result: dict[str, Any]) -> None:
    gigabytes = result["bytes_a_second"] / 1e9
    print(f"\n{result['items']:,} items; one thread reads {gigabytes:.1f} GB/s")
    head = ("off", "strictness", "engine", "ms", "p95", "× Sieve", "× limit", "found")
    print("{:>4} {:10} {:24}{:>9}{:>9}{:>9}{:>9}{:>7}".format(*head))
    ours = 1.0
    for row in result["rows"]:
        ours = row["seconds"] if row["engine"] == "Sieve" else ours
        print(
            f"{row['off']:4} {row['strictness']:10} {row['engine']:24}{row['seconds'] * 1e3:9.2f}"
            f"{row['p95'] * 1e3:9.2f}{row['seconds'] / ours:9.2f}"
            f"{row['seconds'] / row['limit']:9.2f}{row['found']:7.2f}"
        )


def main() -> None:
    """Run the benchmark and print its results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", default="118000")
    parser.add_argument(
        "--active", type=int, default=32, help="active dimensions of a code and of a query"
    )
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument(
        "--baselines", default=COMMON, help=f"comma-separated: {', '.join(BASELINES)}; or all"
    )
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    faiss.omp_set_num_threads(1)
    engine = bundled_engine()
    kinds = {off: questions(engine, args.queries, args.active, off) for off in OFF}
    chosen = list(BASELINES) if args.baselines == "all" else args.baselines.split(",")
    runs = []
    for items in map(int, args.items.split(",")):
        codes = codes_like(engine.image_codes, items, args.active)
        result = run(codes, kinds, [Sieve(codes), *(BASELINES[name](codes) for name in chosen)])
        runs.append(result)
        if not args.json:
            _print(result)
    if args.json:
        print(json.dumps({"runs": runs}))


if __name__ == "__main__":
    main()
