"""Measure the peak memory of preparing a caption file the size of CC3M: 3,300,000 rows.

    python -m tests.benchmarks.memory --folder BIG_DISK
    python -m tests.benchmarks.memory --folder BIG_DISK --missing

The captions and the embeddings are synthetic. By default all embeddings are precomputed (d = 512,
memory-mapped), each record has an image, and no thumbnails are written, because decoding is not
measured. With --missing the caption file names images that do not exist, so all of them end in
skipped.csv. Prints the peak resident memory of this process and of the largest decoder process.
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

import numpy as np
from PIL import Image

from sieve.data_prep.pipeline.decode import ThumbnailWriter
from sieve.data_prep.precomputed import PrecomputedEmbeddings
from sieve.data_prep.prepare import prepare
from sieve.data_prep.records import Record
from sieve.data_prep.sources.folder import Folder
from sieve.model.backbone.clip import Backbone
from sieve.model.collection import BackboneIdentity

_SLICE = 1 << 14
ROWS, WIDTH, BUDGET_MIB = 3_300_000, 512, 2048
_WORDS = ("a", "dog", "runs", "over", "the", "wet", "beach", "while", "two", "people", "watch")


class MadeUp:
    """Records like those of Conceptual Captions: an address and a caption of ten words."""

    name, licence = "synthetic", "CC0"

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def records(self) -> Iterator[Record]:
        """Yield one record with one caption per row."""
        for row in range(self.rows):
            yield Record(f"{row:07}", f"https://images.example.org/{row:07}/p.jpg", (caption(row),))

    def open_image(self, record: Record, size: int) -> Image.Image:  # noqa: ARG002
        """Return an image of one pixel."""
        return Image.new("RGB", (1, 1))


def caption(row: int) -> str:
    """Return a unique caption of ten words."""
    return " ".join(_WORDS[(row >> shift) % len(_WORDS)] for shift in range(9)) + f" {row}"


def random_rows(path: Path, rows: int, width: int) -> np.ndarray:
    """Write random unit vectors to disk and map them for reading."""
    random = np.random.default_rng(0)
    with path.open("wb") as stream:  # pages of a writable map would count as used memory
        for start in range(0, rows, _SLICE):
            part = random.random((min(_SLICE, rows - start), width), np.float32) - 0.5
            stream.write(part.astype(np.float16).tobytes())
    return np.memmap(path, np.float16, "r", shape=(rows, width))


def with_precomputed(folder: Path, rows: int, width: int) -> None:
    """Prepare with precomputed embeddings."""
    known = PrecomputedEmbeddings(
        random_rows(folder / "images.npy", rows, width),
        random_rows(folder / "texts.npy", rows, width),
    )
    setattr(ThumbnailWriter, "write", lambda *_: None)  # noqa: B010
    identity = BackboneIdentity("synthetic", "0" * 64, width)
    prepare(MadeUp(rows), identity, folder / "collection", precomputed=known)


def with_missing(folder: Path, rows: int) -> None:
    """Prepare a caption file whose images are all missing except one."""
    (folder / "images").mkdir()
    Image.new("RGB", (64, 48), "red").save(folder / "images" / "there.jpg")
    with (folder / "captions.csv").open("w") as stream:
        stream.write("image,caption\nthere.jpg,red\n")
        stream.writelines(f"{row:07}.jpg,{caption(row)}\n" for row in range(rows - 1))
    source = Folder(folder / "images", folder / "captions.csv")
    backbone = Backbone.load("sieve-lite", "cpu")
    prepare(source, backbone, folder / "collection", keep_going=True)


def main() -> None:
    """Run the benchmark and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--folder", type=Path, required=True, help="created, and removed at the end"
    )
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--missing", action="store_true", help="images are missing")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    args.folder.mkdir(parents=True)
    started = time.perf_counter()
    try:
        if args.missing:
            with_missing(args.folder, args.rows)
        else:
            with_precomputed(args.folder, args.rows, args.width)
    finally:
        shutil.rmtree(args.folder)
    own, decoder = (
        resource.getrusage(who).ru_maxrss / 1024
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    report = {
        "rows": args.rows,
        "images": "missing" if args.missing else f"precomputed embeddings, d = {args.width}",
        "peak_mib": round(own),
        "largest_decoder_mib": round(decoder),
        "budget_mib": BUDGET_MIB,
        "holds": own <= BUDGET_MIB,
        "seconds": round(time.perf_counter() - started),
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
