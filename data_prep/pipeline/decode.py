"""Opening images in processes of their own: decoded, thumbnailed and ready for the backbone.

Decoding is what takes a core; it overlaps with the embedding in the main process. Batches come in
the order of the records, whatever the number of processes.
"""

from __future__ import annotations

import io
import os
import signal
import threading
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch.multiprocessing
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from sieve.data_prep.images import original_size, share_decoding_lock
from sieve.data_prep.pipeline.record_table import RecordTable
from sieve.data_prep.records import Record, Source, image_hash
from sieve.data_prep.thumbnails import add_checksum
from sieve.model.backbone import ImageTransform
from sieve.model.collection import thumbnail_path

THUMBNAIL_SIZE = 320
"""Long side of a thumbnail in pixels; smaller images keep their size."""

_AHEAD = 4
"""Batches that each decoder makes ready while the backbone embeds others, captions too."""
_THUMBNAIL_QUALITY = 80
_SERIAL_BELOW = 128
_MOST_WORKERS = 16


class DecodedImage(NamedTuple):
    """What became of one record's image."""

    row: int
    """Of the record."""
    width: int
    height: int
    pixels: np.ndarray | None
    """(3, H, W) float32, where pixels are wanted."""
    content: int = 0
    """Hash of the picture, where its split is drawn by it."""
    reason: str = ""
    """Why the image cannot be used, or nothing."""
    fault: str = ""
    """Why its thumbnail could not be written, which is no fault of the record."""


class RowRange(NamedTuple):
    """A range of rows that are opened together, in one process."""

    start: int
    stop: int


class ThumbnailWriter(NamedTuple):
    """Where thumbnails are written."""

    folder: Path
    """The collection that is being made."""
    drafts: Path
    """For files that are not whole yet; on the same disk."""

    def write(self, image: Image.Image, item_id: str) -> None:
        """Write an RGB image as WebP with a long side of at most 320 pixels, at once or not."""
        path = self.folder / thumbnail_path(item_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        small = image.copy()
        small.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE), Image.Resampling.LANCZOS)
        webp = io.BytesIO()
        # Method 4 takes thrice the time for 4 % less.
        small.save(webp, "WEBP", quality=_THUMBNAIL_QUALITY, method=2)
        draft = self.drafts / f"{os.getpid()}.webp"
        draft.write_bytes(add_checksum(webp.getvalue()))
        os.replace(draft, path)

    def remove(self, item_id: str) -> None:
        """Remove what an earlier run wrote, when the image could still be used."""
        (self.folder / thumbnail_path(item_id)).unlink(missing_ok=True)


class _Images(Dataset[list[DecodedImage]]):
    """Batches of opened images, by number."""

    def __init__(
        self,
        source: Source,
        table: RecordTable,
        batches: Sequence[RowRange],
        thumbnails: ThumbnailWriter,
        transform: ImageTransform | None,
    ) -> None:
        self._source, self._table, self._batches = source, table, batches
        self._thumbnails, self._transform = thumbnails, transform

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number: int) -> list[DecodedImage]:
        start, stop = self._batches[number]
        rows = range(start, stop)
        return [
            self._open(*pair) for pair in zip(rows, self._table.records(start, stop), strict=True)
        ]

    def _open(self, row: int, record: Record) -> DecodedImage:
        try:
            image = self._source.open_image(record, THUMBNAIL_SIZE)
            # NumPy arrays travel between processes by pipe: containers often have little /dev/shm.
            pixels = None if self._transform is None else self._transform(image).numpy()
        except Exception as error:  # whatever one image does, the others go on
            self._thumbnails.remove(self._table.id(row))
            return DecodedImage(row, 0, 0, None, reason=error_reason(error))
        try:
            self._thumbnails.write(image, self._table.id(row))
        except OSError as error:
            return DecodedImage(row, 0, 0, None, fault=str(error))
        content = 0 if record.split else image_hash(image)
        return DecodedImage(row, *original_size(image), pixels, content)


def error_reason(error: Exception) -> str:
    """Tell in one line why an image cannot be used."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def default_workers(n_records: int) -> int:
    """Choose the number of decoder processes: one a core, none where starting them costs more."""
    if n_records < _SERIAL_BELOW:
        return 0
    usable = getattr(os, "sched_getaffinity", None)
    cores = len(usable(0)) if usable else os.cpu_count() or 1
    return min(cores, _MOST_WORKERS)


def open_images(
    source: Source,
    table: RecordTable,
    batches: Sequence[RowRange],
    thumbnails: ThumbnailWriter,
    transform: ImageTransform | None,
    workers: int | None = None,
) -> Generator[list[DecodedImage], None, None]:
    """Open the images of batches of rows and write their thumbnails.

    Parameters
    ----------
    source : Source
    table : RecordTable
        The source's records.
    batches : sequence of RowRange
    thumbnails : ThumbnailWriter
    transform : ImageTransform, optional
        The backbone's preprocessing; without it no pixels are made ready.
    workers : int, optional
        Decoder processes; 0 opens the images in this one.

    Yields
    ------
    list of DecodedImage
        One batch, in the order of `batches`.

    Raises
    ------
    OSError
        If a thumbnail cannot be written.
    RuntimeError
        If a decoder process ended before its work; see `decoder_error`.
    """
    if workers is None:
        workers = default_workers(sum(stop - start for start, stop in batches))
    if workers < 0:
        raise ValueError(f"workers must be at least 0; got {workers}")
    loader: DataLoader[Any] = DataLoader(
        _Images(source, table, batches, thumbnails, transform),
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=workers,
        prefetch_factor=_AHEAD if workers else None,
        worker_init_fn=_Worker(os.getpid()),
    )
    opened = iter(loader)
    try:
        for batch in opened:
            for entry in batch:
                if entry.fault:
                    raise OSError(entry.fault)
            yield batch
    finally:
        # Left to the garbage collector, decoders would still write while their folder is removed.
        if workers:
            opened._shutdown_workers()  # type: ignore[attr-defined]


def decoder_error(error: RuntimeError) -> OSError | None:
    """Say in words of our own that a decoder process was killed; None if it is another error.

    Torch hears of it by a signal, and raises wherever Python just is: in the backbone's midst too.
    """
    if "DataLoader worker (pid" not in str(error):
        return None
    if "signal: Terminated" in str(error):
        return OSError("a decoder process was ended from outside; the same command goes on")
    return OSError(
        "a decoder process was killed, most likely for want of memory; "
        "run again with fewer --workers"
    )


def _as_it_is(batch: list[DecodedImage]) -> list[DecodedImage]:
    """Pass a batch on without making tensors of it."""
    return batch


class _Worker:
    """Sets up a decoder process."""

    def __init__(self, parent: int) -> None:
        self._parent = parent
        self._lock = torch.multiprocessing.get_context().Lock()

    def __call__(self, _: int) -> None:
        share_decoding_lock(self._lock)
        # Ctrl-C is for the main process, which ends its decoders in order.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        threading.Thread(target=self._end_with_parent, daemon=True).start()

    def _end_with_parent(self) -> None:
        """Where the main process is killed, a decoder would wait for ever to hand over its work."""
        while os.getppid() == self._parent:
            time.sleep(1)
        os._exit(1)
