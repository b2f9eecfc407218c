"""Checkpoints of the sparse encoder: JSON and safetensors, versioned, no pickle.

CHECKPOINT/config.json        schema_version, encoder, backbone, calibration, training config
CHECKPOINT/weights.safetensors
CHECKPOINT/training.json      curves, seeds, hashes of the items that it was trained on
CHECKPOINT/names.json         a name for each dimension, its score, runner-up and source
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import load_file, save_file

import assets
from model.collection import BackboneIdentity, Collection, file_sha256
from model.encoder import SparseEncoder, SparseEncoderConfig
from model.exclusion import Calibration
from model.home import new_folder, sieve_home

SCHEMA_VERSION = 1
CONFIG = "config.json"
WEIGHTS = "weights.safetensors"
TRAINING = "training.json"
NAMES = "names.json"


CAPTIONS = "captions"
VOCABULARY = "vocabulary"


@dataclass(frozen=True)
class DimensionName:
    """A dimension's name, and how sure it is.

    The fields from `source` on are missing in names.json of older checkpoints.
    """

    name: str
    score: float
    """How well the word fits the dimension, in [0, 1]; only names of one source compare."""
    runner_up: str
    """The next best word, or nothing."""
    runner_up_score: float = 0.0
    source: str = CAPTIONS
    """Where the name is from: captions or vocabulary."""
    vocabulary: str = ""
    """The word of the vocabulary that fits best, or nothing."""
    vocabulary_score: float = 0.0
    vocabulary_runner_up: str = ""
    vocabulary_runner_up_score: float = 0.0

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> DimensionName:
        """Read an entry of names.json, whatever else it holds."""
        given: dict[str, Any] = {
            field.name: (float if field.type == "float" else str)(entry[field.name])
            for field in fields(cls)
            if field.name in entry
        }
        return cls(**given)


class Checkpoint:
    """A trained sparse encoder, opened.

    Attributes
    ----------
    path : Path
    encoder : SparseEncoder
    backbone : BackboneIdentity
        Whose embeddings it reads.
    calibration : Calibration
    trained_on : str
        Name of the collection that it was trained on.
    sha256 : str
        Hash of weights and config.
    """

    def __init__(
        self,
        path: Path,
        encoder: SparseEncoder,
        config: Mapping[str, Any],
        names: Mapping[int, DimensionName],
    ) -> None:
        named = config["backbone"]
        self.path = path
        self.encoder = encoder.eval()
        self.config = config
        self.backbone = BackboneIdentity(named["name"], named["sha256"], int(named["d"]))
        self.calibration = Calibration(**config["calibration"])
        self.trained_on = str(config["trained_on"])
        self.names = names

    @cached_property
    def sha256(self) -> str:
        """Hash of the hashes of config, weights and names."""
        parts = (file_sha256(self.path / part) for part in (CONFIG, WEIGHTS, NAMES))
        return hashlib.sha256("".join(parts).encode()).hexdigest()

    @cached_property
    def trained_items(self) -> frozenset[str]:
        """Ids of the items that it was trained on; empty where that was not kept."""
        path = self.path / TRAINING
        if not path.is_file():
            return frozenset()
        try:
            return frozenset(json.loads(path.read_text(encoding="utf-8"))["items"])
        except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(
                f"{path} is damaged ({error}); train again with `sieve train COLLECTION`"
            ) from None

    def name_of(self, dimension: int) -> str:
        """Return a dimension's name; `dimension 17` where it has none."""
        named = self.names.get(dimension)
        return named.name if named else f"dimension {dimension}"

    @classmethod
    def load(cls, path: str | Path) -> Checkpoint:
        """Open a checkpoint folder.

        Raises
        ------
        FileNotFoundError
            If there is none, or a file is missing.
        ValueError
            If it is of another version, or damaged.
        """
        path = Path(path)
        for part in (CONFIG, WEIGHTS, NAMES):
            if not (path / part).is_file():
                raise FileNotFoundError(
                    f"{path} is not a whole checkpoint (no {part}); "
                    "make one with `sieve train COLLECTION`"
                )
        try:
            config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
            if config["schema_version"] != SCHEMA_VERSION:
                raise ValueError(
                    f"{path / CONFIG} has schema_version {config['schema_version']!r}, this Sieve "
                    f"reads {SCHEMA_VERSION}; train again with `sieve train COLLECTION`"
                )
            encoder = SparseEncoder(SparseEncoderConfig(**config["encoder"]))
            encoder.load_state_dict(
                {name: part.float() for name, part in load_file(path / WEIGHTS).items()}
            )
            names = {
                int(entry["dimension"]): DimensionName.read(entry)
                for entry in json.loads((path / NAMES).read_text(encoding="utf-8"))
            }
            return cls(path, encoder, config, names)
        except (
            KeyError,
            TypeError,
            AttributeError,
            RuntimeError,
            UnicodeDecodeError,
            json.JSONDecodeError,
            safetensors.SafetensorError,
        ) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"checkpoint {path} is damaged ({reason}); train again with "
                "`sieve train COLLECTION`"
            ) from None


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
    """
    config = {
        "schema_version": SCHEMA_VERSION,
        "encoder": asdict(encoder.config),
        "backbone": {"name": backbone.name, "sha256": backbone.sha256, "d": backbone.width},
        "calibration": asdict(calibration),
        "trained_on": trained_on,
        "training": dict(settings),
    }
    named = [{"dimension": j, **asdict(name)} for j, name in sorted(names.items())]
    with new_folder(path) as folder:
        weights = {name: part.half().contiguous() for name, part in encoder.state_dict().items()}
        save_file(weights, folder / WEIGHTS)
        for part, content in ((CONFIG, config), (TRAINING, training), (NAMES, named)):
            (folder / part).write_text(
                json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
            )


def checkpoint_folders() -> list[Path]:
    """List all checkpoints that are found by themselves: the user's, newest first, then bundled."""
    own = (sieve_home() / "checkpoints").glob("*/" + CONFIG)
    newest_first = sorted(own, key=lambda config: -config.stat().st_mtime)
    bundled = sorted((assets.ROOT / "checkpoints").glob("*/" + CONFIG))
    return [config.parent for config in [*newest_first, *bundled]]


def find_checkpoint(collection: Collection) -> Path:
    """Choose the checkpoint for a collection.

    One that was trained on a collection of this name goes before others of the same backbone, the
    user's newest before the bundled ones.

    Raises
    ------
    FileNotFoundError
        If no checkpoint fits the collection's backbone.
    """
    fitting = []
    for folder in checkpoint_folders():
        try:
            config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            same_backbone = config["backbone"]["sha256"] == collection.backbone.sha256
            trained_on = config["trained_on"]
        except (OSError, KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError):
            continue  # a damaged neighbour must not keep a collection from opening
        if same_backbone:
            fitting.append((trained_on != collection.name, trained_on == "scenes", folder))
    if not fitting:
        raise FileNotFoundError(
            f"no checkpoint fits backbone {collection.backbone.name} of collection "
            f"{collection.name}; train one with `sieve train {collection.path}`"
        )
    return min(fitting, key=lambda entry: entry[:2])[2]
