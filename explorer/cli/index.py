"""The subcommand that puts codes into another engine: `sieve index`."""

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
    """Put a collection's codes into Qdrant, where one machine is too small to search them.

    An upload that was stopped goes on where it was when the same command is given again. Search it
    with --index of `sieve search` and `sieve explore`. QDRANT_API_KEY is read if there is a key.

    Example: sieve index my-photos --to qdrant://localhost:6333/my-photos
    """

    collection: CollectionName
    """A path, a bundled name (scenes) or a name in $SIEVE_HOME/collections."""
    to: IndexName
    """Where to: qdrants:// where it speaks TLS; qdrant:///FOLDER/NAME tries it without a server."""
    checkpoint: CheckpointName = None
    """A checkpoint's path or name; by default the one that fits best."""
    batch: int = 1000
    """Items a request."""
    trust_backbone: TrustBackbone = False
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        """Upload, and say how fast."""
        from sieve.model.index.qdrant import IndexAddress, IndexIdentity, connect, upload

        address = IndexAddress.parse(self.to)
        with closing(connect(address)) as client:
            engine = open_engine(
                self.collection, self.checkpoint, "auto", trust_backbone=self.trust_backbone
            )
            begun = time.perf_counter()
            done = upload(
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
            "items": done.items,
            "were_there": done.before,
            "seconds": round(time.perf_counter() - begun, 3),
        }
        print_json(report) if self.json else print_facts(report)
