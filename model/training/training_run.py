"""Training the sparse encoder on a collection's embeddings, on a GPU where there is one.

`sieve.model.training.trainer` takes the steps; here a training begins or goes on, is saved now and
then, and becomes a checkpoint.

The state of an unfinished training, saved so that a killed run goes on exactly.

One safetensors file, replaced atomically: parameters, optimiser moments, counters of idle
dimensions, and the curves so far in its metadata.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm import tqdm

from sieve.model.backbone import resolve_device
from sieve.model.checkpoint import Checkpoint, save_checkpoint
from sieve.model.collection import Collection
from sieve.model.dimensions.naming import name_encoder
from sieve.model.dimensions.statistics import code_quality
from sieve.model.dimensions.vocabulary import TextTower
from sieve.model.files import atomic_file
from sieve.model.text_encoder import ATTACH, text_tower
from sieve.model.training.calibration import calibrate
from sieve.model.training.config import TrainingConfig
from sieve.model.training.distributed import process_group
from sieve.model.training.trainer import StepReport, Trainer, training_data
from sieve.model.training.validation import (
    ValidationReport,
    ValidationSchedule,
    Validator,
    validation_refusal,
)

_STATE = "state.safetensors"


def save_state(
    folder: Path,
    parameters: nn.Module,
    optimizer: Optimizer,
    idle: Tensor,
    facts: dict[str, Any],
) -> None:
    """Write the state, replacing an older one only when whole.

    Parameters
    ----------
    folder : Path
    parameters : nn.Module
        Everything that is learned.
    optimizer : Optimizer
    idle : (m,) int64
        Steps since each dimension last fired.
    facts : dict
        Whatever JSON can hold: step, configuration, curves.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"parameter.{name}": part for name, part in parameters.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in moments.items()}
    tensors["idle"] = idle
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_file(folder / _STATE) as draft:
        save_file(contiguous, draft, {"facts": json.dumps(facts)})


def read_facts(folder: Path) -> dict[str, Any] | None:
    """Read the facts of an unfinished training; None where there is none.

    Raises
    ------
    ValueError
        If the state is damaged.
    """
    path = folder / _STATE
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as state:
            return json.loads(state.metadata()["facts"])
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}); remove it to train from anew") from None


def load_state(folder: Path, parameters: nn.Module, optimizer: Optimizer, idle: Tensor) -> None:
    """Put a saved state back into freshly made objects of the same shapes."""
    with safe_open(folder / _STATE, "pt") as state:
        names = set(state.keys())
        parameters.load_state_dict(
            {
                name.removeprefix("parameter."): state.get_tensor(name)
                for name in names
                if name.startswith("parameter.")
            }
        )
        moments: dict[int, dict[str, Tensor]] = {}
        for name in names:
            if name.startswith("optimizer."):
                _, index, moment = name.split(".")
                moments.setdefault(int(index), {})[moment] = state.get_tensor(name)
        optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
        with torch.no_grad():
            idle.copy_(state.get_tensor("idle"))


log = logging.getLogger(__name__)

OWN_BACKBONE = "backbone"
"""`words_by` in `training.json` if the collection's own backbone embedded the words."""


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
    on_probe: Callable[[ValidationReport], None] | None = None,
    progress: bool = True,
    save_every: float = 30.0,
) -> Checkpoint:
    """Train a sparse encoder on a collection's train split and write a checkpoint.

    A run that was killed goes on from its last saved state when called again with the same
    collection, `out` and configuration, and ends with the same weights as an unbroken one.

    Under `torchrun` all processes train together, each on its share of every batch (see
    `sieve.model.training.distributed`); the first alone writes and shows progress, and all return
    the checkpoint.

    Parameters
    ----------
    collection : Collection
    out : Path
        The checkpoint folder; must not exist yet. Unfinished state is kept beside it.
    config : TrainingConfig, optional
    device : str
        auto, cuda, mps or cpu.
    backbone : Backbone, optional
        Of the collection; opened when not given. Where it is unavailable, words are embedded from
        the captions of the train split: see `model.caption_encoder`. `training.json` says so.
    text_encoder : str
        A backbone or `package.module:function` to embed words with, in place of the collection's
        own backbone: see `model.text_encoder`.
    allow_code : bool
        Whether such a function may be loaded.
    on_step : callable, optional
        Called after each step, on every rank; an exception from it stops the training, resumably.
    on_probe : callable, optional
        Called at each validation, before `on_step` of the same step; see
        `sieve.model.training.validation`. Without it, there is no validation.
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
    pace = ValidationSchedule()
    with process_group(chosen) as world:
        fault = ""
        if backbone is None:
            rows = collection.rows_of_split(["train"])
            backbone, fault = text_tower(collection, device, text_encoder, allow_code, rows)
        if fault and world.leads:
            log.warning(
                "words are read from the captions of the train split, because the collection's "
                "backbone is unavailable (%s); to use one, %s", fault, ATTACH,
            )  # fmt: skip
        words_by = "captions of the train split" if fault else text_encoder or OWN_BACKBONE
        data = training_data(collection, config, backbone.encode_texts)
        trainer = Trainer(data, config, chosen, world)
        unfinished = out.with_name(f".{out.name}.unfinished")
        identity = _identity(trainer, words_by)
        curves = _resume(trainer, unfinished, identity)
        look = _prober(trainer, backbone, on_probe, pace) if on_probe and world.leads else None
        _run(
            trainer,
            curves,
            unfinished,
            identity,
            on_step,
            look,
            progress and world.leads,
            save_every,
        )
        if world.leads:
            _finish(trainer, out, curves, backbone, words_by)
            shutil.rmtree(unfinished, ignore_errors=True)
        world.wait()
    return Checkpoint.load(out)


def _finish(
    trainer: Trainer,
    out: Path,
    curves: list[dict[str, float]],
    backbone: TextTower,
    words_by: str,
) -> None:
    """Measure, name and write what was trained."""
    encoder, data = trainer.finished(), trainer.data
    collection = data.collection
    quality = code_quality(encoder, collection)
    save_checkpoint(
        out,
        encoder,
        backbone=collection.backbone,
        calibration=calibrate(encoder, collection, backbone.encode_texts),
        trained_on=collection.name,
        settings=asdict(trainer.config),
        training={
            "curves": curves,
            "quality": quality,
            "words_by": words_by,
            "items": collection.items["id"].iloc[data.rows].tolist(),
        },
        names=name_encoder(encoder, collection, data.rows, backbone),
    )


def _prober(
    trainer: Trainer,
    backbone: TextTower,
    on_probe: Callable[[ValidationReport], None],
    pace: ValidationSchedule,
) -> Callable[[], None] | None:
    """Make what looks, after each step, whether a probe is due; None where none can be."""
    collection = trainer.data.collection
    if validation_refusal(collection) or trainer.config.activation == "dense":
        return None
    with pace.spending():
        probe = Validator(collection, backbone.encode_texts)

    def look() -> None:
        if not pace.due(trainer.step, trainer.n_steps):
            return
        with pace.spending(trainer.step):
            found = probe.measure(trainer.as_it_is(), trainer.step)
        on_probe(found)

    return look


def _identity(trainer: Trainer, words_by: str) -> dict[str, Any]:
    named = {"config": asdict(trainer.config), "collection": trainer.data.collection.sha256}
    return named if words_by == OWN_BACKBONE else {**named, "words_by": words_by}


def _resume(trainer: Trainer, unfinished: Path, identity: dict[str, Any]) -> list[dict[str, float]]:
    """Load an unfinished training's state; returns its curves."""
    facts = read_facts(unfinished)
    trainer.world.agree(int(facts["step"]) if facts else 0, f"the step of {unfinished}")
    if facts is None:
        return []
    if facts["identity"] != identity:
        raise ValueError(
            f"{unfinished} holds an unfinished training with other settings or data; go on with "
            "those, choose another --out, or remove that folder"
        )
    load_state(unfinished, trainer.learner, trainer.optimizer, trainer.idle)
    trainer.step = int(facts["step"])
    if trainer.world.leads:
        log.info("going on at step %s of %s", trainer.step, trainer.n_steps)
    return facts["curves"]


def _run(
    trainer: Trainer,
    curves: list[dict[str, float]],
    unfinished: Path,
    identity: dict[str, Any],
    on_step: Callable[[StepReport], None] | None,
    look: Callable[[], None] | None,
    progress: bool,
    save_every: float,
) -> None:
    """Take all remaining steps, saving the state now and then and when stopped."""

    def save() -> None:
        if not trainer.world.leads:
            return
        facts = {"identity": identity, "step": trainer.step, "curves": curves}
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
                if look is not None:
                    look()
                if on_step is not None:
                    on_step(report)
                if time.monotonic() - saved > save_every:
                    save()
                    saved = time.monotonic()
        except BaseException:
            # Half a step is worth less than the whole ones before it, which were saved.
            if trainer.step and trainer.whole:
                save()
            raise
