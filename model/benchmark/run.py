"""The exclusion benchmark: how well is "A without B" answered, and by whom.

Knobs of every method are tuned by the same number of trials on tuning pairs and select items; each
method is then measured once, on other pairs and test items. Trained methods are trained on the
train split with several seeds. Intervals are by bootstrap over A-words and images, ratios by the
same resamples. Nothing that was trained on may be scored.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count

import numpy as np
from tqdm import tqdm

from sieve.model.backbone import BackboneUnavailable
from sieve.model.benchmark.bootstrap import draw_resamples
from sieve.model.benchmark.config import BenchmarkConfig
from sieve.model.benchmark.inputs import check_inputs, modality_means
from sieve.model.benchmark.measures import Measured, measure, shown_answers
from sieve.model.benchmark.methods import (
    TRAINED,
    TRAINING_FREE,
    BackboneEmbeddings,
    Method,
    TextEncoder,
    code_recall,
    coded,
    oracle,
    other_backbone,
    splice,
    trained_peer,
    training_free,
)
from sieve.model.benchmark.results import BenchmarkResult, MethodResult, PairCount, TrackResult
from sieve.model.checkpoint import Checkpoint
from sieve.model.collection import Collection
from sieve.model.duplicates import evaluation_rows, n_dropped
from sieve.model.encoder import SparseEncoder
from sieve.model.evaluation.pairs import TrackName, TrackPairs, track_pairs
from sieve.model.text_encoder import ATTACH, unavailable_reason
from sieve.model.text_encoder import open_text_encoder as text_encoder_of
from sieve.model.words.nouns import NounTable, benchmark_nouns
from sieve.model.words.text import concept_presence

log = logging.getLogger(__name__)

SIEVE = "Sieve"


class Benchmark:
    """One benchmark over an opened collection.

    Parameters
    ----------
    collection : Collection
        Select items tune, test items are reported.
    config : BenchmarkConfig, optional
    train : Collection, optional
        Its train split is trained on; by default the collection's own.
    checkpoint : Checkpoint, optional
        Measured as Sieve, in place of encoders trained here.
    peers : mapping of str to Collection, optional
        The same items by other backbones.
    open_text_encoder : callable, optional
        Opens a collection's text encoder; by default its backbone, by name.
    text_encoder : str
        What embeds texts in place of the collection's own backbone: see `model.text_encoder`.
    allow_code : bool
        Whether a Python function may be loaded for that.
    device : str
    progress : bool

    Raises
    ------
    BackboneUnavailable
        If queries cannot be embedded.
    ValueError
        If something does not fit, or items were trained on that would be scored.
    """

    def __init__(
        self,
        collection: Collection,
        config: BenchmarkConfig | None = None,
        *,
        train: Collection | None = None,
        checkpoint: Checkpoint | None = None,
        peers: Mapping[str, Collection] | None = None,
        nouns: NounTable | None = None,
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
        self.peers = dict(peers or {})
        self.nouns = nouns or benchmark_nouns()
        self._device = device
        self._progress = progress
        self._attached = (text_encoder, allow_code)
        self._open = open_text_encoder or self._open_text_encoder
        check_inputs(collection, self.train, checkpoint, self.peers)
        train_rows = self.train.rows_of_split(["train"])
        self.words = concept_presence(self.train.items["captions"].iloc[train_rows].tolist()).words
        self.source = BackboneEmbeddings(
            collection, self._open(collection), modality_means(self.train)
        )

    def run(self, on_method: Callable[[int, int, str], None] | None = None) -> BenchmarkResult:
        """Measure everything.

        Parameters
        ----------
        on_method : callable, optional
            Called before each method of each track with how many are done, of how many, and which
            comes now; an exception from it stops the run.
        """
        questions: dict[TrackName, TrackPairs] = {
            track: track_pairs(self.collection, track, self.nouns, self.config.law)
            for track in self.config.tracks
        }
        methods = list(self._methods())
        test = evaluation_rows(self.collection, "test")
        recalls = {m.name: _mean_recall(m.recall(test)) for m in methods if m.recall is not None}
        backbone_recall = code_recall(self.source, test) if self.collection.n_captions else {}
        total = len(questions) * len(methods)
        begun = count()

        def tell(track: TrackName, method: str) -> None:
            if on_method is not None:
                on_method(next(begun), total, f"{track} track, {method}")

        tracks = tuple(
            self._track(track, asked, methods, recalls, tell) for track, asked in questions.items()
        )
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
            tracks=tracks,
        )

    def _open_text_encoder(self, opened: Collection) -> TextEncoder:
        name, allow_code = self._attached if opened is self.collection else ("", False)
        try:
            return text_encoder_of(opened, self._device, name, allow_code).encode_texts
        except BackboneUnavailable as error:
            raise BackboneUnavailable(
                f"the benchmark embeds queries of its own, but the backbone of {opened.name} is "
                f"unavailable ({unavailable_reason(error)}); {ATTACH}"
            ) from None

    def _methods(self) -> Iterator[Method]:
        for name in self.config.methods:
            if name in TRAINING_FREE:
                yield training_free(self.source, name)
            elif name == "SpLiCE":
                yield splice(self.source, self.words)
            elif name in TRAINED:
                yield coded(name, self.source, self._encoders(name))
            else:
                yield oracle()
        ids = self.collection.items["id"].tolist()
        for name, peer in self.peers.items():
            yield other_backbone(
                BackboneEmbeddings(peer, self._open(peer), modality_means(peer), ids), name
            )

    def _encoders(self, name: str) -> list[SparseEncoder]:
        if name == SIEVE and self.checkpoint is not None:
            return [self.checkpoint.encoder]
        return [
            trained_peer(
                name,
                self.train,
                replace(self.config.training, seed=seed),
                lambda texts: self.source.texts(texts),
                n_words=len(self.words),
                device=self._device,
                progress=self._progress,
            ).encoder
            for seed in self.config.seeds
        ]

    def _track(
        self,
        track: TrackName,
        asked: TrackPairs,
        methods: Sequence[Method],
        recalls: Mapping[str, dict[str, float]],
        tell: Callable[[TrackName, str], None],
    ) -> TrackResult:
        report = asked.report
        draws = draw_resamples(report.a_names, len(report.rows), self.config.resamples, 0)
        measured: list[Measured] = []
        variants: list[Measured] = []
        for method in tqdm(methods, desc=f"{track} track", disable=not self._progress):
            tell(track, method.name)
            tuning, final = method.represent(asked.tuning), method.represent(report)
            for name, rules, kept in (
                (method.name, method.rules, measured),
                *((f"{method.name}: {rule.name}", (rule,), variants) for rule in method.variants),
            ):
                kept.append(measure(name, rules, tuning, final, asked, draws, self.config.trials))
        by_name = {found.result.method: found for found in (*measured, *variants)}

        def compared(found: Measured) -> MethodResult:
            name = found.result.method
            same_rule = by_name.get(f"{SIEVE}:{name.partition(':')[2]}") if ":" in name else None
            result = found.against(by_name.get(SIEVE), same_rule)
            return replace(result, recall=recalls.get(name))

        return TrackResult(
            track=track,
            asked=tuple(
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
            tuning_pairs=len(asked.tuning.pairs),
            tuning_items=len(asked.tuning.rows),
            tuning_law=asked.tuning_law,
            methods=tuple(map(compared, measured)),
            variants=tuple(map(compared, variants)),
            answers=shown_answers(
                by_name.get(SIEVE),
                [found for found in measured if found.result.method != SIEVE],
                report,
                self.collection.items["id"].tolist(),
            ),
        )


def _mean_recall(seeds: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([seed[name] for seed in seeds])) for name in seeds[0]}
