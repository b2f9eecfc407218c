"""Training the sparse encoder on a collection's embeddings, on a GPU where there is one.

`sieve.model.training.trainer` takes the steps; here a training begins or goes on, is saved now and
then, and becomes a checkpoint.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sieve.model.backbone import resolve_device
from sieve.model.checkpoint import Checkpoint
from sieve.model.checkpoint_writing import save_checkpoint
from sieve.model.collection import Collection
from sieve.model.dimensions.naming import name_encoder
from sieve.model.dimensions.quality import code_quality
from sieve.model.dimensions.vocabulary import TextTower
from sieve.model.text_encoder import ATTACH, text_tower
from sieve.model.training.calibration import calibrate
from sieve.model.training.config import TrainingConfig
from sieve.model.training.distributed import joined
from sieve.model.training.probe import Pace, Probe, ProbeReport, probe_refusal
from sieve.model.training.state import load_state, read_facts, save_state
from sieve.model.training.trainer import StepReport, Trainer, training_data

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
    on_probe: Callable[[ProbeReport], None] | None = None,
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
        Called now and then, before `on_step` of the same step, with what a probe on select items
        found (see `sieve.model.training.probe`); never where there are none. Without it, nothing
        is.
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
    pace = Pace()
    with joined(chosen) as world:
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
    trainer: Trainer, backbone: TextTower, on_probe: Callable[[ProbeReport], None], pace: Pace
) -> Callable[[], None] | None:
    """Make what looks, after each step, whether a probe is due; None where none can be."""
    collection = trainer.data.collection
    if probe_refusal(collection) or trainer.config.activation == "dense":
        return None
    with pace.spending():
        probe = Probe(collection, backbone.encode_texts)

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
