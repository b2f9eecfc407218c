"""Measure the share of the top 10 with A and with B, before and after "without B".

    python -m tests.benchmarks.exclusion scenes --pairs 20

Pairs are drawn at random from labels that often occur together in the test split. The baseline, in
the same run, is the backbone alone with the literal text "A without B".
"""

from __future__ import annotations

import argparse
import json

import numpy as np

from sieve.data_prep.bundled import locate_collection
from sieve.model.engine import Result, SearchEngine
from sieve.model.exclusion import PRESENCE_LIMIT, Strictness
from sieve.model.words.nouns import with_article

TOP = 10


def label_pairs(labels: list[set[str]], count: int, seed: int) -> list[tuple[str, str]]:
    """Draw pairs (A, B) with at least 10 items with A alone, 10 with both, P(B|A) ≥ 0.15."""
    names = sorted(set().union(*labels))
    has = np.array([[name in item for name in names] for item in labels], np.int64)
    both = has.T @ has
    alone = np.diag(both)[:, None] - both
    share = both / np.maximum(np.diag(both)[:, None], 1)
    fit = (both >= 10) & (alone >= 10) & (share >= 0.15) & ~np.eye(len(names), dtype=bool)
    # A category contains every item of its members, so excluding it from one leaves no items.
    pairs = [(names[a], names[b]) for a, b in np.argwhere(fit & (share < 0.95) & (share.T < 0.95))]
    order = np.random.default_rng(seed).permutation(len(pairs))[:count]
    return [pairs[i] for i in order]


def share(results: tuple[Result, ...], label: str) -> float:
    """Return the share of the results that have a label."""
    return float(np.mean([label in result.labels for result in results])) if results else 0.0


def main() -> None:
    """Run the benchmark and print its results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("collection", nargs="?", default="scenes")
    parser.add_argument("--checkpoint")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=PRESENCE_LIMIT, help="probability of never")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    engine = SearchEngine.open(locate_collection(args.collection), args.checkpoint)
    labels = [set(item) for item in engine.collection.items["labels"]]
    rows = []
    for a, b in label_pairs(labels, args.pairs, args.seed):
        query = engine.encode(with_article(a), with_article(b))
        found = {
            "before": engine.search(query, off=(), top=TOP).results,
            "pushed": engine.search(query, top=TOP).results,
            "never": engine.search(
                query, strictness=Strictness(never=True, limit=args.limit), top=TOP
            ).results,
            "literal": engine.search_dense(query, TOP),
        }
        rows.append(
            {"a": a, "b": b}
            | {f"{name}_a": share(results, a) for name, results in found.items()}
            | {f"{name}_b": share(results, b) for name, results in found.items()}
        )
    mean = {key: float(np.mean([row[key] for row in rows])) for key in rows[0] if len(key) > 1}
    if args.json:
        print(json.dumps({"pairs": rows, "mean": mean}, indent=1))
        return
    header = ("before", "pushed", "never", "literal")
    print(f"{'':24}" + "".join(f"{name + ' A':>10}{'B':>6}" for name in header))
    for row in [*rows, {"a": "mean", "b": "", **mean}]:
        cells = "".join(f"{row[n + '_a']:10.2f}{row[n + '_b']:6.2f}" for n in header)
        print(f"{row['a'] + ' without ' + row['b']:24.24}{cells}")
    ratio = mean["pushed_b"] / max(mean["literal_b"], 1e-9)
    print(f"share with B, linear exclusion / literal text: {ratio:.3f}")


if __name__ == "__main__":
    main()
