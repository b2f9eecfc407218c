"""Test texts of several threads: the attention mask is resized for one at a time."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from sieve.model.backbone.clip import Backbone


def test_concurrent_texts_of_different_lengths_are_embedded_correctly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backbone = Backbone.load("sieve-lite", "cpu")
    texts = ["a dog", "a brown dog that runs along the beach", "two", "a man on a red motorcycle"]
    alone = [backbone.encode_texts([text]) for text in texts]
    real = backbone._network.encode_text

    def slowly(tokens: object) -> object:
        time.sleep(0.02)  # lets other threads run
        return real(tokens)

    monkeypatch.setattr(backbone._network, "encode_text", slowly)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda text: backbone.encode_texts([text]), texts * 2))
    assert all(np.allclose(a, b, atol=1e-6) for a, b in zip(alone * 2, together, strict=True))
    after = backbone.encode_texts([texts[1]])
    assert np.allclose(after, alone[1], atol=1e-6)
