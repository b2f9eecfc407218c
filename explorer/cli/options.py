"""Types, parsers and helpers that the subcommands share."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from tyro.conf import Positional, arg
from tyro.constructors import PrimitiveConstructorSpec

from sieve.data_prep.captions import tidy
from sieve.data_prep.pipeline.plan import Shard

if TYPE_CHECKING:
    from sieve.model.engine import Engine

log = logging.getLogger(__name__)

NEVER = "never"
_MAX_MANIFEST = 1 << 24

CollectionName = Annotated[Positional[str], arg(metavar="COLLECTION")]
CheckpointName = Annotated[str | None, arg(metavar="CHECKPOINT")]
File = Annotated[Path | None, arg(metavar="PATH")]
TextEncoderName = Annotated[str, arg(metavar="BACKBONE|package.module:function")]
IndexName = Annotated[str, arg(metavar="qdrant://HOST:6333/NAME")]
Device = Literal["auto", "cuda", "mps", "cpu"]
TrustBackbone = Annotated[
    bool,
    arg(
        help="Load the backbone that the collection names in a folder, a file or the Hub, and "
        "trust it from now on, as long as its files are unchanged. Backbones that you have "
        "prepared a collection with are already trusted."
    ),
]


class StrictnessValue(NamedTuple):
    """How strongly off dimensions count."""

    value: float
    """s in [0, 1]"""
    never: bool = False
    """Also remove items that have an off dimension."""


def _parse_strictness(words: list[str]) -> StrictnessValue:
    if words[0].strip().lower() == NEVER:
        return StrictnessValue(1.0, never=True)
    value = float(words[0])
    if not 0 <= value <= 1:
        raise ValueError(f"expected a number from 0 to 1, or never; got {words[0][:40]}")
    return StrictnessValue(value)


Strictness = Annotated[
    StrictnessValue,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="0..1|never",
        instance_from_str=_parse_strictness,
        is_instance=lambda value: isinstance(value, StrictnessValue),
        str_from_instance=lambda value: [NEVER if value.never else f"{value.value:g}"],
    ),
]


def _parse_shard(words: list[str]) -> Shard:
    return Shard.parse(words[0])


ShardName = Annotated[
    Shard | None,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="i/n",
        instance_from_str=_parse_shard,
        is_instance=lambda value: value is None or isinstance(value, Shard),
        str_from_instance=lambda value: ["all" if value is None else str(value)],
    ),
]

OffList = tuple[int, ...] | None


def _parse_off(words: list[str]) -> OffList:
    return tuple(int(word) for word in words[0].split(",") if word.strip())


Off = Annotated[
    OffList,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="J,J,…",
        instance_from_str=_parse_off,
        is_instance=lambda value: value is None or isinstance(value, tuple),
        str_from_instance=lambda value: [
            "what --without proposes" if value is None else ",".join(map(str, value))
        ],
    ),
]


def parse_out(path: Path) -> Path:
    """Make the path of a new folder absolute.

    Raises
    ------
    FileExistsError
        If the path exists.
    """
    target = Path(os.path.abspath(path.expanduser()))
    if target.exists():
        raise FileExistsError(f"{target} exists already; choose another --out or remove it first")
    return target


def collection_out(out: Path | None, name: str) -> Path:
    """Return the folder of a new collection, by default `$SIEVE_HOME/collections/NAME`.

    Raises
    ------
    FileExistsError
        If the path exists.
    """
    from sieve.model.files import sieve_home

    return parse_out(out or sieve_home() / "collections" / name)


def backbone_name(name: str) -> str:
    """Return the canonical name of a backbone, with an absolute path if it is local."""
    from sieve.model.backbone import parse_name

    return parse_name(name).text


def announce_backbone(name: str) -> None:
    """Log that a backbone is about to be loaded, before the slow imports that this needs."""
    if _may_be_downloaded(name):
        log.warning(
            "loading backbone %s; files that are not on this machine are downloaded", tidy(name)
        )


def announce_backbone_of(collection: str, text_encoder: str = "") -> None:
    """Log that the backbone of a collection, or its text encoder, is about to be loaded.

    Reads only the name, because the libraries that open a collection take seconds to import. Errors
    are ignored here: opening the collection reports them.
    """
    from sieve.model.files import sieve_home

    if text_encoder:
        if ":" not in text_encoder or text_encoder.startswith(("hf-hub:", "blip:")):
            announce_backbone(text_encoder)
        return
    for folder in (Path(collection).expanduser(), sieve_home() / "collections" / collection):
        try:
            with (folder / "collection.json").open("rb") as stream:
                name = json.loads(stream.read(_MAX_MANIFEST))["backbone"]["name"]
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return
        if isinstance(name, str) and _may_be_downloaded(name):
            log.warning("looking for the collection's backbone, %s", tidy(name)[:200])
        return


def _may_be_downloaded(name: str) -> bool:
    is_local = name.startswith(("local-dir:", "blip:/", "/", ".", "~"))
    return name.strip() not in ("", "sieve-lite") and not is_local


def find_collection(
    name: str, device: str = "auto", trust_backbone: bool = False, progress: bool | None = None
) -> Path:
    """Find a collection by name or path.

    Parameters
    ----------
    name : str
    device : str
        Device for preparing a bundled collection.
    trust_backbone : bool
        Record the user's consent to load the collection's backbone.
    progress : bool, optional
        Show a progress bar; by default if stderr is a terminal.

    Raises
    ------
    FileNotFoundError, ValueError
        If the collection, or a backbone to trust, cannot be found.
    """
    from sieve.data_prep.bundled import locate_collection
    from sieve.model.backbone import trust_backbone_of
    from sieve.model.collection import Collection

    shows_progress = sys.stderr.isatty() if progress is None else progress
    path = locate_collection(name, device=device, progress=shows_progress)
    if trust_backbone:
        trust_backbone_of(Collection.open(path))
    return path


def text_encoder_name(name: str) -> str:
    """Return the canonical name of a text encoder: a backbone, or a function (unchanged)."""
    from sieve.model.text_encoder import is_entry

    return name if not name or is_entry(name) else backbone_name(name)


def open_engine(
    collection: str,
    checkpoint: str | None,
    device: str,
    allow_code: bool = False,
    index: str = "",
    trust_backbone: bool = False,
    text_encoder: str = "",
) -> Engine:
    """Open a collection and a checkpoint, by name or path, with the user's annotations."""
    from sieve.explorer.annotations.store import attach_annotations
    from sieve.model.checkpoint import checkpoint_path
    from sieve.model.engine import Engine

    chosen = checkpoint_path(checkpoint) if checkpoint else None
    path = find_collection(collection, device, trust_backbone)
    engine = Engine.open(path, chosen, device, allow_code, index, text_encoder_name(text_encoder))
    attach_annotations(engine)
    return engine
