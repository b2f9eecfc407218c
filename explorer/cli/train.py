"""The subcommand that trains: `sieve train`."""

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

    A run that was killed goes on where it was when the same command is given again. On several
    GPUs: torchrun --nproc-per-node N -m -- sieve train COLLECTION, with the same options.

    Example: sieve train my-photos --out my-codes --epochs 30
    """

    collection: CollectionName
    """A path, a bundled name (scenes) or a name in $SIEVE_HOME/collections."""
    out: File = None
    """Folder of the new checkpoint; by default $SIEVE_HOME/checkpoints/NAME, which is found by
    itself from then on."""
    preset: Literal["compact", "paper"] = "compact"
    """Settings that the options below change."""
    m: Whole = None
    """Dimensions of a code."""
    k: Whole = None
    """At most this many are active."""
    k_text: Whole = None
    """At most this many in a text's code; 0: as many as in an image's."""
    floor: Number = None
    """Activations below this share of the largest are dropped."""
    epochs: Whole = None
    """Passes over all captions of the train split; 0: 15, or as many as make 300 steps."""
    batch_size: Annotated[Whole, arg(aliases=["--batch"])] = None
    """Pairs a step."""
    learning_rate: Number = None
    """Its peak."""
    weight_decay: Number = None
    """Of AdamW."""
    noise: Number = None
    """Length of the noise added to the unit embeddings."""
    contrast: Number = None
    """Weight of the contrastive loss."""
    reconstruct: Number = None
    """Weight of reconstruction."""
    cross: Number = None
    """Weight of reconstruction across modalities."""
    presence: Number = None
    """Weight of word presence."""
    narrow: Number = None
    """Weight of word presence by a word's strongest dimension alone."""
    exclude: Number = None
    """Weight of ranking A-without-B above all else."""
    balance: Number = None
    """Weight of each dimension being used alike by images and texts."""
    seed: Whole = None
    """Of everything that is drawn."""
    device: Device = "auto"
    """Where to train."""
    text_encoder: TextEncoderName = ""
    """Read texts with this backbone, or with this Python function and --allow-code, in place of the
    collection's own backbone."""
    allow_code: bool = False
    """Load the Python function that reads texts, if one is named. It may do anything that you may:
    only for code that you trust."""
    trust_backbone: TrustBackbone = False
    json: bool = False
    """Print JSON."""

    SETTINGS = (
        "m", "k", "k_text", "floor", "epochs", "batch_size", "learning_rate", "weight_decay",
        "noise", "contrast", "reconstruct", "cross", "presence", "narrow", "exclude", "balance",
        "seed",
    )  # fmt: skip

    def run(self) -> None:
        """Train, and say how good the codes are."""
        announce_backbone_of(self.collection, self.text_encoder)
        from sieve.explorer.serialize import training_report
        from sieve.model.checkpoint import default_checkpoint_out, list_fitting
        from sieve.model.collection import Collection
        from sieve.model.training import PRESETS, train, world_from_env

        leads = world_from_env().is_main
        progress = sys.stderr.isatty() and leads
        path = find_collection(self.collection, self.device, self.trust_backbone, progress)
        opened = Collection.open(path)
        given = {name: getattr(self, name) for name in self.SETTINGS}
        changed = {name: value for name, value in given.items() if value is not None}
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
        made = next((one for one in fitting if one.path == out and one.quick), None)
        if made and not fitting[0].quick:
            log.warning(
                "a quick training (%s) is not opened by default; open it with --checkpoint %s",
                made.quick, made.path.name,
            )  # fmt: skip
        report = training_report(checkpoint, time.perf_counter() - started)
        print_json(report) if self.json else print_facts(report)
