"""Measure exclusion by the maximum number of concepts that "without" switches off.

    python -m tests.benchmarks.proposals COLLECTION CHECKPOINT
    python -m tests.benchmarks.proposals COLLECTION CHECKPOINT --active 8,16,32,64,128

The table gives AP@10 on the validation split with tuning pairs (best of the calibration grid): of
concepts, with and without evidence, and of single dimensions. The last line counts the concepts and
dimensions that the explorer proposes for the report pairs on the test split, and the dimensions
that do not separate B's items (AUC below 0.60).

With `--active`, the encoder keeps other numbers of active dimensions (L0) than it was trained with,
in images and texts. A row gives AP@10 on the same pairs, and on labels, which are chosen on train
and scored on test items: the share with a dimension and with a concept of AUC at least 0.95, and
absorption.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from itertools import product

from sieve.data_prep.bundled import locate_collection
from sieve.model.codes import encode_codes
from sieve.model.dimensions.concepts import encoder_concepts
from sieve.model.dimensions.labels import absorption, best_dimensions, fit_labels
from sieve.model.engine import SearchEngine
from sieve.model.evaluation.pairs import PairCriteria, PairSet, split_pairs
from sieve.model.evaluation.rules import FEW, PUSH, Rule, Space
from sieve.model.hyperparameters import IMAGE
from sieve.model.interpretability import CHANCE_AUC, GOOD_AUC, switch_report
from sieve.model.training.validation import (
    CALIBRATION_CRITERIA,
    LIMITS,
    PUSHES,
    RATIOS,
    code_space,
    mean_ap,
)

FLOORS = (0.0, 0.1, 0.2, 0.3, 0.4)


def best(rule: Rule, space: Space, pairs: PairSet, grid: Mapping[str, Sequence[float]]) -> float:
    """Return the best AP@10 of a rule over λ, ρ and a grid of other hyperparameters."""
    names = ("push", "ratio", *grid)
    settings = product(PUSHES, RATIOS, *grid.values())
    return max(mean_ap(rule, space, dict(zip(names, one, strict=True)), pairs) for one in settings)


def print_active(engine: SearchEngine, pairs: PairSet, active: Sequence[int]) -> None:
    """Print a row for each number of active dimensions."""
    queries = engine.backbone.encode_texts(pairs.texts)
    print("| active | AP@10 | labels with a dimension | with a concept | absorption |")
    print("|---|---|---|---|---|")
    for k in active:
        encoder = deepcopy(engine.checkpoint.encoder)
        encoder.config = replace(encoder.config, k=k, k_text=0)
        space = code_space(encoder, engine.collection, pairs, queries)
        codes = encode_codes(encoder, engine.collection.image_embeddings, IMAGE).by_row
        row = [f"{best(FEW, space, pairs, {'limit': (1,)}):.3f}"]
        _, summed = encoder_concepts(encoder, engine.collection).sum(codes)
        for part in (codes, summed):
            if fit := fit_labels(engine.collection, part):
                row.append(f"{(best_dimensions(fit)[1] >= GOOD_AUC).mean():.3f}")
        if fit := fit_labels(engine.collection, codes):
            absorbed = absorption(fit, codes)
            row.append(f"{absorbed.rate:.3f} of {absorbed.pairs}" if absorbed else "–")
        print(f"| {k} |", " | ".join(row), "|", flush=True)


def main() -> None:
    """Run the benchmark and print its results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("collection", nargs="?", default="scenes")
    parser.add_argument("checkpoint", nargs="?")
    parser.add_argument("--active", type=lambda text: [int(k) for k in text.split(",")])
    args = parser.parse_args()
    engine = SearchEngine.open(locate_collection(args.collection), args.checkpoint)
    pairs = split_pairs(engine.collection, "select", CALIBRATION_CRITERIA, tuning=True)
    if pairs is None:
        parser.error("the validation split has no pairs")
    if args.active:
        print_active(engine, pairs, args.active)
        return
    encode = engine.backbone.encode_texts
    space = code_space(engine.checkpoint.encoder, engine.collection, pairs, encode(pairs.texts))
    bare = replace(space, evidence=None)
    print(f"{len(pairs)} pairs, {len(pairs.rows)} validation items")
    single = replace(space, concepts=None)
    print("| limit | concepts | without evidence | dimensions |\n|---|---|---|---|")
    for limit in LIMITS:
        figures = (best(FEW, one, pairs, {"limit": (limit,)}) for one in (space, bare, single))
        print(f"| {limit} |", " | ".join(f"{figure:.3f}" for figure in figures), "|")
    print(f"| all | – | {best(PUSH, bare, pairs, {'floor': FLOORS}):.3f} | – |")
    pairs = split_pairs(engine.collection, "test", PairCriteria(), tuning=False)
    report = switch_report(engine, pairs) if pairs else None
    if report is not None:
        print(
            f"{report.pairs} report pairs, {report.items} test items; concepts off: median "
            f"{report.median:g}, largest {report.most}; {report.chance:.1%} of "
            f"{report.dimensions} dimensions with AUC for B below {CHANCE_AUC:.2f}"
        )


if __name__ == "__main__":
    main()
