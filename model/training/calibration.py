"""Calibrate exclusion after training: a grid search on the validation ("select") split.

The queries are tuning pairs of the benchmark, which are never reported. Each grid point is scored
by AP@10 with the rules of `sieve.model.exclusion`. Among settings within `AS_GOOD` of the best, the
one that switches off the fewest dimensions wins, because users review the list.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import product

import numpy as np
from scipy.sparse import csr_array

from sieve.model.collection import Collection
from sieve.model.duplicates import evaluation_rows
from sieve.model.encoder import IMAGE, TEXT, SparseEncoder, encode_codes
from sieve.model.evaluation import measure_rankings
from sieve.model.evaluation.pairs import (
    PairCriteria,
    PairSet,
    caption_concepts,
    label_concepts,
    select_pairs,
)
from sieve.model.evaluation.rules import NEVER, PUSH, Rule, Space, dimensions_off
from sieve.model.exclusion import Calibration
from sieve.model.words.nouns import benchmark_nouns

log = logging.getLogger(__name__)

PUSHES = (0.5, 0.75, 1.0, 1.5, 2.0)
RATIOS = (1.0, 1.5, 2.0)
"""At least 1: a dimension stronger in A than in B belongs to A."""
FLOORS = (0.0, 0.1, 0.2, 0.3, 0.4)
THRESHOLDS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25)
AS_GOOD = 0.005
"""Settings within this distance of the best AP@10 count as equal; seeds differ by more."""
KEPT = 0.9
"""The `never` threshold is the smallest that retains this share of the AP@10 of pushing."""
MIN_PAIRS = 20
CRITERIA = PairCriteria(relevant=5, violating=5, at_most=200)


def calibrate(
    encoder: SparseEncoder,
    collection: Collection,
    encode_texts: Callable[[list[str]], np.ndarray],
) -> Calibration:
    """Choose push weight λ, ratio ρ, proposal floor and threshold τ on the "select" split.

    Parameters
    ----------
    encoder : SparseEncoder
    collection : Collection
    encode_texts : callable
        The text encoder of its backbone.

    Returns
    -------
    Calibration
        The default if the split has fewer than 20 pairs.
    """
    pair_set = _pair_set(collection)
    if pair_set is None:
        log.info("too few pairs to calibrate exclusion; using the defaults")
        return Calibration()
    space = code_space(encoder, collection, pair_set, encode_texts)
    trials = []
    for push, ratio, floor in product(PUSHES, RATIOS, FLOORS):
        values = {"push": push, "ratio": ratio, "floor": floor}
        n_off = float(dimensions_off(space, ratio, floor).sum(1).mean())
        trials.append((_mean_ap(PUSH, space, values, pair_set), n_off, values))
    best = max(ap for ap, _, _ in trials)
    equals = [entry for entry in trials if entry[0] >= best - AS_GOOD]
    *_, chosen = min(equals, key=lambda entry: (entry[1], -entry[0]))
    pushed = _mean_ap(PUSH, space, chosen, pair_set)
    thresholds = (
        threshold
        for threshold in THRESHOLDS[:-1]
        if _mean_ap(NEVER, space, {**chosen, "threshold": threshold}, pair_set) >= KEPT * pushed
    )
    return Calibration(
        push=chosen["push"],
        threshold=next(thresholds, THRESHOLDS[-1]),
        proposal_ratio=chosen["ratio"],
        proposal_floor=chosen["floor"],
    )


def _pair_set(collection: Collection) -> PairSet | None:
    """Return tuning pairs of labels, or of captions without labels; None if there are too few."""
    rows, nouns = evaluation_rows(collection, "select"), benchmark_nouns()
    if not len(rows) or not (collection.has_labels or collection.n_captions):
        return None
    if collection.has_labels:
        concepts = label_concepts(collection, nouns, CRITERIA)
    else:
        concepts = caption_concepts(collection, nouns)
    pairs = select_pairs(concepts, rows, CRITERIA, tuning=True)
    return pairs if len(pairs) >= MIN_PAIRS else None


def code_space(
    encoder: SparseEncoder,
    collection: Collection,
    pair_set: PairSet,
    encode_texts: Callable[[list[str]], np.ndarray],
) -> Space:
    """Encode the items and queries of a pair set."""
    images = encode_codes(encoder, collection.image_embeddings[pair_set.rows], IMAGE).by_row
    texts = list(dict.fromkeys((*pair_set.a, *pair_set.b)))
    codes = encode_codes(encoder, encode_texts(texts), TEXT).by_row.toarray()
    row = {text: codes[i] for i, text in enumerate(texts)}
    a, b = (np.stack([row[text] for text in side]) for side in (pair_set.a, pair_set.b))
    return Space(csr_array(images), a, b, a)


def _mean_ap(rule: Rule, space: Space, values: dict[str, float], pair_set: PairSet) -> float:
    return float(np.nanmean(measure_rankings(rule.scores(space, values), pair_set.relevant).ap))
