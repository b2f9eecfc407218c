"""Match dimensions to labels: AUC, purity, disentanglement and completeness.

The dimension of a label is chosen on the train split and scored on the test split, because the best
of a thousand dimensions on the same items would be selected partly by chance.

Disentanglement and completeness follow Eastwood & Williams 2018 (*A framework for the quantitative
evaluation of disentangled representations*, ICLR). From importances R (m, l) of dimension j for
label l:

    disentanglement of j = 1 - H_l(R_jl / Σ_l R_jl),   weighted by Σ_l R_jl
    completeness of l    = 1 - H_m(R_jl / Σ_j R_jl),   weighted by Σ_j R_jl

with entropies to the base of the number of labels and of dimensions. Both are 1 if each dimension
matches one label and vice versa, and 0 if importances are uniform. Importances are the weights of
sparse linear probes, like the lasso of the paper. Labels that contain one another (dog and animal)
rightly share dimensions, which keeps disentanglement below 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import csc_array, csr_array
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score
from sklearn.svm import LinearSVC

from sieve.model.codes import columns_of, shape_of
from sieve.model.collection import Collection
from sieve.model.dimensions.naming import word_association
from sieve.model.dimensions.vocabulary import SHARPNESS
from sieve.model.duplicates import evaluation_rows

MIN_ITEMS = 3
"""Minimum number of items with and without a label, in each of the train and test splits."""
N_PURE = 10
"""Number of strongest images that purity is computed on."""
PENALTY = 0.03
"""On Scenes this gives probes of about 30 dimensions without loss of AUC."""


class Disentanglement(NamedTuple):
    """Disentanglement and completeness, per dimension and label, and overall."""

    disentanglement: float
    """Weighted mean over dimensions, in [0, 1]."""
    completeness: float
    """Weighted mean over labels, in [0, 1]."""
    by_dimension: np.ndarray
    """(m,) float64, NaN for a dimension without importance"""
    by_label: np.ndarray
    """(l,) float64, NaN for a label without importance"""


class ProbeImportances(NamedTuple):
    """Importances from sparse linear probes."""

    importances: np.ndarray
    """(m, l) float64, non-negative"""
    auc: np.ndarray
    """(l,) float64: of each probe on held-out items; the informativeness of Eastwood & Williams"""


def disentanglement(importances: np.ndarray) -> Disentanglement:
    """Compute disentanglement and completeness from importances.

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
    """Fit a sparse linear probe (L1, squared hinge) per label, on standardised dimensions.

    Parameters
    ----------
    codes : (n, m) float32
    presence : (n, l) of 0 and 1
        Each label needs items with and without it in both splits.
    train, test : (a,), (b,) int
        Rows to fit on, and rows to score on.
    penalty : float
        L1 penalty per item: 1 / (a C) for the `C` of scikit-learn's `LinearSVC`.
    """
    spread = _standard_deviation(csr_array(codes[train]))
    scale = np.where(spread > 0, 1 / np.maximum(spread, 1e-12), 0)[None, :]
    train_codes, test_codes = (csr_array(codes[rows] * scale) for rows in (train, test))
    train_labels, test_labels = presence[train].toarray(), presence[test].toarray()
    weights, auc = [], []
    for has, has_test in zip(train_labels.T, test_labels.T, strict=True):
        probe = LinearSVC(penalty="l1", C=1 / (penalty * len(train_labels)), random_state=0)
        probe.fit(train_codes, has)
        weights.append(np.abs(probe.coef_[0]))
        auc.append(roc_auc_score(has_test, probe.decision_function(test_codes)))
    return ProbeImportances(np.stack(weights, 1), np.array(auc))


def _concentration(importances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return 1 - normalised entropy of each row, and the sum of each row."""
    total = importances.sum(1)
    shares = importances / np.maximum(total, 1e-30)[:, None]
    entropy = -(shares * np.log(np.maximum(shares, 1e-30))).sum(1)
    count = importances.shape[1]
    score = 1 - entropy / np.log(count) if count > 1 else np.ones(len(importances))
    return np.where(total > 0, np.clip(score, 0, 1), np.nan), total


def _weighted(scores: np.ndarray, weights: np.ndarray) -> float:
    there = ~np.isnan(scores)
    return float(np.average(scores[there], weights=weights[there])) if there.any() else float("nan")


def _standard_deviation(codes: csr_array) -> np.ndarray:
    """Return the standard deviation of each dimension over rows: (m,) float64."""
    n, _ = shape_of(codes)
    mean = np.asarray(codes.sum(0), np.float64).ravel() / max(n, 1)
    squares = np.asarray((codes**2).sum(0), np.float64).ravel() / max(n, 1)
    return np.sqrt(np.maximum(squares - mean**2, 0))


class LabelPresence(NamedTuple):
    """Labels, and the items that have them."""

    labels: list[str]
    presence: csr_array
    """(n, l) float64 of 0 and 1"""


class LabelFit(NamedTuple):
    """AUC of all dimensions for all labels, on train and test items."""

    labels: list[str]
    train_auc: np.ndarray
    """(m, l) float64"""
    test_auc: np.ndarray
    """(m, l) float64"""
    presence: csr_array
    """(n, l) float64 of 0 and 1"""
    train: np.ndarray
    """(a,) int64: rows"""
    test: np.ndarray
    """(b,) int64: rows"""


class BestLabels(NamedTuple):
    """Best label of each dimension; empty if no train item has the dimension."""

    label: np.ndarray
    """(m,) str"""
    label_auc: np.ndarray
    """(m,) float64, on test items"""
    label_purity: np.ndarray
    """(m,) float64, on test items"""


class BestDimensions(NamedTuple):
    """Best dimension of each label, chosen on train items."""

    dimension: np.ndarray
    """(l,) int64"""
    auc: np.ndarray
    """(l,) float64, on test items"""


def label_presence(labels: Sequence[Sequence[str]]) -> LabelPresence:
    """Return the presence matrix of labels, in alphabetical order."""
    names = sorted({label for item in labels for label in item})
    column = {name: at for at, name in enumerate(names)}
    entries = sorted({(row, column[label]) for row, item in enumerate(labels) for label in item})
    rows, columns = np.array(entries, np.int64).reshape(-1, 2).T
    shape = (len(labels), len(names))
    return LabelPresence(names, csr_array((np.ones(len(rows)), (rows, columns)), shape=shape))


def auc_matrix(codes: csr_array, presence: csr_array) -> np.ndarray:
    r"""Return the area under the ROC curve of every dimension for every label.

        AUC = (Σ_{i has l} rank_i - n_l (n_l + 1) / 2) / (n_l (n - n_l))

    the probability that an item with the label has a higher activation than one without, with ties
    counted half (Mann-Whitney). All zeros tie, so only active entries are ranked.

    Parameters
    ----------
    codes : (n, m) float32, non-negative
    presence : (n, l) of 0 and 1

    Returns
    -------
    (m, l) float64 in [0, 1], NaN if no item or every item has the label
    """
    columns = csc_array(codes)
    columns.eliminate_zeros()
    n, m = shape_of(columns)
    n_active = np.diff(columns.indptr)
    zero_rank = (n - n_active + 1) / 2  # the mean rank of the zeros, which come first
    lift = [
        n - len(values) + rankdata(values) - zero_rank[j]
        for j, (_, values) in enumerate(columns_of(columns))
    ]
    parts = (np.concatenate([*lift, np.empty(0)]), columns.indices, columns.indptr)
    lifts = csc_array(parts, shape=(n, m))
    having = np.asarray(presence.sum(0)).ravel()
    ranks = (lifts.T @ presence).toarray() + np.outer(zero_rank, having)
    pairs = having * (n - having)
    return (ranks - having * (having + 1) / 2) / np.where(pairs > 0, pairs, np.nan)


def fit_labels(collection: Collection, codes: csr_array) -> LabelFit | None:
    """Compute the AUC of every dimension for every label that is frequent enough.

    Parameters
    ----------
    collection : Collection
    codes : (n, m) float32
        Of the images.

    Returns
    -------
    LabelFit or None
        None without such a label, or without a train or test split.
    """
    names, presence = label_presence(collection.items["labels"].tolist())
    train, test = (evaluation_rows(collection, split) for split in ("train", "test"))
    enough = np.ones(len(names), bool)
    for rows in (train, test):
        having = np.asarray(presence[rows].sum(0)).ravel()
        enough &= (having >= MIN_ITEMS) & (len(rows) - having >= MIN_ITEMS)
    frequent = np.flatnonzero(enough)
    if not len(frequent):
        return None
    presence = csr_array(presence[:, frequent])
    train_auc, test_auc = (auc_matrix(codes[rows], presence[rows]) for rows in (train, test))
    return LabelFit([names[at] for at in frequent], train_auc, test_auc, presence, train, test)


def best_labels(fit: LabelFit, codes: csr_array) -> BestLabels:
    """Choose the label of each dimension on train items, and score it on test items.

    Labels are chosen like names, by `sieve.model.dimensions.naming.word_association` of cubed
    activations. The highest AUC would favour rare labels by chance.

    Parameters
    ----------
    fit : LabelFit
    codes : (n, m) float32
    """
    sharp = csr_array(codes[fit.train] ** SHARPNESS)
    at = word_association(sharp, csr_array(fit.presence[fit.train])).argmax(1)
    every = np.arange(len(at))
    fires = np.asarray(codes[fit.train].sum(0)).ravel() > 0
    pure = purity(csr_array(codes[fit.test]), csr_array(fit.presence[fit.test]), at)
    return BestLabels(
        np.where(fires, np.array(fit.labels, object)[at], ""),
        np.where(fires, fit.test_auc[every, at], np.nan),
        np.where(fires, pure, np.nan),
    )


def best_dimensions(fit: LabelFit) -> BestDimensions:
    """Choose the dimension of each label by AUC on train items, and score it on test items."""
    chosen = fit.train_auc.argmax(0)
    return BestDimensions(chosen, fit.test_auc[chosen, np.arange(len(chosen))])


def purity(codes: csr_array, presence: csr_array, label: np.ndarray) -> np.ndarray:
    """Return the share of the strongest items of each dimension that have its label.

    Uses the min(10, number of items with the label) strongest items, so that 1 is always possible.

    Parameters
    ----------
    codes : (n, m) float32
    presence : (n, l) of 0 and 1
    label : (m,) int
        Column of the label of each dimension.

    Returns
    -------
    (m,) float64 in [0, 1], NaN if no item has the dimension
    """
    having = [rows for rows, _ in columns_of(presence)]
    shares = np.full(len(label), np.nan)
    for j, (rows, values) in enumerate(columns_of(codes)):
        has = having[label[j]]
        order = np.argsort(-values, kind="stable")[: min(N_PURE, max(len(has), 1))]
        if len(order):
            shares[j] = np.isin(rows[order], has).mean()
    return shares
