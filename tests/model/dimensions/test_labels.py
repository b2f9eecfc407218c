from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array
from sklearn.metrics import roc_auc_score

from sieve.model.checkpoint import Checkpoint
from sieve.model.codes import encode_codes
from sieve.model.collection import Collection
from sieve.model.dimensions.labels import (
    Absorption,
    LabelFit,
    absorption,
    best_dimensions,
    best_labels,
    fit_labels,
    label_presence,
    purity,
)
from sieve.model.dimensions.statistics import auc_matrix
from sieve.model.hyperparameters import IMAGE


@given(st.integers(0, 10**6), st.floats(0, 1), st.booleans())
def test_auc_equals_scikit_learn(seed: int, density: float, ties: bool) -> None:
    generator = np.random.default_rng(seed)
    codes = generator.random((15, 4)) * (generator.random((15, 4)) < density)
    codes = np.round(codes, 1) if ties else codes
    has = generator.random((15, 3)) < 0.4
    found = auc_matrix(csr_array(codes), csr_array(has.astype(float)))
    for j, at in np.ndindex(4, 3):
        if has[:, at].any() and not has[:, at].all():
            assert found[j, at] == pytest.approx(roc_auc_score(has[:, at], codes[:, j]))
        else:
            assert np.isnan(found[j, at])


def test_purity_is_the_share_among_the_strongest() -> None:
    codes = np.array([[0.9, 0, 0], [0.8, 0, 0], [0.1, 0.2, 0], [0, 0.1, 0]], np.float32)
    has = np.array([[1, 0], [0, 0], [1, 1], [0, 0]], float)  # two items have 0, one has 1
    found = purity(csr_array(codes), csr_array(has), np.array([0, 1, 0]))
    np.testing.assert_allclose(found, [0.5, 1, np.nan])


def test_absorption_is_the_share_of_special_items_without_the_general_dimension() -> None:
    general = np.array([1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0])
    special = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    codes = np.stack([general.copy(), special], 1).astype(np.float32)
    codes[0, 0] = 0  # of four items with the special label, one lacks the general dimension
    presence, rows = csr_array(np.stack([general, special], 1).astype(float)), np.arange(16)
    codes = csr_array(codes)
    auc = auc_matrix(codes, presence)
    fit = LabelFit(["animal", "dog"], auc, auc, presence, rows, rows)
    assert absorption(fit, codes) == Absorption(pairs=1, rate=0.25)
    alone = LabelFit(["dog"], auc[:, 1:], auc[:, 1:], csr_array(presence[:, [1]]), rows, rows)
    assert absorption(alone, codes) is None


def test_presence_has_all_labels_in_order() -> None:
    names, presence = label_presence([["dog", "cat"], [], ["dog", "dog"]])
    assert names == ["cat", "dog"]
    assert presence.toarray().tolist() == [[1, 1], [0, 0], [0, 1]]
    assert label_presence([[], []])[1].shape == (2, 0)


def test_labels_are_scored_on_held_out_items(
    word_collection: Collection, word_checkpoint: Checkpoint
) -> None:
    codes = encode_codes(word_checkpoint.encoder, word_collection.image_embeddings, IMAGE).by_row
    fit = fit_labels(word_collection, codes)
    assert fit is not None
    assert set(fit.train.tolist()).isdisjoint(fit.test.tolist())
    chosen, aucs = best_dimensions(fit)
    assert aucs.mean() > 0.75
    for at, (j, auc) in enumerate(zip(chosen, aucs, strict=True)):
        has = fit.presence[fit.test][:, [at]].toarray().ravel()
        column = codes[fit.test][:, [int(j)]].toarray().ravel()
        assert auc == pytest.approx(roc_auc_score(has, column))
    best = best_labels(fit, codes)
    for j, (label, auc, pure) in enumerate(zip(*best.values(), strict=True)):
        if label:
            assert auc == fit.test_auc[j, fit.labels.index(label)]
            assert np.isnan(pure) or 0 <= pure <= 1
    assert set(best["label"]) - {""} == set(fit.labels), "each label is some dimension's"
    assert np.nanmean(best["label_auc"]) > 0.6


def test_collection_without_labels_or_splits_has_no_scores(word_collection: Collection) -> None:
    codes = csr_array((word_collection.n_items, 4), dtype=np.float32)
    bare = Collection(word_collection.path, word_collection.manifest, "0")
    bare.items = word_collection.items.assign(split="train")
    assert fit_labels(bare, codes) is None
    bare.items = word_collection.items.assign(labels=[[]] * word_collection.n_items)
    assert fit_labels(bare, codes) is None
