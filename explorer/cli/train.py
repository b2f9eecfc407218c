"""`sieve train`: train a sparse encoder."""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from tyro.conf import arg

from sieve.explorer.cli.options import (
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
from sieve.explorer.cli.output import print_facts, print_json

log = logging.getLogger(__name__)

Whole = Annotated[int | None, arg(metavar="INT", help_behavior_hint="(default: the preset's)")]
Number = Annotated[float | None, arg(metavar="FLOAT", help_behavior_hint="(default: the preset's)")]


@dataclass(frozen=True)
class Train:
    """Train a sparse encoder on a collection's captions.

    Repeat the command to resume an interrupted run. To train on several GPUs: torchrun
    --nproc-per-node N -m -- sieve train COLLECTION, with the same options.

    Example: sieve train my-photos --out my-codes --epochs 30
    """

    collection: CollectionName
    """A path, a bundled collection (scenes) or a name in $SIEVE_HOME/collections."""
    out: File = None
    """Folder of the new checkpoint; by default $SIEVE_HOME/checkpoints/NAME, where it is found
    automatically."""
    preset: Literal["compact", "paper"] = "compact"
    """Base settings, which the options below override."""
    m: Whole = None
    """Number of dimensions."""
    k: Whole = None
    """Maximum number of active dimensions in an image code."""
    k_text: Whole = None
    """Maximum number of active dimensions in a text code; 0: same as --k."""
    floor: Number = None
    """Set activations below this fraction of the largest to zero."""
    epochs: Whole = None
    """Passes over the train split; 0: 15, or more for at least 300 steps."""
    batch_size: Annotated[Whole, arg(aliases=["--batch"])] = None
    """Image-text pairs per step."""
    learning_rate: Number = None
    """Peak learning rate."""
    weight_decay: Number = None
    """Weight decay of AdamW."""
    noise: Number = None
    """Norm of the Gaussian noise added to unit embeddings."""
    contrast: Number = None
    """Weight of the contrastive loss."""
    reconstruct: Number = None
    """Weight of the reconstruction loss."""
    cross: Number = None
    """Weight of the cross-modal reconstruction loss."""
    presence: Number = None
    """Weight of the word presence loss."""
    narrow: Number = None
    """Weight of the word presence loss that uses only a word's strongest dimension."""
    exclude: Number = None
    """Weight of the exclusion loss, which ranks items with A and without B first."""
    balance: Number = None
    """Weight of the balance loss, which equalises use by images and texts."""
    seed: Whole = None
    """Random seed."""
    device: Device = "auto"
    """Device to train on."""
    text_encoder: TextEncoderName = ""
    """Encode texts with this backbone, or with this Python function and --allow-code, instead of
    with the collection's own backbone."""
    allow_code: bool = False
    """Load the Python function that encodes texts, if one is named. It runs with your permissions:
    only allow code that you trust."""
    trust_backbone: TrustBackbone = False
    json: bool = False
    """Print JSON."""

    SETTINGS = (
        "m", "k", "k_text", "floor", "epochs", "batch_size", "learning_rate", "weight_decay",
        "noise", "contrast", "reconstruct", "cross", "presence", "narrow", "exclude", "balance",
        "seed",
    )  # fmt: skip

    def run(self) -> None:
        """Train the encoder, and print its validation metrics."""
        announce_backbone_of(self.collection, self.text_encoder)
        from sieve.explorer.serialize import training_report
        from sieve.model.checkpoint import default_checkpoint_out, list_fitting
        from sieve.model.collection import Collection
        from sieve.model.training import PRESETS, train, world_from_env

        leads = world_from_env().is_main
        progress = sys.stderr.isatty() and leads
        path = find_collection(self.collection, self.device, self.trust_backbone, progress)
        opened = Collection.open(path)
        options = {name: getattr(self, name) for name in self.SETTINGS}
        changed = {name: value for name, value in options.items() if value is not None}
        config = replace(PRESETS[self.preset], **changed)
        out = parse_out(self.out) if self.out else default_checkpoint_out(opened.name)
        started = time.perf_counter()
        checkpoint = train(
            opened,
            out,
            config,
            device=self.device,
            text_encoder=text_encoder_name(self.text_encoder),
            allow_code=self.allow_code,
            progress=progress,
        )
        if not leads:
            return
        fitting = list_fitting(opened)
        quick = next((one for one in fitting if one.path == out and one.quick), None)
        if quick and not fitting[0].quick:
            log.warning(
                "a quick training (%s) is not opened by default; open it with --checkpoint %s",
                quick.quick, quick.path.name,
            )  # fmt: skip
        report = training_report(checkpoint, time.perf_counter() - started)
        print_json(report) if self.json else print_facts(report)
