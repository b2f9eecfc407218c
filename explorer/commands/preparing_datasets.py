"""`sieve prepare` for published data sets and for embeddings that were made elsewhere."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

from tyro.conf import Positional, arg

from sieve.explorer.arguments import (
    Device,
    File,
    ShardName,
    announce_backbone,
    backbone_name,
    collection_out,
)

if TYPE_CHECKING:
    from sieve.data_prep.known import KnownEmbeddings
    from sieve.data_prep.known_codes import KnownCodes
    from sieve.data_prep.records import Source
    from sieve.model.backbone import Backbone
    from sieve.model.collection import BackboneIdentity

Files = Annotated[tuple[Path, ...], arg(metavar="PATH…")]
Folder = Annotated[Path, arg(metavar="DIR")]


@dataclass(frozen=True, kw_only=True)
class How:
    """The same for every source."""

    out: File = None
    """Folder of the new collection, not there yet; by default $SIEVE_HOME/collections/NAME."""
    workers: Annotated[int | None, arg(metavar="INT")] = None
    """Decoder processes; by default one a core."""
    keep_going: bool = False
    """Leave out bad records and malformed rows even if they are more than 5 %."""
    shard: ShardName = None
    """Make only part i of n, here; `sieve merge` joins the parts."""
    device: Device = "auto"
    """Where the backbone runs."""
    json: bool = False
    """Print JSON."""

    def prepare(
        self,
        source: object,
        backbone: Backbone | BackboneIdentity | None,
        out: Path,
        known: KnownEmbeddings | KnownCodes | None = None,
    ) -> None:
        """Prepare, and say what was made."""
        from sieve.data_prep.prepare import prepare
        from sieve.explorer.commands.preparing import report_prepared

        made = prepare(
            cast("Source", source),
            backbone,
            out,
            known=known,
            workers=self.workers,
            progress=sys.stderr.isatty(),
            keep_going=self.keep_going,
            shard=self.shard,
        )
        report_prepared(made, self.json)


@dataclass(frozen=True, kw_only=True)
class PrepareCoco:
    """Make a collection of MSCOCO, or of a data set in its format, of what is on this disk of it.

    Captions and instances are the official JSON files, of 2014 or 2017, or files like them.
    Categories and supercategories become labels. Images that are not there are counted and named
    in skipped.csv; they do not count as bad.

    Example: sieve prepare coco --images val2017/ --captions captions_val2017.json --instances
    instances_val2017.json
    """

    images: Folder
    """Folder of the photographs, with subfolders."""
    captions: Files
    """Official caption files, one or more."""
    instances: Files = ()
    """Official instance files, for labels."""
    splits: File = None
    """Karpathy's dataset_coco.json: what it lacks stays out; by default splits are drawn."""
    follow_links: bool = False
    """Also read what links inside the folder lead to, as in the caches of Hugging Face, DVC and
    git-annex."""
    backbone: str = "sieve-lite"
    """sieve-lite, ARCHITECTURE/WEIGHTS of open_clip, hf-hub:ORG/MODEL or local-dir:/PATH."""
    how: How = field(default_factory=How)

    def run(self) -> None:
        """Prepare, and say what was made."""
        announce_backbone(self.backbone)
        from sieve.data_prep.sources.coco import Coco
        from sieve.model.backbone import Backbone

        out = collection_out(self.how.out, "coco")
        source = Coco(
            self.images,
            self.captions,
            self.instances,
            self.splits,
            name=out.name,
            follow_links=self.follow_links,
        )
        self.how.prepare(source, Backbone.load(backbone_name(self.backbone), self.how.device), out)


@dataclass(frozen=True, kw_only=True)
class PrepareConceptualCaptions:
    """Make a collection of Conceptual Captions, or of anything that img2dataset downloaded.

    SOURCE is img2dataset's output, in any layout (tar shards, Parquet shards, files), read where it
    lies; or the official TSV beside the images, named by row or by a hash of the URL. What was not
    downloaded is told in a line and named in skipped.csv; it does not count as bad.

    Example: sieve prepare conceptual-captions cc3m/ --backbone ViT-B-32/openai --out cc3m-clip
    """

    source: Annotated[Positional[Path], arg(metavar="SOURCE")]
    """A folder of shards, one shard, or the official TSV."""
    images: Annotated[File, arg(metavar="DIR")] = None
    """Folder of the images, where they are not beside the TSV."""
    first_row: Annotated[int | None, arg(metavar="INT")] = None
    """Number of the first row, if images are named by row; by default 0 or 1, as fits all files."""
    licence: str = "not stated"
    """Licence of the images, to be kept with the collection."""
    backbone: str = "sieve-lite"
    """sieve-lite, ARCHITECTURE/WEIGHTS of open_clip, hf-hub:ORG/MODEL or local-dir:/PATH."""
    how: How = field(default_factory=How)

    def run(self) -> None:
        """Prepare, and say what was made."""
        announce_backbone(self.backbone)
        from sieve.data_prep.sources.conceptual_captions import conceptual_captions
        from sieve.model.backbone import Backbone

        out = collection_out(self.how.out, Path(os.path.abspath(self.source)).stem)
        source = conceptual_captions(
            self.source, self.images, first_row=self.first_row, name=out.name, licence=self.licence
        )
        self.how.prepare(source, Backbone.load(backbone_name(self.backbone), self.how.device), out)


@dataclass(frozen=True, kw_only=True)
class PrepareEmbeddings:
    """Make a collection of embeddings that are there already; no backbone runs.

    DIR is clip-retrieval's output (img_emb/, text_emb/, metadata/), or holds one .npy of images,
    perhaps one of texts (text….npy), and a table (.csv, .tsv, .parquet), row by row. Rows of one
    image are one item with several captions. The backbone is opened only to note its hash, and for
    text queries; where it cannot be, its name alone is kept.

    Example: sieve prepare embeddings cc3m-embeddings/ --backbone ViT-B/32 --images cc3m/
    """

    directory: Annotated[Positional[Path], arg(metavar="DIR")]
    """Folder of the embeddings."""
    backbone: str
    """The one that made them: as for other sources, or as clip-retrieval says (ViT-B/32)."""
    images: Annotated[File, arg(metavar="DIR")] = None
    """Folder in which the table's images are sought; what is not there is shown by its caption."""
    embed_captions: bool = False
    """Embed captions that come without embeddings, with the backbone; else they are left out."""
    licence: str = "not stated"
    """Licence of the images, to be kept with the collection."""
    how: How = field(default_factory=How)

    def run(self) -> None:
        """Prepare, and say what was made."""
        announce_backbone(self.backbone)
        from sieve.data_prep.sources.embeddings import Embeddings, open_identity

        out = collection_out(self.how.out, Path(os.path.abspath(self.directory)).name)
        source = Embeddings(
            self.directory,
            self.images,
            keep_captions=self.embed_captions,
            name=out.name,
            licence=self.licence,
        )
        known = source.known()  # files that do not fit together are refused before anything loads
        backbone = open_identity(self.backbone, source.width, self.how.device)
        self.how.prepare(source, backbone, out, known)
