"""What the Benchmark tab asks, answered as JSON.

Quick evaluations of one collection, run from the page.

A track's methods as a figure that the browser draws: AP@10 against violation@10.

The Benchmark tab: evaluations that were made, and the pairs where Sieve wins and loses most.
"""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from sieve.data_prep.bundled import collection_reference
from sieve.explorer.benchmark_report import dropped_text, kind_of, verdicts
from sieve.explorer.components import piece
from sieve.explorer.errors import json_errors
from sieve.explorer.jobs.directory import ACTIVE_STATES, DONE, JobDirectory
from sieve.explorer.jobs.manager import JobLock, JobManager
from sieve.explorer.json_validation import check_choice, read_object, read_text, refuse_unknown
from sieve.model.benchmark import contrast, list_evaluations, read_evaluation, tracks_of
from sieve.model.duplicates import evaluation_rows
from sieve.model.text_encoder import ATTACH, backbone_fault

if TYPE_CHECKING:
    from sieve.explorer.tabs.train import TrainHandlers
    from sieve.model.benchmark import Evaluation, EvaluationSummary, MethodResult, TrackResult
    from sieve.model.checkpoint import Checkpoint
    from sieve.model.collection import Collection
    from sieve.model.engine import Engine


class Runs(JobManager):
    """Starts, finds and stops quick evaluations."""

    kind = "evaluation"
    module = "sieve.explorer.jobs.evaluation_worker"

    def start(self, checkpoint: Path) -> JobDirectory:
        """Measure a checkpoint; of an earlier run, only the result is kept."""
        before = self.latest()
        folder = self.begin({"checkpoint": str(checkpoint)})
        if before is not None:
            shutil.rmtree(before.path, ignore_errors=True)
        return folder

    def refusal(self) -> str:
        """Tell why this collection cannot be evaluated; empty where it can be tried."""
        try:
            self.collection.backbone  # noqa: B018  # codes from elsewhere have none
            tracks_of(self.collection)
            fault = "" if self.text_encoder else backbone_fault(self.collection)
            if fault:
                return (
                    "the benchmark embeds queries of its own, but this collection's backbone is "
                    f"unavailable ({fault}); {ATTACH}"
                )
        except ValueError as error:
            return str(error)
        for split in ("select", "test"):
            if not len(self.collection.rows_of_split([split])):
                return f"no item of this collection is in its {split} split, which is needed"
            if not len(evaluation_rows(self.collection, split)):
                return f"every {split} item is a near duplicate of an item of an earlier split"
        return ""


def track_figure(track: TrackResult) -> dict[str, Any]:
    """Draw a track's methods with their 95 % intervals, one trace each.

    Parameters
    ----------
    track : TrackResult

    Returns
    -------
    dict
        `data` and `layout` as plotly.js takes them; a trace's `meta` says what kind of method it
        is. Colours and names beside the points are left to the page, which knows its width.
    """
    figure = go.Figure()
    for method in track.methods:
        if method.method != "oracle":
            figure.add_scatter(**_trace(method))
    figure.update_layout(
        height=380,
        margin={"l": 56, "r": 16, "t": 8, "b": 48},
        showlegend=False,
        hovermode="closest",
        xaxis={"title": {"text": "violation@10 (less is better)"}, "rangemode": "tozero"},
        yaxis={"title": {"text": "AP@10 (more is better)"}, "nticks": 6},
        template="none",
    )
    return json.loads(figure.to_json() or "{}")


def _trace(method: MethodResult) -> dict[str, Any]:
    x, y = method.violation, method.ap
    (left, right), (low, high) = method.violation_ci, method.ci
    told = (
        f"AP@10 {y:.3f} [{low:.3f}, {high:.3f}]<br>violation@10 {x:.3f} [{left:.3f}, {right:.3f}]"
    )
    return {
        "name": method.method,
        "meta": kind_of(method.method),
        "mode": "markers",
        "x": [x],
        "y": [y],
        "error_x": _reach(x - left, right - x),
        "error_y": _reach(y - low, high - y),
        "hovertemplate": f"%{{fullData.name}}<br>{told}<extra></extra>",
    }


def _reach(down: float, up: float) -> dict[str, Any]:
    return {
        "type": "data", "symmetric": False, "array": [round(up, 6)], "arrayminus": [round(down, 6)],
        "thickness": 1, "width": 0,
    }  # fmt: skip


SIEVE = "Sieve"
_MARKS = {"r": "fits", "v": "both", "n": "neither"}


class BenchmarkHandlers:
    """Answers the page's questions about evaluations of one collection.

    Parameters
    ----------
    collection : Collection
    checkpoint : Checkpoint
        The one that is open, which a quick run measures.
    device : str
        Where a quick run embeds.
    job_lock : JobLock, optional
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
        job_lock: JobLock | None = None,
        text_encoder: str = "",
    ) -> None:
        self.collection = collection
        self.checkpoint = checkpoint
        self._runs = Runs(collection, device, job_lock, text_encoder) if job_lock else None

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
        command = f"sieve evaluate {shlex.quote(collection_reference(self.collection.path))}"
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

    def _glance(self, glance: EvaluationSummary) -> dict[str, Any]:
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
    told = {"refusal": runs.refusal(), "elsewhere": runs.other_job(folder), "run": None}
    if now is None:
        return told
    run = {
        "state": now.state,
        "under_way": now.state in ACTIVE_STATES,
        "done": now.step,
        "of": now.n_steps,
        "doing": now.doing,
        "fault": now.fault,
        "made": Path(now.made).stem if now.state == DONE else "",
    }
    return told | {"run": run}


def benchmark_tab(engine: Engine, training: TrainHandlers | None) -> None:
    """Lay out the tab; call inside a `gr.Tab`.

    Parameters
    ----------
    engine : Engine
    training : TrainHandlers, optional
        A quick evaluation uses its device and job lock; without it none can be started.
    """
    jobs = training.trainings if training else None
    desk = BenchmarkHandlers(
        engine.collection,
        engine.checkpoint,
        jobs.device if jobs else "auto",
        jobs.job_lock if jobs else None,
        jobs.text_encoder if jobs else "",
    )
    runs = (desk.evaluation_start, desk.evaluation_stop) if jobs else ()
    asks = (desk.evaluations, desk.evaluation, desk.evaluation_pairs, *runs)
    piece("benchmark", *map(json_errors, asks))
