"""A track's results as plain data, and back: what is read comes from a file, so it is checked.

Whatever is not as it was told raises one of the errors that wrong data raises by itself (KeyError,
TypeError and their like); who reads a file makes one line of them.
"""

from __future__ import annotations

import math
import re
from typing import Any

from sieve.model.benchmark.bootstrap import Interval
from sieve.model.benchmark.results import (
    TOLD_METHOD,
    TOLD_SAME_RULE,
    Answer,
    MethodResult,
    PairCount,
    TrackResult,
)
from sieve.model.questions import PairLaw

_TEXTS = {"method"}
_INTERVALS = {"ci", "ratio_ci", "violation_ci", "gap_closed_ci", "same_rule_ratio_ci"}
_MAYBE = {"ratio", "ratio_ci", "gap_closed", "gap_closed_ci", "spread", "recall", *TOLD_SAME_RULE}


def tell_track(track: TrackResult) -> dict[str, Any]:
    """Tell a track with all its pairs."""
    told = track.as_json()
    for entry, method in zip(told["methods"], track.methods, strict=True):
        entry["by_pair"] = [round(value, 4) for value in method.by_pair]
        entry["violation_by_pair"] = [round(value, 4) for value in method.violation_by_pair]
    return told | {
        "asked": [pair._asdict() for pair in track.asked],
        "answers": {
            method: {str(pair): [*answer] for pair, answer in answers.items()}
            for method, answers in track.answers.items()
        },
    }


def read_track(entry: dict[str, Any]) -> TrackResult:
    """Read what `tell_track` told."""
    asked = tuple(
        PairCount(
            read_text(one["a"]),
            read_text(one["b"]),
            read_whole(one["relevant"]),
            read_whole(one["violating"]),
        )
        for one in entry["asked"]
    )
    tuning = entry["tuning"]
    return TrackResult(
        track=read_text(entry["track"]),
        asked=asked,
        items=read_whole(entry["items"]),
        tuning_pairs=read_whole(tuning["pairs"]),
        tuning_items=read_whole(tuning["items"]),
        tuning_law=PairLaw(**tuning["law"]),
        methods=tuple(_method(one, len(asked)) for one in entry["methods"]),
        variants=tuple(_method(one, 0) for one in entry["variants"]),
        dropped={
            read_text(split): read_whole(count) for split, count in entry.get("dropped", {}).items()
        },
        answers={
            read_text(method): {
                _pair(pair, len(asked)): _answer(one) for pair, one in answers.items()
            }
            for method, answers in entry["answers"].items()
        },
    )


def _method(entry: dict[str, Any], n_pairs: int) -> MethodResult:
    values: dict[str, Any] = {
        field: _field(told, entry[told]) for told, field in TOLD_METHOD.items()
    }
    values |= {told: _field(told, entry[told]) for told in TOLD_SAME_RULE if told in entry}
    for name in ("by_pair", "violation_by_pair"):
        values[name] = tuple(map(read_number, entry.get(name, ())))
        if len(values[name]) != n_pairs:
            raise TypeError(f"{name} has {len(values[name])} numbers for {n_pairs} pairs")
    return MethodResult(**values)


def _field(told: str, value: Any) -> Any:
    """Read one of a method's figures."""
    if value is None:
        if told in _MAYBE:
            return None
        raise TypeError(f"{told} is missing")
    if told in _TEXTS:
        return read_text(value)
    if told in _INTERVALS:
        low, high = value
        return Interval(read_number(low), read_number(high))
    if told == "seeds_ap@10":
        return tuple(map(read_number, value))
    if told == "knobs":
        return {read_text(name): one if isinstance(one, str) else read_number(one)
                for name, one in value.items()}  # fmt: skip
    return read_numbers(value) if told == "recall" else read_number(value)


def _answer(entry: list[Any]) -> Answer:
    items, marks = entry
    if not set(read_text(marks)) <= set("rvn") or len(items) != len(marks):
        raise TypeError("marks do not fit the items")
    for item in items:
        if not re.fullmatch(r"[0-9a-f]{16}", read_text(item)):
            raise TypeError("an item has no id")
    return Answer(tuple(items), marks)


def _pair(place: str, n_pairs: int) -> int:
    if not (place.isdecimal() and len(place) < 9 and int(place) < n_pairs):
        raise TypeError(f"{place!r:.20} is no pair")
    return int(place)


def read_numbers(entry: dict[str, Any]) -> dict[str, float]:
    """Read numbers by name."""
    return {read_text(name): read_number(value) for name, value in entry.items()}


def read_number(value: Any) -> float:
    """Read a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"{value!r:.20} is no number")
    return value


def read_whole(value: Any) -> int:
    """Read a whole number."""
    if not isinstance(value, int):
        raise TypeError(f"{value!r:.20} is no whole number")
    return int(read_number(value))


def read_text(value: Any) -> str:
    """Read a text of a sensible length."""
    if not isinstance(value, str) or len(value) > 1000:
        raise TypeError(f"{value!r:.20} is no text")
    return value
