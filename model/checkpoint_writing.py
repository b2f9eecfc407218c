"""Writing checkpoints: see `sieve.model.checkpoint` for what they hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import save

from sieve.model.checkpoint import CODES_KIND, CONFIG, NAMES, SCHEMA_VERSION, TRAINING, WEIGHTS
from sieve.model.checksums import write_checksums
from sieve.model.dimension_name import DimensionName
from sieve.model.drafts import new_folder
from sieve.model.encoder import SparseEncoder
from sieve.model.exclusion import Calibration
from sieve.model.identity import BackboneIdentity, CodesIdentity


def save_checkpoint(
    path: Path,
    encoder: SparseEncoder,
    *,
    backbone: BackboneIdentity,
    calibration: Calibration,
    trained_on: str,
    settings: Mapping[str, Any],
    training: Mapping[str, Any],
    names: Mapping[int, DimensionName],
) -> None:
    """Write a checkpoint under a temporary name and rename it; weights in float16.

    Parameters
    ----------
    path : Path
        Must not exist yet.
    settings : mapping
        The training configuration.
    training : mapping
        Curves, seeds, items.

    Raises
    ------
    FileExistsError
        If there is something at `path`.
    ValueError
        If a weight is beyond float16.
    """
    weights = {name: part.half().contiguous() for name, part in encoder.state_dict().items()}
    for name, part in weights.items():
        if not part.isfinite().all():
            raise ValueError(
                f"{name} of the checkpoint for {path} has weights beyond what float16 holds; "
                "train again with a smaller --learning-rate"
            )
    config = {
        "schema_version": SCHEMA_VERSION,
        "encoder": asdict(encoder.config),
        "backbone": {"name": backbone.name, "sha256": backbone.sha256, "d": backbone.width},
        "calibration": asdict(calibration),
        "trained_on": trained_on,
        "training": dict(settings),
    }
    with new_folder(path) as folder:
        # Not `save_file`, which makes files that only their owner can read, whatever the umask.
        (folder / WEIGHTS).write_bytes(save(weights))
        _write(folder / CONFIG, config)
        _write(folder / TRAINING, dict(training))
        _write_names(folder, names)
        write_checksums(folder, (CONFIG, WEIGHTS, TRAINING, NAMES))


def write_codes_checkpoint(
    folder: Path, codes: CodesIdentity, name: str, names: Mapping[int, DimensionName], entry: str
) -> None:
    """Write what makes the folder of given codes their own checkpoint; their knobs are defaults.

    Parameters
    ----------
    folder : Path
        Of a collection that is being made.
    codes : CodesIdentity
    name : str
        The collection's.
    names : mapping
    entry : str
        `package.module:function` that encodes texts, or nothing.
    """
    config = {
        "schema_version": SCHEMA_VERSION,
        "kind": CODES_KIND,
        "codes": asdict(codes),
        "calibration": asdict(Calibration()),
        "trained_on": name,
        "text_encoder": entry,
    }
    _write(folder / CONFIG, config)
    _write_names(folder, names)


def _write_names(folder: Path, names: Mapping[int, DimensionName]) -> None:
    named = [{"dimension": j, **asdict(name)} for j, name in sorted(names.items())]
    _write(folder / NAMES, named)


def _write(path: Path, content: Any) -> None:
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")
