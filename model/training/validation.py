"""Validation on the "select" split: recall and exclusion during training, and the final quality.

Validation during training uses a small sample. It neither selects a model nor draws random numbers,
so the trained weights are the same with and without it. Exclusion uses tuning pairs of the caption
track, which no benchmark reports, and the rule of `sieve.model.exclusion` before calibration.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from sieve.model.codes import SparseCodes, encode_codes
from sieve.model.collection import Collection
from sieve.model.dimensions.statistics import live_shares
from sieve.model.duplicates import evaluation_rows
from sieve.model.encoder import SparseEncoder
from sieve.model.evaluation import PairCriteria, recall_at
from sieve.model.evaluation.pairs import caption_concepts, select_pairs
from sieve.model.evaluation.rules import FEW
from sieve.model.exclusion import Calibration
from sieve.model.hyperparameters import IMAGE, TEXT
from sieve.model.training.calibration import code_space, mean_ap
from sieve.model.training.data import TextEncoder
from sieve.model.words.nouns import benchmark_nouns

MAX_ITEMS = 500
MAX_CAPTIONS = 1000
MIN_PAIRS = 10
CRITERIA = PairCriteria(relevant=5, violating=5, at_most=40)
SHARE = 0.05
"""Minimum share of the steps between validations, and maximum share of the time for them."""


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
