"""What the Benchmark tab asks, answered as JSON."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sieve.data_prep.bundled import collection_word
from sieve.explorer.benchmark.chart import track_figure
from sieve.explorer.benchmark.report import dropped_text, verdicts
from sieve.explorer.benchmark.runs import Runs
from sieve.explorer.jobs.folder import DONE, UNDER_WAY
from sieve.explorer.jobs.lane import Lane
from sieve.explorer.json_fields import check_choice, read_object, read_text, refuse_unknown
from sieve.model.benchmark import contrast, list_evaluations, read_evaluation

if TYPE_CHECKING:
    from sieve.model.benchmark import Evaluation, Glance, MethodResult, TrackResult
    from sieve.model.checkpoint import Checkpoint
    from sieve.model.collection import Collection

SIEVE = "Sieve"
_MARKS = {"r": "fits", "v": "both", "n": "neither"}


class EvaluationDesk:
    """Answers the page's questions about evaluations of one collection.

    Parameters
    ----------
    collection : Collection
    checkpoint : Checkpoint
        The one that is open, which a quick run measures.
    device : str
        Where a quick run embeds.
    lane : Lane, optional
        Where it runs, shared with trainings; without it none can be run, and nothing of this
        machine's folders is told.
    text_encoder : str
        What a quick run embeds with in place of the collection's backbone, where a person named it.
    """

    def __init__(
        self,
        collection: Collection,
        checkpoint: Checkpoint,
        device: str = "auto",
        lane: Lane | None = None,
        text_encoder: str = "",
    ) -> None:
        self.collection = collection
        self.checkpoint = checkpoint
        self._runs = Runs(collection, device, lane, text_encoder) if lane else None

    def evaluations(self, _: Any) -> dict[str, Any]:
        """List the evaluations of this collection, newest first, and how a quick one stands."""
        found, faults = list_evaluations(self.collection.sha256)
        told: dict[str, Any] = {
            "evaluations": list(map(self._glance, found)),
            "collection": self.collection.name,
            "checkpoint": self.checkpoint.path.name,
        }
        if self._runs is None:
            return told
        command = f"sieve evaluate {shlex.quote(collection_word(self.collection.path))}"
        return told | {"faults": faults, "command": command, **_run_view(self._runs)}

    def evaluation(self, payload: Any) -> dict[str, Any]:
        """Tell everything about one evaluation but what was found for single pairs."""
        given = read_object(payload, "an evaluation")
        refuse_unknown(given, {"id"}, "an evaluation")
        evaluation = self._find(given.get("id"))
        return {
            **self._glance(evaluation.glance),
            "tracks": list(map(_track_view, evaluation.tracks)),
        }

    def evaluation_pairs(self, payload: Any) -> dict[str, Any]:
        """Tell the pairs where Sieve wins and loses most against a peer, with what both found."""
        given = read_object(payload, "a peer")
        refuse_unknown(given, {"id", "track", "peer"}, "a peer")
        evaluation = self._find(given.get("id"))
        track = _named(evaluation.tracks, "track", given.get("track"))
        peer = _named(track.methods, "method", given.get("peer"))
        sieve = _named(track.methods, "method", SIEVE)
        against = contrast(sieve, peer)
        return {
            "wins": [self._pair(track, sieve, peer, pair) for pair in against.wins],
            "losses": [self._pair(track, sieve, peer, pair) for pair in against.losses],
            "n_wins": against.n_wins,
            "n_losses": against.n_losses,
            "pairs": track.pairs,
            "seeds": len(evaluation.glance.seeds),
        }

    def evaluation_start(self, _: Any) -> dict[str, Any]:
        """Start a quick evaluation of the checkpoint that is open."""
        self._needed().start(Path(self.checkpoint.path).absolute())
        return self.evaluations(None)

    def evaluation_stop(self, _: Any) -> dict[str, Any]:
        """Ask the quick evaluation to stop."""
        self._needed().stop()
        return self.evaluations(None)

    def _needed(self) -> Runs:
        if self._runs is None:
            raise ValueError("nothing can be run on this page")
        return self._runs

    def _find(self, wanted: Any) -> Evaluation:
        """Find an evaluation by its id; the id never becomes part of a path."""
        name = read_text("id", wanted)
        for glance in list_evaluations(self.collection.sha256)[0]:
            if glance.id == name:
                return read_evaluation(glance.path)
        raise ValueError(f"there is no evaluation {name[:80]!r} of this collection")

    def _glance(self, glance: Glance) -> dict[str, Any]:
        measured = glance.checkpoint
        return {
            "id": glance.id,
            "made": glance.made,
            "checkpoint": measured.name if measured else "",
            "is_open": measured is not None and measured.sha256 == self.checkpoint.sha256,
            "train": glance.train.name,
            "seeds": len(glance.seeds),
            "short": glance.is_short,
            "names": list(glance.track_names),
        }

    def _pair(
        self, track: TrackResult, sieve: MethodResult, peer: MethodResult, pair: int
    ) -> dict[str, Any]:
        asked = track.asked[pair]
        return {
            "pair": pair,
            "a": asked.a,
            "b": asked.b,
            "relevant": asked.relevant,
            "violating": asked.violating,
            "sides": [
                {
                    "method": method.method,
                    "ap": method.by_pair[pair],
                    "violation": method.violation_by_pair[pair],
                    "results": self._results(track, method.method, pair),
                }
                for method in (sieve, peer)
            ],
        }

    def _results(self, track: TrackResult, method: str, pair: int) -> list[dict[str, Any]]:
        answer = track.answers.get(method, {}).get(pair)
        if answer is None:
            return []
        rows = self.collection.row_of_id
        captions = self.collection.items["captions"]
        return [
            {
                "id": item,
                "mark": _MARKS[mark],
                "captions": [str(text) for text in captions.iloc[rows[item]]],
            }
            for item, mark in zip(answer.items, answer.marks, strict=True)
            if item in rows
        ]


def _named(things: Any, field: str, wanted: Any) -> Any:
    """Find a track or a method by its name."""
    by_name = {getattr(one, field): one for one in things}
    return by_name[check_choice(field, wanted, tuple(by_name))]


def _track_view(track: TrackResult) -> dict[str, Any]:
    """Tell a track: its table, its figure, and what they say of Sieve."""
    told = track.as_json()
    return {
        **{name: told[name] for name in ("track", "pairs", "a_words", "items", "tuning")},
        "left_out": dropped_text(track),
        "methods": [_row(method) for method in track.methods],
        "variants": [_row(method) for method in track.variants],
        "verdicts": verdicts(track),
        "figure": track_figure(track),
        "peers": [
            method.method
            for method in track.methods
            if method.method not in (SIEVE, "oracle") and SIEVE in track.answers
        ],
    }


def _row(method: MethodResult) -> dict[str, Any]:
    return method.as_json() | {"stand": _stand(method)}


def _stand(method: MethodResult) -> str:
    """Tell in a word how a peer stands against Sieve, as far as the interval of the ratio says."""
    if method.ratio_ci is None or method.method in (SIEVE, "oracle"):
        return ""
    if method.ratio_ci.high < 1:
        return "wins"
    return "loses" if method.ratio_ci.low > 1 else "even"


def _run_view(runs: Runs) -> dict[str, Any]:
    """Tell how the newest quick evaluation stands, and what else keeps one from starting."""
    folder = runs.latest()
    now = runs.progress(folder) if folder else None
    told = {"refusal": runs.refusal(), "elsewhere": runs.elsewhere(folder), "run": None}
    if now is None:
        return told
    run = {
        "state": now.state,
        "under_way": now.state in UNDER_WAY,
        "done": now.step,
        "of": now.n_steps,
        "doing": now.doing,
        "fault": now.fault,
        "made": Path(now.made).stem if now.state == DONE else "",
    }
    return told | {"run": run}
