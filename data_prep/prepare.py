"""Prepare a collection: thumbnails, embeddings and a table of a source's records.

Rows are processed in chunks of fixed size, and each chunk is saved when it is done. A killed run
resumes when the same command is run again, and writes the same bytes. Decoder processes open images
while the backbone embeds earlier ones. The collection appears only when it is complete.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sieve.data_prep.pipeline.decode import (
    DecodedImage,
    ThumbnailWriter,
    open_images,
    report_killed_decoder,
)
from sieve.data_prep.pipeline.embed import IMAGE_BATCH, Embedder
from sieve.data_prep.pipeline.plan import Chunk, PreparationPlan, Shard, WorkDir, split_range
from sieve.data_prep.pipeline.write import write_collection
from sieve.data_prep.precomputed import PrecomputedCodes, PrecomputedEmbeddings
from sieve.data_prep.records import (
    MAX_BAD_SHARE,
    RecordTable,
    Source,
    Tally,
    hash64,
    read_records,
    skipped_rows,
)
from sieve.model.backbone.checked_files import trust_if_possible
from sieve.model.backbone.clip import Backbone
from sieve.model.collection import BackboneIdentity, Collection
from sieve.model.files import report_full_disk

_INVALID_EMBEDDING = "embedding is NaN, infinite or zero"


def prepare(
    source: Source,
    backbone: Backbone | BackboneIdentity | None,
    out: Path,
    *,
    precomputed: PrecomputedEmbeddings | PrecomputedCodes | None = None,
    workers: int | None = None,
    progress: bool = True,
    keep_going: bool = False,
    shard: Shard | None = None,
) -> Collection:
    """Prepare a collection from a source's records.

    Parameters
    ----------
    source : Source
        Origin of the records.
    backbone : Backbone, BackboneIdentity or None
        Embeds what is not precomputed. If everything is, its identity suffices; codes need none.
    out : Path
        Folder of the collection; must not exist.
    precomputed : PrecomputedEmbeddings or PrecomputedCodes, optional
        Embeddings of all records in the source's order, or sparse codes that replace embeddings.
    workers : int, optional
        Number of decoder processes; by default one per core, and 0 for a small source. It does not
        change the collection.
    progress : bool
        Show a progress bar.
    keep_going : bool
        Do not stop if more than 5 % of the records are bad or of the rows malformed.
    shard : Shard, optional
        Prepare only this shard; see `sieve.data_prep.merge.merge`.

    Raises
    ------
    FileExistsError
        If `out` exists.
    KeyboardInterrupt
        On Ctrl-C; the message says how to resume.
    OSError
        If the disk is full or not writable, or another process prepares the same collection.
    ValueError
        If no record can be used; if more than 5 % of the records are bad or of the rows malformed;
        if a backbone embedding is not finite; or if only a backbone's identity is given but the
        backbone has to run.
    """
    with report_full_disk(out.parent), report_killed_decoder(), WorkDir.acquire(out) as work:
        table = read_records(source, work.records)
        if not keep_going:
            skipped_rows(source).check()
        embedder, codes = _embedder(source, table, backbone, precomputed)
        plan = PreparationPlan(source, table, embedder, shard, keep_going, codes)
        work.claim(plan.fingerprint)
        _ChunkBuilder(plan, work).run(workers, progress)
        write_collection(plan, work)
        work.finish()
        if isinstance(backbone, Backbone):
            trust_if_possible(backbone.files)
    return Collection.open(out)


def _embedder(
    source: Source, table: RecordTable, backbone: Backbone | BackboneIdentity | None,
    precomputed: PrecomputedEmbeddings | PrecomputedCodes | None,
) -> tuple[Embedder, PrecomputedCodes | None]:  # fmt: skip
    if isinstance(precomputed, PrecomputedCodes):
        nothing = precomputed.embeddings(int(table.text_starts[-1]))
        return Embedder(BackboneIdentity("none", "", 0), nothing, table, source.name), precomputed
    assert backbone is not None
    return Embedder(backbone, precomputed, table, source.name), None


class _ChunkBuilder:
    """Decode and embed records chunk by chunk, and count those that cannot be used."""

    def __init__(self, plan: PreparationPlan, work: WorkDir) -> None:
        self._plan, self._work = plan, work
        self._bad = Tally(plan.counted)
        self._n_seen = len(plan.counted)
        self._thumbnails = ThumbnailWriter(work.collection, work.temporary)

    def run(self, workers: int | None, progress: bool) -> None:
        """Build all chunks that the work directory does not hold yet."""
        plan, work = self._plan, self._work
        work.keep_only({chunk.start for chunk in plan.chunks})
        missing = [chunk for chunk in plan.chunks if not self._is_reusable(chunk)]
        self._check_bad_share()
        name, total = plan.source.name, len(plan.rows)
        n_done = total - sum(map(len, missing))
        batches = [batch for chunk in missing for batch in split_range(chunk, IMAGE_BATCH)]
        decoded = open_images(
            plan.source, plan.table, batches, self._thumbnails, plan.embedder.transform, workers
        )
        bar = tqdm(desc=name, total=total, initial=n_done, unit="image", disable=not progress)
        try:
            with closing(decoded), bar:
                for chunk in missing:
                    work.save(chunk.start, self._build(chunk, decoded, bar))
                    n_done += len(chunk)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"stopped after {n_done:,} of {total:,} records; "
                "run the same command again to resume"
                if n_done
                else "stopped before anything was saved"
            ) from None
        if self._bad.total == plan.total and plan.shard is None:
            work.keep_only(set())
            raise ValueError(f"none of the {plan.total} records can be used: {self._bad.explain()}")

    def _is_reusable(self, rows: range) -> bool:
        """Whether an earlier run's chunk is valid: not if a bad image can be opened by now."""
        if not self._work.is_intact(rows.start):
            return False
        chunk = self._work.load(rows.start)
        bad = dict(zip(chunk.bad_rows.tolist(), chunk.reasons.tolist(), strict=True))
        unopened = [row for row, reason in bad.items() if _INVALID_EMBEDDING not in reason]
        if any(map(self._can_open, unopened)):
            return False
        self._count(bad, len(rows))
        return True

    def _can_open(self, row: int) -> bool:
        (record,) = self._plan.table.records(range(row, row + 1))
        with suppress(Exception):  # sources may raise any error for a bad image
            self._plan.source.open_image(record, 1)
            return True
        return False

    def _build(self, rows: range, decoded: Iterator[list[DecodedImage]], bar: tqdm) -> Chunk:
        """Embed the decoded records of one chunk."""
        usable: list[DecodedImage] = []
        bad: dict[int, str] = {}
        images = []
        for _ in split_range(rows, IMAGE_BATCH):
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
        contents = [entry.content for entry in usable]
        if plan.embedder.precomputed is not None:
            images = plan.embedder.images(rows)
            # The image may be missing, and its thumbnail then shows the caption.
            contents = [hash64(image.tobytes()) for image in images]
        if plan.codes is not None:
            contents = plan.table.ids[rows]
        texts = plan.embedder.texts(rows)
        owners = np.repeat(np.arange(len(rows)), plan.table.caption_counts(rows))
        invalid = dict.fromkeys(
            rows[owners[np.isnan(texts).any(axis=1)]].tolist(), f"a caption's {_INVALID_EMBEDDING}"
        )
        invalid |= dict.fromkeys(rows[np.isnan(images).any(axis=1)].tolist(), _INVALID_EMBEDDING)
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
            np.array(contents, np.uint64)[is_valid],
            images[is_valid],
            texts[is_valid[owners]],
            np.array(sorted(bad), np.int64),
            np.array([bad[row] for row in sorted(bad)], str),
        )

    def _count(self, bad: dict[int, str], n_seen: int) -> None:
        self._n_seen += n_seen
        rows = np.array(sorted(bad), np.int64)
        for row, record in zip(rows.tolist(), self._plan.table.records(rows), strict=True):
            self._bad.add(record.key, bad[row])

    def _check_bad_share(self) -> None:
        plan = self._plan
        if self._bad.total > MAX_BAD_SHARE * plan.total and not plan.keep_going:
            raise ValueError(
                f"{self._bad.total} of the first {self._n_seen} records cannot be used, more than "
                f"{MAX_BAD_SHARE:.0%} of all {plan.total}: {self._bad.explain()}; "
                "correct them, or leave them out with --keep-going"
            )
