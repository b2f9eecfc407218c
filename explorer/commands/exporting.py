"""The subcommand that hands results, codes and dimensions to other programs: `sieve export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from sieve.explorer.arguments import (
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
from sieve.explorer.commands.printing import print_json, print_text
from sieve.explorer.commands.writing import kind_of
from sieve.model.drafts import whole_file


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
        from sieve.explorer.exports import CODE_KINDS, TABLE_KINDS

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
        from sieve.explorer.exports import (
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
