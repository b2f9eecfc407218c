"""Random search: every method samples its hyperparameters in the same number of trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sieve.model.evaluation import measure_rankings
from sieve.model.evaluation.rules import Rule, Space

Spaces = Mapping[str, Space]
"""Alternative representations of a method, by name."""


@dataclass(frozen=True)
class Setting:
    """A rule, a space and hyperparameter values."""

    rule: Rule
    space: str
    values: Mapping[str, float]

    def hyperparameters(self) -> dict[str, float | str]:
        """Return the setting as plain data."""
        return {"rule": self.rule.name, "space": self.space, **self.values}

    def scores(self, spaces: Spaces) -> np.ndarray:
        """Return the scores of all items for each pair: (p, n) float32."""
        return self.rule.scores(spaces[self.space], self.values)


class Tuned(NamedTuple):
    """The best setting."""

    setting: Setting
    ap: float
    """Mean AP@10 over tuning pairs and seeds."""
    trials: int
    """Number of distinct settings tried."""


def draw_settings(
    rules: Sequence[Rule], spaces: Sequence[str], trials: int, seed: int
) -> list[Setting]:
    """Sample settings round-robin over rules and spaces; the first round has the start values.

    Parameters
    ----------
    rules : sequence of Rule
    spaces : sequence of str
        Names of the spaces.
    trials : int
        Number of samples; duplicates are dropped, so a rule without hyperparameters is tried once.
    seed : int
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
        key = (rule.name, space, tuple(values.items()))
        settings.setdefault(key, Setting(rule, space, values))
    return list(settings.values())


def tune(
    rules: Sequence[Rule],
    seeds: Sequence[Spaces],
    relevant: np.ndarray,
    trials: int,
    seed: int = 0,
) -> Tuned:
    """Return the setting with the highest mean AP@10; ties go to the earlier one.

    Parameters
    ----------
    rules : sequence of Rule
    seeds : sequence of mapping of str to Space
        Tuning items and pairs in the spaces of each training seed.
    relevant : (p, n) bool
    trials : int
    seed : int
    """
    settings = draw_settings(rules, list(seeds[0]), trials, seed)
    aps = [
        float(
            np.mean(
                [
                    np.nanmean(measure_rankings(setting.scores(spaces), relevant).ap)
                    for spaces in seeds
                ]
            )
        )
        for setting in settings
    ]
    best = int(np.argmax(aps))
    return Tuned(settings[best], aps[best], len(settings))
