r"""How far labels and dimensions stand one for one: disentanglement and completeness.

After Eastwood & Williams 2018 (*A framework for the quantitative evaluation of disentangled
representations*, ICLR), from importances R (m, l): how much dimension j tells of label l.

    disentanglement of j = 1 - H_l(R_jl / Σ_l R_jl),   weighted by Σ_l R_jl
    completeness of l    = 1 - H_m(R_jl / Σ_j R_jl),   weighted by Σ_j R_jl

with entropies to the base of the number of labels and of dimensions. 1 where each dimension tells
of one label, and each label stands in one dimension; 0 where everything is spread evenly.
Importances are the weights of sparse linear probes, as in the paper's lasso. Labels that contain
one another (dog and animal) share dimensions rightly, and keep disentanglement below 1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array
from sklearn.metrics import roc_auc_score
from sklearn.svm import LinearSVC

from sieve.model.codes import shape_of

PENALTY = 0.03
"""On Scenes: probes of about 30 dimensions that lose nothing in AUC; weaker ones spread noise."""


class Disentanglement(NamedTuple):
    """Both scores, by row and column and over all."""

    disentanglement: float
    """Weighted mean over dimensions, in [0, 1]."""
    completeness: float
    """Weighted mean over labels, in [0, 1]."""
    by_dimension: np.ndarray
    """(m,) float64, NaN where a dimension tells of no label"""
    by_label: np.ndarray
    """(l,) float64, NaN where no dimension tells of a label"""


class ProbeImportances(NamedTuple):
    """What sparse linear probes found."""

    importances: np.ndarray
    """(m, l) float64, non-negative"""
    auc: np.ndarray
    """(l,) float64: of each probe on items that it has not seen; Eastwood's informativeness"""


def disentanglement(importances: np.ndarray) -> Disentanglement:
    """Score how one-to-one dimensions and labels are.

    Parameters
    ----------
    importances : (m, l) float, non-negative
    """
    by_dimension, dimension_weight = _concentration(importances)
    by_label, label_weight = _concentration(importances.T)
    return Disentanglement(
        _weighted(by_dimension, dimension_weight),
        _weighted(by_label, label_weight),
        by_dimension,
        by_label,
    )


def probe_importances(
    codes: csr_array,
    presence: csr_array,
    train: np.ndarray,
    test: np.ndarray,
    penalty: float = PENALTY,
) -> ProbeImportances:
    """Fit one sparse linear probe (L1, squared hinge) a label, on dimensions of equal spread.

    Parameters
    ----------
    codes : (n, m) float32
    presence : (n, l) of 0 and 1
        Each label has items with and without it among both kinds of rows.
    train, test : (a,), (b,) int
        Rows to fit on, and others to score on.
    penalty : float
        Strength of the L1 penalty for each item (1 / (a C) in terms of scikit-learn's `LinearSVC`).
    """
    spread = _spread(csr_array(codes[train]))
    scale = np.where(spread > 0, 1 / np.maximum(spread, 1e-12), 0)[None, :]
    seen, unseen = (csr_array(codes[rows] * scale) for rows in (train, test))
    known, asked = presence[train].toarray(), presence[test].toarray()
    weights, auc = [], []
    for has, has_test in zip(known.T, asked.T, strict=True):
        probe = LinearSVC(penalty="l1", C=1 / (penalty * len(known)), random_state=0)
        probe.fit(seen, has)
        weights.append(np.abs(probe.coef_[0]))
        auc.append(roc_auc_score(has_test, probe.decision_function(unseen)))
    return ProbeImportances(np.stack(weights, 1), np.array(auc))


def _concentration(importances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """1 - entropy of each row's shares, and each row's share of everything."""
    total = importances.sum(1)
    shares = importances / np.maximum(total, 1e-30)[:, None]
    entropy = -(shares * np.log(np.maximum(shares, 1e-30))).sum(1)
    count = importances.shape[1]
    score = 1 - entropy / np.log(count) if count > 1 else np.ones(len(importances))
    return np.where(total > 0, np.clip(score, 0, 1), np.nan), total


def _weighted(scores: np.ndarray, weights: np.ndarray) -> float:
    there = ~np.isnan(scores)
    return float(np.average(scores[there], weights=weights[there])) if there.any() else float("nan")


def _spread(codes: csr_array) -> np.ndarray:
    """Take each dimension's standard deviation over rows: (m,) float64."""
    n, _ = shape_of(codes)
    mean = np.asarray(codes.sum(0), np.float64).ravel() / max(n, 1)
    squares = np.asarray((codes**2).sum(0), np.float64).ravel() / max(n, 1)
    return np.sqrt(np.maximum(squares - mean**2, 0))
