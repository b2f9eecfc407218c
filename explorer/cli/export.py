"""The subcommand that hands results, codes and dimensions to other programs: `sieve export`.

Which kind of file a command is to write.

The subcommand that draws paper figures: `sieve figure`.

`sieve annotations`: names, notes, tags and stars out to a file, and in from one.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg, subcommand

from sieve.explorer.cli.options import (
    CheckpointName,
    CollectionName,
    Device,
    Off,
    Strictness,
    StrictnessValue,
    TextEncoderName,
    TrustBackbone,
    announce_backbone_of,
    open_engine,
)
from sieve.explorer.cli.output import print_json, print_text
from sieve.model.files import whole_file

if TYPE_CHECKING:
    from sieve.explorer.annotations.import_export import Origin
    from sieve.explorer.annotations.store import Annotations


def kind_of(path: Path, kinds: tuple[str, ...], what: str) -> str:
    """Tell by its ending what a file is to be.

    Raises
    ------
    ValueError
        If it is none of `kinds`.
    FileNotFoundError
        If there is no folder for it.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in kinds:
        *first, last = (f".{each}" for each in kinds)
        raise ValueError(f"{path}: {what} is a {', '.join(first)} or {last}; choose another name")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent}; make it first")
    return kind


_KINDS = ("pdf", "svg", "png")


@dataclass(frozen=True)
class Figure:
    """Draw a paper figure from a recipe: the same recipe gives the same file, byte for byte.

    A short recipe is enough: {"collection": "scenes", "rows": [{"query": "a dog"}, {"query":
    "a dog", "without": "a beach"}], "columns": 6, "width_cm": 17}

    Example: sieve figure recipe.json -o figure.pdf --latex --recipe
    """

    source: Annotated[Positional[Path], arg(metavar="RECIPE")]
    """The recipe, a JSON file."""
    out: Annotated[Path, arg(aliases=["-o"], metavar="PATH")]
    """The figure; its suffix says which kind: .pdf, .svg or .png (300 dpi). Written over."""
    latex: bool = False
    """Also write the LaTeX figure block beside it, as .tex."""
    recipe: bool = False
    """Also write the full recipe beside it, as .json: with hashes and version."""
    collection: Annotated[str | None, arg(metavar="COLLECTION")] = None
    """Where the recipe's collection is, if not where its name leads."""
    checkpoint: CheckpointName = None
    """Where the recipe's checkpoint is, if not in $SIEVE_HOME or bundled."""
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
        """Draw, write, and say what was written."""
        kind = kind_of(self.out, _KINDS, "a figure")
        from sieve.explorer.figures.drawing import draw_figure
        from sieve.explorer.figures.latex import latex_block
        from sieve.explorer.figures.recipe import read_recipe, write_recipe

        recipe = read_recipe(self.source)
        name = self.collection or recipe.collection
        if not name:
            raise ValueError(f"{self.source}: no collection is named; add one, or --collection")
        checkpoint = self.checkpoint or _checkpoint_of(recipe.checkpoint)
        engine = open_engine(
            name,
            checkpoint,
            self.device,
            self.allow_code,
            trust_backbone=self.trust_backbone,
            text_encoder=self.text_encoder,
        )
        drawn = draw_figure(engine, replace(recipe, collection=recipe.collection or name), kind)
        files = {self.out: drawn.data}
        if self.latex:
            block = latex_block(drawn.recipe, drawn.content, self.out.name)
            files[self.out.with_suffix(".tex")] = block.encode()
        if self.recipe:
            files[self.out.with_suffix(".json")] = write_recipe(drawn.recipe).encode()
        self._spare_source(files)
        for path, data in files.items():
            with whole_file(path) as draft:
                draft.write_bytes(data)
        self._tell(list(files), drawn.notes, drawn.width_cm, drawn.height_cm)

    def _spare_source(self, files: dict[Path, bytes]) -> None:
        for path, data in files.items():
            if path.exists() and path.samefile(self.source) and path.read_bytes() != data:
                raise ValueError(f"{path} is the recipe itself; choose another name for -o")

    def _tell(
        self, files: list[Path], notes: tuple[str, ...], width_cm: float, height_cm: float
    ) -> None:
        if self.json:
            size = {"width_cm": width_cm, "height_cm": height_cm}
            print_json({"files": list(map(str, files)), **size, "notes": list(notes)})
            return
        for note in notes:
            sys.stderr.write(f"sieve: {note}\n")
        print_text(f"{', '.join(map(str, files))}: {width_cm:g} × {height_cm:g} cm\n")


def _checkpoint_of(sha256: str) -> str | None:
    """Find the checkpoint that a recipe names by its hash; None for the default one.

    Raises
    ------
    FileNotFoundError
        If none has that hash.
    """
    if not sha256:
        return None
    from sieve.model.checkpoint import Checkpoint, checkpoint_folders

    for folder in checkpoint_folders():
        try:
            found = Checkpoint.load(folder).sha256
        except (ValueError, FileNotFoundError):
            continue
        if found.startswith(sha256):
            return str(folder)
    raise FileNotFoundError(
        f"there is no checkpoint with hash {sha256[:12]}; say where it is by --checkpoint, or take "
        "checkpoint out of the recipe"
    )


NotesFile = Annotated[Positional[Path], arg(metavar="FILE")]


@dataclass(frozen=True)
class ExportAnnotations:
    """Write all that was kept, a dimension a line and sorted, so that versions compare well.

    Example: sieve annotations export scenes notes.json
    """

    collection: CollectionName
    """A path, a bundled name (scenes) or a name in $SIEVE_HOME/collections."""
    file: NotesFile
    """A .json or .csv; CSV has no saved searches. Written over."""
    checkpoint: CheckpointName = None
    """A checkpoint's path or name; by default the one that fits best."""

    def run(self) -> None:
        """Write the file, and say what is in it."""
        from sieve.explorer.annotations.import_export import KINDS, export_text

        kind = kind_of(self.file, KINDS, "a file of notes")
        opened, origin = _open(self.collection, self.checkpoint)
        with whole_file(self.file) as draft:
            draft.write_bytes(export_text(opened, origin, kind).encode())
        n = sum(any(field.value for field in kept.values()) for kept in opened.all().values())
        print_text(f"{self.file}: {n:,} dimension{'' if n == 1 else 's'}\n")


@dataclass(frozen=True)
class ImportAnnotations:
    """Take in names, notes, tags and stars; what is newer here stays. Every change is told.

    Example: sieve annotations import scenes notes.json --dry-run
    """

    collection: CollectionName
    """A path, a bundled name (scenes) or a name in $SIEVE_HOME/collections."""
    file: NotesFile
    """A .json or .csv, as export writes it; CSV may have fewer columns, but dimension."""
    checkpoint: CheckpointName = None
    """A checkpoint's path or name; by default the one that fits best."""
    replace: bool = False
    """Take what the file says also where what is here is newer."""
    dry_run: bool = False
    """Only tell what would change."""
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        """Read the file, and take in what it says."""
        from sieve.explorer.annotations.import_export import (
            KINDS,
            MAX_BYTES,
            apply_plan,
            plan_import,
            read_annotation_file,
        )

        if not self.file.is_file():
            raise FileNotFoundError(f"there is no file {self.file}")
        kind = kind_of(self.file, KINDS, "a file of notes")
        opened, origin = _open(self.collection, self.checkpoint)
        with self.file.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
        try:
            given = read_annotation_file(data, kind, opened.m)
        except ValueError as error:
            raise ValueError(f"{self.file}: {error}") from None
        plan = plan_import(given, opened, origin, replace=self.replace)
        left = () if self.dry_run else apply_plan(plan, opened)
        for note in (*plan.notes, *left):
            sys.stderr.write(f"sieve: {note}\n")
        if self.json:
            print_json(plan.as_json())
            return
        for line in plan.lines():
            print_text(f"{line}\n")
        print_text(f"{plan.summary()}{' (nothing was changed)' if self.dry_run else ''}\n")


@dataclass(frozen=True)
class AnnotationsCommand:
    """Exchange names, notes, tags and stars of dimensions, for version control and for sharing.

    Example: sieve annotations export scenes notes.csv
    """

    what: (
        Annotated[ExportAnnotations, subcommand("export")]
        | Annotated[ImportAnnotations, subcommand("import")]
    )

    def run(self) -> None:
        """Run it."""
        self.what.run()


def _open(collection: str, checkpoint: str | None) -> tuple[Annotations, Origin]:
    """Open what is kept, without reading any code or model."""
    from sieve.data_prep.bundled import locate_collection
    from sieve.explorer.annotations.import_export import Origin
    from sieve.explorer.annotations.store import open_annotations
    from sieve.model.checkpoint import Checkpoint, checkpoint_path, find_checkpoint
    from sieve.model.collection import Collection

    path = locate_collection(collection, progress=sys.stderr.isatty())
    opened = Collection.open(path)
    chosen = Checkpoint.load(checkpoint_path(checkpoint) if checkpoint else find_checkpoint(opened))
    chosen.check_fits(opened)
    origin = Origin.of(opened, chosen)
    return open_annotations(opened.sha256, chosen.sha256, chosen.m), origin


@dataclass(frozen=True)
class Export:
    """Write results of a search, codes of all items or the table of dimensions to a file.

    Its ending says which kind: .csv, .json or .parquet for results and dimensions; for codes .npz
    (a SciPy CSR matrix, a row an item in the order of items.parquet, which `sieve prepare codes`
    reads) or .parquet (a line an active dimension: row, id, dimension, value).

    Example: sieve export scenes results --query "a dog" --without "a beach" -o dogs.csv
    """

    collection: CollectionName
    """A path, a bundled name (scenes) or a name in $SIEVE_HOME/collections."""
    what: Positional[Literal["results", "codes", "dimensions"]]
    """What to write."""
    out: Annotated[Path, arg(aliases=["-o"], metavar="PATH")]
    """The file. Written over."""
    query: str = ""
    """For results: what to search for."""
    without: str = ""
    """For results: what should not be seen."""
    strictness: Strictness = StrictnessValue(1.0)
    """For results: 0 ignores what is off, 1 pushes it away; `never` leaves out all that has it."""
    off: Off = None
    """For results: dimensions to switch off, as 17,203, in place of the proposed ones."""
    item: str = ""
    """For results: search by the image of this item instead."""
    top: Annotated[int, arg(aliases=["-k"])] = 24
    """For results: how many."""
    copies: bool = False
    """For results: give every copy of a picture a place of its own."""
    captions: bool = False
    """For codes: those of all captions, a row each, in place of the images'."""
    checkpoint: CheckpointName = None
    """A checkpoint's path or name; by default the one that fits best."""
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
        """Write the file, and say what is in it."""
        self._check()
        if self.query or self.without:
            announce_backbone_of(self.collection, self.text_encoder)
        from sieve.explorer.downloads import CODE_KINDS, TABLE_KINDS

        kinds = CODE_KINDS if self.what == "codes" else TABLE_KINDS
        kind = kind_of(self.out, kinds, f"a file of {self.what}")
        rows = self._write(kind)
        if self.json:
            print_json({"file": str(self.out), "what": self.what, "rows": rows})
            return
        print_text(
            f"{self.out}: {rows:,} {'rows of codes' if self.what == 'codes' else self.what}\n"
        )

    def _check(self) -> None:
        asks = any((self.query, self.without, self.item, self.off is not None, self.copies))
        if self.what != "results" and asks:
            raise ValueError(f"{self.what} are of the whole collection: leave the query out")
        if self.what != "codes" and self.captions:
            raise ValueError("--captions is for codes alone")

    def _write(self, kind: str) -> int:
        from sieve.explorer.downloads import (
            dimensions_bytes,
            results_bytes,
            told_strictness,
            write_codes,
        )

        engine = open_engine(
            self.collection,
            self.checkpoint,
            self.device,
            self.allow_code,
            text_encoder=self.text_encoder,
            trust_backbone=self.trust_backbone,
        )
        if self.what == "codes":
            ids = engine.collection.items["id"]
            codes = engine.image_codes
            if self.captions:
                codes, ids = engine.text_codes, ids.iloc[engine.collection.caption_item]
            with whole_file(self.out) as draft:
                write_codes(codes, ids.tolist(), draft, kind)
            return codes.n
        if self.what == "dimensions":
            data, rows = dimensions_bytes(engine, kind), engine.image_codes.m
        else:
            level = self.strictness
            query = engine.encode(self.query, self.without, self.item)
            outcome = engine.search(
                query, self.off, level.value, level.never, self.top, fold=not self.copies
            )
            told = told_strictness(level.value, level.never)
            data, rows = results_bytes(engine, query, outcome, told, kind), len(outcome.results)
        with whole_file(self.out) as draft:
            draft.write_bytes(data)
        return rows
