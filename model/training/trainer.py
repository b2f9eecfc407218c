"""Train a sparse encoder on a collection, resumably, and write a checkpoint.

A step of `Trainer` encodes a batch of pairs, keeps the top k activations (annealed from 4k) and
sums the losses of `sieve.model.training.losses`. Presence aligns dimensions with words, which
exclusion needs; contrast aligns the modalities; reconstruction preserves the embedding.

The state of an unfinished run is one safetensors file, replaced atomically: parameters, optimiser
moments, idle counters of the dimensions, and the curves so far in its metadata. A resumed run gives
the same weights as an uninterrupted one.
"""

from __future__ import annotations

import copy
import json
import logging
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from sieve.model.backbone.clip import resolve_device
from sieve.model.checkpoint import Checkpoint, save_checkpoint
from sieve.model.collection import Collection
from sieve.model.dimensions.naming import name_encoder
from sieve.model.dimensions.vocabulary import TextTower
from sieve.model.encoder import SparseEncoder
from sieve.model.files import atomic_file
from sieve.model.hyperparameters import TrainingConfig
from sieve.model.text_encoder import ATTACH, text_tower
from sieve.model.training.data import Batch, PrefetchLoader, TrainingData
from sieve.model.training.distributed import ALONE, World, keep_gather_eager, process_group
from sieve.model.training.objectives import OBJECTIVES, WIDE, Compact, TrainingModule
from sieve.model.training.validation import (
    ValidationReport,
    ValidationSchedule,
    Validator,
    calibrate,
    code_quality,
    validation_refusal,
)

log = logging.getLogger(__name__)

_IDLE_STEPS = 50
"""Steps without activity after which a dimension counts as dead."""
_FINISH_ON = 2000
"""Items and captions that finalise a snapshot."""


class StepReport(NamedTuple):
    """Progress of a training run after a step."""

    step: int
    n_steps: int
    losses: dict[str, float]
    """Unweighted terms and their weighted `total`."""
    live: float
    """Share of dimensions that are not dead."""


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device has native bfloat16 matrix products; otherwise they would be slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.8 and newer
    return device.type == "cpu" and any(map(capabilities.get, ("amx_bf16", "avx512_bf16")))


class Trainer:
    """State of a training run: data, encoder, optimiser and step.

    The processes of `world`, by default a single one, share each batch. Raises a ValueError if it
    cannot be divided equally among them.
    """

    def __init__(
        self,
        data: TrainingData,
        config: TrainingConfig,
        device: torch.device,
        world: World = ALONE,
    ) -> None:
        self.data = data
        self.config = config
        self.device = device
        self.world = world
        generator = torch.Generator().manual_seed(config.seed)
        width = data.collection.backbone.width
        encoder = SparseEncoder(config.shape(width), generator)
        self.objective = OBJECTIVES[config.objective](data, config)
        self.objective.begin(encoder)
        self.module = TrainingModule(encoder, len(data.words.words)).to(device)
        scalars = [part for part in self.module.parameters() if part.ndim == 0]
        # The scalars scale all cosines and have farther to move than weights.
        groups = [
            {"params": list(self.module.encoder.parameters()), "lr_factor": 1.0},
            {"params": scalars, "lr_factor": 10.0, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
        self.idle = torch.zeros(config.m, dtype=torch.int64, device=device)
        self.bfloat16 = multiplies_bfloat16(device)
        self.n_steps = config.steps(data.steps_per_epoch)
        self.loader = PrefetchLoader(data, device, world, self.n_steps)
        self.step = 0
        self.whole = True
        """False while a step updates the weights; the state must not be saved then."""
        self._losses = self.objective.losses
        if device.type == "cuda" and isinstance(self.objective, Compact):
            # On a CPU compilation costs more than it saves; the baselines use numpy in a step.
            self.compile()

    def compile(self, backend: str | Callable = "inductor") -> None:
        """Compile the losses at the first step; fall back to eager mode if that fails."""
        keep_gather_eager()
        self._losses = torch.compile(self.objective.losses, backend=backend)

    @property
    def is_compiled(self) -> bool:
        """Whether the losses are compiled; false after a fallback to eager mode."""
        return self._losses != self.objective.losses

    def k_now(self) -> int:
        """Return k at this step; it falls geometrically from 4k to k."""
        progress = self.step / max(self.config.anneal * self.n_steps, 1)
        wide = min(WIDE * self.config.k, self.config.m)
        return max(round(wide * (self.config.k / wide) ** min(progress, 1.0)), self.config.k)

    def learning_rate_now(self) -> float:
        """Return the learning rate: linear warm-up over 5% of the steps, then cosine decay to 0."""
        warm = max(round(0.05 * self.n_steps), 1)
        if self.step < warm:
            return self.config.learning_rate * (self.step + 1) / warm
        progress = (self.step - warm) / max(self.n_steps - warm, 1)
        return self.config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))

    def export(self) -> SparseEncoder:
        """Return the trained encoder, finalised and on the CPU."""
        encoder = self.module.encoder.cpu().eval()
        self.objective.finish(encoder)
        return encoder

    def snapshot(self) -> SparseEncoder:
        """Return a finalised copy of the encoder on the CPU, without affecting the training."""
        encoder = copy.deepcopy(self.module.encoder).cpu().eval()
        self.objective.finish(encoder, at_most=_FINISH_ON)
        return encoder

    def train_step(self) -> StepReport:
        """Train one step, together with all other ranks; a ValueError if the loss is not finite."""
        self.objective.before_step(self.module, self.step, self.n_steps, self.world)
        batch = self.loader.batch(self.step)
        names, values, fired = self._differentiate_or_fall_back(batch)
        gradients = [part.grad for part in self.module.parameters() if part.grad is not None]
        self.world.average([*gradients, values, fired])
        idle = torch.where(fired > 0, 0, self.idle + 1)
        live = (idle <= _IDLE_STEPS).float().mean()
        # The only GPU synchronisation of a step.
        *terms, total, live = torch.cat([values, live[None]]).tolist()
        if not math.isfinite(total):
            raise ValueError(
                f"the loss is not finite at step {self.step}; train with a smaller --learning-rate"
            )
        self.whole = False
        for group in self.optimizer.param_groups:
            group["lr"] = group["lr_factor"] * self.learning_rate_now()
        nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        self.optimizer.step()
        self.idle = idle
        self.step += 1
        self.whole = True
        losses = {**dict(zip(names, terms, strict=True)), "total": total}
        return StepReport(self.step, self.n_steps, losses, live)

    def _differentiate_or_fall_back(self, batch: Batch) -> tuple[list[str], Tensor, Tensor]:
        try:
            return self._differentiate(batch)
        except Exception as error:
            if not self.is_compiled:
                raise
            # The compiler may lack tools or kernels here. Any other error is raised again below.
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            log.warning("torch.compile failed (%s); continuing in eager mode", reason)
            self._losses = self.objective.losses
            return self._differentiate(batch)

    def _differentiate(self, batch: Batch) -> tuple[list[str], Tensor, Tensor]:
        """Compute gradients; return loss names, losses and total, and what fired."""
        self.optimizer.zero_grad(set_to_none=True)
        idle = self.idle > _IDLE_STEPS
        dead = idle if idle.any() else None
        # Threads share the cache of casts, so concurrent trainings would not be reproducible.
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.bfloat16, cache_enabled=False
        ):
            losses, fired = self._losses(self.module, batch, self.k_now(), dead, self.world)
        weights = self.objective.weights(self.step / self.n_steps)
        total = torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()
        total.backward()
        values = torch.stack([*losses.values(), total]).detach().float()
        return list(losses), values, fired.float()


OWN_BACKBONE = "backbone"
"""`words_by` in `training.json` if the backbone of the collection embedded the words."""
_STATE = "state.safetensors"


def save_state(folder: Path, trainer: Trainer, metadata: dict[str, Any]) -> None:
    """Write the training state, and replace an older one atomically.

    `metadata` is JSON-compatible: identity, step and curves.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"parameter.{name}": part for name, part in trainer.module.state_dict().items()}
    for index, moments in trainer.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in moments.items()}
    tensors["idle"] = trainer.idle
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_file(folder / _STATE) as temporary:
        save_file(contiguous, temporary, {"facts": json.dumps(metadata)})


def read_metadata(folder: Path) -> dict[str, Any] | None:
    """Read the metadata of an unfinished training, or None; a ValueError if it is damaged."""
    path = folder / _STATE
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as state:
            return json.loads(state.metadata()["facts"])
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is damaged ({error}); remove it to train from the start"
        ) from None


def load_state(folder: Path, trainer: Trainer) -> None:
    """Load a saved state into a new trainer of the same configuration."""
    parameters: dict[str, Tensor] = {}
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in load_file(folder / _STATE).items():
        kind, _, rest = name.partition(".")
        if kind == "parameter":
            parameters[rest] = tensor
        elif kind == "optimizer":
            index, moment = rest.split(".")
            moments.setdefault(int(index), {})[moment] = tensor
        else:
            trainer.idle.copy_(tensor)
    trainer.module.load_state_dict(parameters)
    optimizer = trainer.optimizer
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})


def train(
    collection: Collection,
    out: Path,
    config: TrainingConfig | None = None,
    *,
    device: str = "auto",
    backbone: TextTower | None = None,
    text_encoder: str = "",
    allow_code: bool = False,
    on_step: Callable[[StepReport], None] | None = None,
    on_validation: Callable[[ValidationReport], None] | None = None,
    progress: bool = True,
    save_every: float = 30.0,
) -> Checkpoint:
    """Train a sparse encoder on a collection's train split and write a checkpoint.

    An interrupted run resumes from its last saved state when called again with the same collection,
    `out` and configuration, and ends with the same weights as an uninterrupted one.

    Under `torchrun` all processes train together, each on its share of every batch (see
    `sieve.model.training.distributed`). Only the main rank writes files and shows progress; all
    return the checkpoint.

    Parameters
    ----------
    collection : Collection
    out : Path
        The checkpoint folder; must not exist. The state of an unfinished run is stored beside it.
    config : TrainingConfig, optional
    device : str
        auto, cuda, mps or cpu.
    backbone : Backbone, optional
        Of the collection; loaded if not given. If it is unavailable, words are embedded from the
        captions of the train split (see `model.text_encoder`), as `training.json` records.
    text_encoder : str
        A backbone or `package.module:function` that embeds words instead of the backbone of the
        collection: see `model.text_encoder`.
    allow_code : bool
        Whether such a function may be loaded.
    on_step : callable, optional
        Called after each step, on every rank; an exception from it stops the training resumably.
    on_validation : callable, optional
        Called after each validation, before `on_step` of the same step; see
        `sieve.model.training.validation`. Without it, there is no validation.
    progress : bool
        Show a progress bar.
    save_every : float
        Seconds between saved states.

    Raises a FileExistsError if `out` exists, and a ValueError if there is no training data, the
    activation is `dense`, or `out` has an unfinished run with other settings.
    """
    config = config or TrainingConfig()
    if config.activation == "dense":
        raise ValueError(
            "activation must be topk or elu; got 'dense', which only the benchmark trains, as a "
            "control without sparse codes"
        )
    if out.exists():
        raise FileExistsError(f"{out} exists already; choose another --out or remove it first")
    target = resolve_device(device)
    schedule = ValidationSchedule()
    with process_group(target) as world:
        reason = ""
        if backbone is None:
            rows = collection.rows_of_split(["train"])
            backbone, reason = text_tower(collection, device, text_encoder, allow_code, rows)
        if reason and world.is_main:
            log.warning(
                "words are read from the captions of the train split, because the collection's "
                "backbone is unavailable (%s); to use one, %s", reason, ATTACH,
            )  # fmt: skip
        words_by = "captions of the train split" if reason else text_encoder or OWN_BACKBONE
        data = TrainingData(collection, backbone.encode_texts, config)
        trainer = Trainer(data, config, target, world)
        unfinished = out.with_name(f".{out.name}.unfinished")
        identity = {"config": asdict(config), "collection": collection.sha256}
        if words_by != OWN_BACKBONE:
            identity["words_by"] = words_by
        curves = _resume(trainer, unfinished, identity)
        validator = None
        if on_validation and world.is_main and not validation_refusal(collection):
            with schedule.timed():
                validator = Validator(collection, backbone.encode_texts)

        def after_step(report: StepReport) -> None:
            if validator and on_validation and schedule.due(report.step, report.n_steps):
                with schedule.timed(report.step):
                    found = validator.measure(trainer.snapshot(), report.step)
                on_validation(found)
            if on_step is not None:
                on_step(report)

        def save() -> None:
            if world.is_main:
                metadata = {"identity": identity, "step": trainer.step, "curves": curves}
                save_state(unfinished, trainer, metadata)

        _run(trainer, curves, after_step, save, progress and world.is_main, save_every)
        if world.is_main:
            _finish(trainer, out, curves, backbone, words_by)
            shutil.rmtree(unfinished, ignore_errors=True)
        world.wait()
    return Checkpoint.load(out)


def _resume(trainer: Trainer, unfinished: Path, identity: dict[str, Any]) -> list[dict[str, float]]:
    """Load the state of an unfinished run, if there is one; return its curves."""
    metadata = read_metadata(unfinished)
    trainer.world.agree(int(metadata["step"]) if metadata else 0, f"the step of {unfinished}")
    if metadata is None:
        return []
    if metadata["identity"] != identity:
        raise ValueError(
            f"{unfinished} holds an unfinished training with other settings or data; continue "
            "with those, choose another --out, or remove that folder"
        )
    load_state(unfinished, trainer)
    trainer.step = int(metadata["step"])
    if trainer.world.is_main:
        log.info("resuming at step %s of %s", trainer.step, trainer.n_steps)
    return metadata["curves"]


def _run(
    trainer: Trainer,
    curves: list[dict[str, float]],
    after_step: Callable[[StepReport], None],
    save: Callable[[], None],
    progress: bool,
    save_every: float,
) -> None:
    """Train the remaining steps; save the state periodically and when interrupted."""
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
                after_step(report)
                if time.monotonic() - saved > save_every:
                    save()
                    saved = time.monotonic()
        except BaseException:
            # A partial update is not saved; the last saved state is complete.
            if trainer.step and trainer.whole:
                save()
            raise


def _finish(
    trainer: Trainer,
    out: Path,
    curves: list[dict[str, float]],
    backbone: TextTower,
    words_by: str,
) -> None:
    """Evaluate, calibrate, name and write the trained encoder."""
    encoder, rows = trainer.export(), trainer.data.rows
    collection = trainer.data.collection
    save_checkpoint(
        out,
        encoder,
        backbone=collection.backbone,
        calibration=calibrate(encoder, collection, backbone.encode_texts),
        trained_on=collection.name,
        settings=asdict(trainer.config),
        training={
            "curves": curves,
            "quality": code_quality(encoder, collection),
            "words_by": words_by,
            "items": collection.items["id"].iloc[rows].tolist(),
        },
        names=name_encoder(encoder, collection, rows, backbone),
    )
