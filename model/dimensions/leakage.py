r"""What is left of B when its dimensions are off, and what that costs A.

For a pair of labels (A, B), "A without B" proposes dimensions to switch off, as the explorer does.

    leakage  = (AUC_off - ½) / (AUC_all - ½)

with the AUC, on test items, of a logistic probe for B over all dimensions, and of one without those
that are off: 0 where nothing is left of B, 1 where switching hid nothing. The second probe is
either trained anew on what is left, renormalised, since a code's length alone would tell that
something was taken away (what the code still tells: B's surroundings too, and rightly so, for a
probe can guess an umbrella by the beach), or it is the first one with those dimensions zeroed (what
B's usual reader still sees).

    survival = AP@10 of A with B's dimensions off / AP@10 of A with every dimension on

where an item is right if it has A, whether or not it has B. Above 1 where B's dimensions misled.
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
"""A pair counts if so many test items have A without B, and so many have both."""
MIN_TOGETHER = 0.15
"""… and if at least this share of A's have B: what is never together needs no excluding."""
N_PAIRS = 40
_TOP = 10


class Pair(NamedTuple):
    """Columns of two labels."""

    wanted: int
    """A"""
    unwanted: int
    """B"""


@dataclass(frozen=True)
class PairReport:
    """What one pair shows."""

    wanted: str
    unwanted: str
    off: int
    """How many dimensions were proposed and switched off."""
    auc_all: float
    """Of a probe for B on all dimensions."""
    auc_off: float
    """Of a probe for B that was trained without those that are off."""
    auc_zeroed: float
    """Of the probe on all dimensions, where those that are off are zeroed for it."""
    ap_on: float
    """A's AP@10 with every dimension on."""
    ap_ignored: float
    """A's AP@10 with B's dimensions off at strictness 0: they are ignored."""
    ap_pushed: float
    """A's AP@10 with B's dimensions off at strictness 1: they push away."""


@dataclass(frozen=True)
class LeakageReport:
    """Over all pairs; ratios are of means, so that a pair of small numbers does not rule."""

    pairs: int
    mean_off: float
    """Dimensions off, on average."""
    probe_all: float
    """AUC of a probe for B on all dimensions; chance is ½."""
    probe_off: float
    """Of a probe trained without B's dimensions."""
    probe_zeroed: float
    """Of the first probe with B's dimensions zeroed."""
    leakage: float
    """Of the probe trained anew."""
    leakage_zeroed: float
    survival_ignored: float
    """AP@10 of A kept at strictness 0."""
    survival_pushed: float
    """AP@10 of A kept at strictness 1."""


def average_precision_at(relevant: np.ndarray, n_relevant: int, top: int = _TOP) -> float:
    r"""AP@k = (1 / min(R, k)) Σ_{i ≤ k} P@i · rel_i, in [0, 1].

    Parameters
    ----------
    relevant : (t,) bool
        Of the results, best first.
    n_relevant : int
        R, how many relevant items there are.
    """
    hits = np.asarray(relevant[:top], np.float64)
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float((precision * hits).sum() / max(min(n_relevant, top), 1))


def label_pairs(presence: csr_array, count: int = N_PAIRS, seed: int = 0) -> list[Pair]:
    """Choose pairs of labels that are seen together and apart.

    Parameters
    ----------
    presence : (n, l) of 0 and 1
        Of the test items.
    count : int
        So many at most, drawn at random; each B as rarely as can be.
    seed : int
    """
    both = (presence.T @ presence).toarray()
    having = np.diag(both)
    fits = (both >= MIN_EITHER) & (having[:, None] - both >= MIN_EITHER)
    fits &= both >= MIN_TOGETHER * np.maximum(having, 1)[:, None]
    fits &= having[None, :] - both > 0  # B that is always A is A's own kind
    np.fill_diagonal(fits, False)
    pairs = np.random.default_rng(seed).permutation(np.argwhere(fits))
    seen: dict[int, int] = {}
    turns = []
    for _, b in pairs.tolist():
        turns.append(seen.get(b, 0))
        seen[b] = turns[-1] + 1
    order = np.argsort(np.array(turns, np.int64), kind="stable")[:count]
    return [Pair(*pairs[at].tolist()) for at in order]


def pair_reports(
    codes: SparseCodes,
    fit: LabelFit,
    pairs: Sequence[Pair],
    encode_text: Callable[[str], np.ndarray],
    calibration: Calibration,
    mean_positive: np.ndarray,
) -> list[PairReport]:
    """Measure each pair.

    Parameters
    ----------
    codes : SparseCodes
        Of all images.
    fit : LabelFit
        Its splits and presences are used.
    pairs : sequence of Pair
    encode_text : callable
        A text's code, (m,) float32; labels are asked for as "a LABEL".
    calibration : Calibration
    mean_positive : (m,) float32
    """
    probes: dict[int, _Probe] = {}
    asked = {at: encode_text(f"a {fit.labels[at]}") for at in sorted({x for p in pairs for x in p})}
    test_codes = _rows(codes, fit.test)
    found = []
    for pair in pairs:
        a, b = pair
        off = propose_off(asked[a], asked[b], calibration)
        if b not in probes:
            probes[b] = _Probe(codes, fit, b, _Probe.none)
        weights = off_weights(asked[a], asked[b], off, mean_positive)
        has = np.asarray(fit.presence[fit.test][:, [a]].toarray()).ravel() > 0
        precision = [
            _precision(test_codes, has, _query(asked[a], off, weights, strictness, calibration))
            for strictness in (None, 0.0, 1.0)
        ]
        everything, anew = probes[b], _Probe(codes, fit, b, off)
        auc = everything.auc(), anew.auc(), everything.auc(off)
        names = fit.labels[a], fit.labels[b]
        found.append(PairReport(*names, len(off), *auc, *precision))
    return found


def summarise(reports: Sequence[PairReport]) -> LeakageReport | None:
    """Take the means over pairs; None where there is no pair."""
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
    """A's query, with every dimension on where `strictness` is None."""
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
        seen = _renormalised(_without(csr_array(codes.by_row[fit.train]), off))
        self.probe.fit(seen, has[fit.train])

    def auc(self, off: np.ndarray = none) -> float:
        """Score it on test items, with further dimensions zeroed."""
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
    """Codes of some rows only."""
    part = csr_array(codes.by_row[rows])
    return SparseCodes(part.indptr, part.indices, part.data, codes.m)
