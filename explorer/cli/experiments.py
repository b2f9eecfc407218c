"""`sieve train` and `sieve evaluate`: train a sparse encoder, and measure how well it excludes."""

from __future__ import annotations

import json
import logging
import sys
import time
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import UseAppendAction, arg
from tyro.constructors import (
    ConstructorRegistry,
    StructConstructorSpec,
    StructTypeInfo,
)

from sieve.explorer.cli.options import BackboneOptions, CollectionName, Count, File, Json, parse_out
from sieve.explorer.cli.output import print_facts, print_json, print_text
from sieve.explorer.json_validation import check_choice, split_list
from sieve.model.files import reason_of
from sieve.model.hyperparameters import OPTIONS, TrainingConfig, configure

if TYPE_CHECKING:
    from sieve.model.benchmark.results import BenchmarkConfig
    from sieve.model.checkpoint import Checkpoint
    from sieve.model.collection import Collection
    from sieve.model.evaluation.query_sets import QuerySet
    from sieve.model.training.trainer import StepReport
    from sieve.model.training.validation import ValidationReport

log = logging.getLogger(__name__)

registry = ConstructorRegistry()
LogTool = Literal["tensorboard", "wandb"]
_LOG_PACKAGES = {"tensorboard": '"sieve-explorer[log]"', "wandb": "wandb"}
_MAX_LOGGED = 1000
"""Number of steps whose losses are logged."""


class Hyperparameters(dict[str, Any]):
    """The hyperparameters that are given, by the names of `TrainingConfig`."""


@registry.struct_rule
def hyperparameter_options(info: StructTypeInfo) -> StructConstructorSpec | None:
    """Make an option of each hyperparameter in `OPTIONS`, with its name, type and docstring."""
    if info.type is not Hyperparameters:
        return None
    read = ConstructorRegistry.get_struct_spec(replace(info, type=TrainingConfig))
    assert isinstance(read, StructConstructorSpec)
    options = []
    for option in read.fields:
        if option.name not in OPTIONS:
            continue
        shown = arg(
            metavar=option.type.__name__.upper(),
            help_behavior_hint="(default: the preset's)",
            aliases=["--batch"] if option.name == "batch_size" else None,
        )
        options.append(replace(option, type=Annotated[option.type | None, shown], default=None))

    def given(**values: Any) -> Hyperparameters:
        return Hyperparameters({name: v for name, v in values.items() if v is not None})

    return StructConstructorSpec(given, tuple(options))


@dataclass(frozen=True)
class Train:
    """Train a sparse encoder on a collection's captions.

    Repeat the command to resume an interrupted run. To train on several GPUs: torchrun
    --nproc-per-node N -m -- sieve train COLLECTION, with the same options.

    Example: sieve train my-photos --out my-codes --epochs 30
    """

    collection: CollectionName
    out: File = None
    """Folder of the new checkpoint; by default $SIEVE_HOME/checkpoints/NAME, where it is found
    automatically."""
    preset: Literal["compact", "paper"] = "compact"
    """Base settings, which the options below override."""
    hyperparameters: Hyperparameters = field(default_factory=Hyperparameters)
    backbone: BackboneOptions = BackboneOptions()
    log: Annotated[LogTool | None, arg(metavar="tensorboard|wandb")] = None
    """Log losses and validation metrics during the training: for TensorBoard in the folder
    runs/NAME, or as a run of the project sieve of Weights & Biases."""
    json: Json = False

    def run(self) -> None:
        """Train the encoder, and print its validation metrics."""
        self.backbone.announce(self.collection)
        from sieve.model.checkpoint_choice import explain_choice
        from sieve.model.collection import Collection
        from sieve.model.training.distributed import world_from_env

        leads = world_from_env().is_main
        started = time.perf_counter()
        checkpoint = self.train(progress=sys.stderr.isatty() and leads)
        if not leads:
            return
        opened = Collection.open(self.backbone.find_collection(self.collection))
        choice, name = explain_choice(opened, checkpoint.path), checkpoint.name
        if choice.other not in ("", name):
            text = "%s It is not opened by default; open it with --checkpoint %s"
            log.warning(text, choice.reason, name)
        report = training_report(checkpoint, time.perf_counter() - started)
        print_json(report) if self.json else print_facts(report)

    def train(self, progress: bool) -> Checkpoint:
        """Train the encoder, with a progress bar if wanted."""
        if self.log and find_spec(check_choice("log", self.log, tuple(_LOG_PACKAGES))) is None:
            package = _LOG_PACKAGES[self.log]
            raise ValueError(f"--log {self.log} needs a package: pip install {package}")
        from sieve.model.checkpoint_choice import default_checkpoint_out
        from sieve.model.collection import Collection
        from sieve.model.training.distributed import world_from_env
        from sieve.model.training.trainer import train

        opened = Collection.open(self.backbone.find_collection(self.collection, progress))
        out = parse_out(self.out) if self.out else default_checkpoint_out(opened.name)
        config = configure(self.preset, self.hyperparameters)
        callbacks: dict[str, Any] = {}
        with ExitStack() as stack:
            if self.log and world_from_env().is_main:
                training_log = stack.enter_context(closing(TrainingLog(self.log, out.name, config)))
                callbacks["on_step"] = training_log.add_step
                callbacks["on_validation"] = training_log.add_validation
            return train(
                opened,
                out,
                config,
                device=self.backbone.device,
                text_encoder=self.backbone.text_encoder_name(),
                allow_code=self.backbone.allow_code,
                progress=progress,
                **callbacks,
            )


class TrainingLog:
    """The log of one training, for TensorBoard or Weights & Biases.

    Raises a ValueError or an OSError if it cannot be started.
    """

    def __init__(self, tool: LogTool, name: str, config: TrainingConfig) -> None:
        if tool == "tensorboard":
            from torch.utils.tensorboard import SummaryWriter

            writer = SummaryWriter(str(Path("runs", name)))
            self._add, self.close = writer.add_scalar, writer.close
            log.warning("see the curves with `tensorboard --logdir runs`")
            return
        import wandb  # pyright: ignore[reportMissingImports]

        try:
            run = wandb.init(project="sieve", name=name, config=asdict(config))
        except Exception as error:  # wandb has many, such as one for a missing login
            raise ValueError(
                f"Weights & Biases cannot start a run ({reason_of(error)}); log in with `wandb "
                "login`, or set WANDB_MODE=offline"
            ) from None
        self._add = lambda curve, value, step: run.log({curve: value}, step=step)
        self.close = run.finish

    def add_step(self, report: StepReport) -> None:
        """Log the losses after a step, of at most about 1000 steps."""
        if report.step % max(report.n_steps // _MAX_LOGGED, 1) and report.step < report.n_steps:
            return
        for name, value in report.losses.items():
            self._add(f"train/{name}", value, report.step)
        self._add("train/live dimensions", report.live, report.step)

    def add_validation(self, report: ValidationReport) -> None:
        """Log the metrics of a validation."""
        self._add("validation/recall@10", report.recall, report.step)
        if report.exclusion is not None:
            self._add("validation/exclusion AP@10", report.exclusion, report.step)


@dataclass(frozen=True)
class Evaluate:
    """Measure exclusion ("A without B") for Sieve and baselines, with confidence intervals.

    Hyperparameters are tuned on the validation split (select); the table reports the test split.
    Encoders that are not in the cache are trained first, which takes minutes.

    Example: sieve evaluate scenes --track label --out results
    """

    collection: CollectionName
    train: Annotated[str | None, arg(metavar="COLLECTION")] = None
    """Train on the train split of this collection instead."""
    checkpoint: Annotated[str | None, arg(metavar="CHECKPOINT")] = None
    """Evaluate this checkpoint as Sieve, instead of training the default encoder with several
    seeds."""
    track: Literal["label", "caption", "all"] = "all"
    """Source of A and B: labels, or nouns in captions; all uses every track that the collection
    supports."""
    baseline: Annotated[
        UseAppendAction[tuple[str, ...]], arg(metavar="NAME=COLLECTION", aliases=["--peer"])
    ] = ()
    """The same items embedded by another backbone, as a baseline; repeatable."""
    queries: File = None
    """Report these queries instead of pairs of labels or nouns: JSON Lines with `query`, `without`,
    `relevant` and `violating` (item ids or file names), TREC topics with --qrels, or the retrieval
    CSV of NegBench."""
    qrels: File = None
    """TREC relevance judgments of --queries; negative grades mark items that violate the query."""
    methods: Annotated[str, arg(metavar="A,B,…")] = ""
    """Methods to compare; by default all."""
    seeds: Annotated[str, arg(metavar="N,N,…")] = "0,1,2"
    """Training seeds."""
    trials: int = 60
    """Hyperparameter settings tried per method."""
    epochs: Count = None
    """Epochs of each training; by default those of the compact preset."""
    resamples: int = 1000
    """Bootstrap resamples."""
    quick: bool = False
    """Evaluate only one checkpoint and the baselines that need no training; takes a minute or
    two."""
    out: File = None
    """Folder for CSV, plots, JSON and the configuration; must not exist."""
    backbone: BackboneOptions = BackboneOptions()
    json: Json = False

    def run(self) -> None:
        """Run the benchmark, print the table, and save it for the Benchmark tab."""
        self.backbone.announce(self.collection)
        from sieve.explorer.benchmark_report import table_text, write_report
        from sieve.model.benchmark.results import save_evaluation
        from sieve.model.benchmark.run import Benchmark

        out = parse_out(self.out) if self.out else None
        queries = self._queries()
        opened = self._open(self.collection)
        checkpoint = self._checkpoint(opened)
        baselines = map(_parse_baseline, self.baseline)
        benchmark = Benchmark(
            opened,
            self._config(opened),
            train=self._open(self.train) if self.train else None,
            checkpoint=checkpoint,
            baselines={name: self._open(path) for name, path in baselines},
            queries=queries,
            text_encoder=self.backbone.text_encoder_name(),
            allow_code=self.backbone.allow_code,
            device=self.backbone.device,
            progress=sys.stderr.isatty(),
        )
        result = benchmark.run()
        if out is not None:
            write_report(result, out, opened)
        print_json(result.as_json()) if self.json else print_text(table_text(result))
        saved = save_evaluation(result, checkpoint.name if checkpoint else "")
        if not self.json:
            print_text(f"Saved for the Benchmark tab of `sieve explore` as {saved.stem}\n")

    def _checkpoint(self, collection: Collection) -> Checkpoint | None:
        from sieve.model.checkpoint import Checkpoint
        from sieve.model.checkpoint_choice import checkpoint_path, find_checkpoint

        if self.checkpoint:
            return Checkpoint.load(checkpoint_path(self.checkpoint))
        return Checkpoint.load(find_checkpoint(collection)) if self.quick else None

    def _queries(self) -> QuerySet | None:
        from sieve.model.evaluation.query_sets import read_queries

        if self.queries is None and self.qrels is not None:
            raise ValueError("--qrels has the judgments of --queries; give both")
        return read_queries(self.queries, self.qrels) if self.queries else None

    def _open(self, name: str) -> Collection:
        from sieve.model.collection import Collection

        return Collection.open(self.backbone.find_collection(name))

    def _config(self, collection: Collection) -> BenchmarkConfig:
        from sieve.model.benchmark.methods import METHODS, SHORT_METHODS
        from sieve.model.benchmark.results import BenchmarkConfig
        from sieve.model.evaluation.pairs import tracks_of

        config = BenchmarkConfig(
            tracks=tracks_of(collection) if self.track == "all" else (self.track,),
            methods=tuple(split_list(self.methods)) or (SHORT_METHODS if self.quick else METHODS),
            seeds=_parse_seeds(self.seeds),
            trials=self.trials,
            resamples=self.resamples,
        )
        if self.epochs is None:
            return config
        return replace(config, training=replace(config.training, epochs=self.epochs))


def _parse_seeds(text: str) -> tuple[int, ...]:
    words = split_list(text)
    if not all(word.isdecimal() for word in words):
        raise ValueError(f"--seeds must be whole numbers such as 0,1,2; got {text!r}")
    return tuple(dict.fromkeys(map(int, words)))


def _parse_baseline(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not (name.strip() and equals and path.strip()):
        raise ValueError(f"--baseline must be NAME=COLLECTION; got {text!r}")
    return name.strip(), str(Path(path.strip()).expanduser())


def training_report(checkpoint: Checkpoint, seconds: float) -> dict[str, Any]:
    """Return the result of a training."""
    from sieve.model.checkpoint import TRAINING

    facts = json.loads((Path(checkpoint.path) / TRAINING).read_text())
    return {
        "checkpoint": str(checkpoint.path.absolute()),
        "trained_on": checkpoint.trained_on,
        "items": len(facts["items"]),
        "quality": facts["quality"],
        "seconds": seconds,
    }
