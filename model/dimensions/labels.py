"""How well single dimensions stand for known labels.

A label's dimension is chosen on train items and scored on test items, so that the best of a
thousand dimensions is not flattered by chance.

How far labels and dimensions stand one for one: disentanglement and completeness.

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


MIN_ITEMS = 3
"""A label counts if so many items have it, and so many lack it, in train and in test."""
N_PURE = 10
"""Strongest images over which purity is taken."""


class LabelPresence(NamedTuple):
    """Which item has which label."""

    labels: list[str]
    presence: csr_array
    """(n, l) float64 of 0 and 1"""


class LabelFit(NamedTuple):
    """How dimensions and labels fit: chosen on train items, scored on test items."""

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
    """The label that each dimension stands for best; nothing where no train item has it."""

    label: np.ndarray
    """(m,) str"""
    label_auc: np.ndarray
    """(m,) float64, on test items"""
    label_purity: np.ndarray
    """(m,) float64, on test items"""


class BestDimensions(NamedTuple):
    """The dimension that stands for each label best: chosen on train items."""

    dimension: np.ndarray
    """(l,) int64"""
    auc: np.ndarray
    """(l,) float64, on test items"""


def label_presence(labels: Sequence[Sequence[str]]) -> LabelPresence:
    """Mark which item has which label, labels in alphabetical order."""
    names = sorted({label for item in labels for label in item})
    place = {name: at for at, name in enumerate(names)}
    entries = sorted({(row, place[label]) for row, item in enumerate(labels) for label in item})
    rows, columns = np.array(entries, np.int64).reshape(-1, 2).T
    shape = (len(labels), len(names))
    return LabelPresence(names, csr_array((np.ones(len(rows)), (rows, columns)), shape=shape))


def auc_matrix(codes: csr_array, presence: csr_array) -> np.ndarray:
    r"""Area under the ROC curve of every dimension for every label.

        AUC = (Σ_{i has l} rank_i - n_l (n_l + 1) / 2) / (n_l (n - n_l))

    the chance that an item with the label has more of the dimension than one without, ties counting
    half (Mann-Whitney). Zeros all tie, so only active entries are ranked.

    Parameters
    ----------
    codes : (n, m) float32, non-negative
    presence : (n, l) of 0 and 1

    Returns
    -------
    (m, l) float64 in [0, 1], NaN where no item or every item has the label
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
    """Fit every dimension to every label that is frequent enough in both splits.

    Parameters
    ----------
    collection : Collection
    codes : (n, m) float32
        Of the images.

    Returns
    -------
    LabelFit or None
        None where there is no such label, or no train or test split.
    """
    names, presence = label_presence(collection.items["labels"].tolist())
    train, test = (evaluation_rows(collection, split) for split in ("train", "test"))
    enough = np.ones(len(names), bool)
    for rows in (train, test):
        having = np.asarray(presence[rows].sum(0)).ravel()
        enough &= (having >= MIN_ITEMS) & (len(rows) - having >= MIN_ITEMS)
    kept = np.flatnonzero(enough)
    if not len(kept):
        return None
    presence = csr_array(presence[:, kept])
    train_auc, test_auc = (auc_matrix(codes[rows], presence[rows]) for rows in (train, test))
    return LabelFit([names[at] for at in kept], train_auc, test_auc, presence, train, test)


def best_labels(fit: LabelFit, codes: csr_array) -> BestLabels:
    """Choose each dimension's label on train items, as names are chosen; score it on test items.

    By association (`sieve.model.dimensions.naming.word_association` of cubed activations): the best
    of all AUCs would favour rare labels, of which some always stands where a dimension happens to
    be strong.

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
    """Choose each label's dimension by its AUC on train items, and score it on test items."""
    chosen = fit.train_auc.argmax(0)
    return BestDimensions(chosen, fit.test_auc[chosen, np.arange(len(chosen))])


def purity(codes: csr_array, presence: csr_array, label: np.ndarray) -> np.ndarray:
    """Share of each dimension's strongest items that have its label.

    Over its min(10, items with the label) strongest items, so that 1 can always be reached.

    Parameters
    ----------
    codes : (n, m) float32
    presence : (n, l) of 0 and 1
    label : (m,) int
        Column of each dimension's label.

    Returns
    -------
    (m,) float64 in [0, 1], NaN where no item has the dimension
    """
    having = [rows for rows, _ in columns_of(presence)]
    found = np.full(len(label), np.nan)
    for j, (rows, values) in enumerate(columns_of(codes)):
        has = having[label[j]]
        order = np.argsort(-values, kind="stable")[: min(N_PURE, max(len(has), 1))]
        if len(order):
            found[j] = np.isin(rows[order], has).mean()
    return found
