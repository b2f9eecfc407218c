"""Checkpoints of sparse encoders: load and save; JSON and safetensors, no pickle.

    config.json           schema_version, encoder, backbone, calibration, training config
    weights.safetensors   weights in float16; in float32 if they were imported
    training.json         curves, seeds, ids of the training items
    names.json            a name for each dimension, with its score, runner-up and source
    checksums.json        checksums of the files above
    measurements.csv      optional: see `sieve.model.sanity_checks`

A checkpoint of kind `codes` has no encoder. It names the dimensions of external codes, and its
folder is that of the collection that holds them.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import safetensors
from pydantic import model_validator
from safetensors.numpy import load_file, save

from sieve.model.collection import BackboneIdentity, CodesIdentity, Collection, file_sha256
from sieve.model.dimension_name import DimensionName, allowed_names, guess
from sieve.model.exclusion import Calibration
from sieve.model.files import (
    CHECKSUMS,
    Count,
    Line,
    OpenedFiles,
    Schema,
    atomic_folder,
    check_files,
    read_head,
    read_json,
    reason_of,
    write_checksums,
)
from sieve.model.hub import artifact_name
from sieve.model.hyperparameters import SparseEncoderConfig
from sieve.model.sae_detection import external_sae_fault

if TYPE_CHECKING:
    from sieve.model.encoder import SparseEncoder

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
IMPORTED_VERSION = 2
"""Version of checkpoints that older releases cannot compute: see `is_trainable`."""
VERSIONS = (SCHEMA_VERSION, IMPORTED_VERSION)
CONFIG = "config.json"
WEIGHTS = "weights.safetensors"
TRAINING = "training.json"
NAMES = "names.json"
MEASUREMENTS = "measurements.csv"
FILES = (CONFIG, WEIGHTS, TRAINING, NAMES, CHECKSUMS, MEASUREMENTS)
"""All files of a checkpoint."""
_RECALL = "recall@10"
REMEDY = "train again with `sieve train COLLECTION`, or choose another with --checkpoint"


class CheckpointConfig(Schema):
    """Content of `config.json`."""

    kind: Literal["", "codes"] = ""
    encoder: SparseEncoderConfig | None = None
    backbone: BackboneIdentity | None = None
    codes: CodesIdentity | None = None
    calibration: Calibration
    trained_on: Line
    training: dict[str, Any] = {}
    text_encoder: str = ""

    @model_validator(mode="after")
    def _is_complete(self) -> CheckpointConfig:
        facts = (self.encoder is None, self.backbone is None, self.codes is not None)
        if set(facts) != {self.kind == "codes"}:
            raise ValueError("it must have an encoder and a backbone, or else codes")
        return self

    @property
    def parts(self) -> tuple[str, ...]:
        """Files that make up the checkpoint."""
        return (CONFIG, NAMES) if self.codes else (CONFIG, WEIGHTS, NAMES)

    @property
    def m(self) -> int:
        """Number of dimensions."""
        shape = self.codes or self.encoder
        assert shape is not None
        return shape.m


class _Numbered(Schema):
    dimension: Count


class _Point(Schema):
    step: int


class ValidationQuality(Schema):
    """Metrics on validation items, recorded by the training; text-to-image recall is `recall@k`."""

    codes: dict[str, float] = {}
    backbone: dict[str, float] = {}

    @property
    def relative_recall(self) -> float | None:
        """Recall@10 of the codes, relative to the backbone's; None if there is none."""
        dense = self.backbone.get(_RECALL, 0.0)
        return self.codes.get(_RECALL, 0.0) / dense if dense > 0 else None


class TrainingRecord(Schema):
    """Content of `training.json`: ids of the training items, curves and validation quality."""

    items: list[Line] = []
    curves: list[_Point] = []
    quality: ValidationQuality = ValidationQuality()


class Checkpoint:
    """A trained sparse encoder, or the dimension names of external codes.

    Attributes
    ----------
    codes : CodesIdentity or None
        The codes whose dimensions it names, if it has no encoder.
    m : int
        Number of dimensions.
    trained_on : str
        Name of the training collection.
    """

    def __init__(
        self,
        path: Path,
        weights: Mapping[str, np.ndarray],
        config: CheckpointConfig,
        names: Mapping[int, DimensionName],
    ) -> None:
        self.path = path
        self._files = OpenedFiles(*(path / part for part in config.parts))
        self._weights = weights
        self.config = config
        self.codes = config.codes
        self.m = config.m
        self.calibration = config.calibration
        self.trained_on = config.trained_on
        self.names = names

    @cached_property
    def encoder(self) -> SparseEncoder:
        """The sparse encoder; raises a ValueError for external codes."""
        import torch  # slow to import, and commands that only read cached codes do not need it

        from sieve.model.encoder import SparseEncoder

        encoder = SparseEncoder(self._required(self.config.encoder))
        weights = {name: torch.from_numpy(part) for name, part in self._weights.items()}
        encoder.load_state_dict(weights, assign=True)
        return encoder.eval()

    @property
    def backbone(self) -> BackboneIdentity:
        """Backbone whose embeddings it encodes; raises a ValueError for external codes."""
        return self._required(self.config.backbone)

    def _required(self, part: Any) -> Any:
        if part is None:
            raise ValueError(
                f"checkpoint {self.path} names the dimensions of external codes and has no encoder"
            )
        return part

    def check_fits(self, collection: Collection) -> None:
        """Raise a ValueError if a collection has another backbone or other codes."""
        if collection.codes or self.codes:
            if collection.codes != self.codes:
                holds = collection.codes or collection.backbone
                raise ValueError(
                    f"checkpoint {self.path} is for {self.codes or self.backbone}, but collection "
                    f"{collection.name} holds {holds}; leave out --checkpoint"
                )
        elif self.backbone.sha256 != collection.backbone.sha256:
            raise ValueError(
                f"checkpoint {self.path} reads {self.backbone}, but collection "
                f"{collection.name} was made with {collection.backbone}; train one with "
                f"`sieve train {collection.path}` or choose another with --checkpoint"
            )

    @property
    def name(self) -> str:
        """Name of its folder, or of its repository on the Hub."""
        return artifact_name(self.path)

    @cached_property
    def quality(self) -> ValidationQuality:
        """Metrics that its training recorded; empty for an imported encoder or external codes."""
        return self._training.quality

    @cached_property
    def _training(self) -> TrainingRecord:
        path = self.path / TRAINING
        return read_json(path, TrainingRecord, REMEDY) if path.is_file() else TrainingRecord()

    @cached_property
    def sha256(self) -> str:
        """Hash of config, weights and names."""
        self._files.check()
        hashes = (file_sha256(self.path / part) for part in self.config.parts)
        return hashlib.sha256("".join(hashes).encode()).hexdigest()

    @cached_property
    def trained_items(self) -> frozenset[str]:
        """Ids of the training items; empty if they were not recorded."""
        return frozenset(self._training.items)

    def name_of(self, dimension: int) -> str:
        """Return a dimension's name.

        `#17, perhaps dog` if the name did not pass its test, `dimension 17` if there is none.
        """
        named = self.names.get(dimension)
        if named is None:
            return f"dimension {dimension}"
        return named.name if named.confident else guess(dimension, named.name)

    @classmethod
    def load(cls, path: str | Path) -> Checkpoint:
        """Open a checkpoint folder; raise a FileNotFoundError if there is none or it is incomplete.

        A ValueError is raised if it has another version, is damaged, or is another tool's sparse
        autoencoder.
        """
        path = Path(path)
        if not (path / NAMES).is_file() and (fault := external_sae_fault(path)):
            raise ValueError(fault)
        _require(path, CONFIG, NAMES)
        config = read_head(path / CONFIG, CheckpointConfig, REMEDY, *VERSIONS)
        _require(path, *config.parts)
        names = _read_names(path / NAMES, config.m)
        has_training = config.codes is None and (path / TRAINING).is_file()
        check_files(path, REMEDY, needs=(*config.parts, *([TRAINING] if has_training else [])))
        return cls(path, _read_weights(path, config.encoder), config, names)


def _require(path: Path, *parts: str) -> None:
    for part in parts:
        if not (path / part).is_file():
            raise FileNotFoundError(
                f"{path} is not a complete checkpoint (no {part}); "
                "make one with `sieve train COLLECTION`"
            )


def _read_names(path: Path, m: int) -> dict[int, DimensionName]:
    dimensions = [one.dimension for one in read_json(path, list[_Numbered], REMEDY)]
    if max(dimensions, default=0) >= m:
        raise ValueError(
            f"{path} is damaged (it names dimension {max(dimensions)}; there are {m}); {REMEDY}"
        )
    names = read_json(path, list[DimensionName], REMEDY)
    return allowed_names(dict(zip(dimensions, names, strict=True)))


def _read_weights(path: Path, config: SparseEncoderConfig | None) -> dict[str, np.ndarray]:
    if config is None:
        return {}
    try:
        with safetensors.safe_open(path / WEIGHTS, "np") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        # Memory for these shapes is allocated below.
        for name, shape in (shapes | config.weight_shapes).items():
            if shapes.get(name) != config.weight_shapes.get(name):
                raise TypeError(f"{name[:40]} is of shape {shapes.get(name)}, not {shape}")
        stored = load_file(path / WEIGHTS)
        weights = {name: part.astype(np.float32) for name, part in stored.items()}
        for name, part in weights.items():
            if not np.isfinite(part).all():
                raise TypeError(f"{name} has a number that is not finite")
    except (TypeError, KeyError, RuntimeError, safetensors.SafetensorError) as error:
        raise ValueError(f"{path / WEIGHTS} is damaged ({reason_of(error)}); {REMEDY}") from None
    return weights


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
    half: bool = True,
) -> None:
    """Write a checkpoint atomically to a new folder.

    Parameters
    ----------
    settings : mapping
        The training configuration.
    training : mapping
        Curves, seeds, items.
    half : bool
        Round the weights to float16.

    Raises
    ------
    FileExistsError
        If `path` exists.
    ValueError
        If a weight exceeds the range of float16.
    """
    weights = {
        name: (part.half() if half else part.float()).cpu().numpy()
        for name, part in encoder.state_dict().items()
    }
    for name, part in weights.items():
        if not np.isfinite(part).all():
            raise ValueError(
                f"{name} of the checkpoint for {path} has weights beyond the range of float16; "
                "train again with a smaller --learning-rate"
            )
    config = {
        "schema_version": SCHEMA_VERSION if encoder.config.is_trainable else IMPORTED_VERSION,
        "encoder": asdict(encoder.config),
        "backbone": backbone.as_json(),
        "calibration": asdict(calibration),
        "trained_on": trained_on,
        "training": dict(settings),
    }
    with atomic_folder(path) as folder:
        # `save_file` would ignore the umask and make the file private.
        (folder / WEIGHTS).write_bytes(save(weights))
        _write(folder / CONFIG, config)
        _write(folder / TRAINING, dict(training))
        _write_names(folder, names)
        write_checksums(folder, (CONFIG, WEIGHTS, TRAINING, NAMES))


def write_codes_checkpoint(
    folder: Path, codes: CodesIdentity, name: str, names: Mapping[int, DimensionName], entry: str
) -> None:
    """Write the files that make the folder of a collection of external codes a checkpoint.

    `name` is the collection's; `entry` is the `package.module:function` that encodes texts, or
    empty.
    """
    config = {
        "schema_version": SCHEMA_VERSION,
        "kind": "codes",
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
