"""Prepare a collection: thumbnails, embeddings and a table of a source's records.

Rows are processed in chunks of fixed size, and each chunk is saved when it is done. A killed run
resumes when the same command is run again, and writes the same bytes. Decoder processes open images
while the backbone embeds earlier ones. Unusable records are listed in `skipped.csv`. The collection
appears under its name only when it is complete.
"""

from __future__ import annotations

from pathlib import Path

from sieve.data_prep.pipeline.build import build_chunks
from sieve.data_prep.pipeline.embed import Embedder
from sieve.data_prep.pipeline.plan import PreparationPlan
from sieve.data_prep.pipeline.record_table import RecordTable, read_records
from sieve.data_prep.pipeline.shard import Shard
from sieve.data_prep.pipeline.work_dir import WorkDir, WorkDirLockedError
from sieve.data_prep.pipeline.write import write_collection
from sieve.data_prep.precomputed import PrecomputedCodes, PrecomputedEmbeddings
from sieve.data_prep.records import ReportsSkippedRows, SkippedRows, Source
from sieve.model.backbone import Backbone
from sieve.model.backbone.checked_files import trust_if_possible
from sieve.model.collection import BackboneIdentity, Collection
from sieve.model.files import disk_is_full


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
        if `precomputed` does not match the source; if a backbone embedding is not finite; or if
        only a backbone's identity is given but the backbone has to run.
    """
    try:
        with WorkDir.acquire(out) as work:
            table = read_records(source)
            if isinstance(source, ReportsSkippedRows) and not keep_going:
                rows = source.skipped_rows()
                if isinstance(rows, SkippedRows):
                    rows.check()
            plan = _plan(source, table, backbone, precomputed, shard, keep_going)
            work.claim(plan.fingerprint)
            build_chunks(plan, work, workers, progress)
            write_collection(plan, work)
            work.finish()
            if isinstance(backbone, Backbone):
                trust_if_possible(backbone.files)
    except (FileExistsError, WorkDirLockedError):
        raise
    except OSError as error:
        raise _disk_error(error, out.parent) from error
    return Collection.open(out)


def _plan(
    source: Source,
    table: RecordTable,
    backbone: Backbone | BackboneIdentity | None,
    precomputed: PrecomputedEmbeddings | PrecomputedCodes | None,
    shard: Shard | None,
    keep_going: bool,
) -> PreparationPlan:
    if isinstance(precomputed, PrecomputedCodes):
        n_records, n_captions = len(table.text_starts) - 1, int(table.text_starts[-1])
        precomputed.check(n_records, n_captions, source.name)
        no_backbone = BackboneIdentity("none", "", 0)
        embedder = Embedder(no_backbone, precomputed.embeddings(n_captions), table, source.name)
        return PreparationPlan(source, table, embedder, shard, keep_going, precomputed)
    if backbone is None:
        raise ValueError(f"embeddings of {source.name} need a backbone")
    return PreparationPlan(
        source, table, Embedder(backbone, precomputed, table, source.name), shard, keep_going
    )


def _disk_error(error: OSError, parent: Path) -> OSError:
    """Explain an OSError of a full disk; those of NumPy and Arrow often have no errno."""
    if not disk_is_full(error, parent):
        return error
    return OSError(
        f"the disk that holds {parent} is full; free some space and run the same command again "
        "to resume"
    )
