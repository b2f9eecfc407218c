"""Decode images in worker processes, write their thumbnails and preprocess them for the backbone.

Decoding is limited by the CPU and overlaps with the embedding in the main process. Batches arrive
in the order of the records for any number of workers.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
import torch.multiprocessing
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from sieve.data_prep.images import (
    THUMBNAIL_SIZE,
    encode_thumbnail,
    original_size,
    share_decoding_lock,
)
from sieve.data_prep.records import Record, RecordTable, Source, image_hash
from sieve.model.backbone.clip import ImageTransform
from sieve.model.collection import thumbnail_path
from sieve.model.files import reason_of

_MIN_PARALLEL_RECORDS = 128
"""For fewer records, starting processes costs more than it saves."""
_MAX_WORKERS = 16


class DecodedImage(NamedTuple):
    """Decoded image of one record, or the reason why there is none."""

    row: int
    """Row of the record."""
    width: int = 0
    height: int = 0
    pixels: np.ndarray | None = None
    """(3, H, W) float32; None if the backbone needs no pixels."""
    content: int = 0
    """Hash of the image if it decides the split, else 0."""
    reason: str = ""
    """Why the image cannot be used; empty if it can."""
    fault: str = ""
    """Why the thumbnail could not be written, such as a full disk; empty if it was."""


class ThumbnailWriter(NamedTuple):
    """Write thumbnails atomically."""

    folder: Path
    """Folder of the collection in preparation."""
    temporary: Path
    """Folder for unfinished files, on the same disk."""

    def write(self, image: Image.Image, item_id: str) -> None:
        """Write an RGB image as WebP with a long side of at most 320 pixels."""
        path = self.folder / thumbnail_path(item_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.temporary / f"{os.getpid()}.webp"
        temporary.write_bytes(encode_thumbnail(image))
        os.replace(temporary, path)

    def remove(self, item_id: str) -> None:
        """Remove the thumbnail that an earlier run wrote while the image was still usable."""
        (self.folder / thumbnail_path(item_id)).unlink(missing_ok=True)


@dataclass
class _Images(Dataset[list[DecodedImage]]):
    """Batches of decoded images, by number."""

    source: Source
    table: RecordTable
    batches: Sequence[range]
    thumbnails: ThumbnailWriter
    transform: ImageTransform | None

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> list[DecodedImage]:
        rows = self.batches[number]
        return [self._open(*pair) for pair in zip(rows, self.table.records(rows), strict=True)]

    def _open(self, row: int, record: Record) -> DecodedImage:
        item_id = self.table.id(row)
        try:
            image = self.source.open_image(record, THUMBNAIL_SIZE)
            # NumPy arrays go through a pipe; tensors need /dev/shm, often small in containers.
            pixels = None if self.transform is None else self.transform(image).numpy()
        except Exception as error:  # one bad image must not stop the others
            self.thumbnails.remove(item_id)
            return DecodedImage(row, reason=reason_of(error, 200))
        try:
            self.thumbnails.write(image, item_id)
        except OSError as error:
            return DecodedImage(row, fault=str(error))
        content = 0 if record.split else image_hash(image)
        return DecodedImage(row, *original_size(image), pixels, content)


def open_images(
    source: Source, table: RecordTable, batches: Sequence[range], thumbnails: ThumbnailWriter,
    transform: ImageTransform | None, workers: int | None = None,
) -> Generator[list[DecodedImage], None, None]:  # fmt: skip
    """Decode images batch by batch, write their thumbnails and yield them in order.

    Raise OSError if a thumbnail cannot be written.

    Parameters
    ----------
    batches : sequence of range
        Rows of each batch.
    transform : ImageTransform, optional
        Preprocessing of the backbone; if None, no pixels are returned.
    workers : int, optional
        Number of decoder processes, by default one per core; 0 decodes in this process.
    """
    if workers is None:
        is_small = sum(map(len, batches)) < _MIN_PARALLEL_RECORDS
        workers = 0 if is_small else min(joblib.cpu_count(), _MAX_WORKERS)
    if workers < 0:
        raise ValueError(f"workers must be at least 0; got {workers}")
    loader: DataLoader[Any] = DataLoader(
        _Images(source, table, batches, thumbnails, transform),
        batch_size=None,
        collate_fn=list,  # the default would convert a batch to tensors
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_WorkerSetup(os.getpid()),
    )
    decoded = iter(loader)
    try:
        for batch in decoded:
            if fault := next((entry.fault for entry in batch if entry.fault), ""):
                raise OSError(fault)
            yield batch
    finally:
        # Otherwise workers may still write while the work directory is being removed.
        if workers:
            decoded._shutdown_workers()  # type: ignore[attr-defined]


@contextmanager
def report_killed_decoder() -> Iterator[None]:
    """Turn PyTorch's error about a killed decoder process into an OSError of one line.

    PyTorch raises it from a signal handler, so it can appear anywhere in the main process.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):
            raise
        reason = "killed, most likely because memory ran out; run again with fewer --workers"
        if "signal: Terminated" in str(error):
            reason = "terminated; run the same command again to resume"
        raise OSError(f"a decoder process was {reason}") from error


class _WorkerSetup:
    def __init__(self, parent: int) -> None:
        self._parent = parent
        self._lock = torch.multiprocessing.get_context().Lock()

    def __call__(self, _: int) -> None:
        share_decoding_lock(self._lock)
        # The main process handles Ctrl-C and shuts its decoders down.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        threading.Thread(target=self._end_with_parent, daemon=True).start()

    def _end_with_parent(self) -> None:
        """End when the main process was killed; a decoder would otherwise wait forever."""
        while os.getppid() == self._parent:
            time.sleep(1)
        os._exit(1)
