"""Subcommands that read a collection: `sieve explore`, `search`, `info`, `annotations` and others.

Fields are the options, and their docstrings are the help. Imports that load torch or gradio are
inside `run`, so that `sieve --help` is fast.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, UseAppendAction, arg, subcommand

from sieve.explorer.cli import output
from sieve.explorer.cli.export import output_format, write_file
from sieve.explorer.cli.options import (
    BackboneOptions,
    CheckpointName,
    CollectionName,
    File,
    IndexName,
    Json,
    SearchOptions,
    TrustBackbone,
)
from sieve.explorer.security.access import Access, ask_password

if TYPE_CHECKING:
    import pandas as pd

    from sieve.explorer.annotations.import_export import Origin
    from sieve.explorer.annotations.store import Annotations
    from sieve.model.engine import SearchEngine

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Explore:
    """Open the explorer in the browser, by default on the bundled collection.

    Example: sieve explore my-photos --port 8000
    """

    collection: CollectionName = "scenes"
    checkpoint: CheckpointName = None
    index: IndexName = ""
    host: str = "127.0.0.1"
    """Address to listen on. Other addresses than this machine's loopback require --auth,
    --public-safe or --open-to-network."""
    port: int = 7860
    """Port; if it is in use, the next free one."""
    backbone: BackboneOptions = BackboneOptions()
    no_training: bool = False
    """Disable training: no Train tab."""
    auth: Annotated[str, arg(metavar="NAME")] = ""
    """Require this user name and a password. The password is read from $SIEVE_PASSWORD or from a
    prompt: on the command line, other users could read it."""
    access: Access = Access()

    def run(self) -> None:
        """Serve until stopped."""
        self.backbone.announce(self.collection)
        from sieve.explorer.app import Server, launch
        from sieve.model.checkpoint_choice import checkpoint_path
        from sieve.model.collection import Collection
        from sieve.model.engine import SearchEngine

        access = self.access
        if self.auth:
            access = replace(access, auth=(self.auth, ask_password(self.auth)))
        access.check_host(self.host)
        chosen = checkpoint_path(self.checkpoint) if self.checkpoint else None
        path = self.backbone.find_collection(self.collection)
        device, text_encoder = self.backbone.device, self.backbone.text_encoder_name()
        options = (device, self.backbone.allow_code, self.index, text_encoder)

        def open_with(checkpoint: Path | None) -> SearchEngine:
            engine = SearchEngine.open(path, checkpoint, *options)
            engine.dimension_table()  # compute it before the first request needs it
            return engine

        server = Server(
            Collection.open(path),
            open_with,
            host=self.host,
            port=self.port,
            device=device,
            training=not self.no_training,
            text_encoder=text_encoder,
            access=access,
        )
        launch(server, self.port, chosen)


@dataclass(frozen=True)
class Search:
    """Search a collection, with dimensions switched off.

    Example: sieve search scenes "a dog + 0.5:grass" --without "a beach" -k 10
    """

    collection: CollectionName
    query: Annotated[Positional[str], arg(metavar="QUERY")] = ""
    """Text to search for; "a dog -beach" and "a dog without a beach" exclude the beach. A sum has
    several terms, some with a weight: "a dog + 0.5:image:ball.jpg - concept:17 - item:ID"."""
    search: SearchOptions = SearchOptions()
    image: File = None
    """Search by this image file, added to the text if there is one."""
    top: Annotated[int, arg(aliases=["-k"])] = 10
    """Number of results."""
    paths: bool = False
    """Print only the files of the results, one per line: the absolute path if the file exists, else
    the name in the source."""
    null: Annotated[bool, arg(aliases=["-0"])] = False
    """With --paths: end each path with NUL instead of a line break, for xargs -0."""
    checkpoint: CheckpointName = None
    index: IndexName = ""
    backbone: BackboneOptions = BackboneOptions()
    json: Json = False

    def run(self) -> None:
        """Search, and print the results."""
        if self.query or self.search.without or self.image:
            self.backbone.announce(self.collection)
        from sieve.data_prep.images import open_image_file, original_path
        from sieve.explorer.serialize import search_report

        if self.paths and self.json:
            raise ValueError("give --paths or --json, not both")
        if self.null and not self.paths:
            raise ValueError("--null requires --paths")
        picture = open_image_file(self.image) if self.image else None
        engine = self.backbone.open_engine(self.collection, self.checkpoint, self.index)
        query, outcome = self.search.run(engine, self.query, self.top, picture)
        if self.paths:
            rows = [result.row for result in outcome.results]
            paths = [original_path(engine.collection, row) for row in rows]
            output.print_paths(paths, "\0" if self.null else "\n")
            return
        report = search_report(query, outcome)
        output.print_json(report) if self.json else output.print_outcome(report)


@dataclass(frozen=True)
class Regions:
    """Locate the concepts of an item in its image.

    Parts of the image are covered, one at a time; where this lowers the activation of a concept,
    the image shows it. Prints the cell of a 7 × 7 grid with the largest share of the activation.

    Example: sieve regions scenes 0a1b2c3d4e5f6071 --json
    """

    collection: CollectionName
    item: Annotated[Positional[str], arg(metavar="ID")]
    """ID of the item, as in the results of `sieve search`."""
    checkpoint: CheckpointName = None
    backbone: BackboneOptions = BackboneOptions()
    json: Json = False
    """Print JSON with the shares of all cells."""

    def run(self) -> None:
        """Print the regions."""
        from sieve.explorer.serialize import regions_json
        from sieve.model.explain import item_regions

        engine = self.backbone.open_engine(self.collection, self.checkpoint)
        regions = item_regions(engine, self.item)
        if self.json:
            output.print_json(regions_json(regions))
        else:
            output.print_regions(regions)


@dataclass(frozen=True)
class Difference:
    """Find the concepts that distinguish two sets of images.

    A set is a filter, as for `sieve search --where`: `label:dog split:test`, `caption:umbrella`,
    `file:2023/*.jpg`, `concept:beach>0.5`, `search:a dog without a beach` (the best 100), or `all`;
    `not label:dog` is all others. Images in both sets count in neither. Shares of images are
    compared by Fisher's exact test, corrected for the number of concepts.

    Example: sieve difference scenes label:dog label:cat
    """

    collection: CollectionName
    left: Annotated[Positional[str], arg(metavar="SET")]
    right: Annotated[Positional[str], arg(metavar="SET")] = ""
    """The other set; by default all images that are not in the first."""
    every: Annotated[bool, arg(name="all")] = False
    """Also print the concepts whose shares do not differ significantly."""
    checkpoint: CheckpointName = None
    backbone: BackboneOptions = BackboneOptions()
    csv: bool = False
    """Print CSV with all columns."""
    json: Json = False

    def run(self) -> None:
        """Print the concepts."""
        from sieve.explorer.downloads import table_csv
        from sieve.explorer.serialize import difference_json
        from sieve.model.set_difference import compare_sets

        if self.csv and self.json:
            raise ValueError("give --csv or --json, not both")
        engine = self.backbone.open_engine(self.collection, self.checkpoint)
        found = compare_sets(engine, self.left, self.right)
        table = found.concepts if self.every else found.significant
        if self.json:
            output.print_json(difference_json(engine, found._replace(concepts=table)))
        elif self.csv:
            output.print_text(table_csv(table).decode().replace("\r\n", "\n"))
        else:
            columns = ["concept", "name", "left_rate", "right_rate", "low", "high"]
            output.print_table(table.loc[:, columns])


@dataclass(frozen=True)
class Info:
    """Show a collection's contents and the checkpoint that opens with it.

    Example: sieve info scenes --json
    """

    collection: CollectionName = "scenes"
    checkpoint: CheckpointName = None
    trust_backbone: TrustBackbone = False
    json: Json = False

    def run(self) -> None:
        """Print the report."""
        options = BackboneOptions(trust_backbone=self.trust_backbone)
        path = options.find_collection(self.collection)
        report = collection_report(str(path), self.checkpoint)
        output.print_json(report) if self.json else output.print_facts(report)


@dataclass(frozen=True)
class Dimensions:
    """List all dimensions of a collection's codes.

    --summary measures the whole encoder instead: how interpretable its dimensions are, how well
    labels match single dimensions, and how much of a label remains after it is switched off.

    Example: sieve dimensions scenes --sort firing_images --match dog
    """

    collection: CollectionName = "scenes"
    sort: str = "dimension"
    """Column to sort by: numbers in descending order; dimension and text in ascending order."""
    match: str = ""
    """Only list dimensions with this text in their name or top word."""
    where: Annotated[str, arg(metavar="FILTER")] = ""
    """Only list dimensions of images that pass this filter, as for `sieve search --where`. Adds the
    columns `passing`, the number of such images with the dimension, and `example`, the ID of the
    one with the highest activation; all other columns cover all images."""
    checkpoint: CheckpointName = None
    summary: bool = False
    """Measure the whole encoder; takes about a minute."""
    controls: bool = False
    """With --summary: compare each metric with those of controls, such as an untrained encoder; two
    of them are trained first, which takes minutes."""
    seed: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="CHECKPOINT")] = ()
    """With --summary: a checkpoint of another training seed, to count the dimensions that recur;
    repeatable."""
    counterfactual: Annotated[str | None, arg(metavar="COLLECTION")] = None
    """A collection of `sieve prepare scenes --counterfactual`, on which to measure how far each
    dimension falls when its own object is removed from an image, and when another is."""
    trust_backbone: TrustBackbone = False
    csv: bool = False
    """Print CSV with all columns."""
    json: Json = False
    """Print JSON with all columns."""

    def run(self) -> None:
        """Print the table, or the summary."""
        from sieve.explorer.downloads import table_csv
        from sieve.explorer.serialize import dimension_records

        if self.csv and (self.json or self.summary):
            raise ValueError(f"give --csv or --{'json' if self.json else 'summary'}, not both")
        if (self.controls or self.seed) and not self.summary:
            raise ValueError("--controls and --seed need --summary")
        if self.summary and (self.match or self.where or self.sort != "dimension"):
            raise ValueError("--summary covers all dimensions: remove --match, --where and --sort")
        options = BackboneOptions(trust_backbone=self.trust_backbone)
        engine = options.open_engine(self.collection, self.checkpoint)
        more: dict[str, Any] = {}
        if self.counterfactual:
            from sieve.explorer.checkpoint_report import counterfactual_report
            from sieve.model.collection import Collection

            changed = Collection.open(options.find_collection(self.counterfactual))
            more["counterfactual"] = counterfactual_report(engine, changed)
        if self.summary:
            self._summarise(engine, more)
            return
        table = engine.dimension_table()
        if self.where:
            table = table.merge(engine.passing_dimensions(self.where), on="dimension")
        table = dimension_rows(table, self.sort, self.match)
        if self.csv:
            output.print_text(table_csv(table).decode().replace("\r\n", "\n"))
        elif self.json:
            output.print_json(dimension_records(table))
        else:
            output.print_dimensions(table, self.sort)

    def _summarise(self, engine: SearchEngine, more: dict[str, Any]) -> None:
        from sieve.explorer.checkpoint_report import controls_report, report_json, seeds_report
        from sieve.model.checkpoint import Checkpoint
        from sieve.model.checkpoint_choice import checkpoint_path

        report = report_json(engine) | more
        if self.seed:
            seeds = [Checkpoint.load(checkpoint_path(name)) for name in self.seed]
            report["seeds"] = seeds_report(engine, list(map(engine.with_checkpoint, seeds)))
        controls = controls_report(engine, log.info) if self.controls else []
        if self.json:
            output.print_json(report | ({"controls": controls} if controls else {}))
            return
        output.print_summary(report)
        if controls:
            output.print_controls(controls)


AnnotationFile = Annotated[Positional[Path], arg(metavar="FILE")]


@dataclass(frozen=True)
class ExportAnnotations:
    """Write all annotations to a file, sorted, one dimension per line, for version control.

    Example: sieve annotations export scenes notes.json
    """

    collection: CollectionName
    file: AnnotationFile
    """A .json or .csv file; CSV leaves out saved searches. Overwritten if it exists."""
    checkpoint: CheckpointName = None

    def run(self) -> None:
        """Write the file, and report its contents."""
        from sieve.explorer.annotations.import_export import KINDS, export_text

        kind = output_format(self.file, KINDS, "a file of annotations")
        opened, origin = _open_annotations(self.collection, self.checkpoint)
        write_file(self.file, export_text(opened, origin, kind).encode())
        n = sum(any(field.value for field in notes.values()) for notes in opened.all().values())
        output.print_text(f"{self.file}: {n:,} dimension{'' if n == 1 else 's'}\n")


@dataclass(frozen=True)
class ImportAnnotations:
    """Import names, notes, tags and stars, and list the changes. Newer local values are preserved.

    Example: sieve annotations import scenes notes.json --dry-run
    """

    collection: CollectionName
    file: AnnotationFile
    """A .json or .csv file from export; in CSV, all columns but `dimension` are optional."""
    checkpoint: CheckpointName = None
    replace: bool = False
    """Also replace newer local values."""
    dry_run: bool = False
    """Only list the changes."""
    json: Json = False

    def run(self) -> None:
        """Read the file, and import its values."""
        from sieve.explorer.annotations import import_export

        if not self.file.is_file():
            raise FileNotFoundError(f"there is no file {self.file}")
        kind = output_format(self.file, import_export.KINDS, "a file of annotations")
        opened, origin = _open_annotations(self.collection, self.checkpoint)
        with self.file.open("rb") as stream:
            data = stream.read(import_export.MAX_BYTES + 1)
        try:
            imported = import_export.read_annotation_file(data, kind, opened.m)
        except ValueError as error:
            raise ValueError(f"{self.file}: {error}") from None
        plan = import_export.plan_import(imported, opened, origin, replace=self.replace)
        failures = () if self.dry_run else import_export.apply_plan(plan, opened)
        for note in (*plan.notes, *failures):
            sys.stderr.write(f"sieve: {note}\n")
        if self.json:
            output.print_json(plan.as_json())
            return
        for line in plan.lines():
            output.print_text(f"{line}\n")
        output.print_text(f"{plan.summary()}{' (nothing was changed)' if self.dry_run else ''}\n")


@dataclass(frozen=True)
class AnnotationsCommand:
    """Export or import names, notes, tags and stars of dimensions.

    Example: sieve annotations export scenes notes.csv
    """

    what: (
        Annotated[ExportAnnotations, subcommand("export")]
        | Annotated[ImportAnnotations, subcommand("import")]
    )

    def run(self) -> None:
        """Run the subcommand."""
        self.what.run()


def _open_annotations(collection: str, checkpoint: str | None) -> tuple[Annotations, Origin]:
    """Open the annotations, without loading codes or a backbone."""
    from sieve.data_prep.bundled import locate_collection
    from sieve.explorer.annotations.import_export import Origin
    from sieve.explorer.annotations.store import open_annotations
    from sieve.model.checkpoint import Checkpoint
    from sieve.model.checkpoint_choice import checkpoint_path, find_checkpoint
    from sieve.model.collection import Collection

    path = locate_collection(collection, progress=sys.stderr.isatty())
    opened = Collection.open(path)
    chosen = Checkpoint.load(checkpoint_path(checkpoint) if checkpoint else find_checkpoint(opened))
    chosen.check_fits(opened)
    origin = Origin.of(opened, chosen)
    return open_annotations(opened.sha256, chosen.sha256, chosen.m), origin


def collection_report(name: str, checkpoint: str | None) -> dict[str, Any]:
    """Return the properties of a collection and its checkpoint, which is None if none fits."""
    import numpy as np

    from sieve.data_prep.bundled import locate_collection
    from sieve.explorer.serialize import collection_facts
    from sieve.model.checkpoint import Checkpoint
    from sieve.model.checkpoint_choice import checkpoint_path, find_checkpoint
    from sieve.model.collection import Collection
    from sieve.model.engine import SearchEngine

    collection = Collection.open(locate_collection(name))
    facts = collection_facts(collection)
    try:
        path = checkpoint_path(checkpoint) if checkpoint else find_checkpoint(collection)
    except FileNotFoundError:
        if checkpoint:
            raise
        return facts | {"checkpoint": None, "dimensions": None, "live": None, "asked_by": None}
    engine = SearchEngine(collection, Checkpoint.load(path))
    table = engine.dimension_table()
    can = engine.can
    asked_by = {"texts": can.text_queries, "images": can.image_queries, "items": True}
    return facts | {
        "checkpoint": str(path),
        "dimensions": len(table),
        "live": int(np.count_nonzero(table[["firing_images", "firing_texts"]].max(axis=1))),
        "asked_by": ", ".join(word for word, possible in asked_by.items() if possible),
    }


def dimension_rows(table: pd.DataFrame, sort: str, match: str) -> pd.DataFrame:
    """Select the rows of the dimension table that contain a text, and sort them by a column.

    Raises a ValueError if the column does not exist.
    """
    import pandas as pd

    if sort not in table.columns:
        raise ValueError(f"cannot sort by {sort!r}; columns are: {', '.join(table.columns)}")
    if match:
        words = table["name"].str.cat(table["top_word"].astype(str), sep="\n")
        table = table.loc[words.str.contains(match, case=False, regex=False)]
    upwards = sort == "dimension" or not pd.api.types.is_numeric_dtype(table[sort])
    return table.sort_values(sort, ascending=upwards, kind="stable")
