"""Measuring one method: tuned on some pairs, measured once on others, set against Sieve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from model.benchmark.bootstrap import (
    DEPTH,
    Ranking,
    Resampled,
    Resamples,
    interval,
    paired_ratio,
    resample,
)
from model.benchmark.results import MethodResult
from model.benchmark.tuning import Spaces, tune
from model.questions.pairs import TrackQuestions
from model.questions.ranking import TOP, measure_rankings, ranked_rows
from model.questions.rules import Rule


@dataclass(frozen=True)
class Measured:
    """A method's result, and its means in every resample."""

    result: MethodResult
    resampled: Resampled
    first: np.ndarray
    """(p, 10) int64: places among the test items of the first seed's results, -1 for none"""

    def against(self, sieve: Measured | None, same_rule: Measured | None) -> MethodResult:
        """Add how Sieve compares, in the same resamples."""
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
    asked: TrackQuestions,
    draws: Resamples,
    trials: int,
) -> Measured:
    """Tune a method on the tuning pairs, and measure it once on the others."""
    tuned = tune(rules, tuning, asked.tuning.relevant, trials)
    report = asked.report
    relevant, violating = report.relevant, report.violating
    rankings, figures, by_pair, violations = [], [], [], []
    for spaces in final:
        total = tuned.setting.scores(spaces)
        rankings.append(Ranking(ranked_rows(total, DEPTH)))
        found = measure_rankings(total, relevant, violating)
        by_pair.append(found.ap)
        violations.append(found.violation)
        space = spaces[tuned.setting.space]
        plain = measure_rankings(tuned.setting.rule.plain(space), report.has_a)
        kept = measure_rankings(total, report.has_a)
        measures = (found.ap, found.precision, found.violation, found.ndcg, plain.ap, kept.ap)
        figures.append([float(np.nanmean(measure)) for measure in measures])
    ap, precision, violation, ndcg, plain_ap, kept_ap = np.mean(figures, axis=0).tolist()
    by_seed = tuple(figure[0] for figure in figures)
    resampled = resample(rankings, relevant, violating, draws)
    result = MethodResult(
        method=name,
        ap=ap,
        ci=interval(resampled.ap, ap, 1.0),
        precision=precision,
        violation=violation,
        violation_ci=interval(resampled.violation, violation, 1.0),
        ndcg=ndcg,
        plain_ap=plain_ap,
        kept_ap=kept_ap,
        by_seed=by_seed,
        by_pair=tuple(np.mean(by_pair, axis=0).tolist()),
        violation_by_pair=tuple(np.mean(violations, axis=0).tolist()),
        spread=float(np.std(by_seed, ddof=1)) if len(by_seed) > 1 else None,
        knobs=tuned.setting.knobs(),
        tuning_ap=tuned.ap,
        trials=tuned.trials,
    )
    return Measured(result, resampled, rankings[0].rows[:, :TOP])
