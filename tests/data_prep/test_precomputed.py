"""Test that precomputed embeddings replace those of the backbone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from square_source import SquareSource, skipped_rows

from sieve.data_prep.precomputed import ConcatRows, PrecomputedEmbeddings
from sieve.data_prep.prepare import prepare
from sieve.data_prep.records import Record
from sieve.model.backbone.clip import Backbone
from sieve.model.collection import BackboneIdentity


def test_precomputed_embeddings_are_used_and_normalised(
    tmp_path: Path, tiny_backbone: Backbone
) -> None:
    known = np.random.default_rng(0).standard_normal((30, tiny_backbone.width))
    made = prepare(
        SquareSource(30, {4: "torn"}),
        tiny_backbone,
        tmp_path / "c",
        progress=False,
        precomputed=PrecomputedEmbeddings(known.astype(np.float16)),
    )
    expected = np.delete(known, 4, axis=0)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.abs(made.image_embeddings.astype(float) - expected).max() < 2e-3


def test_complete_embeddings_need_no_backbone(tmp_path: Path) -> None:
    class Twice(SquareSource):
        def records(self) -> Iterator[Record]:
            for place, record in enumerate(super().records()):
                yield record
                if place == 2:
                    yield Record("s2", "elsewhere", ("again",))

    random = np.random.default_rng(0)
    images, texts = random.standard_normal((61, 6)), random.standard_normal((61, 6))
    identity = BackboneIdentity("theirs", "ab" * 32, 6)
    known = PrecomputedEmbeddings(ConcatRows([images[:3], images[3:29], images[29:]]), texts)
    made = prepare(
        Twice(60, {4: "torn"}), identity, tmp_path / "c", precomputed=known, progress=False
    )
    assert made.backbone == identity
    for found, given, left_out in (
        (made.image_embeddings, images, [3, 5]),  # the duplicate, and the truncated image after it
        (made.text_embeddings, texts, [3, 4]),
    ):
        expected = np.delete(given, left_out, axis=0)
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        assert np.abs(found.astype(float) - expected).max() < 2e-3


def test_missing_embeddings_need_a_backbone(tmp_path: Path) -> None:
    identity = BackboneIdentity("theirs", "ab" * 32, 6)
    known = PrecomputedEmbeddings(np.ones((3, 6)))
    with pytest.raises(ValueError, match="some embeddings of drawn are missing; backbone theirs"):
        prepare(SquareSource(3), identity, tmp_path / "c", precomputed=known, progress=False)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_invalid_precomputed_embeddings_are_skipped(tmp_path: Path, value: float) -> None:
    images, texts = np.ones((60, 4), np.float16), np.ones((60, 4), np.float16)
    images[17] = value
    texts[-1, 2] = value if value else np.nan  # the second caption of the last record
    known = PrecomputedEmbeddings(images, texts)
    identity = BackboneIdentity("theirs", "ab" * 32, 4)
    made = prepare(SquareSource(60), identity, tmp_path / "c", precomputed=known, progress=False)
    assert [row[::2] for row in skipped_rows(made)[1:]] == [
        ["s17", "embedding is NaN, infinite or zero"],
        ["s59", "a caption's embedding is NaN, infinite or zero"],
    ]
    assert (made.n_items, made.n_captions) == (58, 56)
    shown = {path.stem for path in (made.path / "thumbnails").rglob("*.webp")}
    assert shown == set(made.items["id"])
