"""What each subcommand of `sieve` takes and does; those that make things have modules of their own.

Fields are the command line: their docstrings are the help. Imports that load torch or gradio stand
inside `run`, so that `sieve --help` answers at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, UseAppendAction, arg, subcommand

from sieve.explorer.cli.evaluate import Evaluate
from sieve.explorer.cli.export import AnnotationsCommand, Export, Figure
from sieve.explorer.cli.index import IndexCommand
from sieve.explorer.cli.merge_add import Add, Merge
from sieve.explorer.cli.options import (
    CheckpointName,
    CollectionName,
    Device,
    File,
    IndexName,
    Off,
    Strictness,
    StrictnessValue,
    TextEncoderName,
    TrustBackbone,
    announce_backbone_of,
    find_collection,
    open_engine,
    text_encoder_name,
)
from sieve.explorer.cli.output import (
    print_dimensions,
    print_facts,
    print_json,
    print_outcome,
    print_paths,
    print_sections,
    print_text,
)
from sieve.explorer.cli.prepare import Prepare
from sieve.explorer.cli.train import Train


@dataclass(frozen=True)
class Explore:
    """Open the explorer in the browser, by default on the bundled collection.

    Example: sieve explore my-photos --port 8000
    """

    collection: CollectionName = "scenes"
    """A path, a bundled name (scenes) or a name in $SIEVE_HOME/collections."""
    checkpoint: CheckpointName = None
    """A checkpoint's path or name; by default the one that fits best."""
    index: IndexName = ""
    """Search this index, which `sieve index` made, in place of the codes on this machine."""
    host: str = "127.0.0.1"
    """Address to listen on. Beyond this machine it needs --auth, --public-safe or
    --open-to-network."""
    port: int = 7860
    """Port; the next free one is taken where it is in use."""
    device: Device = "auto"
    """Where the backbone runs."""
    text_encoder: TextEncoderName = ""
    """Read texts with this backbone, or with this Python function and --allow-code, in place of the
    collection's own backbone."""
    allow_code: bool = False
    """Load the Python function that reads texts, if one is named. It may do anything that you may:
    only for code that you trust."""
    trust_backbone: TrustBackbone = False
    no_training: bool = False
    """Leave out the Train tab."""
    public_safe: bool = False
    """For a page that strangers can open: nothing on it trains, uploads, writes or edits, and no
    file but thumbnails is read."""
    auth: Annotated[str, arg(metavar="NAME")] = ""
    """Ask everyone for this name and a password. The password is asked for here, or taken from
    $SIEVE_PASSWORD: on the command line others could read it."""
    open_to_network: bool = False
    """Let everyone who reaches --host do what you can do, without a password."""
    allow_host: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="NAME")] = ()
    """A name, besides this machine's own, at which browsers may open the page; repeatable, * for
    any."""
    root_path: Annotated[str, arg(metavar="PATH")] = ""
    """Where a reverse proxy shows the page, as /sieve or https://example.org/sieve."""
    trusted_proxy: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="ADDRESS")] = ()
    """Address or network of a reverse proxy whose X-Forwarded headers are believed; repeatable."""
    mcp: bool = False
    """Let programs search by the Model Context Protocol, at /gradio_api/mcp/."""

    def run(self) -> None:
        """Serve until stopped."""
        announce_backbone_of(self.collection, self.text_encoder)
        from sieve.explorer.security.access import Access, ask_password
        from sieve.explorer.server import Server, launch
        from sieve.model.checkpoint import checkpoint_path
        from sieve.model.collection import Collection
        from sieve.model.engine import Engine

        access = Access(
            public=self.public_safe,
            root_path=self.root_path,
            auth=(self.auth, ask_password(self.auth)) if self.auth else None,
            mcp=self.mcp,
            allow_hosts=self.allow_host,
            trusted_proxies=self.trusted_proxy,
            open_to_network=self.open_to_network,
        )
        access.check_host(self.host)
        chosen = checkpoint_path(self.checkpoint) if self.checkpoint else None
        path = find_collection(self.collection, self.device, self.trust_backbone)

        text_encoder = text_encoder_name(self.text_encoder)

        def opened(checkpoint: Path | None) -> Engine:
            engine = Engine.open(
                path, checkpoint, self.device, self.allow_code, self.index, text_encoder
            )
            engine.dimension_table()  # the page needs it: better now than at somebody's first click
            return engine

        server = Server(
            Collection.open(path),
            opened,
            host=self.host,
            port=self.port,
            device=self.device,
            training=not self.no_training,
            text_encoder=text_encoder,
            access=access,
        )
        launch(server, self.port, chosen)


@dataclass(frozen=True)
class Search:
    """Search a collection, with dimensions switched off.

    Example: sieve search scenes "a dog" --without "a beach" --strictness never -k 10
    """

    collection: CollectionName
    """A path, a bundled name (scenes) or a name in $SIEVE_HOME/collections."""
    query: Annotated[Positional[str], arg(metavar="QUERY")] = ""
    """What to search for; "a dog -beach" and "a dog without a beach" exclude the beach."""
    without: str = ""
    """What to exclude, a phrase or several with commas; it proposes what to switch off."""
    strictness: Strictness = StrictnessValue(1.0)
    """0 ignores what is off, 1 pushes it away; `never` also leaves out all that has it."""
    off: Off = None
    """Dimensions to switch off, as 17,203: all of them, in place of the proposed ones."""
    item: str = ""
    """Search by the image of this item instead."""
    image: File = None
    """Search by this image file instead."""
    top: Annotated[int, arg(aliases=["-k"])] = 10
    """How many results."""
    copies: bool = False
    """Give every copy of a picture a place of its own."""
    paths: bool = False
    """Print only the results' files, one a line: absolute if the file is still there, else as the
    source names it."""
    null: Annotated[bool, arg(aliases=["-0"])] = False
    """For --paths: end each with a NUL in place of a line break, for xargs -0."""
    checkpoint: CheckpointName = None
    """A checkpoint's path or name; by default the one that fits best."""
    index: IndexName = ""
    """Search this index, which `sieve index` made, in place of the codes on this machine."""
    device: Device = "auto"
    """Where the backbone runs."""
    text_encoder: TextEncoderName = ""
    """Read texts with this backbone, or with this Python function and --allow-code, in place of the
    collection's own backbone."""
    allow_code: bool = False
    """Load the Python function that reads texts, if one is named. It may do anything that you may:
    only for code that you trust."""
    trust_backbone: TrustBackbone = False
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        """Search, and print what was found."""
        if self.query or self.without or self.image:
            announce_backbone_of(self.collection, self.text_encoder)
        from sieve.data_prep.images import original_path
        from sieve.explorer.serialize import search_report

        if self.paths and self.json:
            raise ValueError("give --paths or --json, not both")
        if self.null and not self.paths:
            raise ValueError("--null is for --paths alone")
        picture = None
        if self.image is not None:
            from sieve.data_prep.images import load_image

            try:
                picture = load_image(self.image)
            except ValueError as error:
                raise ValueError(f"image {self.image}: {error}; give another --image") from None
        engine = open_engine(
            self.collection,
            self.checkpoint,
            self.device,
            self.allow_code,
            self.index,
            self.trust_backbone,
            self.text_encoder,
        )
        encoded = engine.encode(self.query, self.without, self.item, picture)
        outcome = engine.search(
            encoded,
            self.off,
            self.strictness.value,
            self.strictness.never,
            self.top,
            fold=not self.copies,
        )
        if self.paths:
            rows = [result.row for result in outcome.results]
            paths = [original_path(engine.collection, row) for row in rows]
            print_paths(paths, "\0" if self.null else "\n")
            return
        report = search_report(encoded, outcome)
        print_json(report) if self.json else print_outcome(report)


@dataclass(frozen=True)
class Info:
    """Tell what a collection holds, and which checkpoint opens with it.

    Example: sieve info scenes --json
    """

    collection: CollectionName = "scenes"
    """A path, a bundled name (scenes) or a name in $SIEVE_HOME/collections."""
    checkpoint: CheckpointName = None
    """A checkpoint's path or name; by default the one that fits best."""
    trust_backbone: TrustBackbone = False
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        """Print the facts."""
        from sieve.explorer.serialize import collection_report

        path = find_collection(self.collection, trust_backbone=self.trust_backbone)
        report = collection_report(str(path), self.checkpoint)
        print_json(report) if self.json else print_facts(report)


@dataclass(frozen=True)
class Dimensions:
    """List all dimensions of a collection's codes.

    --summary measures the whole encoder instead: how clear its dimensions are, whether labels have
    dimensions of their own, and what is left of a label that is switched off.

    Example: sieve dimensions scenes --sort firing_images --match dog
    """

    collection: CollectionName = "scenes"
    """A path, a bundled name (scenes) or a name in $SIEVE_HOME/collections."""
    sort: str = "dimension"
    """Column to sort by; numbers from the highest, dimension and words upwards."""
    match: str = ""
    """Only those with this text in their name or top word."""
    checkpoint: CheckpointName = None
    """A checkpoint's path or name; by default the one that fits best."""
    summary: bool = False
    """Measure the whole encoder; takes a minute."""
    trust_backbone: TrustBackbone = False
    csv: bool = False
    """Print CSV, with every column."""
    json: bool = False
    """Print JSON, with every column."""

    def run(self) -> None:
        """Print the table, or the summary."""
        from sieve.explorer.downloads import table_csv
        from sieve.explorer.serialize import dimension_records, dimension_rows, summary_report

        if self.csv and (self.json or self.summary):
            raise ValueError(f"give --csv or --{'json' if self.json else 'summary'}, not both")
        if self.summary and (self.match or self.sort != "dimension"):
            raise ValueError("--summary is of all dimensions: leave out --match and --sort")
        engine = open_engine(
            self.collection, self.checkpoint, "auto", trust_backbone=self.trust_backbone
        )
        if self.summary:
            report = summary_report(engine)
            print_json(report) if self.json else print_sections(report)
            return
        table = dimension_rows(engine.dimension_table(), self.sort, self.match)
        if self.csv:
            print_text(table_csv(table).decode().replace("\r\n", "\n"))
        elif self.json:
            print_json(dimension_records(table))
        else:
            print_dimensions(table, self.sort)


Command = (
    Annotated[Explore, subcommand("explore")]
    | Annotated[Prepare, subcommand("prepare")]
    | Annotated[Add, subcommand("add")]
    | Annotated[Merge, subcommand("merge")]
    | Annotated[Train, subcommand("train")]
    | Annotated[Search, subcommand("search")]
    | Annotated[IndexCommand, subcommand("index")]
    | Annotated[Evaluate, subcommand("evaluate")]
    | Annotated[Info, subcommand("info")]
    | Annotated[Dimensions, subcommand("dimensions")]
    | Annotated[Figure, subcommand("figure")]
    | Annotated[AnnotationsCommand, subcommand("annotations")]
    | Annotated[Export, subcommand("export")]
)
