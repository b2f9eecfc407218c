"""Decode and embed records chunk by chunk: workers decode ahead while the backbone embeds."""

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

_INVALID_EMBEDDING = "embedding is NaN, infinite or zero"


def build_chunks(plan: PreparationPlan, work: WorkDir, workers: int | None, progress: bool) -> None:
    """Build all chunks that the work directory does not hold yet.

    Raises
    ------
    KeyboardInterrupt
        On Ctrl-C; the message says how to resume.
    OSError
        If a decoder process was killed, or a thumbnail cannot be written.
    ValueError
        If no record can be used, or too many cannot.
    """
    builder = _ChunkBuilder(plan, work)
    try:
        builder.run(workers, progress)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_resume_message(plan, work)) from None
    except RuntimeError as error:
        killed = decoder_error(error)
        if killed is None:
            raise
        raise killed from error


class _ChunkBuilder:
    """Build chunks and count bad records."""

    def __init__(self, plan: PreparationPlan, work: WorkDir) -> None:
        self._plan, self._work = plan, work
        self._bad = Tally(plan.counted)
        self._n_seen = len(plan.counted)
        self._thumbnails = ThumbnailWriter(work.collection, work.temporary)

    def run(self, workers: int | None, progress: bool) -> None:
        """Build all missing chunks."""
        plan, work = self._plan, self._work
        work.keep_only({chunk.start for chunk in plan.chunks})
        missing = [chunk for chunk in plan.chunks if not self._is_reusable(chunk)]
        self._check_bad_share()
        batches = [batch for chunk in missing for batch in _batches(chunk)]
        transform = plan.embedder.transform
        decoded = open_images(
            plan.source, plan.table, batches, self._thumbnails, transform, workers
        )
        bar = tqdm(
            total=len(plan.rows),
            initial=len(plan.rows) - sum(map(len, missing)),
            desc=plan.source.name,
            unit="image",
            disable=not progress,
        )
        with closing(decoded), bar:
            for chunk in missing:
                work.save(chunk.start, self._build(chunk, decoded, bar))
        if self._bad.total == plan.total and plan.shard is None:
            work.keep_only(set())
            raise ValueError(f"none of the {plan.total} records can be used: {self._bad.explain()}")

    def _is_reusable(self, rows: range) -> bool:
        """Whether an earlier run's chunk is valid: not if a bad image can be opened by now."""
        work = self._work
        if not work.is_intact(rows.start):
            return False
        bad_rows = work.load_column(rows.start, "bad_rows").tolist()
        bad = dict(zip(bad_rows, work.load_column(rows.start, "reasons").tolist(), strict=True))
        if any(
            _INVALID_EMBEDDING not in reason and self._can_open(row) for row, reason in bad.items()
        ):
            return False
        self._count(bad, len(rows))
        return True

    def _can_open(self, row: int) -> bool:
        try:
            self._plan.source.open_image(self._plan.table.records(row, row + 1)[0], 1)
        except Exception:  # sources may raise any error for a bad image, as in `open_images`
            return False
        return True

    def _build(self, rows: range, decoded: Iterator[list[DecodedImage]], bar: tqdm) -> Chunk:
        """Embed the decoded records of one chunk."""
        usable: list[DecodedImage] = []
        bad: dict[int, str] = {}
        images = []
        for _ in _batches(rows):
            batch = next(decoded)
            good = [entry for entry in batch if not entry.reason]
            pixels = [entry.pixels for entry in good if entry.pixels is not None]
            images.append(self._plan.embedder.pixels(pixels))
            usable += [entry._replace(pixels=None) for entry in good]
            reasons = {entry.row: entry.reason for entry in batch if entry.reason}
            self._count(reasons, len(batch))
            self._check_bad_share()
            bad |= reasons
            bar.update(len(batch))
        return self._embed(usable, bad, np.concatenate(images))

    def _embed(self, usable: list[DecodedImage], bad: dict[int, str], images: np.ndarray) -> Chunk:
        """Add captions and precomputed embeddings, and drop records with an invalid embedding."""
        plan = self._plan
        rows = np.array([entry.row for entry in usable], np.int64)
        if plan.embedder.precomputed is not None:
            images = plan.embedder.images(rows)
        texts = plan.embedder.texts(rows)
        owners = np.repeat(np.arange(len(rows)), plan.table.caption_counts(rows))
        invalid = dict.fromkeys(
            rows[owners[_nan_rows(texts)]].tolist(), f"a caption's {_INVALID_EMBEDDING}"
        )
        invalid |= dict.fromkeys(rows[_nan_rows(images)].tolist(), _INVALID_EMBEDDING)
        for row in invalid:
            self._thumbnails.remove(plan.table.id(row))
        self._count(invalid, 0)
        self._check_bad_share()
        bad = bad | invalid
        is_valid = ~np.isin(rows, list(invalid))
        sizes = np.array([(entry.width, entry.height) for entry in usable], np.int32)
        return Chunk(
            rows[is_valid],
            sizes.reshape(-1, 2)[is_valid],
            self._contents(usable, images)[is_valid],
            images[is_valid],
            texts[is_valid[owners]],
            np.array(sorted(bad), np.int64),
            np.array([bad[row] for row in sorted(bad)], str),
        )

    def _contents(self, usable: list[DecodedImage], images: np.ndarray) -> np.ndarray:
        """Return a hash of each item's content: (b,) uint64."""
        plan = self._plan
        if plan.codes is not None:
            return plan.table.ids[[entry.row for entry in usable]]
        if plan.embedder.precomputed is not None:
            # The image may be missing, and its thumbnail then shows the caption.
            return np.array([embedding_hash(image) for image in images], np.uint64)
        return np.array([entry.content for entry in usable], np.uint64)

    def _count(self, bad: dict[int, str], n_seen: int) -> None:
        self._n_seen += n_seen
        rows = np.array(sorted(bad), np.int64)
        for row, record in zip(rows.tolist(), self._plan.table.records_at(rows), strict=True):
            self._bad.add(record.key, bad[row])

    def _check_bad_share(self) -> None:
        plan = self._plan
        if self._bad.total > MAX_BAD_SHARE * plan.total and not plan.keep_going:
            raise ValueError(
                f"{self._bad.total} of the first {self._n_seen} records cannot be used, more than "
                f"{MAX_BAD_SHARE:.0%} of all {plan.total}: {self._bad.explain()}; "
                "correct them, or leave them out with --keep-going"
            )


def _batches(rows: range) -> list[RowRange]:
    """Split rows into embedding batches; the boundaries depend on the rows alone."""
    starts = range(rows.start, rows.stop, IMAGE_BATCH)
    return [RowRange(start, min(start + IMAGE_BATCH, rows.stop)) for start in starts]


def _nan_rows(embeddings: np.ndarray) -> np.ndarray:
    return np.asarray(np.isnan(embeddings).any(axis=1))


def _resume_message(plan: PreparationPlan, work: WorkDir) -> str:
    saved = set(work.saved())
    n_done = sum(len(chunk) for chunk in plan.chunks if chunk.start in saved)
    if not n_done:
        return "stopped before anything was saved"
    return (
        f"stopped after {n_done:,} of {len(plan.rows):,} records; "
        "run the same command again to resume"
    )
