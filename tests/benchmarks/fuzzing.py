"""Random input for everything that strangers can reach: the explorer's handlers and all parsers.

    python -m tests.benchmarks.fuzzing --minutes 10 --seed 0 [--what api|parsers]

Inputs begin as the real ones and are changed at random (`tests.benchmarks.junk`, by hypothesis).
A handler holds where it answers, in strict JSON, with a result or one line that names the fault:
no status of 500, no traceback in the answer, on the terminal or in the log, no answer that says
only that Sieve failed. A parser holds where it reads, or raises what the command line tells in one
line. The same seed gives the same inputs; how many there are depends on the time.
"""

from __future__ import annotations

import argparse
import json
import time
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st

ROUND = 40
"""Inputs of one target before the next has its turn."""
_KEPT = 40


class Target(NamedTuple):
    """Something that reads what anybody may have written."""

    name: str
    inputs: st.SearchStrategy[Any]
    ask: Callable[[Any], str]
    """Returns how it ended, in a word; raises, or returns `FAULT…`, where it broke."""


FAULT = "fault: "


class Report:
    """What was tried, and what broke."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = {}
        self.faults: dict[str, str] = {}

    def add(self, target: Target, value: Any) -> None:
        """Try one input."""
        counted = self.counts.setdefault(target.name, Counter())
        try:
            ended = target.ask(value)
        except Exception as error:  # whatever it is, it is what is looked for
            frames = traceback.extract_tb(error.__traceback__)
            where = " < ".join(
                f"{one.filename.rsplit('/', 1)[-1]}:{one.lineno}" for one in frames[:-4:-1]
            )
            ended = f"{FAULT}{type(error).__name__}: {str(error)[:160]} at {where}"
        if ended.startswith(FAULT):
            known = f"{target.name}: {ended.removeprefix(FAULT)}"[:400]
            if known not in self.faults and len(self.faults) < _KEPT:
                self.faults[known] = repr(value)[:400]
            ended = "fault"
        counted[ended] += 1

    def told(self) -> dict[str, Any]:
        """Everything, as JSON."""
        total: Counter[str] = sum(self.counts.values(), Counter())
        return {
            "inputs": total.total(),
            "faults": total["fault"],
            "ended": dict(total),
            "targets": {name: dict(counted) for name, counted in self.counts.items()},
            "broken": self.faults,
        }


def fuzz(targets: list[Target], minutes: float, first_seed: int) -> Report:
    """Try inputs, round by round, until the time is over."""
    report, until, turn = Report(), time.monotonic() + 60 * minutes, 0
    while time.monotonic() < until:
        for target in targets:
            if time.monotonic() >= until:
                break
            _round(target, report, first_seed + turn)
        turn += 1
    return report


def _round(target: Target, report: Report, number: int) -> None:
    @seed(number)
    @settings(
        max_examples=ROUND,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )
    @given(target.inputs)
    def one_round(value: Any) -> None:
        report.add(target, value)

    one_round()


def main() -> None:
    """Try, and print what was tried and what broke."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--what", choices=("api", "parsers"), help="by default both, half the time each"
    )
    parser.add_argument("--only", default="", help="targets with this in their name")
    parser.add_argument("--port", type=int, default=8960)
    given_ = parser.parse_args()
    # Not before: both import all of Sieve.
    from tests.benchmarks.fuzzing_api import running_targets
    from tests.benchmarks.fuzzing_parsers import parser_targets

    kinds = [given_.what] if given_.what else ["parsers", "api"]
    told = {}
    for kind in kinds:
        opened = parser_targets() if kind == "parsers" else running_targets(given_.port)
        with opened as targets:
            chosen = [target for target in targets if given_.only in target.name]
            told[kind] = fuzz(chosen, given_.minutes / len(kinds), given_.seed).told()
    print(json.dumps({"seed": given_.seed, "minutes": given_.minutes, **told}, indent=1))


if __name__ == "__main__":
    main()
