"""`sieve prepare`: collections of what people have, one subcommand a kind of source.

`sieve prepare codes`: sparse codes that were made elsewhere.

`sieve prepare` for published data sets and for embeddings that were made elsewhere.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

from tyro.conf import Positional, arg, subcommand

from sieve.explorer.cli.options import (
    Device,
    File,
    ShardName,
    announce_backbone,
    backbone_name,
    collection_out,
    parse_out,
)
from sieve.explorer.cli.output import print_json, print_text

if TYPE_CHECKING:
    from sieve.data_prep.pipeline.shard import Shard
    from sieve.data_prep.precomputed import PrecomputedCodes, PrecomputedEmbeddings
    from sieve.data_prep.records import Source
    from sieve.model.backbone import Backbone
    from sieve.model.collection import BackboneIdentity, Collection


@dataclass(frozen=True, kw_only=True)
class PrepareCodes:
    """Make a collection of sparse codes that were made elsewhere; no backbone runs, then or later.

    DIR holds image_codes.npz (scipy.sparse.save_npz of a CSR matrix, a row an item), a table
    items.csv, .tsv, .jsonl or .parquet (id, image, caption…), names.txt, .csv or .json (a name a
    dimension), and if you like text_codes.npz (a row a caption), word_codes.npz and words.txt
    (codes of words, to search by text).

    Example: sieve prepare codes splice/ --images photos/ --out my-splice
    """

    directory: Annotated[Positional[Path], arg(metavar="DIR")]
    """Folder of the codes."""
    out: File = None
    """Folder of the new collection, not there yet; by default $SIEVE_HOME/collections/NAME."""
    images: Annotated[File, arg(metavar="DIR")] = None
    """Folder in which the table's images are sought; what is not there is shown by its caption."""
    image_codes: File = None
    """Codes of images; by default image_codes.npz."""
    text_codes: File = None
    """Codes of captions; by default text_codes.npz, if it is there."""
    word_codes: File = None
    """Codes of words; by default word_codes.npz, if it is there."""
    words: File = None
    """The words, one a line; by default words.txt."""
    names: File = None
    """Names of dimensions; by default names.json, names.csv or names.txt."""
    items: File = None
    """The table; by default items.parquet, .csv, .tsv or .jsonl."""
    text_encoder: Annotated[str, arg(metavar="package.module:function")] = ""
    """Python function that makes codes (t, m) of t texts, for text queries. It is kept by name, and
    loaded only where explore or search are told to --allow-code."""
    licence: str = "not stated"
    """Licence of the images, to be kept with the collection."""
    workers: Annotated[int | None, arg(metavar="INT")] = None
    """Decoder processes; by default one a core."""
    keep_going: bool = False
    """Leave out bad records even where they are more than 5 %."""
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        """Prepare, and say what was made."""
        from sieve.data_prep.prepare import prepare
        from sieve.data_prep.records import Source
        from sieve.data_prep.sources.sparse_codes import CodeFiles, Codes

        out = collection_out(self.out, Path(os.path.abspath(self.directory)).name)
        files = CodeFiles.find(
            self.directory,
            images=self.image_codes,
            table=self.items,
            names=self.names,
            texts=self.text_codes,
            words=self.word_codes,
            word_list=self.words,
        )
        source = Codes(
            files,
            self.images,
            text_encoder=self.text_encoder,
            name=out.name,
            licence=self.licence,
        )
        made = prepare(
            cast(Source, source),
            None,
            out,
            precomputed=source.precomputed(),
            workers=self.workers,
            progress=sys.stderr.isatty(),
            keep_going=self.keep_going,
        )
        report_prepared(made, self.json)


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
        precomputed: PrecomputedEmbeddings | PrecomputedCodes | None = None,
    ) -> None:
        """Prepare, and say what was made."""
        from sieve.data_prep.prepare import prepare

        made = prepare(
            cast("Source", source),
            backbone,
            out,
            precomputed=precomputed,
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
        precomputed = source.precomputed()  # refuses mismatched files before a backbone loads
        backbone = open_identity(self.backbone, source.width, self.how.device)
        self.how.prepare(source, backbone, out, precomputed)


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
            from sieve.data_prep.bundled import prepare_bundled_scenes
            from sieve.model.collection import Collection

            path = prepare_bundled_scenes(device=self.device, progress=sys.stderr.isatty())
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
    from sieve.data_prep.records import Tally, read_skipped
    from sieve.explorer.serialize import collection_facts
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
