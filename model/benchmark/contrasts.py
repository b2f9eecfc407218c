"""Where Sieve wins and loses most against a peer, pair by pair, with what each found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sieve.model.benchmark.measures import Measured
from sieve.model.benchmark.results import Answer, MethodResult
from sieve.model.questions.pairs import Questions

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
    sieve: Measured | None, peers: Sequence[Measured], report: Questions, ids: Sequence[str]
) -> dict[str, dict[int, Answer]]:
    """Keep the first results of Sieve and each peer for the pairs of their contrast.

    Parameters
    ----------
    sieve : Measured, optional
        Without it there is nothing to compare with.
    peers : sequence of Measured
    report : Questions
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


def _answer(places: np.ndarray, pair: int, report: Questions, ids: Sequence[str]) -> Answer:
    kept = places[places >= 0]
    marks = np.where(report.has_a[pair, kept], np.where(report.has_b[pair, kept], "v", "r"), "n")
    return Answer(tuple(str(ids[row]) for row in report.rows[kept].tolist()), "".join(marks))
