"""`sieve prepare codes`: sparse codes that were made elsewhere."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast

from tyro.conf import Positional, arg

from sieve.explorer.arguments import File, collection_out


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
        from sieve.data_prep.sources.codes import CodeFiles, Codes
        from sieve.explorer.commands.preparing import report_prepared

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
            known=source.known(),
            workers=self.workers,
            progress=sys.stderr.isatty(),
            keep_going=self.keep_going,
        )
        report_prepared(made, self.json)
