"""`sieve evaluate`: measure how well methods exclude."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import UseAppendAction, arg

from sieve.explorer.cli.options import (
    CheckpointName,
    CollectionName,
    Device,
    File,
    TextEncoderName,
    TrustBackbone,
    announce_backbone_of,
    find_collection,
    parse_out,
    text_encoder_name,
)
from sieve.explorer.cli.output import print_json, print_text

if TYPE_CHECKING:
    from sieve.model.benchmark import BenchmarkConfig
    from sieve.model.checkpoint import Checkpoint
    from sieve.model.collection import Collection

Name = Annotated[str | None, arg(metavar="COLLECTION")]
Peer = Annotated[str, arg(metavar="NAME=COLLECTION", name="peer")]


@dataclass(frozen=True)
class Evaluate:
    """Measure exclusion ("A without B") for Sieve and baselines, with confidence intervals.

    Hyperparameters are tuned on the validation split (select); the table reports the test split.
    Encoders that are not in the cache are trained first, which takes minutes.

    Example: sieve evaluate scenes --track label --out results
    """

    collection: CollectionName
    """A path, a bundled collection (scenes) or a name in $SIEVE_HOME/collections."""
    train: Name = None
    """Train on the train split of this collection instead."""
    checkpoint: CheckpointName = None
    """Evaluate this checkpoint as Sieve, instead of training the default encoder with several
    seeds."""
    track: Literal["label", "caption", "all"] = "all"
    """Source of A and B: labels, or nouns in captions; all uses every track that the collection
    supports."""
    peer: Annotated[tuple[Peer, ...], UseAppendAction] = ()
    """The same items embedded by another backbone, as a baseline; repeatable."""
    methods: Annotated[str, arg(metavar="A,B,…")] = ""
    """Methods to compare; by default all."""
    seeds: Annotated[str, arg(metavar="N,N,…")] = "0,1,2"
    """Training seeds."""
    trials: int = 60
    """Hyperparameter settings tried per method."""
    epochs: Annotated[int | None, arg(metavar="INT")] = None
    """Epochs of each training; by default those of the compact preset."""
    resamples: int = 1000
    """Bootstrap resamples."""
    quick: bool = False
    """Evaluate only one checkpoint and the baselines that need no training; takes a minute or
    two."""
    out: File = None
    """Folder for CSV, plots, JSON and the configuration; must not exist."""
    device: Device = "auto"
    """Device to train and embed on."""
    text_encoder: TextEncoderName = ""
    """Encode texts with this backbone, or with this Python function and --allow-code, instead of
    with the collection's own backbone."""
    allow_code: bool = False
    """Load the Python function that encodes texts, if one is named. It runs with your permissions:
    only allow code that you trust."""
    trust_backbone: TrustBackbone = False
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        """Run the benchmark, print the table, and save it for the Benchmark tab."""
        announce_backbone_of(self.collection, self.text_encoder)
        from sieve.explorer.benchmark_report import table_text, write_report
        from sieve.model.benchmark import Benchmark, save_evaluation

        out = parse_out(self.out) if self.out else None
        opened = self._open(self.collection)
        checkpoint = self._checkpoint(opened)
        benchmark = Benchmark(
            opened,
            self._config(opened),
            train=self._open(self.train) if self.train else None,
            checkpoint=checkpoint,
            baselines={name: self._open(path) for name, path in map(_parse_peer, self.peer)},
            text_encoder=text_encoder_name(self.text_encoder),
            allow_code=self.allow_code,
            device=self.device,
            progress=sys.stderr.isatty(),
        )
        result = benchmark.run()
        if out is not None:
            write_report(result, out)
        print_json(result.as_json()) if self.json else print_text(table_text(result))
        saved = save_evaluation(result, checkpoint.path.name if checkpoint else "")
        if not self.json:
            print_text(f"Saved for the Benchmark tab of `sieve explore` as {saved.stem}\n")

    def _checkpoint(self, collection: Collection) -> Checkpoint | None:
        from sieve.model.checkpoint import Checkpoint, checkpoint_path, find_checkpoint

        if self.checkpoint:
            return Checkpoint.load(checkpoint_path(self.checkpoint))
        return Checkpoint.load(find_checkpoint(collection)) if self.quick else None

    def _open(self, name: str) -> Collection:
        from sieve.model.collection import Collection

        return Collection.open(find_collection(name, self.device, self.trust_backbone))

    def _config(self, collection: Collection) -> BenchmarkConfig:
        from sieve.model.benchmark import METHODS, SHORT_METHODS, BenchmarkConfig, tracks_of

        methods = tuple(name.strip() for name in self.methods.split(",") if name.strip())
        config = BenchmarkConfig(
            tracks=tracks_of(collection) if self.track == "all" else (self.track,),
            methods=methods or (SHORT_METHODS if self.quick else METHODS),
            seeds=_parse_seeds(self.seeds),
            trials=self.trials,
            resamples=self.resamples,
        )
        if self.epochs is None:
            return config
        return replace(config, training=replace(config.training, epochs=self.epochs))


def _parse_seeds(text: str) -> tuple[int, ...]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not all(word.isdecimal() for word in words):
        raise ValueError(f"--seeds must be whole numbers such as 0,1,2; got {text!r}")
    return tuple(dict.fromkeys(map(int, words)))


def _parse_peer(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not (name.strip() and equals and path.strip()):
        raise ValueError(f"--peer must be NAME=COLLECTION; got {text!r}")
    return name.strip(), str(Path(path.strip()).expanduser())
