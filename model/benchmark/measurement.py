"""Tune, measure and compare methods, with bootstrap intervals.

Every method samples its hyperparameters in the same number of trials (random search).

Each bootstrap resample draws the items with replacement and, independently, the A-words with
replacement; an A-word brings all its pairs. All methods share the resamples. Rankings need not be
recomputed: an item drawn twice counts twice at its rank, and one that is not drawn is skipped. This
is exact as long as the first `DEPTH` ranks still fill the top ten, which fails about once in 10⁹
resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from sieve.model.benchmark.methods import Spaces
from sieve.model.benchmark.results import Answer, ConfidenceInterval, MethodResult
from sieve.model.evaluation.metrics import (
    TOP,
    marks_of,
    measure_rankings,
    ranked_rows,
)
from sieve.model.evaluation.pairs import PairSet, TrackPairs
from sieve.model.evaluation.rules import Rule, Space

DEPTH = 40
"""Ranks of each ranking that resamples use."""
SHOWN = 8
"""Number of largest wins and of largest losses whose answers are stored."""


@dataclass(frozen=True)
class Setting:
    """A rule, a space and hyperparameter values."""

    rule: Rule
    space: str
    values: Mapping[str, float]

    def scores(self, spaces: Spaces) -> np.ndarray:
        """Return the scores of all items for each pair: (p, n) float32."""
        return self.scores_in(spaces[self.space])

    def scores_in(self, space: Space) -> np.ndarray:
        """Return the scores in a given space: (p, n) float32."""
        return self.rule.scores(space, self.values)


class Tuned(NamedTuple):
    """The best setting."""

    setting: Setting
    ap: float
    """Mean AP@10 over tuning pairs and seeds."""
    trials: int
    """Number of distinct settings tried."""


def draw_settings(
    rules: Sequence[Rule], spaces: Sequence[str], trials: int, seed: int = 0
) -> list[Setting]:
    """Sample settings round-robin over rules and spaces; the first round has the start values.

    Duplicates are dropped, so a rule without hyperparameters is tried once.
    """
    generator = np.random.default_rng(seed)
    combinations = [(rule, space) for rule in rules for space in spaces]
    settings: dict[tuple, Setting] = {}
    for trial in range(trials):
        rule, space = combinations[trial % len(combinations)]
        first = trial < len(combinations)
        values = {
            name: range_.start if first else range_.draw(generator)
            for name, range_ in rule.hyperparameters.items()
        }
        settings.setdefault((rule.name, space, *values.items()), Setting(rule, space, values))
    return list(settings.values())


def tune(
    rules: Sequence[Rule], seeds: Sequence[Spaces], relevant: np.ndarray, trials: int
) -> Tuned:
    """Return the setting with the highest mean AP@10; ties go to the earlier one.

    `seeds` has the tuning items and pairs in the spaces of each training seed; `relevant` is (p, n)
    bool.
    """
    settings = draw_settings(rules, list(seeds[0]), trials)
    aps = [
        np.mean([np.nanmean(measure_rankings(one.scores(spaces), relevant).ap) for spaces in seeds])
        for one in settings
    ]
    best = int(np.argmax(aps))
    return Tuned(settings[best], float(aps[best]), len(settings))


class Resamples(NamedTuple):
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
    """Draw items, and the A-words of the pairs, with replacement."""
    generator = np.random.default_rng([seed, 2])
    names, which = np.unique(np.asarray(a_names), return_inverse=True)
    items, words = (
        generator.multinomial(n, np.full(n, 1 / n), size=count) for n in (n_items, len(names))
    )
    return Resamples(items.astype(np.int16), words[:, which].astype(np.float32))


def resample(
    rankings: Sequence[np.ndarray], relevant: np.ndarray, violating: np.ndarray, draws: Resamples
) -> Resampled:
    """Measure the rankings of a method in every resample.

    `rankings` has the best rows of all pairs for each training seed, (p, DEPTH) int64, padded with
    -1; the judgments are (p, n) bool. A pair without relevant drawn items does not count in that
    resample.
    """
    total = draws.items.astype(np.float32) @ relevant.T.astype(np.float32)  # (r, p)
    weights = np.where(total > 0, draws.pairs, 0)
    means = np.zeros((2, len(rankings), len(draws.items)))
    for s, rows in enumerate(rankings):
        good, bad = marks_of(rows, relevant), marks_of(rows, violating)
        for r, drawn in enumerate(draws.items):
            ap, violation = _redrawn(rows, drawn, good, bad, total[r])
            whole = max(weights[r].sum(), 1)
            means[0, s, r] = (weights[r] * np.nan_to_num(ap)).sum() / whole
            means[1, s, r] = (weights[r] * violation).sum() / whole
    return Resampled(*means.mean(1))


def _redrawn(
    rows: np.ndarray, drawn: np.ndarray, good: np.ndarray, bad: np.ndarray, total: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return AP@10 and violation@10 after repeating and skipping items: two (p,) float.

    An item with c copies takes c successive ranks. If it is relevant, and h of the f results before
    it were, then its ranks t = f + 1 … f + c add Σ (h + t - f) / t = c + (h - f) Σ 1/t to the
    average precision, so ranks need not be listed one by one.
    """
    copies = np.where(rows >= 0, drawn[np.maximum(rows, 0)], np.int16(0))
    last = np.minimum(copies.cumsum(1, dtype=np.int16), np.int16(TOP))
    deep = np.flatnonzero((last < TOP).any(0))
    depth = min(deep[-1] + 2, last.shape[1]) if len(deep) else 1  # the ranks that matter
    last, good, bad = last[:, :depth], good[:, :depth], bad[:, :depth]
    first = np.pad(last, ((0, 0), (1, 0)))[:, :-1]
    taken = last - first
    hits = taken * good
    before = hits.cumsum(1) - hits
    gained = (hits + good * (before - first) * (_HARMONIC[last] - _HARMONIC[first])).sum(1)
    with np.errstate(invalid="ignore"):
        ap = gained / np.minimum(total, TOP)
    return ap, (taken * bad).sum(1) / TOP


_HARMONIC = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, TOP + 1))])
"""Σ 1/t over t ≤ n, for n = 0 … TOP."""


def interval(values: np.ndarray, measured: float, most: float = np.inf) -> ConfidenceInterval:
    """Return the middle 95% of resampled values, centred on the measured value.

    Copies of an item are adjacent in a ranking, which slightly raises average precision in every
    resample, for every method; centring removes this shift. The measured value is always inside.
    If `most`, the largest possible value, is finite, the smallest possible value is 0.
    """
    low, high = np.quantile(values, [0.025, 0.975]) - values.mean() + measured
    least = 0.0 if np.isfinite(most) else -np.inf
    return ConfidenceInterval(
        max(min(float(low), measured), least), min(max(float(high), measured), most)
    )


def paired_ratio(of: Resampled, over: Resampled, measured: float) -> ConfidenceInterval:
    """Return the interval of a ratio of AP@10 over shared resamples, in log space."""
    logs = np.log(np.maximum(of.ap, 1e-9)) - np.log(np.maximum(over.ap, 1e-9))
    low, high = np.exp(interval(logs, float(np.log(max(measured, 1e-9)))))
    return ConfidenceInterval(float(low), float(high))


@dataclass(frozen=True)
class Measured:
    """Result of a method, and its means in every resample."""

    result: MethodResult
    resampled: Resampled
    first: np.ndarray
    """(p, 10) int64: top ten of the first seed, as indices of test items, padded with -1"""
    setting: Setting
    """Rule, space and hyperparameters that tuning selected."""

    def against(self, sieve: Measured | None, same_rule: Measured | None) -> MethodResult:
        """Add the comparison with Sieve, over the same resamples."""
        result = self.result
        if sieve is not None:
            ratio, ratio_ci = self._ratio(sieve)
            gap = (sieve.result.ap - result.ap) / max(1 - result.ap, 1e-12)
            room = np.maximum(1 - self.resampled.ap, 1e-12)
            gap_ci = interval((sieve.resampled.ap - self.resampled.ap) / room, gap)
            result = replace(result, ratio=ratio, ratio_ci=ratio_ci, gap=gap, gap_ci=gap_ci)
        if same_rule is not None:
            ratio, ratio_ci = self._ratio(same_rule)
            result = replace(result, same_rule_ratio=ratio, same_rule_ratio_ci=ratio_ci)
        return result

    def _ratio(self, sieve: Measured) -> tuple[float, ConfidenceInterval]:
        ratio = sieve.result.ap / max(self.result.ap, 1e-12)
        return ratio, paired_ratio(sieve.resampled, self.resampled, ratio)


def measure(
    name: str,
    rules: Sequence[Rule],
    tuning: Sequence[Spaces],
    final: Sequence[Spaces],
    pairs: TrackPairs,
    draws: Resamples,
    trials: int,
) -> Measured:
    """Tune a method on the tuning pairs, and measure it once on the report pairs.

    `tuning` and `final` hold the spaces of each training seed.
    """
    setting, tuning_ap, n_tried = tune(rules, tuning, pairs.tuning.relevant, trials)
    report = pairs.report
    rankings, figures = [], []
    for spaces in final:
        total, plain = setting.scores(spaces), setting.rule.plain(spaces[setting.space])
        rankings.append(ranked_rows(total, DEPTH))
        figures.append(_figures(total, plain, report))
    means = [{name: float(np.nanmean(v)) for name, v in one.items()} for one in figures]
    mean: dict[str, Any] = {name: float(np.mean([one[name] for one in means])) for name in means[0]}
    by_seed = tuple(one["ap"] for one in means)
    by_pair, violation_by_pair = (
        tuple(np.mean([one[name] for one in figures], axis=0).tolist())
        for name in ("ap", "violation")
    )
    resampled = resample(rankings, report.relevant, report.violating, draws)
    result = MethodResult(
        method=name,
        **mean,
        ci=interval(resampled.ap, mean["ap"], 1.0),
        violation_ci=interval(resampled.violation, mean["violation"], 1.0),
        by_seed=by_seed,
        by_pair=by_pair,
        violation_by_pair=violation_by_pair,
        spread=float(np.std(by_seed, ddof=1)) if len(by_seed) > 1 else None,
        hyperparameters={"rule": setting.rule.name, "space": setting.space, **setting.values},
        tuning_ap=tuning_ap,
        trials=n_tried,
    )
    return Measured(result, resampled, rankings[0][:, :TOP], setting)


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


def measure_wordings(
    measured: Measured, spaces_of: Mapping[str, Sequence[Spaces]], relevant: np.ndarray
) -> MethodResult:
    """Add AP@10 of the same pairs in other words, with the same hyperparameters.

    `spaces_of` has the spaces of each training seed by wording; `relevant` is (p, n) bool.
    """
    ap = {
        wording: float(
            np.mean(
                [
                    np.nanmean(measure_rankings(measured.setting.scores(one), relevant).ap)
                    for one in spaces
                ]
            )
        )
        for wording, spaces in spaces_of.items()
    }
    return replace(measured.result, wordings=ap)


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
    wins, losses = np.argsort(-lead, kind="stable"), np.argsort(lead, kind="stable")
    wins, losses = wins[lead[wins] > 0].tolist(), losses[lead[losses] < 0].tolist()
    return Contrast(tuple(wins[:SHOWN]), tuple(losses[:SHOWN]), len(wins), len(losses))


def contrast_answers(
    sieve: Measured | None, baselines: Sequence[Measured], report: PairSet, ids: Sequence[str]
) -> dict[str, dict[int, Answer]]:
    """Return the top results of Sieve and each baseline for the pairs of their contrast.

    `ids` are those of all items of the collection. Without Sieve, the result is empty.
    """
    if sieve is None:
        return {}
    found: dict[str, dict[int, Answer]] = {sieve.result.method: {}}
    for baseline in baselines:
        difference = contrast(sieve.result, baseline.result)
        pairs = (*difference.wins, *difference.losses)
        for measured in (sieve, baseline):
            answers = found.setdefault(measured.result.method, {})
            answers |= {pair: answer_of(measured.first[pair], pair, report, ids) for pair in pairs}
    return {method: dict(sorted(answers.items())) for method, answers in found.items()}


def answer_of(top: np.ndarray, pair: int, report: PairSet, ids: Sequence[str]) -> Answer:
    """Return the top results of one pair, (t,) indices of test items, by their ids."""
    items = top[top >= 0]
    marks = np.where(report.has_a[pair, items], np.where(report.has_b[pair, items], "v", "r"), "n")
    return Answer(tuple(str(ids[row]) for row in report.rows[items].tolist()), "".join(marks))
