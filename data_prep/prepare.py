"""Records to a collection: thumbnails, frozen embeddings and their table.

Rows are worked on in parts of fixed size, each of which is kept as soon as it is done: a run that
was killed goes on when the same command is given again, and ends with the same bytes. Decoder
processes open images while the backbone embeds those before. A record that cannot be used is left
out by name. The collection appears under its name only when it is whole.
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
from sieve.model.backbone.trust import trust_if_possible
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
    """Make a collection of a source's records.

    Parameters
    ----------
    source : Source
    backbone : Backbone or BackboneIdentity
        Embeds what is not known already; where all is known, its identity is enough, and codes need
        none.
    out : Path
        The collection's folder; must not exist yet.
    precomputed : PrecomputedEmbeddings or PrecomputedCodes, optional
        Embeddings that need not be made, in the order of all the source's records; or sparse codes
        that take their place.
    workers : int, optional
        Decoder processes; by default one a core, none for a small source. The collection does not
        depend on it.
    progress : bool
        Show a progress bar with rate and time left.
    keep_going : bool
        Leave out bad records and malformed rows even if they are more than 5 %.
    shard : Shard, optional
        Make only this part; see `sieve.data_prep.merge.merge`.

    Raises
    ------
    FileExistsError
        If `out` exists.
    KeyboardInterrupt
        On Ctrl-C; says how to go on.
    OSError
        If the disk is full or cannot be written to, or another process prepares the same.
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
        nothing = BackboneIdentity("none", "", 0)
        embedder = Embedder(nothing, precomputed.embeddings(n_captions), table, source.name)
        return PreparationPlan(source, table, embedder, shard, keep_going, precomputed)
    if backbone is None:
        raise ValueError(f"embeddings of {source.name} need a backbone")
    return PreparationPlan(
        source, table, Embedder(backbone, precomputed, table, source.name), shard, keep_going
    )


def _disk_error(error: OSError, parent: Path) -> OSError:
    """Say what an OSError means; those of NumPy and Arrow often carry no number."""
    if not disk_is_full(error, parent):
        return error
    return OSError(
        f"the disk that holds {parent} is full; free some space and run again "
        "(what is done already stays done)"
    )
