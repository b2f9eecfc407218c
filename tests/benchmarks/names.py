"""Measure whether the names of dimensions hold on test items.

    python -m tests.benchmarks.names COLLECTION [CHECKPOINT]

The table gives, for several thresholds of the AUC that is expected of each name, how many
dimensions are named, and how many of those have an AUC of at least 0.80 on the test split: the
probability that the dimension is more active on an image whose captions have the name than on one
whose captions do not. Names that fewer than three test items have are not counted.
"""

from __future__ import annotations

import argparse

import numpy as np

from sieve.data_prep.bundled import locate_collection
from sieve.model.dimension_name import CONFIDENT
from sieve.model.engine import SearchEngine
from sieve.model.interpretability import RIGHT_AUC, name_auc


def main() -> None:
    """Run the benchmark and print its results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("collection", nargs="?", default="scenes")
    parser.add_argument("checkpoint", nargs="?")
    args = parser.parse_args()
    engine = SearchEngine.open(locate_collection(args.collection), args.checkpoint)
    names = {j: name for j, name in engine.checkpoint.names.items() if name.auc is not None}
    measured = name_auc(engine)
    stored = np.array([name.auc for name in names.values()])
    found = np.array([measured.get(j, np.nan) for j in names])
    live = np.count_nonzero(engine.dimension_table()[["firing_images", "firing_texts"]].max(axis=1))
    equal = len(names) - len({name.name for name in names.values()})
    print(f"{live} live dimensions, {len(names)} named, {equal} equal names")
    print(f"certain names have an expected AUC of at least {CONFIDENT}")
    print("| expected AUC | named, share of live | tested | test AUC ≥ 0.80 |\n|---|---|---|---|")
    for least in (0.0, 0.7, 0.75, 0.8, 0.9):
        chosen = found[stored >= least]
        tested = chosen[~np.isnan(chosen)]
        print(
            f"| ≥ {least} | {len(chosen)} ({len(chosen) / live:.3f}) | {len(tested)} "
            f"| {(tested >= RIGHT_AUC).mean():.3f} |"
        )


if __name__ == "__main__":
    main()
