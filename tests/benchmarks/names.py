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
from scipy.sparse import csc_array, csr_array

from sieve.data_prep.bundled import locate_collection
from sieve.model.dimension_name import CONFIDENT
from sieve.model.dimensions.statistics import auc_matrix
from sieve.model.engine import SearchEngine
from sieve.model.words.text import presence_in

GOOD_AUC = 0.8
MIN_ITEMS = 3


def main() -> None:
    """Run the benchmark and print its results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("collection", nargs="?", default="scenes")
    parser.add_argument("checkpoint", nargs="?")
    args = parser.parse_args()
    engine = SearchEngine.open(locate_collection(args.collection), args.checkpoint)
    rows = engine.collection.rows_of_split(["test"])
    codes = csc_array(engine.image_codes.by_row[rows])
    texts = ["\n".join(captions) for captions in engine.collection.items["captions"].iloc[rows]]
    names = {j: name for j, name in engine.checkpoint.names.items() if name.auc is not None}
    words = sorted({word for name in names.values() for word in name.name.split(" · ")})
    presence = presence_in(words, texts).toarray()
    column = {word: at for at, word in enumerate(words)}
    held_out, found = [], []
    for j, name in names.items():
        has = presence[:, [column[word] for word in name.name.split(" · ")]].min(axis=1)
        tested = MIN_ITEMS <= has.sum() < len(has)
        auc = auc_matrix(csr_array(codes[:, [j]]), csr_array(has[:, None]))[0, 0]
        found.append(auc if tested else np.nan)
        held_out.append(name.auc)
    live = np.count_nonzero(engine.dimension_table()[["firing_images", "firing_texts"]].max(axis=1))
    equal = len(names) - len({name.name for name in names.values()})
    print(
        f"{live} live dimensions, {len(names)} named, {equal} equal names; {len(rows)} test items"
    )
    print(f"certain names have an expected AUC of at least {CONFIDENT}")
    print("| expected AUC | named, share of live | tested | test AUC ≥ 0.80 |\n|---|---|---|---|")
    for least in (0.0, 0.7, 0.75, 0.8, 0.9):
        chosen = np.array(found)[np.array(held_out) >= least]
        tested = chosen[~np.isnan(chosen)]
        print(
            f"| ≥ {least} | {len(chosen)} ({len(chosen) / live:.3f}) | {len(tested)} "
            f"| {(tested >= GOOD_AUC).mean():.3f} |"
        )


if __name__ == "__main__":
    main()
