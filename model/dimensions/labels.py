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

The dimension of a label is absorbed by that of a special case (animal by dog) if it is inactive on
dogs: Chanin et al. 2024, arXiv 2409.14507.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from sieve.model.codes import columns_of, shape_of
from sieve.model.collection import Collection
from sieve.model.dimensions.statistics import SHARPNESS, auc_matrix, word_association
from sieve.model.duplicates import evaluation_rows

MIN_ITEMS = 3
"""Minimum number of items with and without a label, in each of the train and test splits."""
N_PURE = 10
"""Number of strongest images that purity is computed on."""
ABSORBED_AUC = 0.9
"""Minimum AUC of the dimensions of two labels whose absorption is measured."""
PENALTY = 0.03
"""L1 penalty of a probe per item: 1 / (a C) for a items and the `C` of scikit-learn's `LinearSVC`.
On Scenes this gives probes of about 30 dimensions without loss of AUC."""


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


def label_presence(labels: Sequence[Sequence[str]]) -> tuple[list[str], csr_array]:
    """Return all labels in alphabetical order, and which items have them: (n, l) float64."""
    from sklearn.preprocessing import MultiLabelBinarizer

    binarizer = MultiLabelBinarizer(sparse_output=True)
    presence = csr_array(binarizer.fit_transform(labels), dtype=np.float64)
    presence.sort_indices()
    return binarizer.classes_.tolist(), presence


def fit_labels(collection: Collection, codes: csr_array) -> LabelFit | None:
    """Compute the AUC of every dimension for every label that is frequent enough.

    `codes` are those of the images, (n, m). Returns None without such a label, or without a train
    or test split.
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


def best_labels(fit: LabelFit, codes: csr_array) -> dict[str, np.ndarray]:
    """Choose the label of each dimension on train items, and score it on test items.

    Labels are chosen like names, by `sieve.model.dimensions.statistics.word_association` of cubed
    activations. The highest AUC would favour rare labels by chance. Returns label, (m,) str, empty
    if no train item has the dimension, and label_auc and label_purity, (m,) float64.
    """
    sharp = csr_array(codes[fit.train] ** SHARPNESS)
    at = word_association(sharp, csr_array(fit.presence[fit.train])).argmax(1)
    fires = np.asarray(codes[fit.train].sum(0)).ravel() > 0
    pure = purity(csr_array(codes[fit.test]), csr_array(fit.presence[fit.test]), at)
    return {
        "label": np.where(fires, np.array(fit.labels, object)[at], ""),
        "label_auc": np.where(fires, fit.test_auc[np.arange(len(at)), at], np.nan),
        "label_purity": np.where(fires, pure, np.nan),
    }


def best_dimensions(fit: LabelFit) -> tuple[np.ndarray, np.ndarray]:
    """Choose the dimension of each label by AUC on train items: (l,) int64, its test AUC (l,)."""
    chosen = fit.train_auc.argmax(0)
    return chosen, fit.test_auc[chosen, np.arange(len(chosen))]


class Absorption(NamedTuple):
    """How often the dimension of a label is inactive where that of a special case is active."""

    pairs: int
    """Pairs of a label and a special case of it, with different dimensions."""
    rate: float
    """Mean over pairs of the share of the test items with the special case."""


def absorption(fit: LabelFit, codes: csr_array) -> Absorption | None:
    """Compute the absorption of labels whose dimensions reach `ABSORBED_AUC` on train items.

    A label is a special case of another if all its train items have the other label too, and at
    most half of the other's items have it. Returns None if there is no such pair.
    """
    chosen = fit.train_auc.argmax(0)
    known = fit.train_auc.max(0) >= ABSORBED_AUC
    train, test = (csr_array(fit.presence[rows]) for rows in (fit.train, fit.test))
    both = (train.T @ train).toarray()
    count = both.diagonal()
    special = (both == count[None, :]) & (
        count[None, :] <= count[:, None] / 2
    )  # [general, special]
    special &= known[:, None] & known[None, :] & (chosen[:, None] != chosen[None, :])
    active = csr_array(codes[fit.test])[:, chosen].toarray() > 0
    rates = []
    for general, narrow in np.argwhere(special).tolist():
        rows = test[:, [narrow]].nonzero()[0]
        rates.append((active[rows, narrow] & ~active[rows, general]).mean())
    return Absorption(len(rates), float(np.mean(rates))) if rates else None


def purity(codes: csr_array, presence: csr_array, label: np.ndarray) -> np.ndarray:
    """Return the share of the strongest items of each dimension that have its label.

    Uses the min(10, number of items with the label) strongest items, so that 1 is always possible.
    (n, m) codes, (n, l) of 0 and 1, (m,) column of the label of each dimension → (m,) float64, NaN
    if no item has the dimension.
    """
    having = [rows for rows, _ in columns_of(presence)]
    shares = np.full(len(label), np.nan)
    for j, (rows, values) in enumerate(columns_of(codes)):
        has = having[label[j]]
        order = np.argsort(-values, kind="stable")[: min(N_PURE, max(len(has), 1))]
        if len(order):
            shares[j] = np.isin(rows[order], has).mean()
    return shares


class Disentanglement(NamedTuple):
    """Disentanglement and completeness, overall, and per dimension and label."""

    disentanglement: float
    """Weighted mean over dimensions, in [0, 1]."""
    completeness: float
    """Weighted mean over labels, in [0, 1]."""
    by_dimension: np.ndarray
    """(m,) float64, NaN for a dimension without importance"""
    by_label: np.ndarray
    """(l,) float64, NaN for a label without importance"""


def disentanglement(importances: np.ndarray) -> Disentanglement:
    """Compute disentanglement and completeness from importances, (m, l) and non-negative."""
    overall, single = zip(*map(_concentration, (importances, importances.T)), strict=True)
    return Disentanglement(*overall, *single)


def _concentration(importances: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the weighted mean of 1 - normalised entropy of each row, and that of each row."""
    total = importances.sum(1)
    there = total > 0
    shares = importances / np.maximum(total, 1e-30)[:, None]
    entropy = -(shares * np.log(np.maximum(shares, 1e-30))).sum(1)
    count = importances.shape[1]
    score = 1 - entropy / np.log(count) if count > 1 else np.ones(len(importances))
    rows = np.where(there, np.clip(score, 0, 1), np.nan)
    mean = np.average(rows[there], weights=total[there]) if there.any() else np.nan
    return float(mean), rows


def probe_importances(
    codes: csr_array, presence: csr_array, train: np.ndarray, test: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Fit a sparse linear probe (L1, squared hinge) per label, on standardised dimensions.

    (n, m) codes, (n, l) of 0 and 1, rows to fit on, rows to score on → (m, l) importances,
    non-negative, and the AUC of each probe, (l,): the informativeness of Eastwood & Williams. Each
    label needs items with and without it among both.
    """
    from sklearn.metrics import roc_auc_score
    from sklearn.svm import LinearSVC

    spread = _standard_deviation(csr_array(codes[train]))
    scale = np.where(spread > 0, 1 / np.maximum(spread, 1e-12), 0)[None, :]
    train_codes, test_codes = (csr_array(codes[rows] * scale) for rows in (train, test))
    train_labels, test_labels = presence[train].toarray(), presence[test].toarray()
    weights, auc = [], []
    for has, has_test in zip(train_labels.T, test_labels.T, strict=True):
        probe = LinearSVC(penalty="l1", C=1 / (PENALTY * len(train_labels)), random_state=0)
        probe.fit(train_codes, has)
        weights.append(np.abs(probe.coef_[0]))
        auc.append(roc_auc_score(has_test, probe.decision_function(test_codes)))
    return np.stack(weights, 1), np.array(auc)


def _standard_deviation(codes: csr_array) -> np.ndarray:
    """Return the standard deviation of each dimension over rows: (m,) float64."""
    n, _ = shape_of(codes)
    mean = np.asarray(codes.sum(0), np.float64).ravel() / max(n, 1)
    squares = np.asarray((codes**2).sum(0), np.float64).ravel() / max(n, 1)
    return np.sqrt(np.maximum(squares - mean**2, 0))
