"""Peak memory of preparing a caption file of Conceptual Captions' size: 3,300,000 rows.

    python -m tests.benchmarks.memory --folder BIG_DISK
    python -m tests.benchmarks.memory --folder BIG_DISK --missing

The captions and the embeddings are made up. By default all embeddings are known (d = 512, mapped
from disk), each record has an image, and no thumbnail is written, as decoding is not what is
measured; with --missing a caption file names images that are not there, and all of them land in
skipped.csv. Prints the peak resident memory of this process and of the largest decoder.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image

from sieve.data_prep.pipeline.decode import ThumbnailWriter
from sieve.data_prep.precomputed import PrecomputedEmbeddings
from sieve.data_prep.prepare import prepare
from sieve.data_prep.records import Record, Source
from sieve.data_prep.sources.folder import Folder
from sieve.model.backbone import Backbone
from sieve.model.collection import BackboneIdentity

_SLICE = 1 << 14
ROWS, WIDTH, BUDGET_MIB = 3_300_000, 512, 2048
_WORDS = ("a", "dog", "runs", "over", "the", "wet", "beach", "while", "two", "people", "watch")


class MadeUp:
    """Records as Conceptual Captions has them: an address, and a caption of ten words."""

    name, licence = "made-up", "CC0"

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def records(self) -> Iterator[Record]:
        """One caption each."""
        for row in range(self.rows):
            yield Record(f"{row:07}", f"https://images.example.org/{row:07}/p.jpg", (caption(row),))

    def open_image(self, record: Record, size: int) -> Image.Image:  # noqa: ARG002
        """One pixel."""
        return Image.new("RGB", (1, 1))


def caption(row: int) -> str:
    """Ten words, none like another's."""
    return " ".join(_WORDS[(row >> shift) % len(_WORDS)] for shift in range(9)) + f" {row}"


def random_rows(path: Path, rows: int, width: int) -> np.ndarray:
    """Random directions on disk, mapped to be read."""
    random = np.random.default_rng(0)
    with path.open("wb") as stream:  # mapped to be written, its pages would count as used memory
        for start in range(0, rows, _SLICE):
            part = random.random((min(_SLICE, rows - start), width), np.float32) - 0.5
            stream.write(part.astype(np.float16).tobytes())
    return np.memmap(path, np.float16, "r", shape=(rows, width))


def with_known(folder: Path, rows: int, width: int) -> None:
    """Prepare where all is known."""
    known = PrecomputedEmbeddings(
        random_rows(folder / "images.npy", rows, width),
        random_rows(folder / "texts.npy", rows, width),
    )
    setattr(ThumbnailWriter, "write", lambda *_: None)  # noqa: B010
    identity = BackboneIdentity("made-up", "0" * 64, width)
    prepare(cast(Source, MadeUp(rows)), identity, folder / "collection", precomputed=known)


def with_missing(folder: Path, rows: int) -> None:
    """Prepare a caption file whose images are not there, but for one."""
    (folder / "images").mkdir()
    Image.new("RGB", (64, 48), "red").save(folder / "images" / "there.jpg")
    with (folder / "captions.csv").open("w") as stream:
        stream.write("image,caption\nthere.jpg,red\n")
        stream.writelines(f"{row:07}.jpg,{caption(row)}\n" for row in range(rows - 1))
    source = Folder(folder / "images", folder / "captions.csv")
    backbone = Backbone.load("sieve-lite", "cpu")
    prepare(cast(Source, source), backbone, folder / "collection", keep_going=True)


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="made, and removed at the end")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--missing", action="store_true", help="images are missing")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    asked.folder.mkdir(parents=True)
    started = time.perf_counter()
    try:
        if asked.missing:
            with_missing(asked.folder, asked.rows)
        else:
            with_known(asked.folder, asked.rows, asked.width)
    finally:
        shutil.rmtree(asked.folder)
    own, decoder = (
        resource.getrusage(who).ru_maxrss / 1024
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    report = {
        "rows": asked.rows,
        "images": "missing" if asked.missing else f"known embeddings, d = {asked.width}",
        "peak_mib": round(own),
        "largest_decoder_mib": round(decoder),
        "budget_mib": BUDGET_MIB,
        "holds": own <= BUDGET_MIB,
        "seconds": round(time.perf_counter() - started),
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
