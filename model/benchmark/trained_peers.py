"""Encoders that the benchmark trains itself, kept in `$SIEVE_HOME/peers` by what made them.

All see the same items for the same number of epochs with the same batches; they differ in what a
step asks and in how activations become codes.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import asdict, replace

import numpy as np
from tqdm import tqdm

from sieve.model.backbone import resolve_device
from sieve.model.checkpoint import Checkpoint
from sieve.model.checkpoint_writing import save_checkpoint
from sieve.model.collection import Collection
from sieve.model.exclusion import Calibration
from sieve.model.home import sieve_home
from sieve.model.training import PAPER, TrainingConfig
from sieve.model.training.learner import LOSSES
from sieve.model.training.trainer import Trainer, training_data

log = logging.getLogger(__name__)

RECIPE = 3
"""Raised when the same configuration no longer trains the same encoder."""
SIEVE, PAPER_PRESET, RECONSTRUCTION, VOCABULARY, CONTROL = (
    "Sieve", "paper", "reconstruction", "VDR-like", "dense control",
)  # fmt: skip
RECIPES = {PAPER_PRESET: 4}
"""Of methods that alone train otherwise since then."""


def peer_config(name: str, sieve: TrainingConfig, n_words: int) -> TrainingConfig:
    """How a trained method trains, given how Sieve does.

    Parameters
    ----------
    name : str
        Of the method.
    sieve : TrainingConfig
        Sieve's own, whose length and batches all take.
    n_words : int
        Words of the training captions, the width of a vocabulary code.
    """
    if name == SIEVE:
        return sieve
    if name == CONTROL:
        return replace(sieve, activation="dense")
    unasked = {loss: 0.0 for loss in LOSSES - {"reconstruct", "revive"}}
    alone = replace(sieve, noise=0.0, n_words=0, weight_decay=1e-4, **unasked)
    if name == RECONSTRUCTION:
        return alone
    if name == PAPER_PRESET:
        return replace(
            PAPER,
            epochs=sieve.epochs,
            batch_size=sieve.batch_size,
            seed=sieve.seed,
            **({"m": sieve.m, "k": sieve.k} if sieve.m < PAPER.k else {}),
        )
    if name == VOCABULARY:
        return replace(
            alone,
            objective="vocabulary",
            activation="elu",
            noise=sieve.noise,
            kinds=False,  # its dimensions are the captions' own words
            contrast=1.0,
            m=n_words,
            k=min(sieve.k, n_words),
        )
    raise ValueError(f"no method {name!r} is trained")


def trained_peer(
    name: str,
    collection: Collection,
    sieve: TrainingConfig,
    encode_texts: Callable[[list[str]], np.ndarray],
    *,
    n_words: int,
    device: str = "auto",
    progress: bool = True,
) -> Checkpoint:
    """Train a method's encoder, or find the one that the same configuration trained before.

    Parameters
    ----------
    name : str
    collection : Collection
        Its train split is trained on.
    sieve : TrainingConfig
        Of this seed.
    encode_texts : callable
        The collection's backbone.
    n_words : int
    device : str
    progress : bool
    """
    config = peer_config(name, sieve, n_words)
    recipe = RECIPES.get(name, RECIPE)
    made_by = {"recipe": recipe, "collection": collection.sha256, "config": asdict(config)}
    digest = hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()
    path = sieve_home() / "peers" / digest[:24]
    if path.exists():
        return Checkpoint.load(path)
    data = training_data(collection, config, encode_texts)
    trainer = Trainer(data, config, resolve_device(device))
    what = f"{name}, seed {config.seed}"
    report = None
    for _ in tqdm(range(trainer.n_steps), desc=what, unit="step", disable=not progress):
        report = trainer.train_step()
    encoder = trainer.finished()
    try:
        save_checkpoint(
            path,
            encoder,
            backbone=collection.backbone,
            calibration=Calibration(),
            trained_on=collection.name,
            settings=asdict(config),
            training={
                "curves": [{"step": report.step, **report.losses}] if report else [],
                "items": collection.items["id"].iloc[data.rows].tolist(),
            },
            names={},
        )
    except FileExistsError:
        log.info("another process has just trained %s", what)
    return Checkpoint.load(path)
