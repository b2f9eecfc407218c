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
import pandas as pd
from scipy.sparse import csr_array
from scipy.sparse.linalg import norm

from sieve.model.codes import SparseCodes, shape_of
from sieve.model.dimensions.labels import LabelFit
from sieve.model.evaluation.metrics import TOP, average_precision
from sieve.model.exclusion import Calibration, Query, off_weights, propose_off, search

MIN_EITHER = 10
"""Minimum number of test items with A without B, and with both."""
MIN_TOGETHER = 0.15
"""Minimum P(B|A); otherwise there is nothing to exclude."""
N_PAIRS = 40


class LabelPair(NamedTuple):
    """Columns of two labels, A and B."""

    wanted: int
    unwanted: int


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
    """Mean of `PairReport.auc_all`, and so on; chance is 0.5."""
    probe_off: float
    probe_zeroed: float
    leakage: float
    """Of the retrained probe."""
    leakage_zeroed: float
    survival_ignored: float
    """Survival at strictness 0."""
    survival_pushed: float
    """Survival at strictness 1."""


def label_pairs(presence: csr_array, count: int = N_PAIRS, seed: int = 0) -> list[LabelPair]:
    """Choose pairs of labels that occur both together and separately.

    `presence` is that of the test items, (n, l) of 0 and 1. At most `count` pairs are drawn at
    random, with each B as rarely as possible.
    """
    both = (presence.T @ presence).toarray()
    having = np.diag(both)
    fits = (both >= MIN_EITHER) & (having[:, None] - both >= MIN_EITHER)
    fits &= both >= MIN_TOGETHER * np.maximum(having, 1)[:, None]
    fits &= having[None, :] - both > 0  # B that always comes with A is a hyponym of A
    np.fill_diagonal(fits, False)
    pairs = np.random.default_rng(seed).permutation(np.argwhere(fits))
    rounds = pd.Series(pairs[:, 1]).groupby(pairs[:, 1]).cumcount().to_numpy()
    order = np.argsort(rounds, kind="stable")[:count]
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

    `codes` are those of all images. `encode_text` returns the code of "a LABEL", (m,) float32, and
    `evidence` that of each dimension for it, (m,) float32, or None without embeddings.
    """
    probes: dict[int, _Probe] = {}
    label_codes = {
        at: encode_text(f"a {fit.labels[at]}") for at in sorted({x for p in pairs for x in p})
    }
    test_codes = codes.take(fit.test)
    reports = []
    for a, b in pairs:
        code = label_codes[a]
        off, without = propose_off(
            code, label_codes[b], calibration, evidence(f"a {fit.labels[b]}")
        )
        weights = off_weights(code, without, off, mean_positive)
        switched = tuple(off.tolist()), tuple(weights.tolist())
        queries = [
            Query(code),
            *(Query(code, *switched, x, calibration=calibration) for x in (0.0, 1.0)),
        ]
        has = fit.presence[fit.test][:, [a]].toarray() > 0
        rankings = np.stack([has[search(test_codes, query, TOP).rows, 0] for query in queries])
        precision = np.nan_to_num(average_precision(rankings, has.sum(0))).tolist()
        if b not in probes:
            probes[b] = _Probe(codes, fit, b)
        full, retrained = probes[b], _Probe(codes, fit, b, off)
        auc = full.auc(), retrained.auc(), full.auc(off)
        reports.append(PairReport(fit.labels[a], fit.labels[b], len(off), *auc, *precision))
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


class _Probe:
    """A logistic probe for one label, trained on codes without some dimensions."""

    def __init__(
        self, codes: SparseCodes, fit: LabelFit, label: int, off: np.ndarray | None = None
    ) -> None:
        from sklearn.linear_model import LogisticRegression

        has = fit.presence[:, [label]].toarray().ravel()
        train, test = (
            _renormalised(_without(csr_array(codes.by_row[rows]), off))
            for rows in (fit.train, fit.test)
        )
        self._test_codes, self._test_has = test, has[fit.test]
        # Codes are short unit vectors: a weak penalty lets the probe use single dimensions.
        self._probe = LogisticRegression(C=100.0, max_iter=300, class_weight="balanced")
        self._probe.fit(train, has[fit.train])

    def auc(self, off: np.ndarray | None = None) -> float:
        """Return the AUC on test items, with further dimensions set to zero."""
        from sklearn.metrics import roc_auc_score

        scores = self._probe.decision_function(_without(self._test_codes, off))
        return float(roc_auc_score(self._test_has, scores))


def _without(codes: csr_array, off: np.ndarray | None) -> csr_array:
    if off is None:
        return codes
    kept = np.ones((1, shape_of(codes)[1]), np.float32)
    kept[0, off] = 0
    return csr_array(codes * kept)


def _renormalised(codes: csr_array) -> csr_array:
    return csr_array(codes / np.maximum(norm(codes, axis=1), 1e-12)[:, None])
