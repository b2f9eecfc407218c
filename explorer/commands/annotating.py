"""`sieve annotations`: names, notes, tags and stars out to a file, and in from one."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg, subcommand

from sieve.explorer.arguments import CheckpointName, CollectionName, checkpoint_path
from sieve.explorer.commands.printing import print_json, print_text
from sieve.explorer.commands.writing import kind_of
from sieve.model.drafts import whole_file

if TYPE_CHECKING:
    from sieve.explorer.annotations.store import Annotations
    from sieve.explorer.annotations.transfer import Origin

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
        from sieve.explorer.annotations.exchange import KINDS
        from sieve.explorer.annotations.transfer import export_text

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
        from sieve.explorer.annotations.exchange import KINDS, MAX_BYTES, read_exchanged
        from sieve.explorer.annotations.transfer import carry_out, plan_import

        if not self.file.is_file():
            raise FileNotFoundError(f"there is no file {self.file}")
        kind = kind_of(self.file, KINDS, "a file of notes")
        opened, origin = _open(self.collection, self.checkpoint)
        with self.file.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
        try:
            given = read_exchanged(data, kind, opened.m)
        except ValueError as error:
            raise ValueError(f"{self.file}: {error}") from None
        plan = plan_import(given, opened, origin, replace=self.replace)
        left = () if self.dry_run else carry_out(plan, opened)
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
    from sieve.data_prep.bundled import open_collection_path
    from sieve.explorer.annotations.store import open_annotations
    from sieve.explorer.annotations.transfer import Origin
    from sieve.model.checkpoint import Checkpoint, find_checkpoint
    from sieve.model.collection import Collection

    path = open_collection_path(collection, progress=sys.stderr.isatty())
    opened = Collection.open(path)
    chosen = Checkpoint.load(checkpoint_path(checkpoint) if checkpoint else find_checkpoint(opened))
    chosen.check_fits(opened)
    origin = Origin.of(opened, chosen)
    return open_annotations(opened.sha256, chosen.sha256, chosen.m), origin
