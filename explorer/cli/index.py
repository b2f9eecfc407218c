"""`sieve index`: upload codes to Qdrant."""

from __future__ import annotations

import sys
import time
from contextlib import closing
from dataclasses import dataclass

from sieve.explorer.cli.options import (
    CheckpointName,
    CollectionName,
    IndexName,
    TrustBackbone,
    open_engine,
)
from sieve.explorer.cli.output import print_facts, print_json


@dataclass(frozen=True)
class IndexCommand:
    """Upload a collection's codes to Qdrant, for collections too large for one machine.

    Repeat the command to resume an interrupted upload. Search the index with --index of `sieve
    search` and `sieve explore`. An API key is read from $QDRANT_API_KEY.

    Example: sieve index my-photos --to qdrant://localhost:6333/my-photos
    """

    collection: CollectionName
    """A path, a bundled collection (scenes) or a name in $SIEVE_HOME/collections."""
    to: IndexName
    """Address of the index: qdrants:// for TLS; qdrant:///FOLDER/NAME for a local folder without a
    server."""
    checkpoint: CheckpointName = None
    """Path or name of a checkpoint; by default the best match for the collection."""
    batch: int = 1000
    """Items per request."""
    trust_backbone: TrustBackbone = False
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        """Upload the codes, and print the counts and the time."""
        from sieve.model.index.qdrant import IndexAddress, IndexIdentity, connect, upload

        address = IndexAddress.parse(self.to)
        with closing(connect(address)) as client:
            engine = open_engine(
                self.collection, self.checkpoint, "auto", trust_backbone=self.trust_backbone
            )
            started = time.perf_counter()
            uploaded = upload(
                client,
                address.name,
                IndexIdentity.of(engine.collection, engine.checkpoint),
                engine.image_codes,
                engine.derived.mean_positive,
                engine.collection.items["id"].tolist(),
                where=str(address),
                batch=self.batch,
                progress=sys.stderr.isatty(),
            )
        report = {
            "index": str(address),
            "items": uploaded.items,
            "were_there": uploaded.before,
            "seconds": round(time.perf_counter() - started, 3),
        }
        print_json(report) if self.json else print_facts(report)
