"""Classification of the pairs that Sieve ranks worst, by the likely cause.

A pair gets the first of `FAILURE_KINDS` whose rule holds, for the encoder of the first training
seed. The rules need nothing but scores and relevance judgments, so they name a likely cause, not a
proven one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from sieve.model.benchmark.measurement import Measured, answer_of
from sieve.model.benchmark.results import Failure
from sieve.model.evaluation.metrics import measure_rankings
from sieve.model.evaluation.pairs import PairSet
from sieve.model.evaluation.rules import Space

MOST = 50
"""Number of pairs to classify."""
RECOGNISED = 0.8
"""Minimum AUC, of a text for the items that have what it names, and of what exclusion subtracts for
the items with B among those with A."""
FOUND = 0.5
"""Minimum AP@10 of A where nothing is to be excluded."""
BETTER = 0.1
"""Minimum gain in AP@10 by another strength."""
STRENGTHS = (0.0, 0.25, 0.5, 2.0, 4.0)
"""Multiples of the tuned strength that are tried."""


class Facts(NamedTuple):
    """Measurements that the rules of `FAILURE_KINDS` use."""

    silent: float
    """Share of the wrong results without A that the backbone finds at least as similar to A as the
    median item with A."""
    auc_a: float
    """AUC of A's code for the items with A."""
    auc_b: float
    """The same for B."""
    known_a: float
    """AUC of the mean code of other items with A, instead of the text's."""
    known_b: float
    """The same for B."""
    subtracted: float
    """Among items with A, AUC of what exclusion subtracts for the items with B."""
    alone: float
    """AP@10 of A without exclusion, among items without B."""
    gain: float
    """AP@10 at the best of other strengths, minus AP@10."""


FAILURE_KINDS: Mapping[str, tuple[str, Callable[[Facts], bool]]] = {
    "caption silent": (
        "At least half of the wrong results are not said to have A, but by the backbone they are "
        "as similar to A as the median item that is. Labels of scenes are complete, so this is "
        "only asked of captions and query files.",
        lambda facts: facts.silent >= 0.5,
    ),
    "name ambiguous": (
        f"The text of A or B has an AUC below {RECOGNISED} for the items that have it, but the "
        f"mean code of other such items has at least {RECOGNISED}.",
        lambda facts: (
            (facts.auc_a < RECOGNISED <= facts.known_a)
            or (facts.auc_b < RECOGNISED <= facts.known_b)
        ),
    ),
    "B not recognised": (
        f"The text of B has an AUC below {RECOGNISED}, and so has the mean code.",
        lambda facts: facts.auc_b < RECOGNISED,
    ),
    "B absorbed in A": (
        f"B is recognised, but among items with A, what exclusion subtracts has an AUC below "
        f"{RECOGNISED} for the items with B, or nothing is subtracted.",
        lambda facts: facts.subtracted < RECOGNISED,
    ),
    "calibration": (
        "Another strength of exclusion (none, a quarter, half, twice or four times the tuned one) "
        f"has an AP@10 that is higher by at least {BETTER}.",
        lambda facts: facts.gain >= BETTER,
    ),
    "A not recognised": (
        f"The text of A has an AUC below {RECOGNISED}, and so has the mean code; or AP@10 of A is "
        f"below {FOUND} even among items without B, where nothing is to be excluded.",
        lambda facts: facts.auc_a < RECOGNISED or facts.alone < FOUND,
    ),
    "other": ("None of these.", lambda _: True),
}
"""Rules by kind, in the order in which they are applied."""


def sort_failures(
    sieve: Measured,
    codes: Space,
    backbone: Space,
    report: PairSet,
    ids: Sequence[str],
    *,
    is_complete: bool,
) -> tuple[Failure, ...]:
    """Classify the pairs with the lowest AP@10 below 1, worst first.

    `codes` and `backbone` hold the report pairs in the spaces of Sieve's first seed and of the
    backbone, and `ids` those of all items. With `is_complete`, the judgments miss nothing.
    """
    ap, violation = np.array(sieve.result.by_pair), np.array(sieve.result.violation_by_pair)
    worst = [pair for pair in np.lexsort((-violation, ap))[:MOST].tolist() if ap[pair] < 1]
    some = report.subset(worst)
    measured = _facts(sieve, codes.subset(worst), backbone.subset(worst), some, worst)
    failures = []
    for facts, pair in zip(measured, worst, strict=True):
        asked = facts._replace(silent=0.0) if is_complete else facts
        kind = next(kind for kind, (_, holds) in FAILURE_KINDS.items() if holds(asked))
        answer = answer_of(sieve.first[pair], pair, report, ids)
        failures.append(Failure(pair, kind, *answer, asked._asdict()))
    return tuple(failures)


def _facts(
    sieve: Measured, codes: Space, backbone: Space, pairs: PairSet, worst: Sequence[int]
) -> list[Facts]:
    scores, plain = sieve.setting.scores_in(codes), sieve.setting.rule.plain(codes)
    lost = np.where(np.isfinite(scores), plain - scores, np.inf)
    ap = measure_rankings(scores, pairs.relevant).ap
    others = [ap]
    if "push" in sieve.setting.values:
        for strength in STRENGTHS:
            values = {**sieve.setting.values, "push": strength * sieve.setting.values["push"]}
            other = replace(sieve.setting, values=values)
            others.append(measure_rankings(other.scores_in(codes), pairs.relevant).ap)
    gain = np.max(others, axis=0) - ap
    alone = measure_rankings(np.where(pairs.has_b, -np.inf, plain), pairs.relevant).ap
    by_backbone = backbone.score(backbone.a)
    score_a, score_b = codes.score(codes.a), codes.score(codes.b)
    found = []
    for at, pair in enumerate(worst):
        has_a, has_b, top = pairs.has_a[at], pairs.has_b[at], sieve.first[pair]
        top = top[top >= 0]
        wrong = top[~pairs.relevant[at, top]]
        median = np.median(by_backbone[at, has_a]) if has_a.any() else np.inf
        silent = ~has_a[wrong] & (by_backbone[at, wrong] >= median)
        found.append(
            Facts(
                silent=float(silent.mean()) if len(wrong) else 0.0,
                auc_a=_auc(score_a[at], has_a),
                auc_b=_auc(score_b[at], has_b),
                known_a=_auc_of_mean(codes, has_a),
                known_b=_auc_of_mean(codes, has_b),
                subtracted=_auc(lost[at, has_a], has_b[has_a]),
                alone=float(alone[at]),
                gain=float(gain[at]),
            )
        )
    return found


def _auc(scores: np.ndarray, has: np.ndarray) -> float:
    """Return the AUC of scores, (n,) with inf allowed; 0.5 if all or none are positive."""
    from scipy.stats import rankdata

    positive = int(has.sum())
    if not 0 < positive < len(has):
        return 0.5
    rank_sum = rankdata(scores)[has].sum() - positive * (positive + 1) / 2
    return float(rank_sum / (positive * (len(has) - positive)))


def _auc_of_mean(codes: Space, has: np.ndarray) -> float:
    """Return the AUC of the mean code of half of the items for the other half, both ways."""
    half = np.arange(len(has)) % 2 == 0
    scores = np.zeros(len(has))
    for fold in (half, ~half):
        if not 0 < has[fold].sum() < fold.sum():
            return 0.5
        positive, negative = (
            np.asarray(codes.images[np.flatnonzero(fold & mark)].mean(0)).ravel()
            for mark in (has, ~has)
        )
        scores[~fold] = codes.images[np.flatnonzero(~fold)] @ (positive - negative)
    return (_auc(scores[half], has[half]) + _auc(scores[~half], has[~half])) / 2
