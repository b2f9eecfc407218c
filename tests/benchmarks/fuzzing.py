"""Fuzz everything that takes external input: the explorer's handlers and all parsers.

    python -m tests.benchmarks.fuzzing --minutes 10 --seed 0 [--what api|parsers]

Hypothesis mutates valid inputs at random (`tests.benchmarks.random_inputs`). A handler passes if it
answers in strict JSON, with a result or a one-line error: no status 500, no traceback in the answer
or the log, no generic "failed" message. A parser passes if it reads the input, or raises an error
that the command line reports in one line. The same seed gives the same inputs; their number depends
on the time.
"""

from __future__ import annotations

import argparse
import json
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st

ROUND = 40
"""Number of inputs that one target gets in each round."""
_KEPT = 40


class Target(NamedTuple):
    """A handler or parser of external input."""

    name: str
    inputs: st.SearchStrategy[Any]
    run: Callable[[Any], str]
    """Returns the outcome in a few words; raises, or returns `FAULT…`, on a failure."""


FAULT = "fault: "
_USER_ERRORS = (ValueError, OSError)
"""Errors that the command line reports in one line."""


class Report:
    """Number of outcomes by target, and the inputs that caused a failure."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = {}
        self.faults: dict[str, str] = {}

    def add(self, target: Target, value: Any) -> None:
        """Run a target on one input."""
        counted = self.counts.setdefault(target.name, Counter())
        try:
            ended = target.run(value)
        except Exception as error:  # any unexpected error is a finding
            frames = traceback.extract_tb(error.__traceback__)
            frames_text = " < ".join(
                f"{one.filename.rsplit('/', 1)[-1]}:{one.lineno}" for one in frames[:-4:-1]
            )
            ended = f"{FAULT}{type(error).__name__}: {str(error)[:160]} at {frames_text}"
        if ended.startswith(FAULT):
            known = f"{target.name}: {ended.removeprefix(FAULT)}"[:400]
            if known not in self.faults and len(self.faults) < _KEPT:
                self.faults[known] = repr(value)[:400]
            ended = "fault"
        counted[ended] += 1

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain data."""
        total: Counter[str] = sum(self.counts.values(), Counter())
        return {
            "inputs": total.total(),
            "faults": total["fault"],
            "ended": dict(total),
            "targets": {name: dict(counted) for name, counted in self.counts.items()},
            "broken": self.faults,
        }


def fuzz(targets: list[Target], minutes: float, first_seed: int) -> Report:
    """Run inputs round by round until the time limit."""
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


def outcome(read: Callable[[Any], object]) -> Callable[[Any], str]:
    """Wrap a parser so that it returns its outcome: read, rejected with one line, or a fault."""

    def run(value: Any) -> str:
        try:
            read(value)
        except _USER_ERRORS as error:
            line = " ".join(str(error).split())
            return "refused" if line else f"{FAULT}{type(error).__name__} has no message"
        return "read"

    return run


def file_outcome(path: Path, read: Callable[[Path], object]) -> Callable[[bytes], str]:
    """Wrap a parser of files: write the bytes to `path`, then parse it."""
    path.parent.mkdir(parents=True, exist_ok=True)

    def read_written(data: bytes) -> object:
        path.write_bytes(data)
        return read(path)

    return outcome(read_written)


def main() -> None:
    """Run the targets and print the outcomes and failures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--what", choices=("api", "parsers"), help="default: both, with half the time each"
    )
    parser.add_argument("--only", default="", help="only targets whose name contains this")
    parser.add_argument("--port", type=int, default=8960)
    given_ = parser.parse_args()
    # Imported here: both import all of Sieve.
    from tests.benchmarks.fuzzing_api import running_targets
    from tests.benchmarks.fuzzing_parsers import parser_targets

    kinds = [given_.what] if given_.what else ["parsers", "api"]
    reports = {}
    for kind in kinds:
        opened = parser_targets() if kind == "parsers" else running_targets(given_.port)
        with opened as targets:
            chosen = [target for target in targets if given_.only in target.name]
            reports[kind] = fuzz(chosen, given_.minutes / len(kinds), given_.seed).as_json()
    print(json.dumps({"seed": given_.seed, "minutes": given_.minutes, **reports}, indent=1))


if __name__ == "__main__":
    main()
