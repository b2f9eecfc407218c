from __future__ import annotations

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from sieve.model.evaluation.metrics import measure_rankings, ranked_rows, recall_at


def oracle(scores: np.ndarray, relevant: np.ndarray) -> dict[str, np.ndarray]:
    """Return the metrics of trec_eval, which sorts names in reverse order if scores tie."""
    n = scores.shape[1]
    names = [f"{n - row:06}" for row in range(n)]
    qrels = {
        str(q): {name: int(rel) for name, rel in zip(names, line, strict=True)}
        for q, line in enumerate(relevant)
    }
    run = {str(q): dict(zip(names, map(float, line), strict=True)) for q, line in enumerate(scores)}
    judged = pytrec_eval.RelevanceEvaluator(qrels, {"map_cut.10", "P.10", "ndcg_cut.10"})
    found = judged.evaluate(run)
    return {
        name: np.array([found[str(q)][name] for q in range(len(scores))])
        for name in ("map_cut_10", "P_10", "ndcg_cut_10")
    }


@pytest.mark.parametrize(("share", "levels"), [(0.02, None), (0.2, None), (0.7, None), (0.2, 4)])
def test_metrics_equal_trec_eval(share: float, levels: int | None) -> None:
    generator = np.random.default_rng(0)
    scores = generator.random((40, 60))
    if levels:  # many ties
        scores = np.floor(scores * levels)
    relevant = generator.random((40, 60)) < share
    relevant[:, 7] = True
    theirs, ours = oracle(scores, relevant), measure_rankings(scores, relevant)
    total = relevant.sum(1)
    np.testing.assert_allclose(ours.ap, theirs["map_cut_10"] * total / np.minimum(total, 10))
    np.testing.assert_allclose(ours.precision, theirs["P_10"])
    np.testing.assert_allclose(ours.ndcg, theirs["ndcg_cut_10"])


def test_average_precision_equals_a_manual_calculation() -> None:
    scores = np.array([[0.9, 0.8, 0.7, 0.1]])
    relevant = np.array([[True, False, True, False]])
    violating = np.array([[False, True, False, True]])
    found = measure_rankings(scores, relevant, violating)
    assert found.ap[0] == pytest.approx((1 + 2 / 3) / 2)
    assert found.precision[0] == 0.2
    assert found.violation[0] == 0.2


def test_excluded_rows_are_not_results() -> None:
    scores = np.array([[-np.inf, 1.0, -np.inf]])
    everything = np.ones((1, 3), bool)
    assert ranked_rows(scores, 3).tolist() == [[1, -1, -1]]
    found = measure_rankings(scores, everything, everything)
    assert found.ap[0] == pytest.approx(1 / 3)
    assert found.violation[0] == 0.1


def test_query_without_relevant_rows_has_no_metric() -> None:
    found = measure_rankings(np.ones((1, 5)), np.zeros((1, 5), bool))
    assert np.isnan(found.ap[0])
    assert np.isnan(found.ndcg[0])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 0.5, 1.0, -np.inf]), min_size=1, max_size=30), st.integers(1, 12)
)
def test_ties_break_by_row(line: list[float], top: int) -> None:
    expected = sorted((-score, row) for row, score in enumerate(line) if score > -np.inf)
    rows = ranked_rows(np.array([line]), top)[0]
    assert [row for row in rows.tolist() if row >= 0] == [row for _, row in expected[:top]]


def test_recall_counts_ties_against_itself() -> None:
    similarity = np.array([[0.9, 0.1], [0.5, 0.5]])
    assert recall_at(similarity, np.array([0, 1]))["recall@1"] == 0.5
