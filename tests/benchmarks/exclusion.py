"""Share of the top 10 that has A, and that has B, before and after "without B".

    python -m tests.benchmarks.exclusion scenes --pairs 20

Pairs are drawn from the labels of the test split, those that go together often first. The peer in
the same run is the backbone alone on the literal text "A without B".
"""

from __future__ import annotations

import argparse
import json

import numpy as np

from sieve.data_prep.bundled import locate_collection
from sieve.model.engine import Engine, Result
from sieve.model.words.nouns import with_article

TOP = 10


def label_pairs(labels: list[set[str]], count: int, seed: int) -> list[tuple[str, str]]:
    """Ordered pairs (A, B) with at least 10 items with A alone, 10 with both, P(B|A) ≥ .15."""
    names = sorted(set().union(*labels))
    has = np.array([[name in item for name in names] for item in labels], np.int64)
    both = has.T @ has
    alone = np.diag(both)[:, None] - both
    share = both / np.maximum(np.diag(both)[:, None], 1)
    fit = (both >= 10) & (alone >= 10) & (share >= 0.15) & ~np.eye(len(names), dtype=bool)
    # A category holds every item of its members: excluding it from one of them leaves nothing.
    pairs = [(names[a], names[b]) for a, b in np.argwhere(fit & (share < 0.95) & (share.T < 0.95))]
    order = np.random.default_rng(seed).permutation(len(pairs))[:count]
    return [pairs[i] for i in order]


def share(results: tuple[Result, ...], label: str) -> float:
    """Share of the results that have a label."""
    return float(np.mean([label in result.labels for result in results])) if results else 0.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("collection", nargs="?", default="scenes")
    parser.add_argument("--checkpoint")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    engine = Engine.open(locate_collection(asked.collection), asked.checkpoint)
    labels = [set(item) for item in engine.collection.items["labels"]]
    rows = []
    for a, b in label_pairs(labels, asked.pairs, asked.seed):
        query = engine.encode(with_article(a), with_article(b))
        found = {
            "before": engine.search(query, off=(), top=TOP).results,
            "pushed": engine.search(query, top=TOP).results,
            "never": engine.search(query, never=True, top=TOP).results,
            "literal": engine.search_dense(query, TOP),
        }
        rows.append(
            {"a": a, "b": b}
            | {f"{name}_a": share(results, a) for name, results in found.items()}
            | {f"{name}_b": share(results, b) for name, results in found.items()}
        )
    mean = {key: float(np.mean([row[key] for row in rows])) for key in rows[0] if len(key) > 1}
    if asked.json:
        print(json.dumps({"pairs": rows, "mean": mean}, indent=1))
        return
    header = ("before", "pushed", "never", "literal")
    print(f"{'':24}" + "".join(f"{name + ' A':>10}{'B':>6}" for name in header))
    for row in [*rows, {"a": "mean", "b": "", **mean}]:
        cells = "".join(f"{row[n + '_a']:10.2f}{row[n + '_b']:6.2f}" for n in header)
        print(f"{row['a'] + ' without ' + row['b']:24.24}{cells}")
    ratio = mean["pushed_b"] / max(mean["literal_b"], 1e-9)
    print(f"share with B, pushed away / literal text: {ratio:.3f}")


if __name__ == "__main__":
    main()
