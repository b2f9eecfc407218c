"""`sieve merge` and `sieve add`: make a collection from existing ones."""

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
    """Merge the parts made by `sieve prepare --shard` into one collection.

    The result is identical, byte for byte, to that of a run without --shard.

    Example: sieve merge part-1 part-2 part-3 --out my-photos
    """

    parts: Annotated[Positional[tuple[Path, ...]], arg(metavar="PART")]
    """Paths of all parts, or names in $SIEVE_HOME/collections, in any order."""
    out: Path
    """Folder of the new collection; must not exist."""
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        """Merge the parts, and report the collection."""
        from sieve.data_prep.bundled import locate_collection
        from sieve.data_prep.merge import merge

        out = parse_out(self.out)
        parts = [locate_collection(part, progress=False) for part in self.parts]
        report_prepared(merge(parts, out, out.name), self.json)


@dataclass(frozen=True)
class Add:
    """Make a new version of a collection, with the new images of a folder.

    The old version is unchanged, and only new images are embedded.

    Example: sieve add my-photos more-photos/ --captions more.csv --out my-photos-2
    """

    collection: CollectionName
    """A path or a name in $SIEVE_HOME/collections."""
    directory: Annotated[Positional[Path], arg(metavar="DIR")]
    """Folder of images, with subfolders; it may also hold images of the old version."""
    captions: File = None
    """Caption file of the new images, as for `sieve prepare folder`."""
    follow_links: bool = False
    """Follow symbolic links inside the folder, as for `sieve prepare folder`."""
    out: File = None
    """Folder of the new version; by default $SIEVE_HOME/collections/NAME-2, or the next free
    number."""
    backbone: Annotated[str | None, arg(metavar="BACKBONE")] = None
    """Location of the collection's backbone, if it has moved."""
    licence: str = "not stated"
    """Licence of the new images."""
    workers: Annotated[int | None, arg(metavar="INT")] = None
    """Decoder processes; by default one per core."""
    keep_going: bool = False
    """Continue even if more than 5 % of the images or rows are unusable."""
    device: Device = "auto"
    """Device that the backbone runs on."""
    trust_backbone: TrustBackbone = False
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        """Make the new version, and report it."""
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
    """Return an unused path in `$SIEVE_HOME` for a new version of a collection."""
    from sieve.model.files import sieve_home

    stem, number = re.sub(r"-\d+$", "", name), 2
    while (out := sieve_home() / "collections" / f"{stem}-{number}").exists():
        number += 1
    return out
