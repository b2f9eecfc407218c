"""Options that the subcommands share.

The types of single options carry their help; `BackboneOptions` and `PrepareOptions` are blocks of
options that commands hold as a field. tyro reads them without a prefix.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg
from tyro.constructors import PrimitiveConstructorSpec

from sieve.data_prep.captions.caption_text import tidy
from sieve.data_prep.pipeline.plan import Shard
from sieve.explorer.json_validation import read_dimension, read_strictness, split_list
from sieve.model.exclusion import Strictness
from sieve.model.files import sieve_home

if TYPE_CHECKING:
    from PIL.Image import Image

    from sieve.data_prep.precomputed import PrecomputedCodes, PrecomputedEmbeddings
    from sieve.data_prep.records import Source
    from sieve.model.backbone.clip import Backbone
    from sieve.model.collection import BackboneIdentity, Collection
    from sieve.model.encoded_query import EncodedQuery
    from sieve.model.engine import SearchEngine
    from sieve.model.search_results import SearchOutcome

log = logging.getLogger(__name__)

_MAX_MANIFEST = 1 << 24


def _one_word(
    metavar: str, parse: Callable[[str], Any], show: Callable[[Any], str]
) -> PrimitiveConstructorSpec[Any]:
    """Describe an option that is parsed from one word."""
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda words: parse(words[0]),
        is_instance=lambda _: True,
        str_from_instance=lambda value: [show(value)],
    )


CollectionName = Annotated[
    Positional[str],
    arg(
        metavar="COLLECTION",
        help="A path, a bundled collection (scenes), a name in $SIEVE_HOME/collections, or "
        "hf://ORG/NAME of the Hugging Face Hub, optionally with @REVISION.",
    ),
]
CheckpointName = Annotated[
    str | None,
    arg(
        metavar="CHECKPOINT",
        help="Path or name of a checkpoint, or hf://ORG/NAME; by default the best match for the "
        "collection.",
    ),
]
File = Annotated[Path | None, arg(metavar="PATH")]
Count = Annotated[int | None, arg(metavar="INT")]
Workers = Annotated[Count, arg(help="Worker processes; by default one per core.")]
Device = Annotated[Literal["auto", "cuda", "mps", "cpu"], arg(help="Device of the backbone.")]
IndexName = Annotated[
    str,
    arg(
        metavar="qdrant://HOST:6333/NAME",
        help="Search this index, made by `sieve index`, instead of the local codes.",
    ),
]
TrustBackbone = Annotated[
    bool,
    arg(
        help="Load the backbone that the collection names in a folder, a file or the Hub, and "
        "trust it from now on, as long as its files are unchanged. Backbones that you have "
        "prepared a collection with are already trusted."
    ),
]
Json = Annotated[bool, arg(help="Print JSON.")]
StrictnessOption = Annotated[Strictness, _one_word("0..1|never|never:P", read_strictness, str)]
Off = Annotated[
    tuple[int, ...] | None,
    _one_word(
        "J,J,…",
        lambda text: tuple(map(read_dimension, split_list(text))),
        lambda off: "what --without proposes" if off is None else ",".join(map(str, off)),
    ),
]
ShardName = Annotated[
    Shard | None,
    _one_word("i/n", Shard.parse, lambda shard: "all" if shard is None else str(shard)),
    arg(help="Make only part i of n; `sieve merge` merges the parts."),
]


@dataclass(frozen=True, kw_only=True)
class BackboneOptions:
    """The backbone and the text encoder."""

    device: Device = "auto"
    text_encoder: Annotated[str, arg(metavar="BACKBONE|package.module:function")] = ""
    """Encode texts with this backbone, or with this Python function and --allow-code, instead of
    with the collection's own backbone."""
    allow_code: bool = False
    """Load the Python function that encodes texts, if one is named. It runs with your permissions:
    only allow code that you trust."""
    trust_backbone: TrustBackbone = False

    def announce(self, collection: str) -> None:
        """Log that the text encoder or the backbone of a collection is about to be loaded."""
        if not self.text_encoder:
            announce_backbone_of(collection)
        elif ":" not in self.text_encoder or self.text_encoder.startswith(
            ("hf-hub:", "hf://", "blip:")
        ):
            announce_backbone(self.text_encoder)

    def find_collection(self, name: str, progress: bool | None = None) -> Path:
        """Find a collection by name or path, and record the consent to load its backbone.

        `progress` shows a bar while a bundled collection is prepared; by default on a terminal.
        Raises a FileNotFoundError or ValueError if the collection, or a backbone to trust, cannot
        be found.
        """
        from sieve.data_prep.bundled import locate_collection
        from sieve.model.collection import Collection

        shows_progress = sys.stderr.isatty() if progress is None else progress
        path = locate_collection(name, device=self.device, progress=shows_progress)
        if self.trust_backbone:
            from sieve.model.backbone.clip import trust_backbone_of  # slow: imports torch

            trust_backbone_of(Collection.open(path))
        return path

    def text_encoder_name(self) -> str:
        """Return the canonical name of the text encoder: a backbone, or a function (unchanged)."""
        from sieve.model.text_encoder import is_entry

        name = self.text_encoder
        return name if not name or is_entry(name) else backbone_name(name)

    def open_engine(self, collection: str, checkpoint: str | None, index: str = "") -> SearchEngine:
        """Open a collection and a checkpoint, by name or path, with the user's annotations."""
        from sieve.explorer.annotations.store import attach_annotations
        from sieve.model.checkpoint_choice import checkpoint_path, explain_choice
        from sieve.model.engine import SearchEngine

        chosen = checkpoint_path(checkpoint) if checkpoint else None
        path = self.find_collection(collection)
        engine = SearchEngine.open(
            path, chosen, self.device, self.allow_code, index, self.text_encoder_name()
        )
        attach_annotations(engine)
        choice = explain_choice(engine.collection, Path(engine.checkpoint.path))
        if choice.other and chosen is None:
            log.warning("%s", choice)
        return engine


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """Options of a search: query, exclusions and strictness."""

    without: str = ""
    """Phrase to exclude, or several separated by commas, some with a weight as in 0.5:street, or
    images as in image:street.jpg. Their dimensions are switched off."""
    strictness: StrictnessOption = Strictness()
    """How off dimensions count: 0 ignores them, 1 lowers the scores of items that have them,
    `never` also hides items that have what is off with a probability of at least 0.5, `never:0.2`
    with one of at least 0.2."""
    off: Off = None
    """Dimensions to switch off, such as 17,203; replaces those that --without proposes."""
    item: str = ""
    """Search by the image of the item with this id, added to the text if there is one."""
    where: Annotated[str, arg(metavar="FILTER")] = ""
    """Only search the items that pass this filter, such as 'label:dog split:test not file:2023/*
    caption:umbrella concept:beach>0.5'. Facets are label, split, caption (a word), file (a
    pattern), concept (its smallest probability), tag (of a dimension that the image activates), id,
    map (corners of a selection) and search (the best 100)."""
    copies: bool = False
    """List each copy of an image as its own result."""

    def run(
        self, engine: SearchEngine, text: str, top: int, picture: Image | None = None
    ) -> tuple[EncodedQuery, SearchOutcome]:
        """Search for a text, an image or the item."""
        from sieve.data_prep.images import open_image_file

        query = engine.encode(text, self.without, self.item, picture, open_image_file)
        settings = (self.off, self.strictness, top, not self.copies, self.where)
        return query, engine.search(query, *settings)


def parse_out(path: Path) -> Path:
    """Make the path of a new folder absolute; raise a FileExistsError if it exists."""
    target = Path(os.path.abspath(path.expanduser()))
    if target.exists():
        raise FileExistsError(f"{target} exists already; choose another --out or remove it first")
    return target


def backbone_name(name: str) -> str:
    """Return the canonical name of a backbone, with an absolute path if it is local."""
    from sieve.model.backbone.names import parse_name

    return parse_name(name).text


def announce_backbone(name: str) -> None:
    """Log that a backbone is about to be loaded, before the slow imports that this needs."""
    if _may_be_downloaded(name):
        log.warning("loading backbone %s; missing files are downloaded", tidy(name))


def announce_backbone_of(collection: str) -> None:
    """Log that the backbone of a collection is about to be loaded.

    Reads only the name, because the libraries that open a collection take seconds to import. Errors
    are ignored here: opening the collection reports them.
    """
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


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """The new collection and the processes that prepare it."""

    out: File = None
    """Folder of the new collection; must not exist; by default in $SIEVE_HOME/collections."""
    workers: Workers = None
    keep_going: bool = False
    """Continue even if more than 5 % of the records or rows are unusable."""
    json: Json = False

    def folder(self, name: str | Path) -> Path:
        """Return the folder of the new collection, by default named after a path.

        Raises a FileExistsError if it exists.
        """
        default = sieve_home() / "collections" / Path(os.path.abspath(name)).name
        return parse_out(self.out or default)

    def prepare(
        self,
        source: Source,
        backbone: Backbone | BackboneIdentity | None,
        out: Path,
        precomputed: PrecomputedEmbeddings | PrecomputedCodes | None = None,
        shard: Shard | None = None,
        progress: bool | None = None,
    ) -> Collection:
        """Prepare the collection, by default with a progress bar on a terminal."""
        from sieve.data_prep.prepare import prepare

        return prepare(
            source,
            backbone,
            out,
            precomputed=precomputed,
            workers=self.workers,
            progress=sys.stderr.isatty() if progress is None else progress,
            keep_going=self.keep_going,
            shard=shard,
        )


@dataclass(frozen=True, kw_only=True)
class EmbedOptions(PrepareOptions):
    """The new collection, and the processes and the device that prepare it."""

    shard: ShardName = None
    device: Device = "auto"

    def embed(
        self, source: Source, backbone: str, out: Path, progress: bool | None = None
    ) -> Collection:
        """Load the backbone, and prepare the collection."""
        from sieve.model.backbone.clip import Backbone

        loaded = Backbone.load(backbone_name(backbone), self.device)
        return self.prepare(source, loaded, out, shard=self.shard, progress=progress)
