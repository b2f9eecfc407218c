"""Tuning: every method draws its knobs by the same number of trials, on tuning pairs alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sieve.model.evaluation import measure_rankings
from sieve.model.evaluation.rules import Rule, Space

Spaces = Mapping[str, Space]
"""Representations that a method may choose among, by name."""


@dataclass(frozen=True)
class Setting:
    """One choice of everything that a method leaves open."""

    rule: Rule
    space: str
    values: Mapping[str, float]

    def knobs(self) -> dict[str, float | str]:
        """Tell it as plain data."""
        return {"rule": self.rule.name, "space": self.space, **self.values}

    def scores(self, spaces: Spaces) -> np.ndarray:
        """(p, n) float32."""
        return self.rule.scores(spaces[self.space], self.values)


class Tuned(NamedTuple):
    """The best of the trials."""

    setting: Setting
    ap: float
    """Mean AP@10 over tuning pairs and seeds."""
    trials: int
    """How many different settings were tried."""


def draw_settings(
    rules: Sequence[Rule], spaces: Sequence[str], trials: int, seed: int
) -> list[Setting]:
    """Draw settings, each rule and space in its turn, each once at its starting values.

    Parameters
    ----------
    rules : sequence of Rule
    spaces : sequence of str
        Names of the spaces that may be chosen.
    trials : int
        Repetitions among them are left out, so that a rule without knobs is tried only once.
    seed : int
    """
    generator = np.random.default_rng(seed)
    turns = [(rule, space) for rule in rules for space in spaces]
    settings: dict[tuple, Setting] = {}
    for trial in range(trials):
        rule, space = turns[trial % len(turns)]
        first = trial < len(turns)
        values = {
            name: knob.start if first else knob.draw(generator) for name, knob in rule.knobs.items()
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
    """Choose the setting with the highest mean AP@10; the earlier one where two tie.

    Parameters
    ----------
    rules : sequence of Rule
    seeds : sequence of mapping of str to Space
        The tuning items and pairs as each training seed represents them.
    relevant : (p, n) bool
    trials : int
    seed : int
    """
    settings = draw_settings(rules, list(seeds[0]), trials, seed)
    found = [
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
    best = int(np.argmax(found))
    return Tuned(settings[best], found[best], len(settings))
