"""Measuring one method: tuned on some pairs, measured once on others, set against Sieve.

Where Sieve wins and loses most against a peer, pair by pair, with what each found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from sieve.model.benchmark.bootstrap import (
    DEPTH,
    Ranking,
    Resampled,
    Resamples,
    interval,
    paired_ratio,
    resample,
)
from sieve.model.benchmark.results import Answer, MethodResult
from sieve.model.benchmark.tuning import Spaces, tune
from sieve.model.evaluation.metrics import TOP, measure_rankings, ranked_rows
from sieve.model.evaluation.pairs import PairSet, TrackPairs
from sieve.model.evaluation.rules import Rule


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
    asked: TrackPairs,
    draws: Resamples,
    trials: int,
) -> Measured:
    """Tune a method on the tuning pairs, and measure it once on the others."""
    tuned = tune(rules, tuning, asked.tuning.relevant, trials)
    report = asked.report
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
        knobs=tuned.setting.knobs(),
        tuning_ap=tuned.ap,
        trials=tuned.trials,
    )
    return Measured(result, resampled, rankings[0].rows[:, :TOP])


def _figures(total: np.ndarray, plain: np.ndarray, report: PairSet) -> dict[str, np.ndarray]:
    """Measure each pair by the scores that exclude B and by A's own, both (p, n): each (p,)."""
    found = measure_rankings(total, report.relevant, report.violating)
    without_b, plain_without_b = (np.where(report.has_b, -np.inf, s) for s in (total, plain))
    return {
        **found._asdict(),
        "plain_ap": measure_rankings(plain, report.has_a).ap,
        "kept_ap": measure_rankings(total, report.has_a).ap,
        "spared_ap": measure_rankings(without_b, report.relevant).ap,
        "spared_plain_ap": measure_rankings(plain_without_b, report.relevant).ap,
    }


SHOWN = 8
"""So many pairs of each kind are kept with their results."""


class Contrast(NamedTuple):
    """Sieve against one peer, over the report pairs."""

    wins: tuple[int, ...]
    """Places of pairs where Sieve's AP@10 is higher, by how much, at most `SHOWN`."""
    losses: tuple[int, ...]
    """Where it is lower."""
    n_wins: int
    """Of all pairs."""
    n_losses: int


def contrast(sieve: MethodResult, peer: MethodResult) -> Contrast:
    """Find the pairs where two methods differ most in AP@10; the earlier pair where two tie."""
    lead = np.round(np.subtract(sieve.by_pair, peer.by_pair), 6)
    order = np.argsort(-lead, kind="stable")
    back = np.argsort(lead, kind="stable")
    return Contrast(
        wins=tuple(order[lead[order] > 0][:SHOWN].tolist()),
        losses=tuple(back[lead[back] < 0][:SHOWN].tolist()),
        n_wins=int((lead > 0).sum()),
        n_losses=int((lead < 0).sum()),
    )


def shown_answers(
    sieve: Measured | None, peers: Sequence[Measured], report: PairSet, ids: Sequence[str]
) -> dict[str, dict[int, Answer]]:
    """Keep the first results of Sieve and each peer for the pairs of their contrast.

    Parameters
    ----------
    sieve : Measured, optional
        Without it there is nothing to compare with.
    peers : sequence of Measured
    report : PairSet
    ids : sequence of str
        Of the collection's items, by row.
    """
    if sieve is None:
        return {}
    found: dict[str, dict[int, Answer]] = {sieve.result.method: {}}
    for peer in peers:
        against = contrast(sieve.result, peer.result)
        pairs = (*against.wins, *against.losses)
        for measured in (sieve, peer):
            kept = found.setdefault(measured.result.method, {})
            kept |= {pair: _answer(measured.first[pair], pair, report, ids) for pair in pairs}
    return {method: dict(sorted(answers.items())) for method, answers in found.items()}


def _answer(places: np.ndarray, pair: int, report: PairSet, ids: Sequence[str]) -> Answer:
    kept = places[places >= 0]
    marks = np.where(report.has_a[pair, kept], np.where(report.has_b[pair, kept], "v", "r"), "n")
    return Answer(tuple(str(ids[row]) for row in report.rows[kept].tolist()), "".join(marks))
