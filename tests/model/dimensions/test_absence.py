"""Test whether a collection is said not to show a text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array

from sieve.model.dimensions.presence import Examples, ShownModel, open_shown_model
from sieve.model.engine import SearchEngine
from sieve.model.words.nouns import benchmark_nouns
from sieve.model.words.text import WordPresence


def test_close_images_make_a_text_likely(
    tiny_engine: SearchEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIEVE_HOME", str(tmp_path))
    nouns = benchmark_nouns().lemmas[:80]
    shown = set(nouns[::2])
    words = WordPresence(sorted(shown), csr_array(np.ones((3, len(shown)))))
    examples = Examples(np.arange(3), tiny_engine.image_codes, words)
    asked: list[str] = []

    def closest(texts: Sequence[str]) -> np.ndarray:
        asked.extend(texts)
        noise = np.random.default_rng(0).normal(0, 0.02, len(texts))
        return noise + [0.3 if text.removeprefix("a ") in shown else 0.2 for text in texts]

    def opened() -> ShownModel:
        collection, checkpoint = tiny_engine.collection, tiny_engine.checkpoint
        return open_shown_model(collection, checkpoint, examples, closest, nouns.__contains__)

    model = opened()
    assert model.probability(0.3) > 0.9 and model.probability(0.2) < 0.1
    n_asked = len(asked)
    assert opened() == model and len(asked) == n_asked, "it was cached"


def test_too_few_nouns_make_no_claim() -> None:
    assert ShownModel(0.0, 0.0).probability(-1.0) == 1.0
