"""Run the exclusion benchmark: how well each method answers "A without B".

The hyperparameters of every method are tuned with the same number of trials, on tuning pairs and
the "select" split. Each method is then measured once, on report pairs and the test split. Trained
methods are trained on the train split with several seeds. Intervals are bootstrapped over A-words
and images; ratios use shared resamples. Items used for training are never scored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from itertools import chain, count
from threading import Event

import numpy as np
import torch
from tqdm import tqdm

from sieve.model.backbone.checked_files import BackboneUnavailable
from sieve.model.backbone.clip import resolve_device
from sieve.model.benchmark.baselines import TRAINING_FREE
from sieve.model.benchmark.failures import sort_failures
from sieve.model.benchmark.measurement import (
    Measured,
    contrast_answers,
    draw_resamples,
    measure,
    measure_wordings,
)
from sieve.model.benchmark.methods import (
    METHODS,
    PROBED,
    SIEVE,
    TRAINED,
    BackboneEmbeddings,
    Method,
    TextEncoder,
    code_recall,
    coded,
    oracle,
    other_backbone,
    probed,
    splice,
    train_method,
    training_free,
)
from sieve.model.benchmark.results import (
    BenchmarkConfig,
    BenchmarkResult,
    Failure,
    MethodResult,
    NamedHash,
    PairCount,
    TrackResult,
)
from sieve.model.checkpoint import Checkpoint
from sieve.model.collection import Collection
from sieve.model.duplicates import evaluation_rows, n_dropped
from sieve.model.encoder import SparseEncoder
from sieve.model.evaluation.pairs import TrackPairs, reworded, track_pairs
from sieve.model.evaluation.query_sets import QuerySet, judged_pairs
from sieve.model.text_encoder import ATTACH, unavailable_reason
from sieve.model.text_encoder import open_text_encoder as text_encoder_of
from sieve.model.words.nouns import benchmark_nouns
from sieve.model.words.text import concept_presence

MOST_AT_ONCE = 4
"""Maximum number of encoders trained concurrently on a CPU; their matrices are too small to
keep many threads busy."""
QUERIES = "queries"
"""Track of the queries of a file."""


class Benchmark:
    """A benchmark of exclusion methods on a collection.

    Parameters
    ----------
    collection : Collection
        Methods are tuned on its "select" split and reported on its test split.
    config : BenchmarkConfig, optional
    train : Collection, optional
        Collection whose train split is used for training; by default `collection`.
    checkpoint : Checkpoint, optional
        Measured as Sieve, instead of training encoders.
    baselines : mapping of str to Collection, optional
        Collections of the same items by other backbones.
    queries : QuerySet, optional
        Reported instead of pairs of the test split; tuned on the pairs of the first track of
        `config` as usual.
    open_text_encoder : callable, optional
        Opens the text encoder of a collection; by default its backbone.
    text_encoder : str
        Text encoder to use instead of the backbone of the collection: see `model.text_encoder`.
    allow_code : bool
        Whether `text_encoder` may be a Python function.
    device : str
    progress : bool

    Raises `BackboneUnavailable` if queries cannot be embedded, and a ValueError if a backbone
    differs, scored items were used for training, or a baseline lacks items.
    """

    def __init__(
        self,
        collection: Collection,
        config: BenchmarkConfig | None = None,
        *,
        train: Collection | None = None,
        checkpoint: Checkpoint | None = None,
        baselines: Mapping[str, Collection] | None = None,
        queries: QuerySet | None = None,
        open_text_encoder: Callable[[Collection], TextEncoder] | None = None,
        text_encoder: str = "",
        allow_code: bool = False,
        device: str = "auto",
        progress: bool = True,
    ) -> None:
        self.collection = collection
        self.config = config or BenchmarkConfig()
        self.train = train or collection
        self.checkpoint = checkpoint
        self.baselines = dict(baselines or {})
        self.queries = queries
        self.nouns = benchmark_nouns()
        self._device = device
        self._progress = progress
        self._attached = (text_encoder, allow_code)
        self._open = open_text_encoder or self._open_text_encoder
        self._check_inputs()
        train_rows = self.train.rows_of_split(["train"])
        self.words = concept_presence(self.train.items["captions"].iloc[train_rows].tolist()).words
        self.source = BackboneEmbeddings(
            collection,
            self._open(collection),
            self.train,
            words=self.words if len(self.words) > 1 else self.nouns.lemmas,
        )

    def run(self, on_method: Callable[[int, int, str], None] | None = None) -> BenchmarkResult:
        """Tune and measure all methods.

        `on_method` is called before each method of each track with the number done, the total
        number, and a description of the next; an exception from it stops the run.
        """
        test = evaluation_rows(self.collection, "test")
        judged = judged_pairs(self.queries, self.collection, test) if self.queries else None
        tracks = self.config.tracks[:1] if judged else self.config.tracks
        pairs_by_track = {
            QUERIES if judged else track: track_pairs(
                self.collection, track, self.nouns, self.config.criteria, judged and judged.pairs
            )
            for track in tracks
        }
        methods = list(self._methods())
        recalls = {m.name: _mean_recall(m.recall(test)) for m in methods if m.recall is not None}
        backbone_recall = code_recall(self.source, test) if self.collection.n_captions else {}
        total = len(pairs_by_track) * len(methods)
        started = count()

        def report_progress(doing: str) -> None:
            if on_method is not None:
                on_method(next(started), total, doing)

        results = [
            self._track(track, pairs, methods, recalls, report_progress)
            for track, pairs in pairs_by_track.items()
        ]
        if judged:
            results = [replace(results[0], notes=judged.notes)]
        return BenchmarkResult(
            collection=self.collection.name,
            collection_sha256=self.collection.sha256,
            train=self.train.name,
            train_sha256=self.train.sha256,
            backbone=str(self.collection.backbone.name),
            checkpoint=self.checkpoint.sha256 if self.checkpoint else None,
            seeds=self.config.seeds,
            nouns_sha256=self.nouns.sha256,
            config=self.config,
            backbone_recall=backbone_recall,
            tracks=tuple(results),
            queries=NamedHash(self.queries.name, self.queries.sha256) if self.queries else None,
        )

    def _check_inputs(self) -> None:
        collection, train, checkpoint = self.collection, self.train, self.checkpoint
        inputs = [(f"collection {train.name}", train.backbone)]
        inputs += [(f"checkpoint {checkpoint.path}", checkpoint.backbone)] if checkpoint else []
        for name, backbone in inputs:
            if backbone.sha256 != collection.backbone.sha256:
                raise ValueError(
                    f"{name} uses {backbone}, but collection {collection.name} uses "
                    f"{collection.backbone}; prepare or train with the same backbone"
                )
        trained = train.items["id"].iloc[train.rows_of_split(["train"])].tolist()
        check_no_overlap(collection, trained, f"what {train.name} offers to train on")
        if checkpoint is not None:
            if not checkpoint.trained_items:
                raise ValueError(
                    f"checkpoint {checkpoint.path} does not record its training items, so it "
                    "cannot be scored; train again with `sieve train COLLECTION`"
                )
            check_no_overlap(collection, checkpoint.trained_items, f"checkpoint {checkpoint.path}")
        scored = _scored_items(collection)
        for name, other in self.baselines.items():
            if name in METHODS:
                raise ValueError(f"{name!r} is already a method; give the baseline another name")
            missing = len(scored - other.row_of_id.keys())
            if missing:
                raise ValueError(
                    f"baseline {name} lacks {missing:,} of the {len(scored):,} scored items; "
                    "prepare its collection from the same images"
                )

    def _open_text_encoder(self, opened: Collection) -> TextEncoder:
        name, allow_code = self._attached if opened is self.collection else ("", False)
        try:
            return text_encoder_of(opened, self._device, name, allow_code).encode_texts
        except BackboneUnavailable as error:
            raise BackboneUnavailable(
                f"the benchmark embeds its own queries, but the backbone of {opened.name} is "
                f"unavailable ({unavailable_reason(error)}); {ATTACH}"
            ) from None

    def _methods(self) -> Iterator[Method]:
        encoders = self._encoders()
        for name in self.config.methods:
            if name in TRAINING_FREE:
                yield training_free(self.source, name)
            elif name == "SpLiCE":
                yield splice(self.source, self.words)
            elif name in TRAINED:
                yield coded(name, self.source, encoders[name])
            elif name in PROBED:
                yield probed(name, self.source, encoders[PROBED[name]], self.train)
            else:
                yield oracle()
        ids = self.collection.items["id"].tolist()
        for name, other in self.baselines.items():
            yield other_backbone(BackboneEmbeddings(other, self._open(other), ids=ids), name)

    def _encoders(self) -> dict[str, list[SparseEncoder]]:
        """Train the encoders of all methods and seeds, or take that of the checkpoint."""
        names = dict.fromkeys(PROBED.get(name, name) for name in self.config.methods)
        trained = [name for name in names if name in TRAINED]
        found: dict[str, list[SparseEncoder]] = {name: [] for name in trained}
        if self.checkpoint is not None and SIEVE in found:
            trained.remove(SIEVE)
            found[SIEVE] = [self.checkpoint.encoder]
        threads = torch.get_num_threads()
        at_once = min(threads, MOST_AT_ONCE) if resolve_device(self._device).type == "cpu" else 1
        cancelled = Event()

        def train(name: str, seed: int) -> SparseEncoder:
            torch.set_num_threads(max(threads // at_once, 1))  # of this thread only
            return train_method(
                name,
                self.train,
                replace(self.config.training, seed=seed),
                self.source.texts,
                n_words=len(self.words),
                device=self._device,
                progress=self._progress,
                cancelled=cancelled,
            ).encoder

        with ThreadPoolExecutor(at_once) as pool:
            seeds = self.config.seeds
            jobs = {name: [pool.submit(train, name, seed) for seed in seeds] for name in trained}
            try:
                for finished in as_completed(chain.from_iterable(jobs.values())):
                    finished.result()
            except BaseException:
                cancelled.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return found | {name: [job.result() for job in each] for name, each in jobs.items()}

    def _track(
        self,
        track: str,
        pairs: TrackPairs,
        methods: Sequence[Method],
        recalls: Mapping[str, dict[str, float]],
        report_progress: Callable[[str], None],
    ) -> TrackResult:
        report, trials = pairs.report, self.config.trials
        draws = draw_resamples(report.a_names, len(report.rows), self.config.resamples, 0)
        measured: list[Measured] = []
        failures: tuple[Failure, ...] = ()
        wordings = {} if track == QUERIES else reworded(report, self.nouns)
        variants: list[Measured] = []
        for method in tqdm(methods, desc=f"{track} track", disable=not self._progress):
            report_progress(f"{track} track, {method.name}")
            name, spaces = method.name, (method.represent(pairs.tuning), method.represent(report))
            one = measure(name, method.rules, *spaces, pairs, draws, trials)
            other_words = {name: method.represent(other) for name, other in wordings.items()}
            one = replace(one, result=measure_wordings(one, other_words, report.relevant))
            measured.append(one)
            if name == SIEVE:
                codes = spaces[1][0][one.setting.space]
                failures = sort_failures(
                    one,
                    codes,
                    self.source.space(report),
                    report,
                    self.collection.items["id"].tolist(),
                    is_complete=track == "label",
                )
            variants += [
                measure(f"{name}: {rule.name}", (rule,), *spaces, pairs, draws, trials)
                for rule in method.variants
            ]
        by_name = {each.result.method: each for each in (*measured, *variants)}
        sieve = by_name.get(SIEVE)

        def compared(one: Measured) -> MethodResult:
            name, colon, rule = one.result.method.partition(":")
            same_rule = by_name.get(f"{SIEVE}:{rule}") if colon else None
            return replace(one.against(sieve, same_rule), recall=recalls.get(one.result.method))

        return TrackResult(
            track=track,
            pair_counts=tuple(
                map(
                    PairCount,
                    report.a_names,
                    report.b_names,
                    report.relevant.sum(1).tolist(),
                    report.violating.sum(1).tolist(),
                )
            ),
            items=len(report.rows),
            dropped={split: n_dropped(self.collection, split) for split in ("select", "test")},
            tuning_pairs=len(pairs.tuning),
            tuning_items=len(pairs.tuning.rows),
            tuning_criteria=pairs.tuning_criteria,
            criteria=None if track == QUERIES else pairs.report_criteria,
            methods=tuple(map(compared, measured)),
            variants=tuple(map(compared, variants)),
            failures=failures,
            answers=contrast_answers(
                sieve,
                [each for each in measured if each is not sieve],
                report,
                self.collection.items["id"].tolist(),
            ),
        )


def check_no_overlap(collection: Collection, trained: Iterable[str], what: str) -> None:
    """Raise a ValueError with the number of scored items that were trained on, if there are any."""
    scored = _scored_items(collection)
    shared = len(scored.intersection(trained))
    if shared:
        raise ValueError(
            f"{what} was trained on {shared:,} of the {len(scored):,} select and test items of "
            f"{collection.name} that would be scored; train on other items (--train)"
        )


def _scored_items(collection: Collection) -> set[str]:
    rows = [evaluation_rows(collection, split) for split in ("select", "test")]
    return set(collection.items["id"].iloc[np.concatenate(rows)])


def _mean_recall(seeds: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([seed[name] for seed in seeds])) for name in seeds[0]}
