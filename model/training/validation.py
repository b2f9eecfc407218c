"""Validation on the "select" split: during training, the final quality, and calibration.

Validation during training uses a small sample. It neither selects a model nor draws random numbers,
so the trained weights are the same with and without it. Exclusion uses tuning pairs of the caption
track, which no benchmark reports, and the rule of `sieve.model.exclusion` before calibration.

Calibration of exclusion after training is a grid search. Each grid point is scored by AP@10 with
the rules of `sieve.model.exclusion`. Among settings within `AS_GOOD` of the best, the one that
switches off the fewest dimensions wins, because users review the list.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import product
from typing import NamedTuple

import numpy as np

from sieve.model.codes import SparseCodes, encode_codes
from sieve.model.collection import Collection
from sieve.model.dimensions.concepts import encoder_concepts
from sieve.model.dimensions.statistics import ZeroShotEvidence, live_shares
from sieve.model.duplicates import evaluation_rows
from sieve.model.encoder import SparseEncoder
from sieve.model.evaluation.metrics import measure_rankings, recall_at
from sieve.model.evaluation.pairs import (
    PairCriteria,
    PairSet,
    caption_concepts,
    select_pairs,
    split_pairs,
)
from sieve.model.evaluation.rules import FEW, Rule, Space, dimensions_off
from sieve.model.exclusion import Calibration
from sieve.model.hyperparameters import IMAGE, TEXT
from sieve.model.training.data import TextEncoder
from sieve.model.words.nouns import benchmark_nouns

MAX_ITEMS = 500
MAX_CAPTIONS = 1000
MIN_PAIRS = 10
CRITERIA = PairCriteria(relevant=5, violating=5, at_most=40)
SHARE = 0.05
"""Minimum share of the steps between validations, and maximum share of the time for them."""
log = logging.getLogger(__name__)
PUSHES = (0.5, 0.75, 1.0, 1.5, 2.0)
RATIOS = (1.0, 1.5, 2.0)
"""At least 1: a dimension stronger in A than in B belongs to A."""
LIMITS = (1, 2, 3, 5, 10)
AS_GOOD = 0.005
"""Settings within this distance of the best AP@10 count as equal; seeds differ by more."""
CALIBRATION_PAIRS = 20
CALIBRATION_CRITERIA = PairCriteria(relevant=5, violating=5, at_most=200)


class ValidationReport(NamedTuple):
    """Metrics of the encoder after a step."""

    step: int
    recall: float
    """Text-to-image recall@10 of the codes among at most 500 items."""
    exclusion: float | None
    """AP@10 of A without B; None if there are fewer than 10 pairs."""


def validation_refusal(collection: Collection) -> str:
    """Return why training on a collection cannot be validated; empty if it can."""
    if len(collection.captions_of_rows(evaluation_rows(collection, "select"))):
        return ""
    return "no captioned image is in the select split alone, without a near copy in train"


class Validator:
    """A small, fixed sample of validation items, captions and pairs.

    The collection is one for which `validation_refusal` returns nothing. The text encoder of its
    backbone is called once.
    """

    def __init__(self, collection: Collection, encode_texts: TextEncoder) -> None:
        self._collection = collection
        rows = _subsample(evaluation_rows(collection, "select"), MAX_ITEMS)
        captions = _subsample(collection.captions_of_rows(rows), MAX_CAPTIONS)
        self._images = np.asarray(collection.image_embeddings[rows], np.float32)
        self._texts = np.asarray(collection.text_embeddings[captions], np.float32)
        self._item = collection.item_positions(rows, captions)
        concepts = caption_concepts(collection, benchmark_nouns(), rows)
        self._pairs = select_pairs(concepts, rows, CRITERIA, tuning=True)
        enough = len(self._pairs) >= MIN_PAIRS
        self._queries = encode_texts(self._pairs.texts) if enough else None

    def measure(self, encoder: SparseEncoder, step: int) -> ValidationReport:
        """Evaluate a snapshot of the encoder after a step."""
        images = encode_codes(encoder, self._images, IMAGE).by_row
        texts = encode_codes(encoder, self._texts, TEXT).by_row
        recall = recall_at((texts @ images.T).toarray(), self._item)["recall@10"]
        if self._queries is None:
            return ValidationReport(step, recall, None)
        space = code_space(encoder, self._collection, self._pairs, self._queries)
        default = Calibration()
        values = {
            "push": default.push, "ratio": default.proposal_ratio, "limit": default.proposal_limit,
        }  # fmt: skip
        return ValidationReport(step, recall, mean_ap(FEW, space, values, self._pairs))


class ValidationSchedule:
    """Limit validation to once every 5% of the steps and 5% of the time, in seconds of a clock."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun = clock()
        self._spent = 0.0
        self._last_cost = 0.0
        self._last_step = 0

    def due(self, step: int, n_steps: int) -> bool:
        """Whether steps and time since the last validation allow another one."""
        if step - self._last_step < SHARE * n_steps:
            return False
        return self._spent + self._last_cost <= SHARE * (self._clock() - self._begun)

    @contextmanager
    def timed(self, step: int | None = None) -> Iterator[None]:
        """Count the time of the block: a validation after a step, or the setup of all."""
        begun = self._clock()
        yield
        cost = self._clock() - begun
        self._spent += cost
        if step is not None:
            self._last_cost, self._last_step = cost, step


def recall_of_split(
    images: SparseCodes, texts: SparseCodes, collection: Collection, split: str
) -> dict[str, dict[str, float]]:
    """Return the text-to-image recall in a split, by `codes` and by `backbone` embeddings.

    `images` and `texts` are the codes of the whole collection. Near duplicates of items in an
    earlier split are left out.
    """
    rows = evaluation_rows(collection, split)
    captions = collection.captions_of_rows(rows)
    item = collection.item_positions(rows, captions)
    by_code = (texts.by_row[captions] @ images.by_row[rows].T).toarray()
    dense_texts = collection.text_embeddings[captions].astype(np.float32)
    dense_images = collection.image_embeddings[rows].astype(np.float32)
    return {
        "codes": recall_at(by_code, item),
        "backbone": recall_at(dense_texts @ dense_images.T, item),
    }


def code_quality(
    encoder: SparseEncoder, collection: Collection, split: str = "select"
) -> dict[str, dict[str, float]]:
    """Measure an encoder on a split of a collection: see `recall_of_split`.

    Also returns, as `dimensions`, the `live_shares` over the whole collection.
    """
    images = encode_codes(encoder, collection.image_embeddings, IMAGE)
    texts = encode_codes(encoder, collection.text_embeddings, TEXT)
    recall = recall_of_split(images, texts, collection, split)
    return {**recall, "dimensions": live_shares(images, texts)}


def _subsample(rows: np.ndarray, at_most: int) -> np.ndarray:
    """Return at most `at_most` evenly spaced rows."""
    return rows[:: max(-(-len(rows) // at_most), 1)]


def calibrate(
    encoder: SparseEncoder, collection: Collection, encode_texts: TextEncoder
) -> Calibration:
    """Choose push weight λ, ratio ρ and proposal limit on the "select" split.

    The default is returned if the split has fewer than 20 pairs.
    """
    pairs = split_pairs(collection, "select", CALIBRATION_CRITERIA, tuning=True)
    if pairs is None or len(pairs) < CALIBRATION_PAIRS:
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
