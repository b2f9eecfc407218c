"""Test the effect of switching a dimension off on captions that activate it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_array

from sieve.model.codes import SparseCodes
from sieve.model.dimensions.page import N_CHANGES, Ablation, ablate_dimension, probe_captions
from sieve.model.engine import SearchEngine
from sieve.model.exclusion import Query, off_weights, search


def probe(engine: SearchEngine, dimension: int) -> Ablation:
    return ablate_dimension(engine.collection, engine.checkpoint, engine.derived, dimension)


def common(engine: SearchEngine) -> int:
    """Return a dimension that is active in many captions, but not in most."""
    rates = engine.dimension_table()["firing_texts"].to_numpy()
    return int(np.abs(rates - 0.3).argmin())


def test_probes_have_the_dimension_and_are_evenly_spaced(engine: SearchEngine) -> None:
    dimension = common(engine)
    having, _ = engine.text_codes.postings(dimension)
    texts = list(engine.collection.caption_texts)
    chosen = probe_captions(engine.collection, engine.derived, dimension, 20)
    assert len(chosen) == 20 and (np.diff(chosen) > 0).all()
    assert set(chosen) <= set(having.tolist())
    assert len({texts[c] for c in chosen}) == 20
    # Each third of the captions with the dimension has about a third of the probes.
    thirds = np.histogram(chosen, np.quantile(having, [0, 1 / 3, 2 / 3, 1]))[0]
    assert thirds.min() >= 2


def test_top_ten_before_and_after_equal_those_of_search(engine: SearchEngine) -> None:
    dimension = common(engine)
    found = probe(engine, dimension)
    assert 0 < len(found.changes) <= N_CHANGES
    texts = list(engine.collection.caption_texts)
    for change in found.changes:
        code = engine.text_codes.dense(texts.index(change.text))
        assert change.strength == pytest.approx(code[dimension]) and code[dimension] > 0
        weights = off_weights(
            code, np.zeros_like(code), np.array([dimension]), engine.derived.mean_positive
        )
        off = Query(
            code, (dimension,), (float(weights[0]),), calibration=engine.checkpoint.calibration
        )
        assert [one.row for one in change.before] == search(
            engine.image_codes, Query(code), 10
        ).rows.tolist()
        assert [one.row for one in change.after] == search(
            engine.image_codes, off, 10
        ).rows.tolist()
        for one in (*change.before, *change.after):
            assert one.value == pytest.approx(engine.image_codes.dense(one.row)[dimension])


def test_most_changed_dimensions_come_first_and_sums_are_correct(engine: SearchEngine) -> None:
    found = probe(engine, common(engine))
    lefts = [change.left for change in found.changes]
    assert lefts == sorted(lefts, reverse=True)
    for change in found.changes:
        gone = {one.id for one in change.before} - {one.id for one in change.after}
        assert change.left == len(gone)
    assert 0 < found.n_changed <= found.n_probes <= 100
    assert found.n_changed / found.n_probes <= found.mean_left <= lefts[0]


def test_dimension_without_captions_has_no_probe(engine: SearchEngine) -> None:
    m = engine.text_codes.m
    empty = csr_array((engine.text_codes.n, m), dtype=np.float32)
    silent = replace(
        engine.derived, text_codes=SparseCodes(empty.indptr, empty.indices, empty.data, m)
    )
    found = ablate_dimension(engine.collection, engine.checkpoint, silent, 0)
    assert found == Ablation(0, 0, 0.0, ())


def test_unknown_dimension_is_rejected(engine: SearchEngine) -> None:
    for dimension in (-1, engine.text_codes.m):
        with pytest.raises(ValueError, match="there is no dimension"):
            probe(engine, dimension)
