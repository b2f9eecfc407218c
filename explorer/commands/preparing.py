"""`sieve prepare`: collections of what people have, one subcommand a kind of source."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

from tyro.conf import Positional, arg, subcommand

from sieve.explorer.arguments import (
    Device,
    File,
    ShardName,
    announce_backbone,
    backbone_name,
    collection_out,
    parse_out,
)
from sieve.explorer.commands.preparing_codes import PrepareCodes
from sieve.explorer.commands.preparing_datasets import (
    PrepareCoco,
    PrepareConceptualCaptions,
    PrepareEmbeddings,
)
from sieve.explorer.commands.printing import print_json, print_text

if TYPE_CHECKING:
    from sieve.data_prep.pipeline.sharding import Shard
    from sieve.data_prep.records import Source
    from sieve.model.collection import Collection

Column = Annotated[str | None, arg(metavar="COLUMN")]


@dataclass(frozen=True)
class PrepareScenes:
    """Draw scenes, pictures with exact labels, as a collection.

    Example: sieve prepare scenes --count 2000 --seed 7 --out fresh-scenes
    """

    out: File = None
    """Folder of the new collection; without it the bundled collection is made ready."""
    count: int = 5000
    """How many scenes."""
    seed: int = 0
    """Another seed gives other scenes; 0 are the bundled ones."""
    backbone: str = "sieve-lite"
    """sieve-lite, ARCHITECTURE/WEIGHTS of open_clip, hf-hub:ORG/MODEL or local-dir:/PATH; BLIP as
    blip:ORG/MODEL or blip:/PATH."""
    workers: Annotated[int | None, arg(metavar="INT")] = None
    """Drawing processes; by default one a core."""
    shard: ShardName = None
    """Make only part i of n, here; `sieve merge` joins the parts."""
    device: Device = "auto"
    """Where the backbone runs."""
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        """Prepare, and say what was made."""
        announce_backbone(self.backbone)
        if self.out is None:
            if replace(self, json=False) != PrepareScenes(device=self.device):
                raise ValueError("scenes other than the bundled ones need a place: give --out")
            from sieve.data_prep.bundled import bundled_scenes
            from sieve.model.collection import Collection

            path = bundled_scenes(device=self.device, progress=sys.stderr.isatty())
            report_prepared(Collection.open(path), self.json)
            return
        from sieve.data_prep.scenes import Scenes

        out = parse_out(self.out)
        source = Scenes(self.count, self.seed, name=out.name)
        made = _prepare(
            cast("Source", source), out, self.backbone, self.device, self.workers, shard=self.shard
        )
        report_prepared(made, self.json)


@dataclass(frozen=True)
class PrepareFolder:
    """Make a collection of a folder of images, with a caption file or without.

    Images, rows and files that cannot be used are named in skipped.csv with the reason; the last
    line counts them.

    Example: sieve prepare folder photos/ --captions captions.csv --out my-photos
    """

    directory: Annotated[Positional[Path], arg(metavar="DIR")]
    """Folder of images, with subfolders."""
    out: File = None
    """Folder of the new collection, not there yet; by default $SIEVE_HOME/collections/NAME."""
    captions: File = None
    """CSV, TSV, JSON, JSON lines or Parquet with a row a caption: columns image,caption and,
    optionally, split and labels (separated by semicolons). Files of Flickr8k, Flickr30k, Karpathy
    and COCO are read as they are. Without it, metadata.jsonl or metadata.csv in a folder describe
    its images (Hugging Face), else a.txt, a.caption or a.json beside a.jpg."""
    only: File = None
    """Text file with an image's name a line: take only these."""
    image_column: Column = None
    """Column of the caption file that names the image; by default image, file_name, filename,
    filepath or another usual name."""
    caption_column: Column = None
    """Column that holds the caption; by default caption, comment, sentence, text, title or
    prompt."""
    split_column: Column = None
    """Column of train, select or test; by default `split` where there is one, else drawn."""
    labels_column: Column = None
    """Column of labels; by default `labels` where there is one."""
    encoding: Annotated[str | None, arg(metavar="NAME")] = None
    """Encoding of text files with captions, such as latin-1; by default UTF-8, or UTF-16 with a
    byte-order mark."""
    follow_links: bool = False
    """Also read what links inside the folder lead to, as in the caches of Hugging Face, DVC and
    git-annex."""
    backbone: str = "sieve-lite"
    """sieve-lite, ARCHITECTURE/WEIGHTS of open_clip, hf-hub:ORG/MODEL or local-dir:/PATH; BLIP as
    blip:ORG/MODEL or blip:/PATH."""
    licence: str = "not stated"
    """Licence of the images, to be kept with the collection."""
    workers: Annotated[int | None, arg(metavar="INT")] = None
    """Decoder processes; by default one a core."""
    keep_going: bool = False
    """Leave out bad images and malformed rows even if they are more than 5 %."""
    shard: ShardName = None
    """Make only part i of n, here; `sieve merge` joins the parts."""
    device: Device = "auto"
    """Where the backbone runs."""
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        """Prepare, and say what was made."""
        announce_backbone(self.backbone)
        from sieve.data_prep.captions import Columns
        from sieve.data_prep.sources.folder import Folder

        out = collection_out(self.out, Path(os.path.abspath(self.directory)).name)
        columns = Columns(
            self.image_column,
            self.caption_column,
            self.split_column,
            self.labels_column,
            self.encoding,
        )
        source = Folder(
            self.directory,
            self.captions,
            columns,
            self.only,
            name=out.name,
            licence=self.licence,
            follow_links=self.follow_links,
        )
        made = _prepare(
            cast("Source", source),
            out,
            self.backbone,
            self.device,
            self.workers,
            self.keep_going,
            self.shard,
        )
        report_prepared(made, self.json)


@dataclass(frozen=True)
class Prepare:
    """Make a collection of images, of a published data set, of embeddings or of codes.

    Records that cannot be used are left out and named in skipped.csv; nothing is unpacked or
    changed where it lies.

    Example: sieve prepare folder photos/ --captions captions.csv --out my-photos
    """

    source: (
        Annotated[PrepareFolder, subcommand("folder")]
        | Annotated[PrepareCoco, subcommand("coco")]
        | Annotated[PrepareConceptualCaptions, subcommand("conceptual-captions")]
        | Annotated[PrepareEmbeddings, subcommand("embeddings")]
        | Annotated[PrepareCodes, subcommand("codes")]
        | Annotated[PrepareScenes, subcommand("scenes")]
    )

    def run(self) -> None:
        """Run the source's own command."""
        self.source.run()


def _prepare(
    source: Source,
    out: Path,
    backbone: str,
    device: str,
    workers: int | None,
    keep_going: bool = False,
    shard: Shard | None = None,
) -> Collection:
    from sieve.data_prep.prepare import prepare
    from sieve.model.backbone import Backbone

    return prepare(
        source,
        Backbone.load(backbone_name(backbone), device),
        out,
        workers=workers,
        progress=sys.stderr.isatty(),
        keep_going=keep_going,
        shard=shard,
    )


def report_prepared(collection: Collection, as_json: bool) -> None:
    """Print what was prepared; the last line counts what is not used, by kind."""
    from sieve.data_prep.captions import tidy
    from sieve.data_prep.skipped import Tally, read_skipped
    from sieve.explorer.reports import collection_facts
    from sieve.model.collection import SKIPPED

    facts = collection_facts(collection)
    skipped = Tally(read_skipped(collection.checked(SKIPPED) / SKIPPED))
    if as_json:
        print_json(facts | {"skipped_by_kind": dict(skipped.most_common())})
        return
    notes = f"; {facts['duplicates']:,} much like another, see duplicates.csv"
    shard = collection.manifest.get("shard")
    then = f"Open it with `sieve explore {collection.path}`"
    if shard:
        then = f"This is part {shard['part']}: join all with `sieve merge PART… --out COLLECTION`"
    print_text(
        f"{facts['items']:,} items, {facts['captions']:,} captions in {collection.path}"
        f"{notes if facts['duplicates'] else ''}\n{then}\n"
    )
    if skipped.total:
        print_text(f"Not used: {tidy(skipped.describe())}; see skipped.csv\n")
