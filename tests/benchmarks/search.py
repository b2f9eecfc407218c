"""Exclusion search over made-up codes of realistic statistics, beside other engines.

    python -m tests.benchmarks.search --items 118000,1000000
    python -m tests.benchmarks.search --items 118000 --peers all --json

Every engine answers the same questions in turn, on one thread and one after another, so that noise
meets all alike; medians are told. The limit is what the memory's measured bandwidth allows for
reading the postings, adding to the scores and selecting the top once each.
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
from sieve.model.exclusion import Hits, Query, search
from tests.benchmarks.search_baselines import Dense, FlatCodes, Peer, RowProduct, Seismic
from tests.benchmarks.synthetic_codes import bundled_engine, codes_like, questions

TOP = 24
OFF = (0, 1, 5, 20)
STRICTNESS = {"half": (0.5, False), "push": (1.0, False), "never": (1.0, True)}
PEERS: dict[str, Callable[[SparseCodes], Peer]] = {
    "flat": FlatCodes,
    "csr": RowProduct,
    "dense-flat": lambda codes: Dense(codes, "Flat"),
    "dense-ivf": lambda codes: Dense(codes, f"IVF{int(4 * codes.n**0.5)},Flat"),
    "dense-hnsw": lambda codes: Dense(codes, "HNSW32,Flat"),
    "seismic": Seismic,
}
COMMON = "flat,csr,dense-flat,dense-ivf"


class Ours:
    """Sieve's own search."""

    name, exact = "Sieve", True

    def __init__(self, codes: SparseCodes) -> None:
        self._codes = codes
        codes.postings(0)  # the index is built before anyone asks

    def search(self, query: Query, top: int) -> Hits:
        """Best rows."""
        return search(self._codes, query, top)


def bandwidth() -> float:
    """Bytes a second that one thread reads from memory: the best of a few sums over 512 MiB."""
    block = np.ones(1 << 26, np.float64)
    return max(block.nbytes / _timed(block.sum)[0] for _ in range(5))


def limit_seconds(codes: SparseCodes, query: Query, bytes_a_second: float) -> float:
    """Least time of a search: postings read, scores read and written, the top selected, once each.

    A posting takes 8 bytes, and its score is read and written; all scores are made and read once.
    """
    dimensions = set(np.flatnonzero(query.code).tolist()) | set(query.off)
    touched = sum(len(codes.postings(j)[0]) for j in dimensions)
    return (touched * (8 + 8) + codes.n * (4 + 4)) / bytes_a_second


def asked(kinds: dict[int, list[Query]], off: int, strictness: str) -> list[Query]:
    """Give the questions with so many dimensions off and one strictness."""
    amount, never = STRICTNESS[strictness]
    return [replace(query, strictness=amount, never=never) for query in kinds[off]]


def same(ours: Hits, theirs: Hits) -> bool:
    """Whether two rankings are one, but for the order of equal scores in float32."""
    if len(ours.rows) != len(theirs.rows):
        return False
    return bool(np.allclose(ours.scores, theirs.scores, atol=2e-6))


def share(ours: Hits, theirs: Hits) -> float:
    """Share of our rows that a peer finds."""
    return len(np.intersect1d(ours.rows, theirs.rows)) / max(len(ours.rows), 1)


def run(codes: SparseCodes, kinds: dict[int, list[Query]], peers: list[Peer]) -> dict[str, Any]:
    """Measure one size."""
    speed = bandwidth()
    rows = []
    for off, strictness in itertools.product(OFF, STRICTNESS):
        if off == 0 and strictness != "push":
            continue
        queries = asked(kinds, off, strictness)
        seconds: dict[str, list[float]] = {peer.name: [] for peer in peers}
        agreed: dict[str, list[float]] = {peer.name: [] for peer in peers}
        for query in queries:
            ours = peers[0].search(query, TOP)
            for peer in peers:
                peer.search(query, TOP)  # what is measured is not the first touch
                took, hits = _timed(lambda peer=peer, query=query: peer.search(query, TOP))
                seconds[peer.name].append(took)
                if peer.exact and not same(ours, hits):
                    raise SystemExit(f"{peer.name} finds other results than Sieve, with {off} off")
                agreed[peer.name].append(share(ours, hits))
        limit = float(np.median([limit_seconds(codes, query, speed) for query in queries]))
        for peer in peers:
            rows.append(
                {
                    "off": off,
                    "strictness": strictness,
                    "engine": peer.name,
                    "seconds": float(np.median(seconds[peer.name])),
                    "p95": float(np.quantile(seconds[peer.name], 0.95)),
                    "found": float(np.mean(agreed[peer.name])),
                    "limit": limit,
                }
            )
    return {"items": codes.n, "bytes_a_second": speed, "rows": rows, **_summary(rows)}


def _summary(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Summarise searches with five dimensions off: seconds and ratios to Sieve."""
    five = {r["engine"]: r for r in rows if r["off"] == 5 and r["strictness"] == "push"}
    ours = five["Sieve"]["seconds"]
    told = {"seconds": ours, "limit_ratio": ours / five["Sieve"]["limit"]}
    flat = five.get(FlatCodes.name)
    return told | ({"ratio_faiss_flat": flat["seconds"] / ours} if flat else {})


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
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", default="118000")
    parser.add_argument("--active", type=int, default=32, help="dimensions of a code and a query")
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--peers", default=COMMON, help=f"of {', '.join(PEERS)}, or all")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    faiss.omp_set_num_threads(1)
    engine = bundled_engine()
    kinds = {off: questions(engine, given.queries, given.active, off) for off in OFF}
    chosen = list(PEERS) if given.peers == "all" else given.peers.split(",")
    runs = []
    for items in map(int, given.items.split(",")):
        codes = codes_like(engine.image_codes, items, given.active)
        result = run(codes, kinds, [Ours(codes), *(PEERS[name](codes) for name in chosen)])
        runs.append(result)
        if not given.json:
            _print(result)
    if given.json:
        print(json.dumps({"runs": runs}))


if __name__ == "__main__":
    main()
