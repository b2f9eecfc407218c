"""Calibrate exclusion after training: a grid search on the validation ("select") split.

The queries are tuning pairs of the benchmark, which are never reported. Each grid point is scored
by AP@10 with the rules of `sieve.model.exclusion`. Among settings within `AS_GOOD` of the best, the
one that switches off the fewest dimensions wins, because users review the list.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from itertools import product

import numpy as np

from sieve.model.codes import encode_codes
from sieve.model.collection import Collection
from sieve.model.dimensions.concepts import encoder_concepts
from sieve.model.dimensions.statistics import ZeroShotEvidence
from sieve.model.duplicates import evaluation_rows
from sieve.model.encoder import SparseEncoder
from sieve.model.evaluation import measure_rankings
from sieve.model.evaluation.pairs import (
    PairCriteria,
    PairSet,
    caption_concepts,
    label_concepts,
    select_pairs,
)
from sieve.model.evaluation.rules import FEW, Rule, Space, dimensions_off
from sieve.model.exclusion import Calibration
from sieve.model.hyperparameters import IMAGE, TEXT
from sieve.model.training.data import TextEncoder
from sieve.model.words.nouns import benchmark_nouns

log = logging.getLogger(__name__)

PUSHES = (0.5, 0.75, 1.0, 1.5, 2.0)
RATIOS = (1.0, 1.5, 2.0)
"""At least 1: a dimension stronger in A than in B belongs to A."""
LIMITS = (1, 2, 3, 5, 10)
AS_GOOD = 0.005
"""Settings within this distance of the best AP@10 count as equal; seeds differ by more."""
MIN_PAIRS = 20
CRITERIA = PairCriteria(relevant=5, violating=5, at_most=200)


def calibrate(
    encoder: SparseEncoder, collection: Collection, encode_texts: TextEncoder
) -> Calibration:
    """Choose push weight λ, ratio ρ and proposal limit on the "select" split.

    The default is returned if the split has fewer than 20 pairs.
    """
    pairs = calibration_pairs(collection)
    if pairs is None or len(pairs) < MIN_PAIRS:
        log.info("too few pairs to calibrate exclusion; using the defaults")
        return Calibration()
    space = code_space(encoder, collection, pairs, encode_texts(pairs.texts))
    trials = []
    for push, ratio, limit in product(PUSHES, RATIOS, LIMITS):
        values = {"push": push, "ratio": ratio, "limit": limit}
        n_off = float(dimensions_off(space, values).sum(1).mean())
        trials.append((mean_ap(FEW, space, values, pairs), n_off, values))
    best = max(ap for ap, _, _ in trials)
    equals = [entry for entry in trials if entry[0] >= best - AS_GOOD]
    _, _, chosen = min(equals, key=lambda entry: (entry[1], -entry[0]))
    return Calibration(
        push=chosen["push"],
        proposal_ratio=chosen["ratio"],
        proposal_limit=chosen["limit"],
    )


def calibration_pairs(collection: Collection) -> PairSet | None:
    """Return tuning pairs of labels, or of captions without labels; None without either."""
    rows, nouns = evaluation_rows(collection, "select"), benchmark_nouns()
    if not len(rows) or not (collection.has_labels or collection.n_captions):
        return None
    if collection.has_labels:
        concepts = label_concepts(collection, nouns, CRITERIA)
    else:
        concepts = caption_concepts(collection, nouns)
    return select_pairs(concepts, rows, CRITERIA, tuning=True)


def code_space(
    encoder: SparseEncoder, collection: Collection, pairs: PairSet, texts: np.ndarray
) -> Space:
    """Encode the items and queries of a pair set, given the embeddings of `pairs.texts`."""
    embeddings = collection.image_embeddings[pairs.rows]
    images = encode_codes(encoder, embeddings, IMAGE).by_row
    codes = encode_codes(encoder, texts, TEXT).by_row.toarray()
    row = {text: at for at, text in enumerate(pairs.texts)}
    a, b = ([row[text] for text in side] for side in (pairs.a, pairs.b))
    evidence = ZeroShotEvidence(images, embeddings).auc(texts)
    concepts = encoder_concepts(encoder, collection).of_dimension
    return Space(images, codes[a], codes[b], codes[a], evidence[b], concepts)


def mean_ap(rule: Rule, space: Space, values: Mapping[str, float], pairs: PairSet) -> float:
    """Return the mean AP@10 of a rule over pairs."""
    return float(np.nanmean(measure_rankings(rule.scores(space, values), pairs.relevant).ap))
