"""Opening and embedding records, part by part: decoders work ahead while the backbone embeds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import numpy as np
from tqdm import tqdm

from sieve.data_prep.pipeline.decode import (
    DecodedImage,
    RowRange,
    ThumbnailWriter,
    decoder_error,
    open_images,
)
from sieve.data_prep.pipeline.embed import IMAGE_BATCH
from sieve.data_prep.pipeline.plan import PreparationPlan
from sieve.data_prep.pipeline.work_dir import Chunk, WorkDir
from sieve.data_prep.records import MAX_BAD_SHARE, Tally, embedding_hash

_NO_DIRECTION = "embedding is NaN, infinite or zero"


def build_chunks(job: PreparationPlan, work: WorkDir, workers: int | None, progress: bool) -> None:
    """Do all parts that are not done yet.

    Raises
    ------
    KeyboardInterrupt
        On Ctrl-C; says how to go on.
    OSError
        If a decoder process was killed, or a thumbnail cannot be written.
    ValueError
        If no record can be used, or too many cannot.
    """
    maker = _ChunkBuilder(job, work)
    try:
        maker.run(workers, progress)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_how_to_go_on(job, work)) from None
    except RuntimeError as error:
        fault = decoder_error(error)
        if fault is None:
            raise
        raise fault from error


class _ChunkBuilder:
    """Makes parts, and counts what is bad."""

    def __init__(self, job: PreparationPlan, work: WorkDir) -> None:
        self._job, self._work = job, work
        self._bad = Tally(job.counted)
        self._seen = len(job.counted)
        self._thumbnails = ThumbnailWriter(work.collection, work.drafts)

    def run(self, workers: int | None, progress: bool) -> None:
        """Make all that is missing."""
        job, work = self._job, self._work
        work.keep_only({part.start for part in job.parts})
        waiting = [part for part in job.parts if not self._stands(part)]
        self._stop_where_too_much_is_bad()
        batches = [batch for part in waiting for batch in _batches(part)]
        transform = job.embedder.transform
        opened = open_images(job.source, job.table, batches, self._thumbnails, transform, workers)
        bar = tqdm(
            total=len(job.rows),
            initial=len(job.rows) - sum(map(len, waiting)),
            desc=job.source.name,
            unit="image",
            disable=not progress,
        )
        with closing(opened), bar:
            for part in waiting:
                work.save(part.start, self._make(part, opened, bar))
        if self._bad.total == job.total and job.shard is None:
            work.keep_only(set())
            raise ValueError(f"none of the {job.total} records can be used: {self._bad.explain()}")

    def _stands(self, rows: range) -> bool:
        """Whether a part of an earlier run stands: not where a bad file was mended since."""
        work = self._work
        if not work.is_intact(rows.start):
            return False
        bad_rows = work.load_column(rows.start, "bad_rows").tolist()
        bad = dict(zip(bad_rows, work.load_column(rows.start, "reasons").tolist(), strict=True))
        if any(_NO_DIRECTION not in reason and self._opens(row) for row, reason in bad.items()):
            return False
        self._count(bad, len(rows))
        return True

    def _opens(self, row: int) -> bool:
        try:
            self._job.source.open_image(self._job.table.records(row, row + 1)[0], 1)
        except Exception:  # as when it was opened first
            return False
        return True

    def _make(self, rows: range, opened: Iterator[list[DecodedImage]], bar: tqdm) -> Chunk:
        """Open and embed the records of one part."""
        good: list[DecodedImage] = []
        bad: dict[int, str] = {}
        images = []
        for _ in _batches(rows):
            entries = next(opened)
            usable = [entry for entry in entries if not entry.reason]
            pixels = [entry.pixels for entry in usable if entry.pixels is not None]
            images.append(self._job.embedder.pixels(pixels))
            good += [entry._replace(pixels=None) for entry in usable]
            reasons = {entry.row: entry.reason for entry in entries if entry.reason}
            self._count(reasons, len(entries))
            self._stop_where_too_much_is_bad()
            bad |= reasons
            bar.update(len(entries))
        return self._embedded(good, bad, np.concatenate(images))

    def _embedded(self, good: list[DecodedImage], bad: dict[int, str], images: np.ndarray) -> Chunk:
        """Embed captions, look up what is known, and leave out what is no direction."""
        job = self._job
        rows = np.array([entry.row for entry in good], np.int64)
        if job.embedder.known is not None:
            images = job.embedder.images(rows)
        texts = job.embedder.texts(rows)
        owners = np.repeat(np.arange(len(rows)), job.table.caption_counts(rows))
        faulty = dict.fromkeys(rows[owners[_nan(texts)]].tolist(), f"a caption's {_NO_DIRECTION}")
        faulty |= dict.fromkeys(rows[_nan(images)].tolist(), _NO_DIRECTION)
        for row in faulty:
            self._thumbnails.remove(job.table.id(row))
        self._count(faulty, 0)
        self._stop_where_too_much_is_bad()
        bad = bad | faulty
        kept = ~np.isin(rows, list(faulty))
        sizes = np.array([(entry.width, entry.height) for entry in good], np.int32)
        return Chunk(
            rows[kept],
            sizes.reshape(-1, 2)[kept],
            self._contents(good, images)[kept],
            images[kept],
            texts[kept[owners]],
            np.array(sorted(bad), np.int64),
            np.array([bad[row] for row in sorted(bad)], str),
        )

    def _contents(self, good: list[DecodedImage], images: np.ndarray) -> np.ndarray:
        """Return a hash of what each item shows: (b,) uint64."""
        job = self._job
        if job.codes is not None:
            return job.table.ids[[entry.row for entry in good]]
        if job.embedder.known is not None:  # the picture may not be here: a tile shows its caption
            return np.array([embedding_hash(image) for image in images], np.uint64)
        return np.array([entry.content for entry in good], np.uint64)

    def _count(self, bad: dict[int, str], seen: int) -> None:
        self._seen += seen
        rows = np.array(sorted(bad), np.int64)
        for row, record in zip(rows.tolist(), self._job.table.records_at(rows), strict=True):
            self._bad.add(record.key, bad[row])

    def _stop_where_too_much_is_bad(self) -> None:
        job = self._job
        if self._bad.total > MAX_BAD_SHARE * job.total and not job.keep_going:
            raise ValueError(
                f"{self._bad.total} of the first {self._seen} records cannot be used, more than "
                f"{MAX_BAD_SHARE:.0%} of all {job.total}: {self._bad.explain()}; "
                "mend them, or leave them out with --keep-going"
            )


def _batches(rows: range) -> list[RowRange]:
    """Rows that are embedded together: their boundaries hang on nothing but the rows."""
    starts = range(rows.start, rows.stop, IMAGE_BATCH)
    return [RowRange(start, min(start + IMAGE_BATCH, rows.stop)) for start in starts]


def _nan(embeddings: np.ndarray) -> np.ndarray:
    return np.asarray(np.isnan(embeddings).any(axis=1))


def _how_to_go_on(job: PreparationPlan, work: WorkDir) -> str:
    """Say what is done, and how to have the rest done."""
    kept = set(work.done())
    done = sum(len(part) for part in job.parts if part.start in kept)
    if not done:
        return "stopped; nothing is left behind"
    return f"stopped; {done:,} of {len(job.rows):,} are done: the same command goes on from there"
