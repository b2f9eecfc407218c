"""Test leakage and survival with synthetic codes of known dimensions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.sparse import csr_array

from sieve.model.codes import SparseCodes
from sieve.model.dimensions.labels import LabelFit
from sieve.model.dimensions.leakage import (
    MIN_EITHER,
    MIN_TOGETHER,
    LabelPair,
    PairReport,
    label_pairs,
    pair_reports,
    summarise,
)
from sieve.model.dimensions.statistics import auc_matrix
from sieve.model.exclusion import Calibration

M = 12


def synthetic_codes(leaks: bool) -> tuple[SparseCodes, LabelFit]:
    """Label `a` is dimension 0 and `b` dimension 1; with leakage, `b` is also dimension 2."""
    generator = np.random.default_rng(0)
    has = generator.random((600, 2)) < 0.5
    dense = 0.05 * generator.random((600, M))
    dense[:, :2] = has * generator.uniform(0.5, 1, (600, 2))
    dense[:, 2] = leaks * has[:, 1] * 0.4
    order = np.argsort(-dense, 1)
    codes = SparseCodes.from_active(np.take_along_axis(dense, order, 1), order, M)
    presence = csr_array(has.astype(float))
    train, test = np.arange(400), np.arange(400, 600)
    aucs = [auc_matrix(codes.by_row[rows], presence[rows]) for rows in (train, test)]
    return codes, LabelFit(["a", "b"], *aucs, presence, train, test)


def encode(text: str) -> np.ndarray:
    return np.eye(M, dtype=np.float32)[{"a a": 0, "a b": 1}[text]]


def report_of(
    codes: SparseCodes, fit: LabelFit, encode_text: Callable[[str], np.ndarray]
) -> PairReport:
    (report,) = pair_reports(
        codes,
        fit,
        [LabelPair(0, 1)],
        encode_text,
        lambda _: None,
        Calibration(),
        np.ones(M),
    )
    return report


@pytest.mark.parametrize(("leaks", "low", "high"), [(False, -0.1, 0.35), (True, 0.99, 1.0)])
def test_leakage_measures_what_other_dimensions_predict(
    leaks: bool, low: float, high: float
) -> None:
    codes, fit = synthetic_codes(leaks)
    report = report_of(codes, fit, encode)
    assert (report.wanted, report.unwanted, report.off) == ("a", "b", 1)
    assert report.auc_all > 0.99
    found = summarise([report])
    assert found is not None
    assert low <= found.leakage <= high
    assert found.leakage == pytest.approx((report.auc_off - 0.5) / (report.auc_all - 0.5))


def test_a_is_preserved_if_b_has_separate_dimensions() -> None:
    codes, fit = synthetic_codes(False)
    report = report_of(codes, fit, encode)
    assert (report.ap_on, report.ap_ignored, report.ap_pushed) == pytest.approx((1, 1, 1))


def test_a_is_lost_if_its_dimension_is_switched_off() -> None:
    codes, fit = synthetic_codes(False)

    def encode_mixed(text: str) -> np.ndarray:
        code = np.zeros(M, np.float32)
        code[[0, 1] if text == "a b" else [0, 3]] = (0.9, 0.9) if text == "a b" else (0.5, 0.9)
        return code / np.linalg.norm(code)

    report = report_of(codes, fit, encode_mixed)
    assert report.off == 2
    assert report.ap_pushed < report.ap_on


def test_pairs_require_joint_and_separate_occurrences() -> None:
    generator = np.random.default_rng(1)
    has = generator.random((500, 8)) < generator.uniform(0.05, 0.5, 8)
    has[:, 7] |= has[:, 6]  # 6 is a kind of 7
    presence = csr_array(has.astype(float))
    pairs = label_pairs(presence)
    assert pairs and pairs == label_pairs(presence)
    assert len(set(pairs)) == len(pairs)
    for a, b in pairs:
        both, only = (has[:, a] & has[:, b]).sum(), (has[:, a] & ~has[:, b]).sum()
        assert both >= MIN_EITHER and only >= MIN_EITHER
        assert both >= MIN_TOGETHER * has[:, a].sum()
    assert LabelPair(6, 7) not in pairs
    few = label_pairs(presence, 4)
    assert len({b for _, b in few}) == 4, "each B as rarely as can be"


def test_no_pairs_give_no_report() -> None:
    assert summarise([]) is None
    assert label_pairs(csr_array((50, 3))) == []
