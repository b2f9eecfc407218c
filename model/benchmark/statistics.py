"""Measure and compare methods: bootstrap intervals, ratios to Sieve, and the largest differences.

Each bootstrap resample draws the items with replacement and, independently, the A-words with
replacement; an A-word brings all its pairs. All methods share the resamples. Rankings need not be
recomputed: an item drawn twice counts twice at its rank, and one that is not drawn is skipped. This
is exact as long as the first `DEPTH` ranks still fill the top ten, which fails about once in 10⁹
resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from sieve.model.benchmark.results import Answer, ConfidenceInterval, MethodResult
from sieve.model.benchmark.tuning import Spaces, tune
from sieve.model.evaluation.metrics import (
    TOP,
    average_precision,
    marks_of,
    measure_rankings,
    ranked_rows,
)
from sieve.model.evaluation.pairs import PairSet, TrackPairs
from sieve.model.evaluation.rules import Rule

DEPTH = 40
"""Ranks of each ranking that resamples use."""
SHOWN = 8
"""Number of largest wins and of largest losses whose answers are stored."""


class Ranking(NamedTuple):
    """Rankings of all pairs by one method and one training seed."""

    rows: np.ndarray
    """(p, DEPTH) int64, padded with -1"""


@dataclass(frozen=True)
class Resamples:
    """Bootstrap draws, shared by all methods."""

    items: np.ndarray
    """(r, n) int16: number of draws of each item"""
    pairs: np.ndarray
    """(r, p) float32: weight of each pair, the number of draws of its A-word"""


class Resampled(NamedTuple):
    """Means of a method over pairs and seeds in each resample."""

    ap: np.ndarray
    """(r,) float64"""
    violation: np.ndarray
    """(r,) float64"""


def draw_resamples(a_names: Sequence[str], n_items: int, count: int, seed: int) -> Resamples:
    """Draw items and A-words with replacement.

    Parameters
    ----------
    a_names : sequence of str
        A of each pair.
    n_items : int
    count : int
    seed : int
    """
    generator = np.random.default_rng([seed, 2])
    names, which = np.unique(np.asarray(a_names), return_inverse=True)
    even = np.full(n_items, 1 / n_items)
    items = generator.multinomial(n_items, even, size=count).astype(np.int16)
    words = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=count)
    return Resamples(items, words[:, which].astype(np.float32))


def resample(
    rankings: Sequence[Ranking],
    relevant: np.ndarray,
    violating: np.ndarray,
    draws: Resamples,
) -> Resampled:
    """Measure the rankings of a method in every resample.

    Parameters
    ----------
    rankings : sequence of Ranking
        One per training seed.
    relevant, violating : (p, n) bool
    draws : Resamples

    Returns
    -------
    Resampled
        A pair without relevant drawn items does not count in that resample.
    """
    total = draws.items.astype(np.float32) @ relevant.T.astype(np.float32)  # (r, p)
    weights = np.where(total > 0, draws.pairs, 0)
    means = np.zeros((2, len(rankings), len(draws.items)))
    for s, ranking in enumerate(rankings):
        good, bad = marks_of(ranking.rows, relevant), marks_of(ranking.rows, violating)
        for r, drawn in enumerate(draws.items):
            hits, broken = _redrawn(ranking.rows, drawn, good, bad)
            ap = np.nan_to_num(average_precision(hits, total[r]))
            whole = max(weights[r].sum(), 1)
            means[0, s, r] = (weights[r] * ap).sum() / whole
            means[1, s, r] = (weights[r] * broken.sum(1)).sum() / whole / TOP
    return Resampled(*means.mean(1))


def interval(values: np.ndarray, measured: float, most: float = np.inf) -> ConfidenceInterval:
    """Return the middle 95% of resampled values, centred on the measured value.

    Copies of an item are adjacent in a ranking, which slightly raises average precision in every
    resample, for every method; centring removes this shift.

    Parameters
    ----------
    values : (r,) float
    measured : float
        Always inside the interval.
    most : float
        Largest possible value; if finite, the smallest possible value is 0.
    """
    low, high = np.quantile(values, [0.025, 0.975]) - values.mean() + measured
    low, high = min(float(low), measured), max(float(high), measured)
    return (
        ConfidenceInterval(max(low, 0.0), min(high, most))
        if np.isfinite(most)
        else ConfidenceInterval(low, high)
    )


def paired_ratio(of: Resampled, over: Resampled, measured: float) -> ConfidenceInterval:
    """Return the interval of a ratio of AP@10 over shared resamples, in log space."""
    logs = np.log(np.maximum(of.ap, 1e-9)) - np.log(np.maximum(over.ap, 1e-9))
    low, high = np.exp(interval(logs, float(np.log(max(measured, 1e-9)))))
    return ConfidenceInterval(float(low), float(high))


def _redrawn(
    rows: np.ndarray, drawn: np.ndarray, good: np.ndarray, bad: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mark the top ten after repeating and skipping items: two (p, 10) bool."""
    last = np.where(rows >= 0, drawn[np.maximum(rows, 0)], 0).cumsum(1, dtype=np.int16)
    # Rank t holds the first item whose cumulative copies reach t.
    index = (last[:, :, None] < np.arange(1, TOP + 1, dtype=np.int16)).sum(1)  # (p, TOP)
    filled = index < rows.shape[1]
    index = np.minimum(index, rows.shape[1] - 1)
    hits = np.take_along_axis(good, index, 1) & filled
    return hits, np.take_along_axis(bad, index, 1) & filled


@dataclass(frozen=True)
class Measured:
    """Result of a method, and its means in every resample."""

    result: MethodResult
    resampled: Resampled
    first: np.ndarray
    """(p, 10) int64: top ten of the first seed, as indices of test items, padded with -1"""

    def against(self, sieve: Measured | None, same_rule: Measured | None) -> MethodResult:
        """Add the comparison with Sieve, over the same resamples."""
        result = self.result
        if sieve is not None:
            ratio = sieve.result.ap / max(result.ap, 1e-12)
            gap = (sieve.result.ap - result.ap) / max(1 - result.ap, 1e-12)
            room = np.maximum(1 - self.resampled.ap, 1e-12)
            gaps = (sieve.resampled.ap - self.resampled.ap) / room
            result = replace(
                result,
                ratio=ratio,
                ratio_ci=paired_ratio(sieve.resampled, self.resampled, ratio),
                gap=gap,
                gap_ci=interval(gaps, gap),
            )
        if same_rule is not None:
            ratio = same_rule.result.ap / max(result.ap, 1e-12)
            result = replace(
                result,
                same_rule_ratio=ratio,
                same_rule_ratio_ci=paired_ratio(same_rule.resampled, self.resampled, ratio),
            )
        return result


def measure(
    name: str,
    rules: Sequence[Rule],
    tuning: Sequence[Spaces],
    final: Sequence[Spaces],
    pairs: TrackPairs,
    draws: Resamples,
    trials: int,
) -> Measured:
    """Tune a method on the tuning pairs, and measure it once on the report pairs."""
    tuned = tune(rules, tuning, pairs.tuning.relevant, trials)
    report = pairs.report
    rankings, by_pair, violations, means = [], [], [], []
    for spaces in final:
        total = tuned.setting.scores(spaces)
        plain = tuned.setting.rule.plain(spaces[tuned.setting.space])
        rankings.append(Ranking(ranked_rows(total, DEPTH)))
        figures = _figures(total, plain, report)
        by_pair.append(figures["ap"])
        violations.append(figures["violation"])
        means.append({name: float(np.nanmean(values)) for name, values in figures.items()})
    mean = {name: float(np.mean([one[name] for one in means])) for name in means[0]}
    by_seed = tuple(one["ap"] for one in means)
    resampled = resample(rankings, report.relevant, report.violating, draws)
    result = MethodResult(
        method=name,
        ap=mean["ap"],
        ci=interval(resampled.ap, mean["ap"], 1.0),
        precision=mean["precision"],
        violation=mean["violation"],
        violation_ci=interval(resampled.violation, mean["violation"], 1.0),
        ndcg=mean["ndcg"],
        plain_ap=mean["plain_ap"],
        kept_ap=mean["kept_ap"],
        spared_ap=mean["spared_ap"],
        spared_plain_ap=mean["spared_plain_ap"],
        by_seed=by_seed,
        by_pair=tuple(np.mean(by_pair, axis=0).tolist()),
        violation_by_pair=tuple(np.mean(violations, axis=0).tolist()),
        spread=float(np.std(by_seed, ddof=1)) if len(by_seed) > 1 else None,
        hyperparameters=tuned.setting.hyperparameters(),
        tuning_ap=tuned.ap,
        trials=tuned.trials,
    )
    return Measured(result, resampled, rankings[0].rows[:, :TOP])


def _figures(total: np.ndarray, plain: np.ndarray, report: PairSet) -> dict[str, np.ndarray]:
    """Measure each pair with scores that exclude B and with those of A, both (p, n): (p,) each."""
    found = measure_rankings(total, report.relevant, report.violating)
    without_b, plain_without_b = (np.where(report.has_b, -np.inf, s) for s in (total, plain))
    return {
        **found._asdict(),
        "plain_ap": measure_rankings(plain, report.has_a).ap,
        "kept_ap": measure_rankings(total, report.has_a).ap,
        "spared_ap": measure_rankings(without_b, report.relevant).ap,
        "spared_plain_ap": measure_rankings(plain_without_b, report.relevant).ap,
    }


class Contrast(NamedTuple):
    """Sieve against one baseline, over the report pairs."""

    wins: tuple[int, ...]
    """Indices of pairs where Sieve has the higher AP@10, largest lead first, at most `SHOWN`."""
    losses: tuple[int, ...]
    """The same where it is lower."""
    n_wins: int
    """Of all pairs."""
    n_losses: int


def contrast(sieve: MethodResult, baseline: MethodResult) -> Contrast:
    """Return the pairs with the largest differences in AP@10; ties go to the earlier pair."""
    lead = np.round(np.subtract(sieve.by_pair, baseline.by_pair), 6)
    order = np.argsort(-lead, kind="stable")
    back = np.argsort(lead, kind="stable")
    return Contrast(
        wins=tuple(order[lead[order] > 0][:SHOWN].tolist()),
        losses=tuple(back[lead[back] < 0][:SHOWN].tolist()),
        n_wins=int((lead > 0).sum()),
        n_losses=int((lead < 0).sum()),
    )


def contrast_answers(
    sieve: Measured | None, baselines: Sequence[Measured], report: PairSet, ids: Sequence[str]
) -> dict[str, dict[int, Answer]]:
    """Return the top results of Sieve and each baseline for the pairs of their contrast.

    Parameters
    ----------
    sieve : Measured, optional
        If None, the result is empty.
    baselines : sequence of Measured
    report : PairSet
    ids : sequence of str
        Ids of the items of the collection.
    """
    if sieve is None:
        return {}
    found: dict[str, dict[int, Answer]] = {sieve.result.method: {}}
    for baseline in baselines:
        difference = contrast(sieve.result, baseline.result)
        pairs = (*difference.wins, *difference.losses)
        for measured in (sieve, baseline):
            answers = found.setdefault(measured.result.method, {})
            answers |= {pair: _answer(measured.first[pair], pair, report, ids) for pair in pairs}
    return {method: dict(sorted(answers.items())) for method, answers in found.items()}


def _answer(top: np.ndarray, pair: int, report: PairSet, ids: Sequence[str]) -> Answer:
    items = top[top >= 0]
    marks = np.where(report.has_a[pair, items], np.where(report.has_b[pair, items], "v", "r"), "n")
    return Answer(tuple(str(ids[row]) for row in report.rows[items].tolist()), "".join(marks))
