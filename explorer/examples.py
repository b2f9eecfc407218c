"""Example queries that show something on the collection that is open.

A good example names a thing that often comes with another: leaving the other out then changes the
results. Both are read off the captions, so every collection has examples of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from model.words import word_presence

if TYPE_CHECKING:
    from model.engine import Engine

N_EXAMPLES = 5
_SAMPLE = 3000
_WRITTEN = {
    "scenes": (
        ("a dog", "a ball"),
        ("a beach", "an umbrella"),
        ("a car on a street", "a traffic light"),
        ("an animal", "snow"),
        ("fruit in a kitchen", "a cup"),
    )
}


class ExampleQuery(NamedTuple):
    """A query worth trying."""

    q: str
    without: str


def examples(engine: Engine) -> tuple[ExampleQuery, ...]:
    """Choose example queries for a collection; none where it has no captions."""
    written = _WRITTEN.get(engine.collection.name)
    if written:
        return tuple(ExampleQuery(*pair) for pair in written)
    return examples_from_captions(engine.collection.items["captions"].iloc[:_SAMPLE].tolist())


def examples_from_captions(captions: list[list[str]]) -> tuple[ExampleQuery, ...]:
    """Choose pairs (A, B) of words: A frequent, B often and not by chance in A's company.

    Parameters
    ----------
    captions : list of list of str
        Captions of each item.
    """
    found = word_presence(captions, min_items=max(3, len(captions) // 200))
    if not found.words:
        return ()
    n, counts = len(captions), found.counts
    both = (found.presence.T @ found.presence).toarray()
    chosen: list[ExampleQuery] = []
    used: set[int] = set()
    for a in np.argsort(-counts, kind="stable")[:40]:
        share = both[a] / counts[a]
        lift = share * n / counts
        score = np.where((share > 0.1) & (share < 0.6) & (lift > 1.5), lift * share, 0)
        score[[a, *used]] = 0
        b = int(score.argmax())
        if a in used or score[b] <= 0:
            continue
        used |= {int(a), b}
        chosen.append(ExampleQuery(found.words[a], found.words[b]))
        if len(chosen) == N_EXAMPLES:
            break
    return tuple(chosen)
