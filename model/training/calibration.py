"""How hard off dimensions push, and which are proposed: chosen on select items after training.

The questions are tuning pairs of the benchmark, which no benchmark ever reports. Every setting of a
small grid answers them by `sieve.model.exclusion`'s rules; the best AP@10 wins, and of settings
that are as good the one that switches off the fewest dimensions, for people look through them.
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
    select_pair_set,
    select_pairs,
)
from sieve.model.evaluation.rules import NEVER, PUSH, Rule, Space, dimensions_off
from sieve.model.exclusion import Calibration
from sieve.model.words.nouns import benchmark_nouns

log = logging.getLogger(__name__)

PUSHES = (0.5, 0.75, 1.0, 1.5, 2.0)
RATIOS = (1.0, 1.5, 2.0)
"""Never below 1: what A has more of than B is A's, and a person would miss it."""
FLOORS = (0.0, 0.1, 0.2, 0.3, 0.4)
THRESHOLDS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25)
AS_GOOD = 0.005
"""Settings this near to the best AP@10 count as equals: seeds differ by more."""
KEPT = 0.9
"""`never` leaves out as much as it can while it keeps this share of pushing's AP@10."""
MIN_PAIRS = 20
CRITERIA = PairCriteria(relevant=5, violating=5, at_most=200)


def calibrate(
    encoder: SparseEncoder,
    collection: Collection,
    encode_texts: Callable[[list[str]], np.ndarray],
) -> Calibration:
    """Choose λ, ρ, the floor of proposals and τ on a collection's select items.

    Parameters
    ----------
    encoder : SparseEncoder
    collection : Collection
    encode_texts : callable
        Of its backbone.

    Returns
    -------
    Calibration
        The default where there are fewer than 20 pairs to ask.
    """
    questions = _questions(collection)
    if questions is None:
        log.info("too few pairs to calibrate on; exclusion keeps its defaults")
        return Calibration()
    space = code_space(encoder, collection, questions, encode_texts)
    found = []
    for push, ratio, floor in product(PUSHES, RATIOS, FLOORS):
        knobs = {"push": push, "ratio": ratio, "floor": floor}
        n_off = float(dimensions_off(space, ratio, floor).sum(1).mean())
        found.append((_ap(PUSH, space, knobs, questions), n_off, knobs))
    best = max(ap for ap, _, _ in found)
    equals = [entry for entry in found if entry[0] >= best - AS_GOOD]
    *_, chosen = min(equals, key=lambda entry: (entry[1], -entry[0]))
    pushed = _ap(PUSH, space, chosen, questions)
    kept = (
        threshold
        for threshold in THRESHOLDS[:-1]
        if _ap(NEVER, space, {**chosen, "threshold": threshold}, questions) >= KEPT * pushed
    )
    return Calibration(
        push=chosen["push"],
        threshold=next(kept, THRESHOLDS[-1]),
        proposal_ratio=chosen["ratio"],
        proposal_floor=chosen["floor"],
    )


def _questions(collection: Collection) -> PairSet | None:
    """Ask of labels where there are any, else of captions; None where too few pairs are left."""
    rows, nouns = evaluation_rows(collection, "select"), benchmark_nouns()
    if not len(rows) or not (collection.has_labels or collection.n_captions):
        return None
    if collection.has_labels:
        concepts = label_concepts(collection, nouns, CRITERIA)
    else:
        concepts = caption_concepts(collection, nouns)
    pairs = select_pairs(concepts, rows, CRITERIA, tuning=True)
    return select_pair_set(concepts, rows, pairs) if len(pairs) >= MIN_PAIRS else None


def code_space(
    encoder: SparseEncoder,
    collection: Collection,
    questions: PairSet,
    encode_texts: Callable[[list[str]], np.ndarray],
) -> Space:
    """Encode the items and queries of questions."""
    images = encode_codes(encoder, collection.image_embeddings[questions.rows], IMAGE).by_row
    asked = list(dict.fromkeys((*questions.a, *questions.b)))
    codes = encode_codes(encoder, encode_texts(asked), TEXT).by_row.toarray()
    row = {text: codes[i] for i, text in enumerate(asked)}
    a, b = (np.stack([row[text] for text in texts]) for texts in (questions.a, questions.b))
    return Space(csr_array(images), a, b, a)


def _ap(rule: Rule, space: Space, knobs: dict[str, float], questions: PairSet) -> float:
    return float(np.nanmean(measure_rankings(rule.scores(space, knobs), questions.relevant).ap))
