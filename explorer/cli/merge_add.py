"""The subcommands that make a collection of others: `sieve merge` and `sieve add`."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast

from tyro.conf import Positional, arg

from sieve.explorer.cli.options import (
    CollectionName,
    Device,
    File,
    TrustBackbone,
    announce_backbone,
    announce_backbone_of,
    backbone_name,
    find_collection,
    parse_out,
)
from sieve.explorer.cli.prepare import report_prepared


@dataclass(frozen=True)
class Merge:
    """Join the parts that `sieve prepare --shard` made to one collection.

    It is the one that an unsharded run would have made, byte by byte.

    Example: sieve merge part-1 part-2 part-3 --out my-photos
    """

    parts: Annotated[Positional[tuple[Path, ...]], arg(metavar="PART")]
    """Paths of all the parts, or names in $SIEVE_HOME/collections, in any order."""
    out: Path
    """Folder of the new collection; must not exist yet."""
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        """Join, and say what was made."""
        from sieve.data_prep.bundled import locate_collection
        from sieve.data_prep.merge import merge

        out = parse_out(self.out)
        parts = [locate_collection(part, progress=False) for part in self.parts]
        report_prepared(merge(parts, out, out.name), self.json)


@dataclass(frozen=True)
class Add:
    """Make a new version of a collection, with a folder's images that it lacks.

    The old version stays as it is, and only what is new is embedded.

    Example: sieve add my-photos more-photos/ --captions more.csv --out my-photos-2
    """

    collection: CollectionName
    """A path or a name in $SIEVE_HOME/collections."""
    directory: Annotated[Positional[Path], arg(metavar="DIR")]
    """Folder of images, with subfolders; it may hold the old ones too."""
    captions: File = None
    """Caption file of the new images; as for `sieve prepare folder`."""
    follow_links: bool = False
    """Also read what links inside the folder lead to; as for `sieve prepare folder`."""
    out: File = None
    """Folder of the new version; by default $SIEVE_HOME/collections/NAME-2, or the next number
    that is free."""
    backbone: Annotated[str | None, arg(metavar="BACKBONE")] = None
    """Where the collection's own backbone is found, if it has moved."""
    licence: str = "not stated"
    """Licence of the new images."""
    workers: Annotated[int | None, arg(metavar="INT")] = None
    """Decoder processes; by default one a core."""
    keep_going: bool = False
    """Leave out bad images and malformed rows even if they are more than 5 %."""
    device: Device = "auto"
    """Where the backbone runs."""
    trust_backbone: TrustBackbone = False
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        """Add, and say what was made."""
        if self.backbone:
            announce_backbone(self.backbone)
        else:
            announce_backbone_of(self.collection)
        from sieve.data_prep.merge import add
        from sieve.data_prep.records import Source
        from sieve.data_prep.sources.folder import Folder
        from sieve.model.backbone import Backbone, backbone_of
        from sieve.model.collection import Collection

        progress = sys.stderr.isatty()
        old = Collection.open(find_collection(self.collection, self.device, self.trust_backbone))
        out = parse_out(self.out) if self.out else _next_version(old.name)
        source = Folder(
            self.directory,
            self.captions,
            licence=self.licence,
            follow_links=self.follow_links,
        )
        backbone = (
            Backbone.load(backbone_name(self.backbone), self.device)
            if self.backbone
            else backbone_of(old, self.device)
        )
        made = add(
            old,
            cast(Source, source),
            backbone,
            out,
            workers=self.workers,
            progress=progress,
            keep_going=self.keep_going,
        )
        report_prepared(made, self.json)


def _next_version(name: str) -> Path:
    """Choose a free place in `$SIEVE_HOME` for a new version of a collection."""
    from sieve.model.files import sieve_home

    stem, number = re.sub(r"-\d+$", "", name), 2
    while (out := sieve_home() / "collections" / f"{stem}-{number}").exists():
        number += 1
    return out
