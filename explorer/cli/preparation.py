"""`sieve prepare`, `sieve add` and `sieve merge`: make collections."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg, subcommand

from sieve.explorer.cli.options import (
    BackboneOptions,
    CollectionName,
    Device,
    EmbedOptions,
    File,
    Json,
    PrepareOptions,
    ShardName,
    TrustBackbone,
    Workers,
    announce_backbone,
    announce_backbone_of,
    backbone_name,
    parse_out,
)
from sieve.explorer.cli.output import print_collection
from sieve.model.files import sieve_home

if TYPE_CHECKING:
    from sieve.model.collection import Collection

BackboneName = Annotated[
    str,
    arg(
        help="Backbone: sieve-lite, ARCHITECTURE/WEIGHTS of open_clip, hf-hub:ORG/MODEL or "
        "local-dir:/PATH; for BLIP, blip:ORG/MODEL or blip:/PATH."
    ),
]
Licence = Annotated[str, arg(help="Licence of the images, recorded in the collection.")]
FollowLinks = Annotated[
    bool,
    arg(
        help="Follow symbolic links inside the folder, as used by caches of Hugging Face, DVC and "
        "git-annex."
    ),
]
Column = Annotated[str | None, arg(metavar="COLUMN")]
Files = Annotated[tuple[Path, ...], arg(metavar="PATH…")]
PositionalFolder = Annotated[Positional[Path], arg(metavar="DIR")]
TableImages = Annotated[
    Path | None,
    arg(
        metavar="DIR",
        help="Folder of the table's images; an item without an image is shown by its caption.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class PrepareCodes:
    """Make a collection from external sparse codes, without a backbone.

    DIR holds image_codes.npz (scipy.sparse.save_npz of a CSR matrix, one row per item), a table
    items.csv, .tsv, .jsonl or .parquet (id, image, caption…), names.txt, .csv or .json (one name
    per dimension), and optionally text_codes.npz (one row per caption), word_codes.npz and
    words.txt (codes of words, to search by text).

    Example: sieve prepare codes splice/ --images photos/ --out my-splice
    """

    directory: PositionalFolder
    """Folder of the codes."""
    images: TableImages = None
    image_codes: File = None
    """Codes of the images; by default image_codes.npz."""
    text_codes: File = None
    """Codes of the captions; by default text_codes.npz, if it exists."""
    word_codes: File = None
    """Codes of the words; by default word_codes.npz, if it exists."""
    words: File = None
    """The words, one per line; by default words.txt."""
    names: File = None
    """Names of the dimensions; by default names.json, names.csv or names.txt."""
    items: File = None
    """Table of the items; by default items.parquet, .csv, .tsv or .jsonl."""
    text_encoder: Annotated[str, arg(metavar="package.module:function")] = ""
    """Python function that maps t texts to codes (t, m), for text queries. Its name is recorded; it
    is loaded only with --allow-code."""
    follow_links: FollowLinks = False
    licence: Licence = "not stated"
    common: PrepareOptions = PrepareOptions()

    def run(self) -> None:
        """Prepare the collection, and report it."""
        from sieve.data_prep.sources.sparse_codes import CodeFiles, Codes

        out = self.common.folder(self.directory)
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
            follow_links=self.follow_links,
            name=out.name,
            licence=self.licence,
        )
        made = self.common.prepare(source, None, out, source.precomputed())
        print_collection(made, self.common.json)


@dataclass(frozen=True, kw_only=True)
class PrepareCoco:
    """Make a collection from MSCOCO, or from a data set in its format.

    Captions and instances are the official JSON files of 2014 or 2017, or files in the same format.
    Categories and supercategories become labels. Missing images are counted and listed in
    skipped.csv; they do not count as unusable.

    Example: sieve prepare coco --images val2017/ --captions captions_val2017.json --instances
    instances_val2017.json
    """

    images: Annotated[Path, arg(metavar="DIR")]
    """Folder of the images, with subfolders."""
    captions: Files
    """Caption files, one or more."""
    instances: Files = ()
    """Instance files, for labels."""
    splits: File = None
    """Karpathy's dataset_coco.json; images that it does not list are left out. By default splits
    are drawn at random."""
    follow_links: FollowLinks = False
    backbone: BackboneName = "sieve-lite"
    common: EmbedOptions = EmbedOptions()

    def run(self) -> None:
        """Prepare the collection, and report it."""
        announce_backbone(self.backbone)
        from sieve.data_prep.sources.coco import Coco

        out = self.common.folder("coco")
        files = (self.images, self.captions, self.instances, self.splits)
        source = Coco(*files, name=out.name, follow_links=self.follow_links)
        print_collection(self.common.embed(source, self.backbone, out), self.common.json)


@dataclass(frozen=True, kw_only=True)
class PrepareConceptualCaptions:
    """Make a collection from Conceptual Captions, or from any output of img2dataset.

    SOURCE is img2dataset's output in any layout (tar shards, Parquet shards, files), read in place;
    or the official TSV beside the images, named by row or by a hash of the URL. Images that were
    not downloaded are counted and listed in skipped.csv; they do not count as unusable.

    Example: sieve prepare conceptual-captions cc3m/ --backbone ViT-B-32/openai --out cc3m-clip
    """

    source: Annotated[Positional[Path], arg(metavar="SOURCE")]
    """A folder of shards, one shard, or the official TSV."""
    images: Annotated[File, arg(metavar="DIR")] = None
    """Folder of the images, if they are not beside the TSV."""
    first_row: Annotated[int | None, arg(metavar="INT")] = None
    """Number of the first row, if images are named by row; by default 0 or 1, whichever matches all
    files."""
    licence: Licence = "not stated"
    backbone: BackboneName = "sieve-lite"
    common: EmbedOptions = EmbedOptions()

    def run(self) -> None:
        """Prepare the collection, and report it."""
        announce_backbone(self.backbone)
        from sieve.data_prep.sources.conceptual_captions import conceptual_captions

        out = self.common.folder(Path(os.path.abspath(self.source)).stem)
        about = {"name": out.name, "licence": self.licence}
        source = conceptual_captions(self.source, self.images, first_row=self.first_row, **about)
        print_collection(self.common.embed(source, self.backbone, out), self.common.json)


@dataclass(frozen=True, kw_only=True)
class PrepareEmbeddings:
    """Make a collection from existing embeddings, without embedding anything.

    DIR is clip-retrieval's output (img_emb/, text_emb/, metadata/), or holds one array of images
    (.npy, .npz, .pt, .safetensors, .h5), optionally one of texts (text….npy), and a table (.csv,
    .tsv, .jsonl, .parquet) with the same rows; or a Parquet file or a .lance table of LanceDB with
    embeddings in a list column. Rows of one image become one item with several captions. The
    backbone is opened only to record its hash, and for text queries; if it is not available, only
    its name is recorded.

    Example: sieve prepare embeddings cc3m-embeddings/ --backbone ViT-B/32 --images cc3m/
    """

    directory: PositionalFolder
    """Folder of the embeddings."""
    backbone: str
    """Backbone of the embeddings, named as for other sources or as in clip-retrieval
    (ViT-B/32)."""
    images: TableImages = None
    embed_captions: bool = False
    """Embed captions that have no embeddings with the backbone, instead of leaving them out."""
    follow_links: FollowLinks = False
    licence: Licence = "not stated"
    common: EmbedOptions = EmbedOptions()

    def run(self) -> None:
        """Prepare the collection, and report it."""
        announce_backbone(self.backbone)
        from sieve.data_prep.sources.embeddings import Embeddings, open_identity

        out = self.common.folder(self.directory)
        source = Embeddings(
            self.directory,
            self.images,
            keep_captions=self.embed_captions,
            follow_links=self.follow_links,
            name=out.name,
            licence=self.licence,
        )
        precomputed = source.precomputed()  # checks the files, before a backbone is loaded
        backbone = open_identity(self.backbone, source.width, self.common.device)
        made = self.common.prepare(source, backbone, out, precomputed, self.common.shard)
        print_collection(made, self.common.json)


@dataclass(frozen=True)
class PrepareScenes:
    """Make a collection of synthetic scenes with exact labels.

    Example: sieve prepare scenes --count 2000 --seed 7 --out fresh-scenes
    """

    out: File = None
    """Folder of the new collection; without it, the bundled collection is prepared."""
    count: int = 5000
    """Number of scenes."""
    seed: int = 0
    """Random seed; 0 gives the bundled scenes."""
    counterfactual: bool = False
    """Add to each scene the same scene without each of its objects, and in another place. Measure
    with `sieve dimensions --counterfactual`."""
    backbone: BackboneName = "sieve-lite"
    workers: Workers = None
    shard: ShardName = None
    device: Device = "auto"
    json: Json = False

    def run(self) -> None:
        """Prepare the collection, and report it."""
        announce_backbone(self.backbone)
        if self.out is None:
            if replace(self, json=False) != PrepareScenes(device=self.device):
                raise ValueError("only the bundled scenes have a default folder; give --out")
            from sieve.data_prep.bundled import prepare_bundled_scenes
            from sieve.model.collection import Collection

            path = prepare_bundled_scenes(device=self.device, progress=sys.stderr.isatty())
            print_collection(Collection.open(path), self.json)
            return
        from sieve.data_prep.scenes import CounterfactualScenes, Scenes

        out = parse_out(self.out)
        kind = CounterfactualScenes if self.counterfactual else Scenes
        source = kind(self.count, self.seed, name=out.name)
        shared = EmbedOptions(
            workers=self.workers, shard=self.shard, device=self.device, json=self.json
        )
        print_collection(shared.embed(source, self.backbone, out), self.json)


@dataclass(frozen=True)
class PrepareFolder:
    """Make a collection from a folder of images, with or without a caption file.

    Images, rows and files that cannot be used are listed in skipped.csv with the reason, and
    counted in the last line of output.

    Example: sieve prepare folder photos/ --captions captions.csv --out my-photos
    """

    directory: PositionalFolder
    """Folder of images, with subfolders."""
    captions: File = None
    """CSV, TSV, JSON, JSON lines or Parquet file with one row per caption: columns image, caption
    and optionally split and labels (separated by semicolons). The files of Flickr8k, Flickr30k,
    Karpathy and COCO also work unchanged. By default captions come from metadata.jsonl or
    metadata.csv in a folder (Hugging Face), or from a.txt, a.caption or a.json beside a.jpg."""
    only: File = None
    """Text file with one image name per line; use only these images."""
    image_column: Column = None
    """Column of the caption file that names the image; by default image, file_name, filename,
    filepath or another usual name."""
    caption_column: Column = None
    """Column that holds the caption; by default caption, comment, sentence, text, title or
    prompt."""
    split_column: Column = None
    """Column with the split (train, select or test); by default `split` if it exists, else drawn at
    random."""
    labels_column: Column = None
    """Column with labels; by default `labels` if it exists."""
    encoding: Annotated[str | None, arg(metavar="NAME")] = None
    """Encoding of caption files, such as latin-1; by default UTF-8, or UTF-16 with a byte-order
    mark."""
    follow_links: FollowLinks = False
    backbone: BackboneName = "sieve-lite"
    licence: Licence = "not stated"
    common: EmbedOptions = EmbedOptions()

    def run(self) -> None:
        """Prepare the collection, and report it."""
        announce_backbone(self.backbone)
        print_collection(self.prepare(), self.common.json)

    def prepare(self, progress: bool | None = None) -> Collection:
        """Prepare the collection, by default with a progress bar on a terminal."""
        from sieve.data_prep.captions.caption_text import Columns
        from sieve.data_prep.sources.folder import Folder

        out = self.common.folder(self.directory)
        columns = Columns(
            self.image_column,
            self.caption_column,
            self.split_column,
            self.labels_column,
            self.encoding,
        )
        about = {"name": out.name, "licence": self.licence, "follow_links": self.follow_links}
        source = Folder(self.directory, self.captions, columns, self.only, **about)
        return self.common.embed(source, self.backbone, out, progress)


@dataclass(frozen=True)
class PrepareHuggingFace:
    """Make a collection from an image data set on the Hugging Face Hub or on disk.

    On disk, it is a folder that save_to_disk wrote, a folder of Parquet files with images in them,
    or an imagefolder with metadata.jsonl. The datasets library downloads and converts a data set
    once; no code of a data set is executed. Class labels become labels.

    Example: sieve prepare hf nlphuji/flickr30k --split "test[:1000]" --out flickr
    """

    dataset: Annotated[Positional[str], arg(metavar="ORG/NAME|PATH")]
    """Data set of the Hub, also as hf://ORG/NAME@REVISION, or the path of a local one."""
    image_column: Annotated[str, arg(metavar="COLUMN")] = ""
    """Column of the images; by default the only one, or one with a usual name."""
    caption_column: Annotated[str, arg(metavar="COLUMN")] = ""
    """Column of the captions; by default caption, text, sentence or another usual name."""
    split: str = ""
    """Split, or a part of one, such as train[:1000]; it is divided into train, select and test. By
    default all splits are used, and validation is select."""
    subset: str = ""
    """Configuration, if the data set has several."""
    revision: str = ""
    """Branch, tag or commit."""
    backbone: BackboneName = "sieve-lite"
    licence: Licence = "not stated"
    common: EmbedOptions = EmbedOptions()

    def run(self) -> None:
        """Prepare the collection, and report it."""
        announce_backbone(self.backbone)
        from sieve.data_prep.sources.hugging_face import HuggingFace

        out = self.common.folder(self.dataset.partition("@")[0])
        source = HuggingFace(
            self.dataset,
            name=out.name,
            licence=self.licence,
            image_column=self.image_column,
            caption_column=self.caption_column,
            split=self.split,
            subset=self.subset,
            revision=self.revision,
        )
        print_collection(self.common.embed(source, self.backbone, out), self.common.json)


@dataclass(frozen=True)
class Prepare:
    """Make a collection from images, a published data set, embeddings or codes.

    Records that cannot be used are left out and listed in skipped.csv. Source files are read in
    place and never changed.

    Example: sieve prepare folder photos/ --captions captions.csv --out my-photos
    """

    source: (
        Annotated[PrepareFolder, subcommand("folder")]
        | Annotated[PrepareCoco, subcommand("coco")]
        | Annotated[PrepareConceptualCaptions, subcommand("conceptual-captions")]
        | Annotated[PrepareHuggingFace, subcommand("hf")]
        | Annotated[PrepareEmbeddings, subcommand("embeddings")]
        | Annotated[PrepareCodes, subcommand("codes")]
        | Annotated[PrepareScenes, subcommand("scenes")]
    )

    def run(self) -> None:
        """Run the subcommand."""
        self.source.run()


@dataclass(frozen=True)
class Merge:
    """Merge the parts made by `sieve prepare --shard` into one collection.

    The result is identical, byte for byte, to that of a run without --shard.

    Example: sieve merge part-1 part-2 part-3 --out my-photos
    """

    parts: Annotated[Positional[tuple[str, ...]], arg(metavar="PART")]
    """Paths of all parts, or names in $SIEVE_HOME/collections, in any order."""
    out: Path
    """Folder of the new collection; must not exist."""
    json: Json = False

    def run(self) -> None:
        """Merge the parts, and report the collection."""
        from sieve.data_prep.bundled import locate_collection
        from sieve.data_prep.merge import merge

        out = parse_out(self.out)
        parts = [locate_collection(part, progress=False) for part in self.parts]
        print_collection(merge(parts, out, out.name), self.json)


@dataclass(frozen=True)
class Add:
    """Make a new version of a collection, with the new images of a folder.

    The old version is unchanged, and only new images are embedded. By default the new version of
    NAME is NAME-2, or the next free number.

    Example: sieve add my-photos more-photos/ --captions more.csv --out my-photos-2
    """

    collection: CollectionName
    directory: PositionalFolder
    """Folder of images, with subfolders; it may also hold images of the old version."""
    captions: File = None
    """Caption file of the new images, as for `sieve prepare folder`."""
    follow_links: FollowLinks = False
    backbone: Annotated[str | None, arg(metavar="BACKBONE")] = None
    """Location of the collection's backbone, if it has moved."""
    licence: Licence = "not stated"
    device: Device = "auto"
    trust_backbone: TrustBackbone = False
    common: PrepareOptions = PrepareOptions()

    def run(self) -> None:
        """Make the new version, and report it."""
        if self.backbone:
            announce_backbone(self.backbone)
        else:
            announce_backbone_of(self.collection)
        from sieve.data_prep.merge import add
        from sieve.data_prep.sources.folder import Folder
        from sieve.model.backbone.clip import Backbone, backbone_of
        from sieve.model.collection import Collection

        options = BackboneOptions(device=self.device, trust_backbone=self.trust_backbone)
        old = Collection.open(options.find_collection(self.collection))
        about = {"licence": self.licence, "follow_links": self.follow_links}
        source = Folder(self.directory, self.captions, **about)
        if self.backbone:
            backbone = Backbone.load(backbone_name(self.backbone), self.device)
        else:
            backbone = backbone_of(old, self.device)
        made = add(
            old,
            source,
            backbone,
            self.common.folder(_next_version(old.name)),
            workers=self.common.workers,
            progress=sys.stderr.isatty(),
            keep_going=self.common.keep_going,
        )
        print_collection(made, self.common.json)


def _next_version(name: str) -> str:
    """Return an unused name in `$SIEVE_HOME/collections` for a new version of a collection."""
    stem, number = re.sub(r"-\d+$", "", name), 2
    while (sieve_home() / "collections" / f"{stem}-{number}").exists():
        number += 1
    return f"{stem}-{number}"
