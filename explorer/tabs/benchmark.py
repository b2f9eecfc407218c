"""The Benchmark tab: saved evaluations, pairs where Sieve wins and loses most, and quick runs."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from sieve.data_prep.bundled import collection_reference
from sieve.explorer.benchmark_report import dropped_text, kind_of, verdicts
from sieve.explorer.components import component
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


class EvaluationManager(JobManager):
    """Starts, finds and stops quick evaluations."""

    kind = "evaluation"

    def start(self, checkpoint: Path) -> JobDirectory:
        """Evaluate a checkpoint; the job of the previous run is deleted, its result is kept."""
        before = self.latest()
        folder = self.begin({"checkpoint": str(checkpoint)})
        if before is not None:
            shutil.rmtree(before.path, ignore_errors=True)
        return folder

    def refusal(self) -> str:
        """Return why this collection cannot be evaluated; empty if no reason is known."""
        try:
            self.collection.backbone  # noqa: B018  # raises for external codes
            tracks_of(self.collection)
            fault = "" if self.text_encoder else backbone_fault(self.collection)
            if fault:
                return (
                    "the benchmark embeds its own queries, but the backbone of this collection is "
                    f"unavailable ({fault}); {ATTACH}"
                )
        except ValueError as error:
            return str(error)
        for split in ("select", "test"):
            if not len(self.collection.rows_of_split([split])):
                return (
                    f"the benchmark needs a {split} split, but no item of this collection is in it"
                )
            if not len(evaluation_rows(self.collection, split)):
                return f"every {split} item is a near duplicate of an item of an earlier split"
        return ""


def track_figure(track: TrackResult) -> dict[str, Any]:
    """Plot AP@10 against violation@10 of each method, with 95% intervals.

    Parameters
    ----------
    track : TrackResult

    Returns
    -------
    dict
        `data` (one trace per method) and `layout` for plotly.js; `meta` of a trace is the kind of
        the method. The page adds colours and labels, because it knows its width.
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
        xaxis={"title": {"text": "violation@10 (lower is better)"}, "rangemode": "tozero"},
        yaxis={"title": {"text": "AP@10 (higher is better)"}, "nticks": 6},
        template="none",
    )
    return json.loads(figure.to_json() or "{}")


def _trace(method: MethodResult) -> dict[str, Any]:
    x, y = method.violation, method.ap
    (left, right), (low, high) = method.violation_ci, method.ci
    values = (
        f"AP@10 {y:.3f} [{low:.3f}, {high:.3f}]<br>violation@10 {x:.3f} [{left:.3f}, {right:.3f}]"
    )
    return {
        "name": method.method,
        "meta": kind_of(method.method),
        "mode": "markers",
        "x": [x],
        "y": [y],
        "error_x": _error_bar(x - left, right - x),
        "error_y": _error_bar(y - low, high - y),
        "hovertemplate": f"%{{fullData.name}}<br>{values}<extra></extra>",
    }


def _error_bar(down: float, up: float) -> dict[str, Any]:
    return {
        "type": "data", "symmetric": False, "array": [round(up, 6)], "arrayminus": [round(down, 6)],
        "thickness": 1, "width": 0,
    }  # fmt: skip


SIEVE = "Sieve"
_MARKS = {"r": "fits", "v": "both", "n": "neither"}


class BenchmarkHandlers:
    """Request handlers of the Benchmark tab.

    Parameters
    ----------
    collection : Collection
    checkpoint : Checkpoint
        The open checkpoint, which a quick run evaluates.
    device : str
        Device on which a quick run embeds.
    job_lock : JobLock, optional
        Lock shared with trainings. Without it nothing can be run, and local paths are not revealed.
    text_encoder : str
        Text encoder that replaces the backbone of the collection, if the user named one.
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
        self._runs = (
            EvaluationManager(collection, device, job_lock, text_encoder) if job_lock else None
        )

    def evaluations(self, _: Any) -> dict[str, Any]:
        """Return the evaluations of this collection, newest first, and the state of a quick run."""
        summaries, faults = list_evaluations(self.collection.sha256)
        view: dict[str, Any] = {
            "evaluations": list(map(self._summary_view, summaries)),
            "collection": self.collection.name,
            "checkpoint": self.checkpoint.path.name,
        }
        if self._runs is None:
            return view
        command = f"sieve evaluate {shlex.quote(collection_reference(self.collection.path))}"
        return view | {"faults": faults, "command": command, **_run_view(self._runs)}

    def evaluation(self, payload: Any) -> dict[str, Any]:
        """Return one evaluation without the results of single pairs."""
        given = read_object(payload, "an evaluation")
        refuse_unknown(given, {"id"}, "an evaluation")
        evaluation = self._find(given.get("id"))
        return {
            **self._summary_view(evaluation.summary),
            "tracks": list(map(_track_view, evaluation.tracks)),
        }

    def evaluation_pairs(self, payload: Any) -> dict[str, Any]:
        """Return the pairs where Sieve wins and loses most against a baseline."""
        given = read_object(payload, "a baseline")
        refuse_unknown(given, {"id", "track", "peer"}, "a baseline")
        evaluation = self._find(given.get("id"))
        track = _named(evaluation.tracks, "track", given.get("track"))
        baseline = _named(track.methods, "method", given.get("peer"))
        sieve = _named(track.methods, "method", SIEVE)
        against = contrast(sieve, baseline)
        return {
            "wins": [self._pair(track, sieve, baseline, pair) for pair in against.wins],
            "losses": [self._pair(track, sieve, baseline, pair) for pair in against.losses],
            "n_wins": against.n_wins,
            "n_losses": against.n_losses,
            "pairs": track.pairs,
            "seeds": len(evaluation.summary.seeds),
        }

    def evaluation_start(self, _: Any) -> dict[str, Any]:
        """Start a quick evaluation of the open checkpoint."""
        self._require_runs().start(Path(self.checkpoint.path).absolute())
        return self.evaluations(None)

    def evaluation_stop(self, _: Any) -> dict[str, Any]:
        """Request the quick evaluation to stop."""
        self._require_runs().stop()
        return self.evaluations(None)

    def _require_runs(self) -> EvaluationManager:
        if self._runs is None:
            raise ValueError("this server does not run evaluations")
        return self._runs

    def _find(self, wanted: Any) -> Evaluation:
        """Find an evaluation by its id; the id never becomes part of a path."""
        name = read_text("id", wanted)
        for summary in list_evaluations(self.collection.sha256)[0]:
            if summary.id == name:
                return read_evaluation(summary.path)
        raise ValueError(f"there is no evaluation {name[:80]!r} of this collection")

    def _summary_view(self, summary: EvaluationSummary) -> dict[str, Any]:
        measured = summary.checkpoint
        return {
            "id": summary.id,
            "made": summary.made,
            "checkpoint": measured.name if measured else "",
            "is_open": measured is not None and measured.sha256 == self.checkpoint.sha256,
            "train": summary.train.name,
            "seeds": len(summary.seeds),
            "short": summary.is_short,
            "names": list(summary.track_names),
        }

    def _pair(
        self, track: TrackResult, sieve: MethodResult, baseline: MethodResult, pair: int
    ) -> dict[str, Any]:
        query = track.pair_counts[pair]
        return {
            "pair": pair,
            "a": query.a,
            "b": query.b,
            "relevant": query.relevant,
            "violating": query.violating,
            "sides": [
                {
                    "method": method.method,
                    "ap": method.by_pair[pair],
                    "violation": method.violation_by_pair[pair],
                    "results": self._results(track, method.method, pair),
                }
                for method in (sieve, baseline)
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
    """Return the track or method of a given name."""
    by_name = {getattr(one, field): one for one in things}
    return by_name[check_choice(field, wanted, tuple(by_name))]


def _track_view(track: TrackResult) -> dict[str, Any]:
    """Serialise a track: its table, figure and verdicts."""
    fields = track.as_json()
    return {
        **{name: fields[name] for name in ("track", "pairs", "a_words", "items", "tuning")},
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
    return method.as_json() | {"stand": _verdict(method)}


def _verdict(method: MethodResult) -> str:
    """Return whether a baseline wins, loses or is even, by the interval of the AP@10 ratio."""
    if method.ratio_ci is None or method.method in (SIEVE, "oracle"):
        return ""
    if method.ratio_ci.high < 1:
        return "wins"
    return "loses" if method.ratio_ci.low > 1 else "even"


def _run_view(runs: EvaluationManager) -> dict[str, Any]:
    """Return the state of the latest quick run, and what prevents a new one."""
    folder = runs.latest()
    now = runs.progress(folder) if folder else None
    view = {"refusal": runs.refusal(), "elsewhere": runs.other_job(folder), "run": None}
    if now is None:
        return view
    run = {
        "state": now.state,
        "under_way": now.state in ACTIVE_STATES,
        "done": now.step,
        "of": now.n_steps,
        "doing": now.doing,
        "fault": now.fault,
        "made": Path(now.made).stem if now.state == DONE else "",
    }
    return view | {"run": run}


def benchmark_tab(engine: Engine, training: TrainHandlers | None) -> None:
    """Add the tab's component; call inside a `gr.Tab`.

    Parameters
    ----------
    engine : Engine
    training : TrainHandlers, optional
        Provides the device and job lock of quick runs; without it none can be started.
    """
    jobs = training.trainings if training else None
    handlers = BenchmarkHandlers(
        engine.collection,
        engine.checkpoint,
        jobs.device if jobs else "auto",
        jobs.job_lock if jobs else None,
        jobs.text_encoder if jobs else "",
    )
    runs = (handlers.evaluation_start, handlers.evaluation_stop) if jobs else ()
    functions = (handlers.evaluations, handlers.evaluation, handlers.evaluation_pairs, *runs)
    component("benchmark", *map(json_errors, functions))
