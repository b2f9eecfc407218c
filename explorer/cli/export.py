"""Subcommands that export or import: `sieve export`, `import-encoder`, `figure`, `index`, ..."""

from __future__ import annotations

import logging
import shlex
import sys
import time
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from sieve.explorer.cli.options import (
    BackboneOptions,
    CheckpointName,
    CollectionName,
    File,
    Json,
    SearchOptions,
    TrustBackbone,
    backbone_name,
    parse_out,
)
from sieve.explorer.cli.output import print_facts, print_json, print_text
from sieve.explorer.json_validation import split_list
from sieve.model.files import atomic_file
from sieve.model.hyperparameters import (
    TENSOR_ROLES,
    ImportActivation,
    ImportSettings,
    ImportTool,
)

if TYPE_CHECKING:
    from sieve.model.checkpoint import Checkpoint
    from sieve.model.collection import BackboneIdentity, Collection

log = logging.getLogger(__name__)

_ATLAS_OPTIONS = "--x x --y y --neighbors neighbors --image image --text text --features concepts"


def output_format(path: Path, kinds: tuple[str, ...], what: str) -> str:
    """Return the format of a file to write, from its extension; check that its folder exists."""
    kind = path.suffix.lower().removeprefix(".")
    if kind not in kinds:
        endings = ", ".join(f".{each}" for each in kinds)
        raise ValueError(f"{path}: {what} must end in {' or '.join(endings.rsplit(', ', 1))}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent}; create it first")
    return kind


def write_file(path: Path, data: bytes) -> None:
    """Write a file atomically; an existing one is replaced."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(data)


@dataclass(frozen=True)
class Figure:
    """Draw a paper figure from a recipe; the same recipe gives the same file, byte for byte.

    Minimal recipe: {"collection": "scenes", "rows": [{"query": "a dog"}, {"query": "a dog",
    "without": "a beach"}], "columns": 6, "width_cm": 17}. A row for each of some dimensions:
    "rows": [{"dimensions": [17, 20]}]. A contact sheet of 25 random dimensions: {"collection":
    "scenes", "rows": [{"sample": 25, "seed": 0}], "columns": 8}

    Example: sieve figure recipe.json -o figure.pdf --latex --recipe
    """

    source: Annotated[Positional[Path], arg(metavar="RECIPE")]
    """The recipe, a JSON file."""
    out: Annotated[Path, arg(aliases=["-o"], metavar="PATH")]
    """The figure: .pdf, .svg or .png (300 dpi). Overwritten if it exists."""
    latex: bool = False
    """Also write a LaTeX figure block, with the extension .tex."""
    recipe: bool = False
    """Also write the full recipe, with hashes and version, with the extension .json."""
    collection: Annotated[str | None, arg(metavar="COLLECTION")] = None
    """Path or name of the collection, if it differs from that in the recipe."""
    checkpoint: CheckpointName = None
    backbone: BackboneOptions = BackboneOptions()
    json: Json = False

    def run(self) -> None:
        """Draw the figure, write the files, and report them."""
        kind = output_format(self.out, ("pdf", "svg", "png"), "a figure")
        from sieve.explorer.figures import read_recipe, write_recipe
        from sieve.explorer.figures.content import recipe_checkpoint
        from sieve.explorer.figures.drawing import draw_figure, latex_block

        recipe = read_recipe(self.source)
        name = self.collection or recipe.collection
        if not name:
            raise ValueError(f"{self.source} has no collection; add one or give --collection")
        checkpoint = self.checkpoint or recipe_checkpoint(recipe.checkpoint)
        engine = self.backbone.open_engine(name, checkpoint)
        drawn = draw_figure(engine, replace(recipe, collection=recipe.collection or name), kind)
        files = {self.out: drawn.data}
        if self.latex:
            block = latex_block(drawn.recipe, drawn.content, self.out.name)
            files[self.out.with_suffix(".tex")] = block.encode()
        if self.recipe:
            files[self.out.with_suffix(".json")] = write_recipe(drawn.recipe).encode()
        for path, data in files.items():
            if path.exists() and path.samefile(self.source) and path.read_bytes() != data:
                raise ValueError(f"{path} would overwrite the recipe; choose another name for -o")
        for path, data in files.items():
            write_file(path, data)
        names = list(map(str, files))
        if self.json:
            size = {"width_cm": drawn.width_cm, "height_cm": drawn.height_cm}
            print_json({"files": names, **size, "notes": list(drawn.notes)})
            return
        for note in drawn.notes:
            sys.stderr.write(f"sieve: {note}\n")
        print_text(f"{', '.join(names)}: {drawn.width_cm:g} × {drawn.height_cm:g} cm\n")


@dataclass(frozen=True)
class Export:
    """Write search results, codes, the dimension table, all items or an encoder.

    The extension selects the format: .csv, .json or .parquet for results and dimensions; for codes
    .npz (a SciPy CSR matrix, one row per item in the order of items.parquet, as read by `sieve
    prepare codes`) or .parquet (one row per active dimension: row, id, dimension, value). Items are
    written as .parquet with thumbnails, concepts, nearest neighbours and a map, for
    embedding-atlas.

    With --format, CHECKPOINT's encoder is written to a new folder instead, in the format of SAELens
    or sentence-transformers: sieve export CHECKPOINT --format saelens -o DIR

    Example: sieve export scenes results --query "a dog" --without "a beach" -o dogs.csv
    """

    collection: Annotated[
        Positional[str],
        arg(
            metavar="COLLECTION|CHECKPOINT",
            help="A path, a bundled collection (scenes) or a name in $SIEVE_HOME/collections; with "
            "--format, the path or name of a checkpoint.",
        ),
    ]
    what: Annotated[
        Positional[Literal["results", "codes", "dimensions", "items"] | None],
        arg(metavar="results|codes|dimensions|items"),
    ] = None
    """Content to write; left out with --format."""
    out: Annotated[Path, arg(aliases=["-o"], metavar="PATH")] = field(kw_only=True)
    """The file, overwritten if it exists; with --format, a new folder."""
    format: Annotated[
        Literal["saelens", "sentence-transformers"] | None,
        arg(metavar="saelens|sentence-transformers"),
    ] = None
    """Write the encoder of a checkpoint in this format."""
    modality: Annotated[Literal["image", "text"] | None, arg(metavar="image|text")] = None
    """With --format: write the encoder of this modality, if the two differ."""
    centred_input: bool = False
    """With --format saelens: write an encoder of embeddings whose mean is already subtracted."""
    query: str = ""
    """For results: text to search for."""
    search: SearchOptions = SearchOptions()
    top: Annotated[int, arg(aliases=["-k"])] = 24
    """For results: number of results."""
    captions: bool = False
    """For codes: write the codes of captions instead of images, one row per caption."""
    checkpoint: CheckpointName = None
    backbone: BackboneOptions = BackboneOptions()
    json: Json = False

    def run(self) -> None:
        """Write the file, and report its contents."""
        is_query = bool(self.query) or self.search != SearchOptions()
        if self.format:
            if self.what or is_query or self.captions:
                raise ValueError("--format writes a checkpoint's encoder; give only CHECKPOINT")
            self._write_encoder()
            return
        if self.what is None:
            raise ValueError(
                "there is nothing to write; add results, codes, dimensions or items after "
                "COLLECTION, or --format saelens or sentence-transformers after CHECKPOINT"
            )
        if self.modality or self.centred_input:
            raise ValueError("--modality and --centred-input require --format")
        if self.what != "results" and is_query:
            raise ValueError(f"{self.what} are exported whole; remove the query options")
        if self.what != "codes" and self.captions:
            raise ValueError("--captions requires codes")
        if self.query or self.search.without:
            self.backbone.announce(self.collection)
        from sieve.explorer.downloads import CODE_KINDS, TABLE_KINDS

        kinds = {"codes": CODE_KINDS, "items": ("parquet",)}.get(self.what, TABLE_KINDS)
        kind = output_format(self.out, kinds, f"a file of {self.what}")
        rows = self._write_rows(kind)
        if self.json:
            print_json({"file": str(self.out), "what": self.what, "rows": rows})
            return
        counted = "rows of codes" if self.what == "codes" else self.what
        print_text(f"{self.out}: {rows:,} {counted}\n")
        if self.what == "items":
            file = shlex.quote(str(self.out))
            print_text(f"Open it with: embedding-atlas {file} {_ATLAS_OPTIONS}\n")

    def _write_encoder(self) -> None:
        from sieve.model.checkpoint import Checkpoint
        from sieve.model.checkpoint_choice import checkpoint_path
        from sieve.model.encoder_conversion import export_encoder

        assert self.format is not None
        out = parse_out(self.out)
        checkpoint = Checkpoint.load(checkpoint_path(self.collection))
        export_encoder(checkpoint, out, self.format, self.modality, self.centred_input)
        report = {"folder": str(self.out), "format": self.format, "dimensions": checkpoint.m}
        if self.json:
            print_json(report)
            return
        print_text(f"{self.out}: encoder of {checkpoint.m:,} dimensions for {self.format}\n")

    def _write_rows(self, kind: str) -> int:
        from sieve.explorer.downloads import (
            dimensions_bytes,
            results_bytes,
            write_codes,
            write_items,
        )

        engine = self.backbone.open_engine(self.collection, self.checkpoint)
        if self.what == "codes":
            ids = engine.collection.items["id"]
            codes = engine.image_codes
            if self.captions:
                codes, ids = engine.text_codes, ids.iloc[engine.collection.caption_item]
            with atomic_file(self.out) as temporary:
                write_codes(codes, ids.tolist(), temporary, kind)
            return codes.n
        if self.what == "items":
            with atomic_file(self.out) as temporary:
                if unreadable := write_items(engine, temporary):
                    log.warning("%s thumbnails cannot be read, and are left out", unreadable)
            return engine.image_codes.n
        if self.what == "dimensions":
            data, rows = dimensions_bytes(engine, kind), engine.image_codes.m
        else:
            query, outcome = self.search.run(engine, self.query, self.top)
            strictness = self.search.strictness.as_json()
            data = results_bytes(engine, query, outcome, strictness, kind)
            rows = len(outcome.results)
        write_file(self.out, data)
        return rows


@dataclass(frozen=True)
class ImportEncoder:
    """Make a checkpoint of a sparse autoencoder that another tool trained.

    Reads SAELens (cfg.json, sae_weights.safetensors), sparsify (cfg.json, sae.safetensors), state
    dicts of overcomplete and MSAE, and other files if --tensors names their tensors. The encoder
    must read the image and text embeddings of the backbone. A collection of the backbone names the
    dimensions and calibrates exclusion; without --collection, the largest installed one.

    Example: sieve import-encoder my-sae/ --backbone ViT-B-32/openai --out my-codes
    """

    source: Annotated[Positional[Path], arg(metavar="DIR")]
    """Folder or file of the encoder."""
    backbone: Annotated[str, arg(metavar="BACKBONE")] = ""
    """Backbone whose embeddings it reads; by default that of --collection."""
    out: File = None
    """Folder of the new checkpoint; by default $SIEVE_HOME/checkpoints/NAME."""
    collection: Annotated[str | None, arg(metavar="COLLECTION")] = None
    """Path or name of the collection that names the dimensions."""
    tool: ImportTool = "auto"
    """Tool that saved the encoder; by default recognised by its files."""
    activation: Annotated[ImportActivation, arg(metavar="relu|topk|jumprelu|batchtopk")] = ""
    """Activation function, if the files do not record it."""
    k: int = 0
    """Number of active dimensions of topk, if the files do not record it."""
    threshold: Annotated[float | None, arg(metavar="FLOAT")] = None
    """Threshold of jumprelu or batchtopk, if the files do not record it."""
    input_scale: float = 1.0
    """Factor of the unit-length embeddings, such as the mean length of those that the encoder was
    trained on, if they were not normalised."""
    tensors: Annotated[str, arg(metavar="PART=NAME,…")] = ""
    """Names of the tensors in a file of another tool. Parts: encode, bias, decode, decode_bias,
    input_bias (subtracted from the input), threshold."""
    any_hook: bool = False
    """Accept an encoder of a hook that is not known to be the embedding."""
    model: BackboneOptions = BackboneOptions()
    json: Json = False

    def run(self) -> None:
        """Write the checkpoint, and report its quality."""
        from sieve.explorer.serialize import import_report

        report = import_report(self.make(progress=sys.stderr.isatty()))
        if self.json:
            print_json(report)
            return
        if quality := report.pop("quality", None):
            recall, backbone = (quality[by]["recall@10"] for by in ("codes", "backbone"))
            live, in_both = quality["dimensions"].values()
            report["recall@10"] = f"{recall:.3f} text to image; backbone: {backbone:.3f}"
            report["live"] = f"{live:.0%}; for images and texts {in_both:.0%}"
        print_facts(report)

    def make(self, progress: bool) -> Checkpoint:
        """Write the checkpoint."""
        settings = ImportSettings(
            self.tool,
            self.activation,
            self.k,
            self.threshold,
            self.input_scale,
            _parse_tensors(self.tensors),
            self.any_hook,
        )
        if not self.backbone and not self.collection:
            raise ValueError("the backbone is not stated; add --backbone NAME or --collection NAME")
        from sieve.model.backbone.checked_files import BackboneUnavailable
        from sieve.model.checkpoint_choice import default_checkpoint_out
        from sieve.model.encoder_conversion import import_encoder
        from sieve.model.text_encoder import text_tower, unavailable_reason

        out = parse_out(self.out or default_checkpoint_out(self.source.resolve().stem))
        opened, identity = self._identity(progress)
        texts = None
        if opened is not None:
            self.model.announce(str(opened.path))
            encoder = self.model.text_encoder_name()
            try:
                texts, _ = text_tower(opened, self.model.device, encoder, self.model.allow_code)
            except BackboneUnavailable as error:
                log.warning(
                    "%s has no captions, and its backbone is unavailable (%s)",
                    opened.name, unavailable_reason(error),
                )  # fmt: skip
        return import_encoder(self.source, out, identity, settings, opened, texts)

    def _identity(self, progress: bool) -> tuple[Collection | None, BackboneIdentity]:
        """Return the collection that names the dimensions, if there is one, and the backbone."""
        from sieve.data_prep.bundled import BACKBONE, SCENES, list_collections, locate_collection
        from sieve.data_prep.sources.embeddings import open_identity
        from sieve.model.backbone.clip import Backbone, declared_width
        from sieve.model.collection import BackboneIdentity, Collection

        wanted = backbone_name(self.backbone) if self.backbone else ""
        if self.collection:
            opened = Collection.open(self.model.find_collection(self.collection, progress))
            if wanted and opened.backbone.name != wanted:
                raise ValueError(
                    f"collection {opened.name} was made with backbone {opened.backbone.name}, not "
                    f"{wanted}; leave out --backbone, or give another --collection"
                )
            return opened, opened.backbone
        names = [*([SCENES] if wanted == BACKBONE else []), *list_collections()]
        fitting = []
        for name in names:
            try:
                opened = Collection.open(locate_collection(name, progress=progress))
            except (OSError, ValueError):
                continue  # opening it by name says what is wrong
            if opened.backbone is not None and opened.backbone.name == wanted:
                fitting.append(opened)
        if fitting:
            largest = max(fitting, key=lambda one: one.n_items)
            return largest, largest.backbone
        width = declared_width(wanted)
        if width is None:
            loaded = Backbone.load(wanted, self.model.device)
        else:
            loaded = open_identity(wanted, width, self.model.device)
        return None, BackboneIdentity(loaded.name, loaded.sha256, loaded.width)


def _parse_tensors(text: str) -> dict[str, str]:
    named = {}
    for part in split_list(text):
        role, equals, name = part.partition("=")
        if not (equals and role.strip() in TENSOR_ROLES and name.strip()):
            raise ValueError(
                f"--tensors must be PART=NAME with a part of {', '.join(TENSOR_ROLES)}; "
                f"got {part!r}"
            )
        named[role.strip()] = name.strip()
    return named


@dataclass(frozen=True)
class IndexCommand:
    """Upload a collection's codes to Qdrant, for collections too large for one machine.

    Repeat the command to resume an interrupted upload. Search the index with --index of `sieve
    search` and `sieve explore`. An API key is read from $QDRANT_API_KEY.

    Example: sieve index my-photos --to qdrant://localhost:6333/my-photos
    """

    collection: CollectionName
    to: Annotated[str, arg(metavar="qdrant://HOST:6333/NAME")]
    """Address of the index: qdrants:// for TLS; qdrant:///FOLDER/NAME for a local folder without a
    server."""
    checkpoint: CheckpointName = None
    batch: int = 1000
    """Items per request."""
    trust_backbone: TrustBackbone = False
    json: Json = False

    def run(self) -> None:
        """Upload the codes, and print the counts and the time."""
        from sieve.model.index.qdrant import IndexAddress, IndexIdentity, connect, upload

        address = IndexAddress.parse(self.to)
        with closing(connect(address)) as client:
            options = BackboneOptions(trust_backbone=self.trust_backbone)
            engine = options.open_engine(self.collection, self.checkpoint)
            started = time.perf_counter()
            uploaded = upload(
                client,
                address.name,
                IndexIdentity.of(engine.collection, engine.checkpoint),
                engine.image_codes,
                engine.derived.mean_positive,
                engine.collection.items["id"].tolist(),
                where=str(address),
                batch=self.batch,
                progress=sys.stderr.isatty(),
            )
        seconds = round(time.perf_counter() - started, 3)
        counts = {"items": uploaded.items, "were_there": uploaded.before}
        report = {"index": str(address), **counts, "seconds": seconds}
        print_json(report) if self.json else print_facts(report)
