"""The Benchmark tab: saved evaluations, pairs where Sieve wins and loses most, and quick runs."""

from __future__ import annotations

import dataclasses
import shlex
import shutil
from pathlib import Path
from typing import Any

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from sieve.data_prep.bundled import collection_reference
from sieve.explorer.benchmark_report import criteria_text, dropped_text, kind_of, limits, verdicts
from sieve.explorer.components import component
from sieve.explorer.jobs.manager import JobDirectory, JobManager, JobState
from sieve.explorer.json_validation import Line, check_choice, validate
from sieve.explorer.tabs.train import TrainHandlers
from sieve.model.benchmark.failures import FAILURE_KINDS
from sieve.model.benchmark.measurement import contrast
from sieve.model.benchmark.results import (
    Answer,
    Evaluation,
    EvaluationSummary,
    MethodResult,
    TrackResult,
    list_evaluations,
    read_evaluation,
)
from sieve.model.checkpoint import Checkpoint
from sieve.model.collection import IMAGE_EMBEDDINGS, Collection
from sieve.model.duplicates import evaluation_rows
from sieve.model.engine import SearchEngine
from sieve.model.evaluation.pairs import tracks_of
from sieve.model.text_encoder import ATTACH, backbone_fault

SIEVE = "Sieve"
_MARKS = {"r": "fits", "v": "both", "n": "neither"}
_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=_STRICT)
class EvaluationRequest:
    """A request for one evaluation."""

    id: Line = ""


@dataclass(frozen=True, config=_STRICT)
class TrackRequest(EvaluationRequest):
    """A request for one track of an evaluation."""

    track: Line = ""


@dataclass(frozen=True, config=_STRICT)
class PairsRequest(TrackRequest):
    """A request for the pairs where Sieve and a baseline differ most."""

    baseline: Line = ""


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
                return f"the benchmark needs a {split} split, which this collection does not have"
            if not len(evaluation_rows(self.collection, split)):
                return f"every {split} item is a near duplicate of an item of an earlier split"
        return ""


@dataclasses.dataclass(frozen=True, eq=False)
class BenchmarkHandlers:
    """Request handlers of the Benchmark tab."""

    collection: Collection
    checkpoint: Checkpoint
    """The open checkpoint, which a quick run evaluates."""
    runs: EvaluationManager | None = None
    """Without it, nothing can be run, and local paths are not revealed."""

    def evaluations(self, _: Any) -> dict[str, Any]:
        """Return the evaluations of this collection, newest first, and the state of a quick run."""
        summaries, faults = self._list()
        view: dict[str, Any] = {
            "evaluations": list(map(self._summary_view, summaries)),
            "collection": self.collection.name,
            "checkpoint": self.checkpoint.name,
        }
        if self.runs is None:
            return view
        command = f"sieve evaluate {shlex.quote(collection_reference(self.collection.path))}"
        return view | {"faults": faults, "command": command, **_run_view(self.runs)}

    def evaluation(self, payload: Any) -> dict[str, Any]:
        """Return one evaluation without the results of single pairs."""
        evaluation = self._find(validate(EvaluationRequest, payload, "an evaluation").id)
        return {
            **self._summary_view(evaluation.summary),
            "tracks": list(map(_track_view, evaluation.tracks)),
        }

    def evaluation_pairs(self, payload: Any) -> dict[str, Any]:
        """Return the pairs where Sieve wins and loses most against a baseline."""
        request = validate(PairsRequest, payload, "a baseline")
        evaluation, track = self._find_track(request)
        methods = {method.method: method for method in track.methods}
        names = (SIEVE, request.baseline)
        sides = [methods[check_choice("method", name, tuple(methods))] for name in names]
        against = contrast(*sides)
        return {
            "wins": [self._pair(track, sides, pair) for pair in against.wins],
            "losses": [self._pair(track, sides, pair) for pair in against.losses],
            "n_wins": against.n_wins,
            "n_losses": against.n_losses,
            "pairs": track.pairs,
            "seeds": len(evaluation.summary.seeds),
        }

    def evaluation_failures(self, payload: Any) -> list[dict[str, Any]]:
        """Return the pairs that Sieve answers worst, by kind."""
        _, track = self._find_track(validate(TrackRequest, payload, "a track"))
        pairs_of: dict[str, list[dict[str, Any]]] = {kind: [] for kind in FAILURE_KINDS}
        for sieve in [one for one in track.methods if one.method == SIEVE]:
            for failure in track.failures:
                answer = Answer(failure.items, failure.marks)
                pair = {
                    "pair": failure.pair,
                    **track.pair_counts[failure.pair]._asdict(),
                    "sides": [self._side(sieve, failure.pair, answer)],
                }
                pairs_of.setdefault(failure.kind, []).append(pair)
        rules = {kind: rule for kind, (rule, _) in FAILURE_KINDS.items()}
        return [
            {"kind": kind, "rule": rules.get(kind, ""), "pairs": pairs}
            for kind, pairs in pairs_of.items()
        ]

    def evaluation_start(self, _: Any) -> dict[str, Any]:
        """Start a quick evaluation of the open checkpoint."""
        assert self.runs is not None
        self.runs.start(Path(self.checkpoint.path).absolute())
        return self.evaluations(None)

    def evaluation_stop(self, _: Any) -> dict[str, Any]:
        """Request the quick evaluation to stop."""
        assert self.runs is not None
        self.runs.stop()
        return self.evaluations(None)

    def _list(self) -> tuple[list[EvaluationSummary], list[str]]:
        images = self.collection.manifest.files.get(IMAGE_EMBEDDINGS)
        return list_evaluations(self.collection.sha256, images.sha256 if images else "")

    def _find(self, name: str) -> Evaluation:
        """Find an evaluation by its id; the id never becomes part of a path."""
        for summary in self._list()[0]:
            if summary.id == name:
                return read_evaluation(summary.path)
        raise ValueError(f"there is no evaluation {name[:80]!r} of this collection")

    def _find_track(self, request: TrackRequest) -> tuple[Evaluation, TrackResult]:
        evaluation = self._find(request.id)
        tracks = {track.track: track for track in evaluation.tracks}
        return evaluation, tracks[check_choice("track", request.track, tuple(tracks))]

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
            "code": summary.code,
            "names": list(summary.track_names),
        }

    def _pair(self, track: TrackResult, methods: list[MethodResult], pair: int) -> dict[str, Any]:
        sides = [
            self._side(method, pair, track.answers.get(method.method, {}).get(pair))
            for method in methods
        ]
        return {"pair": pair, **track.pair_counts[pair]._asdict(), "sides": sides}

    def _side(self, method: MethodResult, pair: int, answer: Answer | None) -> dict[str, Any]:
        return {
            "method": method.method,
            "ap": method.by_pair[pair],
            "violation": method.violation_by_pair[pair],
            "results": self._results(answer) if answer else [],
        }

    def _results(self, answer: Answer) -> list[dict[str, Any]]:
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


def _track_view(track: TrackResult) -> dict[str, Any]:
    fields = track.as_json()
    names = [method.method for method in track.methods if method.method not in (SIEVE, "oracle")]
    return {
        **{name: fields[name] for name in ("track", "pairs", "a_words", "items", "tuning")},
        "left_out": dropped_text(track),
        "criteria": criteria_text(track),
        "notes": list(track.notes),
        "n_failures": len(track.failures),
        "methods": [_row(method) for method in track.methods],
        "variants": [_row(method) for method in track.variants],
        "verdicts": verdicts(track),
        "limits": limits(track),
        "baselines": names if SIEVE in track.answers else [],
    }


def _row(method: MethodResult) -> dict[str, Any]:
    """Serialise a method; `stand` is its outcome by the interval of the AP@10 ratio."""
    stand = ""
    if method.ratio_ci is not None and method.method not in (SIEVE, "oracle"):
        low, high = method.ratio_ci
        stand = "wins" if high < 1 else "loses" if low > 1 else "even"
    return method.as_json() | {"stand": stand, "kind": kind_of(method.method)}


def _run_view(runs: EvaluationManager) -> dict[str, Any]:
    """Return the state of the latest quick run, and what prevents a new one."""
    folder = runs.latest()
    now = runs.progress(folder) if folder else None
    run = now and {
        "state": now.state,
        "running": now.state.is_active,
        "done": now.step,
        "of": now.n_steps,
        "doing": now.doing,
        "fault": now.fault,
        "made": Path(now.made).stem if now.state == JobState.DONE else "",
    }
    return {"refusal": runs.refusal(), "elsewhere": runs.other_job(folder), "run": run}


def benchmark_tab(engine: SearchEngine, training: TrainHandlers | None) -> None:
    """Add the tab's component; call inside a `gr.Tab`.

    `training` provides the device and job lock of quick runs; without it none can be started.
    """
    runs = None
    if training:
        jobs = training.trainings
        runs = EvaluationManager(engine.collection, jobs.device, jobs.job_lock, jobs.text_encoder)
    handlers = BenchmarkHandlers(engine.collection, engine.checkpoint, runs)
    functions = [handlers.evaluations, handlers.evaluation, handlers.evaluation_pairs]
    functions += [handlers.evaluation_failures]
    functions += [handlers.evaluation_start, handlers.evaluation_stop] if runs else []
    component("benchmark", *functions)
