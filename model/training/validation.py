"""How well an encoder retrieves and excludes while it is trained: a small probe on select items.

Nothing is chosen by it and nothing is drawn for it, so a training ends with the same weights with
and without. Exclusion is asked of tuning pairs of the caption track, which no benchmark reports, by
`sieve.model.exclusion`'s rule as it is before calibration.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from sieve.model.collection import Collection
from sieve.model.duplicates import evaluation_rows
from sieve.model.encoder import IMAGE, TEXT, SparseEncoder, encode_codes
from sieve.model.evaluation import PairCriteria, measure_rankings, recall_at
from sieve.model.evaluation.pairs import PairSet, caption_concepts, select_pair_set, select_pairs
from sieve.model.evaluation.rules import PUSH
from sieve.model.exclusion import Calibration
from sieve.model.training.calibration import code_space
from sieve.model.words.nouns import benchmark_nouns

MAX_ITEMS = 500
MAX_CAPTIONS = 1000
MIN_PAIRS = 10
CRITERIA = PairCriteria(relevant=5, violating=5, at_most=40)
SHARE = 0.05
"""A probe comes at most after so large a share of the steps, and takes no more of the time."""


class ValidationReport(NamedTuple):
    """What a probe found after a step."""

    step: int
    recall: float
    """Text-to-image recall@10 of the codes, among at most 500 select items."""
    exclusion: float | None
    """AP@10 of A without B; None where there are fewer than 10 pairs to ask."""


def validation_refusal(collection: Collection) -> str:
    """Tell why a training on a collection cannot be probed; empty where it can."""
    if len(collection.captions_of_rows(evaluation_rows(collection, "select"))):
        return ""
    return "no captioned image is in the select split alone, without a near copy in train"


class Validator:
    """A small, fixed set of select items, captions and pairs.

    Parameters
    ----------
    collection : Collection
        One that `validation_refusal` has nothing against.
    encode_texts : callable
        Of its backbone; asked once.
    """

    def __init__(
        self, collection: Collection, encode_texts: Callable[[list[str]], np.ndarray]
    ) -> None:
        self._collection = collection
        rows = _thinned(evaluation_rows(collection, "select"), MAX_ITEMS)
        captions = _thinned(collection.captions_of_rows(rows), MAX_CAPTIONS)
        self._images = np.asarray(collection.image_embeddings[rows], np.float32)
        self._texts = np.asarray(collection.text_embeddings[captions], np.float32)
        self._item = collection.item_positions(rows, captions)
        self._questions = _questions(collection, rows)
        self._asked: dict[str, np.ndarray] = {}
        if self._questions is not None:
            asked = list(dict.fromkeys((*self._questions.a, *self._questions.b)))
            self._asked = dict(zip(asked, encode_texts(asked), strict=True))

    def measure(self, encoder: SparseEncoder, step: int) -> ValidationReport:
        """Measure an encoder as it is after a step."""
        images = encode_codes(encoder, self._images, IMAGE).by_row
        texts = encode_codes(encoder, self._texts, TEXT).by_row
        recall = recall_at((texts @ images.T).toarray(), self._item)["recall@10"]
        return ValidationReport(step, recall, self._exclusion(encoder))

    def _exclusion(self, encoder: SparseEncoder) -> float | None:
        questions = self._questions
        if questions is None:
            return None
        space = code_space(encoder, self._collection, questions, self._embedded)
        plain = Calibration()
        knobs = {
            "push": plain.push, "ratio": plain.proposal_ratio, "floor": plain.proposal_floor,
        }  # fmt: skip
        ranked = measure_rankings(PUSH.scores(space, knobs), questions.relevant)
        return float(np.nanmean(ranked.ap))

    def _embedded(self, texts: list[str]) -> np.ndarray:
        return np.stack([self._asked[text] for text in texts])


class ValidationSchedule:
    """When a probe is due: at most after every 5 % of the steps, and for 5 % of the time.

    Parameters
    ----------
    clock : callable
        Seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun = clock()
        self._spent = 0.0
        self._last_cost = 0.0
        self._last_step = 0

    def due(self, step: int, n_steps: int) -> bool:
        """Whether there is a step's and a probe's worth of room since the last one."""
        if step - self._last_step < SHARE * n_steps:
            return False
        return self._spent + self._last_cost <= SHARE * (self._clock() - self._begun)

    @contextmanager
    def spending(self, step: int | None = None) -> Iterator[None]:
        """Count what is done inside: a probe after a step, or what all of them need."""
        begun = self._clock()
        yield
        cost = self._clock() - begun
        self._spent += cost
        if step is not None:
            self._last_cost, self._last_step = cost, step


def _thinned(rows: np.ndarray, at_most: int) -> np.ndarray:
    """Take at most so many, evenly spaced."""
    return rows[:: max(-(-len(rows) // at_most), 1)]


def _questions(collection: Collection, rows: np.ndarray) -> PairSet | None:
    concepts = caption_concepts(collection, benchmark_nouns(), rows)
    pairs = select_pairs(concepts, rows, CRITERIA, tuning=True)
    return select_pair_set(concepts, rows, pairs) if len(pairs) >= MIN_PAIRS else None
