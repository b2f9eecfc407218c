"""Training the sparse encoder on a collection's embeddings, on a GPU where there is one.

One step: encode a batch of pairs, keep the top k (annealed from 4k), and add up the losses of
`model.losses`. Presence teaches what "has w" means, which is what exclusion needs; contrast ties
the modalities to one code; reconstruction keeps the code true to the embedding.
"""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from tqdm import tqdm

from model.backbone import Backbone, resolve_device
from model.calibration import calibrate
from model.checkpoint import Checkpoint, save_checkpoint
from model.collection import Collection
from model.encoder import Activation, SparseEncoder, SparseEncoderConfig
from model.learner import LOSSES, WIDE, Learner
from model.measures import code_quality
from model.naming import name_encoder
from model.objectives import OBJECTIVES, ObjectiveName, make_objective
from model.training_data import Batch, TrainingData
from model.training_state import load_state, read_facts, save_state

log = logging.getLogger(__name__)

_IDLE_STEPS = 50
"""A dimension that did not fire for so many steps counts as dead."""


@dataclass(frozen=True)
class TrainingConfig:
    """How to train; the defaults are the `compact` preset."""

    m: int = 1024
    """Dimensions of a code."""
    k: int = 64
    """At most this many are active."""
    k_text: int = 0
    """At most this many in a text's code; 0: as many as in an image's."""
    floor: float = 0.0
    """Activations below this share of the largest are dropped."""
    epochs: int = 15
    """Passes over all captions of the train split."""
    batch_size: int = 1024
    """Pairs a step."""
    learning_rate: float = 2e-3
    """Peak, after a warm-up of 5 % of the steps and before a cosine decay to 0."""
    weight_decay: float = 0.3
    """Of AdamW; strong, as thousands of pairs must teach half a million weights."""
    noise: float = 0.3
    """Length of the noise added to unit embeddings."""
    contrast: float = 1.0
    """Weight of InfoNCE between the codes of a pair."""
    reconstruct: float = 1.0
    """Weight of reconstruction at k and at 4k."""
    cross: float = 0.5
    """Weight of reconstructing an image from its caption's code and back."""
    presence: float = 3.0
    """Weight of word presence."""
    narrow: float = 3.0
    """Weight of word presence by a word's strongest dimension alone: it gives words their own."""
    exclude: float = 1.0
    """Weight of ranking A-without-B above all else."""
    balance: float = 1.0
    """Weight of each dimension being used alike by images and texts."""
    revive: float = 1 / 32
    """Weight of the auxiliary loss of dead dimensions."""
    n_words: int = 256
    """Words sampled a step."""
    n_exclusions: int = 256
    """Pairs of words, "A without B", drawn a step."""
    anneal: float = 0.3
    """Share of the steps over which k falls from 4k to k."""
    seed: int = 0
    """Of everything that is drawn."""
    activation: Activation = "topk"
    """How a linear map becomes a code."""
    objective: ObjectiveName = "compact"
    """What a step's losses are; the weights above scale those of the same name."""

    def __post_init__(self) -> None:
        self.shape(1)
        if self.objective not in OBJECTIVES:
            raise ValueError(
                f"objective must be one of {tuple(OBJECTIVES)}; got {self.objective!r}"
            )
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}")
        for name, value in asdict(self).items():
            if not isinstance(value, str) and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be a finite number of at least 0; got {value}")

    def shape(self, d: int) -> SparseEncoderConfig:
        """Shape of the encoder for embeddings of width d."""
        return SparseEncoderConfig(d, self.m, self.k, self.activation, self.k_text, self.floor)


PAPER = TrainingConfig(
    m=1000,
    k=256,
    objective="paper",
    noise=0.0,
    contrast=1.0,
    reconstruct=1.0,
    cross=0.0,
    presence=0.0,
    narrow=0.0,
    exclude=0.0,
    balance=0.0,
    revive=0.0,
    n_words=0,
    learning_rate=1e-3,
    weight_decay=0.0,
)
"""The `paper` preset: see `model.objectives.Paper`. The paper's own learning rate, 1e-4 to 1e-5 at
batch 4,096, belongs to many more pairs: of 1e-3, 3e-4 and 1e-4, this one had the highest recall on
the select items of a small collection."""
PRESETS = {"compact": TrainingConfig(), "paper": PAPER}


class StepReport(NamedTuple):
    """Where a training stands."""

    step: int
    n_steps: int
    losses: dict[str, float]
    """Unweighted terms and their weighted `total`."""
    live: float
    """Share of the dimensions that fired lately."""


def _weighted(config: TrainingConfig) -> frozenset[str]:
    """Losses of a weight above 0."""
    return frozenset(name for name in LOSSES if getattr(config, name) > 0)


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 by itself; elsewhere it would only be slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    known = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.8 and newer
    return device.type == "cpu" and bool(known.get("amx_bf16") or known.get("avx512_bf16"))


class Trainer:
    """One training, from its data to a checkpoint.

    Parameters
    ----------
    data : TrainingData
    config : TrainingConfig
    device : torch.device
    """

    def __init__(self, data: TrainingData, config: TrainingConfig, device: torch.device) -> None:
        self.data = data
        self.config = config
        self.device = device
        generator = torch.Generator().manual_seed(config.seed)
        width = data.collection.backbone.width
        encoder = SparseEncoder(config.shape(width), generator)
        self.objective = make_objective(config.objective, data, config.m, _weighted(config))
        self.objective.begin(encoder)
        self.learner = Learner(encoder).to(device)
        scalars = [part for part in self.learner.parameters() if part.ndim == 0]
        # Three scalars set the scale of all cosines; they have farther to go than a weight.
        groups = [
            {"params": list(self.learner.encoder.parameters()), "pace": 1.0},
            {"params": scalars, "pace": 10.0, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
        self.idle = torch.zeros(config.m, dtype=torch.int64, device=device)
        self.bfloat16 = multiplies_bfloat16(device)
        self.n_steps = config.epochs * data.steps_per_epoch
        self.step = 0

    def k_now(self) -> int:
        """Active dimensions at this step: falls geometrically from 4k to k."""
        progress = self.step / max(self.config.anneal * self.n_steps, 1)
        wide = min(WIDE * self.config.k, self.config.m)
        return max(round(wide * (self.config.k / wide) ** min(progress, 1.0)), self.config.k)

    def learning_rate_now(self) -> float:
        """Linear warm-up over 5 % of the steps, then a cosine to 0."""
        warm = max(round(0.05 * self.n_steps), 1)
        if self.step < warm:
            return self.config.learning_rate * (self.step + 1) / warm
        progress = (self.step - warm) / max(self.n_steps - warm, 1)
        return self.config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))

    def finished(self) -> SparseEncoder:
        """Take the trained encoder out, on the CPU and ready to encode."""
        encoder = self.learner.encoder.cpu().eval()
        self.objective.finish(encoder)
        return encoder

    def train_step(self) -> StepReport:
        """Take one step.

        Raises
        ------
        ValueError
            If the loss is no longer finite.
        """
        batch = Batch(*(part.to(self.device) for part in self.data.batch(self.step)))
        for group in self.optimizer.param_groups:
            group["lr"] = group["pace"] * self.learning_rate_now()
        dead = self.idle > _IDLE_STEPS
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            losses, fired = self.objective.losses(self.learner, batch, self.k_now(), dead)
        weights = asdict(self.config)
        total = torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()
        if not torch.isfinite(total):
            raise ValueError(
                f"the loss is not finite at step {self.step}; train with a smaller --learning-rate"
            )
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(self.learner.parameters(), 1.0)
        self.optimizer.step()
        self.idle = torch.where(fired, 0, self.idle + 1)
        self.step += 1
        values = {name: float(loss.detach()) for name, loss in losses.items()}
        values["total"] = float(total.detach())
        live = float((self.idle <= _IDLE_STEPS).float().mean())
        return StepReport(self.step, self.n_steps, values, live)


def train(
    collection: Collection,
    out: Path,
    config: TrainingConfig | None = None,
    *,
    device: str = "auto",
    backbone: Backbone | None = None,
    on_step: Callable[[StepReport], None] | None = None,
    progress: bool = True,
    save_every: float = 30.0,
) -> Checkpoint:
    """Train a sparse encoder on a collection's train split and write a checkpoint.

    A run that was killed goes on from its last saved state when called again with the same
    collection, `out` and configuration, and ends with the same weights as an unbroken one.

    Parameters
    ----------
    collection : Collection
    out : Path
        The checkpoint folder; must not exist yet. Unfinished state is kept beside it.
    config : TrainingConfig, optional
    device : str
        auto, cuda, mps or cpu.
    backbone : Backbone, optional
        Of the collection; loaded by name when not given.
    on_step : callable, optional
        Called after each step; an exception from it stops the training, resumably.
    progress : bool
        Show a progress bar.
    save_every : float
        Seconds between saved states.

    Raises
    ------
    FileExistsError
        If `out` exists.
    ValueError
        If there is nothing to train on, or an unfinished training with other settings lies there.
    """
    config = config or TrainingConfig()
    if out.exists():
        raise FileExistsError(f"{out} exists already; choose another --out or remove it first")
    chosen = resolve_device(device)
    backbone = backbone or Backbone.load(collection.backbone.name, device)
    data = TrainingData(
        collection,
        backbone.encode_texts,
        batch_size=config.batch_size,
        n_words=config.n_words,
        n_exclusions=config.n_exclusions if config.exclude else 0,
        noise=config.noise,
        seed=config.seed,
    )
    trainer = Trainer(data, config, chosen)
    unfinished = out.with_name(f".{out.name}.unfinished")
    curves = _resume(trainer, unfinished)
    _run(trainer, curves, unfinished, on_step, progress, save_every)
    encoder = trainer.finished()
    quality = code_quality(encoder, collection)
    save_checkpoint(
        out,
        encoder,
        backbone=collection.backbone,
        calibration=calibrate(encoder, collection, backbone.encode_texts),
        trained_on=collection.name,
        settings=asdict(config),
        training={
            "curves": curves,
            "quality": quality,
            "items": collection.items["id"].iloc[data.rows].tolist(),
        },
        names=name_encoder(encoder, collection, data.rows, backbone),
    )
    shutil.rmtree(unfinished, ignore_errors=True)
    return Checkpoint.load(out)


def _identity(trainer: Trainer) -> dict[str, Any]:
    return {"config": asdict(trainer.config), "collection": trainer.data.collection.sha256}


def _resume(trainer: Trainer, unfinished: Path) -> list[dict[str, float]]:
    """Load an unfinished training's state; returns its curves."""
    facts = read_facts(unfinished)
    if facts is None:
        return []
    if facts["identity"] != _identity(trainer):
        raise ValueError(
            f"{unfinished} holds an unfinished training with other settings or data; go on with "
            "those, choose another --out, or remove that folder"
        )
    load_state(unfinished, trainer.learner, trainer.optimizer, trainer.idle)
    trainer.step = int(facts["step"])
    log.info("going on at step %s of %s", trainer.step, trainer.n_steps)
    return facts["curves"]


def _run(
    trainer: Trainer,
    curves: list[dict[str, float]],
    unfinished: Path,
    on_step: Callable[[StepReport], None] | None,
    progress: bool,
    save_every: float,
) -> None:
    """Take all remaining steps, saving the state now and then and when stopped."""

    def save() -> None:
        facts = {"identity": _identity(trainer), "step": trainer.step, "curves": curves}
        save_state(unfinished, trainer.learner, trainer.optimizer, trainer.idle, facts)

    every = max(trainer.n_steps // 200, 1)
    saved = time.monotonic()
    bar = tqdm(
        total=trainer.n_steps, initial=trainer.step, unit="step", disable=not progress, desc="train"
    )
    with bar:
        try:
            while trainer.step < trainer.n_steps:
                report = trainer.train_step()
                bar.update()
                if report.step % every == 0 or report.step == trainer.n_steps:
                    curves.append({"step": report.step, "live": report.live, **report.losses})
                    shown = {name: f"{value:.3f}" for name, value in report.losses.items()}
                    bar.set_postfix(shown, live=f"{report.live:.1%}", refresh=False)
                if on_step is not None:
                    on_step(report)
                if time.monotonic() - saved > save_every:
                    save()
                    saved = time.monotonic()
        except BaseException:
            if trainer.step:
                save()
            raise
