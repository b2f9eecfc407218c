r"""Leakage and survival: what remains of B when its dimensions are off, and the cost for A.

For a pair of labels (A, B), the dimensions to switch off are proposed as for "A without B" in a
search.

    leakage  = (AUC_off - ½) / (AUC_all - ½)

with the test AUC of a logistic probe for B on all dimensions, and without those that are off: 0 if
nothing remains of B, 1 if switching off had no effect. Two variants of the second probe exist. The
first is retrained on the remaining dimensions, renormalised because the norm alone would reveal the
removal; it can also use the context of B, such as the beach for an umbrella. The second is the
original probe with those dimensions set to zero.

    survival = AP@10 of A with B's dimensions off / AP@10 of A with every dimension on

where an item is relevant if it has A, with or without B. Above 1 if the dimensions of B were
misleading.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from sieve.model.codes import SparseCodes, shape_of
from sieve.model.dimensions.labels import LabelFit
from sieve.model.exclusion import Calibration, Query, off_weights, propose_off, search

MIN_EITHER = 10
"""Minimum number of test items with A without B, and with both."""
MIN_TOGETHER = 0.15
"""Minimum P(B|A); otherwise there is nothing to exclude."""
N_PAIRS = 40
_TOP = 10


class LabelPair(NamedTuple):
    """Columns of two labels."""

    wanted: int
    """A"""
    unwanted: int
    """B"""


@dataclass(frozen=True)
class PairReport:
    """Measurements of one pair."""

    wanted: str
    unwanted: str
    off: int
    """Number of dimensions that were switched off."""
    auc_all: float
    """AUC of a probe for B on all dimensions."""
    auc_off: float
    """AUC of a probe for B trained without the off dimensions."""
    auc_zeroed: float
    """AUC of the first probe with the off dimensions set to zero."""
    ap_on: float
    """AP@10 of A with every dimension on."""
    ap_ignored: float
    """AP@10 of A with the dimensions of B off at strictness 0 (ignored)."""
    ap_pushed: float
    """AP@10 of A with the dimensions of B off at strictness 1 (pushed away)."""


@dataclass(frozen=True)
class LeakageReport:
    """Means over all pairs; ratios are of means, so that pairs of small values do not dominate."""

    pairs: int
    mean_off: float
    """Mean number of off dimensions."""
    probe_all: float
    """AUC of a probe for B on all dimensions; chance is 0.5."""
    probe_off: float
    """AUC of a probe trained without the off dimensions."""
    probe_zeroed: float
    """AUC of the first probe with the off dimensions set to zero."""
    leakage: float
    """Of the retrained probe."""
    leakage_zeroed: float
    survival_ignored: float
    """Survival at strictness 0."""
    survival_pushed: float
    """Survival at strictness 1."""


def average_precision_at(relevant: np.ndarray, n_relevant: int, top: int = _TOP) -> float:
    r"""Return AP@k = (1 / min(R, k)) Σ_{i ≤ k} P@i · rel_i, in [0, 1].

    Parameters
    ----------
    relevant : (t,) bool
        Of the results, best first.
    n_relevant : int
        R, the number of relevant items.
    """
    hits = np.asarray(relevant[:top], np.float64)
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float((precision * hits).sum() / max(min(n_relevant, top), 1))


def label_pairs(presence: csr_array, count: int = N_PAIRS, seed: int = 0) -> list[LabelPair]:
    """Choose pairs of labels that occur both together and separately.

    Parameters
    ----------
    presence : (n, l) of 0 and 1
        Of the test items.
    count : int
        Maximum number of pairs, drawn at random with each B as rarely as possible.
    seed : int
    """
    both = (presence.T @ presence).toarray()
    having = np.diag(both)
    fits = (both >= MIN_EITHER) & (having[:, None] - both >= MIN_EITHER)
    fits &= both >= MIN_TOGETHER * np.maximum(having, 1)[:, None]
    fits &= having[None, :] - both > 0  # B that always comes with A is a hyponym of A
    np.fill_diagonal(fits, False)
    pairs = np.random.default_rng(seed).permutation(np.argwhere(fits))
    uses: dict[int, int] = {}
    rounds = []
    for _, b in pairs.tolist():
        rounds.append(uses.get(b, 0))
        uses[b] = rounds[-1] + 1
    order = np.argsort(np.array(rounds, np.int64), kind="stable")[:count]
    return [LabelPair(*pairs[at].tolist()) for at in order]


def pair_reports(
    codes: SparseCodes,
    fit: LabelFit,
    pairs: Sequence[LabelPair],
    encode_text: Callable[[str], np.ndarray],
    evidence: Callable[[str], np.ndarray | None],
    calibration: Calibration,
    mean_positive: np.ndarray,
) -> list[PairReport]:
    """Measure leakage and survival of each pair.

    Parameters
    ----------
    codes : SparseCodes
        Of all images.
    fit : LabelFit
        For its splits and presence matrix.
    pairs : sequence of LabelPair
    encode_text : callable
        Returns the code of a text, (m,) float32; called with "a LABEL".
    evidence : callable
        Returns the evidence of each dimension for a text, (m,) float32, or None if there is none.
    calibration : Calibration
    mean_positive : (m,) float32
    """
    probes: dict[int, _Probe] = {}
    label_codes = {
        at: encode_text(f"a {fit.labels[at]}") for at in sorted({x for p in pairs for x in p})
    }
    test_codes = _rows(codes, fit.test)
    reports = []
    for pair in pairs:
        a, b = pair
        proposal = propose_off(
            label_codes[a], label_codes[b], calibration, evidence(f"a {fit.labels[b]}")
        )
        off = proposal.off
        if b not in probes:
            probes[b] = _Probe(codes, fit, b, _Probe.none)
        weights = off_weights(label_codes[a], proposal.weights, off, mean_positive)
        has = np.asarray(fit.presence[fit.test][:, [a]].toarray()).ravel() > 0
        precision = [
            _precision(
                test_codes, has, _query(label_codes[a], off, weights, strictness, calibration)
            )
            for strictness in (None, 0.0, 1.0)
        ]
        full, retrained = probes[b], _Probe(codes, fit, b, off)
        auc = full.auc(), retrained.auc(), full.auc(off)
        names = fit.labels[a], fit.labels[b]
        reports.append(PairReport(*names, len(off), *auc, *precision))
    return reports


def summarise(reports: Sequence[PairReport]) -> LeakageReport | None:
    """Return the means over pairs, or None without pairs."""
    if not reports:
        return None

    def mean(name: str) -> float:
        return float(np.mean([getattr(report, name) for report in reports]))

    on, above_chance = max(mean("ap_on"), 1e-12), max(mean("auc_all") - 0.5, 1e-12)
    return LeakageReport(
        pairs=len(reports),
        mean_off=mean("off"),
        probe_all=mean("auc_all"),
        probe_off=mean("auc_off"),
        probe_zeroed=mean("auc_zeroed"),
        leakage=(mean("auc_off") - 0.5) / above_chance,
        leakage_zeroed=(mean("auc_zeroed") - 0.5) / above_chance,
        survival_ignored=mean("ap_ignored") / on,
        survival_pushed=mean("ap_pushed") / on,
    )


def _query(
    code: np.ndarray,
    off: np.ndarray,
    weights: np.ndarray,
    strictness: float | None,
    calibration: Calibration,
) -> Query:
    """Build the query of A, with every dimension on if `strictness` is None."""
    if strictness is None:
        return Query(code)
    switched = tuple(off.tolist()), tuple(weights.tolist())
    return Query(code, *switched, strictness, calibration=calibration)


def _precision(codes: SparseCodes, has: np.ndarray, query: Query) -> float:
    return average_precision_at(has[search(codes, query, _TOP).rows], int(has.sum()))


class _Probe:
    """A logistic probe for one label, trained on codes without some dimensions."""

    none = np.empty(0, np.int64)

    def __init__(self, codes: SparseCodes, fit: LabelFit, label: int, off: np.ndarray) -> None:
        has = np.asarray(fit.presence[:, [label]].toarray()).ravel()
        self.has = has[fit.test]
        self.codes = _renormalised(_without(csr_array(codes.by_row[fit.test]), off))
        # Codes are short unit vectors: a weak penalty lets the probe use single dimensions.
        self.probe = LogisticRegression(C=100.0, max_iter=300, class_weight="balanced")
        train_codes = _renormalised(_without(csr_array(codes.by_row[fit.train]), off))
        self.probe.fit(train_codes, has[fit.train])

    def auc(self, off: np.ndarray = none) -> float:
        """Return the AUC on test items, with further dimensions set to zero."""
        scores = self.probe.decision_function(_without(self.codes, off))
        return float(roc_auc_score(self.has, scores))


def _without(codes: csr_array, off: np.ndarray) -> csr_array:
    kept = np.ones((1, shape_of(codes)[1]), np.float32)
    kept[0, off] = 0
    return csr_array(codes * kept)


def _renormalised(codes: csr_array) -> csr_array:
    norms = np.sqrt(np.asarray((codes**2).sum(1)).ravel())
    return csr_array(codes / np.maximum(norms, 1e-12)[:, None])


def _rows(codes: SparseCodes, rows: np.ndarray) -> SparseCodes:
    """Return the codes of some rows."""
    part = csr_array(codes.by_row[rows])
    return SparseCodes(part.indptr, part.indices, part.data, codes.m)
