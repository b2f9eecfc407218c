"""What an index is of: one collection's images, coded by one checkpoint."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from sieve.model.checkpoint import Checkpoint
from sieve.model.collection import Collection
from sieve.model.exclusion import Calibration

VERSION = 1
"""Of what an index holds; another version's is refused."""


@dataclass(frozen=True)
class IndexIdentity:
    """Names, hashes and calibration that an index remembers, and how far its upload is."""

    collection: str
    collection_sha256: str
    checkpoint: str
    checkpoint_sha256: str
    items: int
    m: int
    push: float
    threshold: float
    """τ: of each item the dimensions above it are kept, for `never`."""
    version: int = VERSION

    @classmethod
    def of(cls, collection: Collection, checkpoint: Checkpoint) -> IndexIdentity:
        """Identify the codes that a checkpoint makes of a collection."""
        return cls(
            collection.name,
            collection.sha256,
            checkpoint.path.resolve().name,
            checkpoint.sha256,
            collection.n_items,
            checkpoint.m,
            checkpoint.calibration.push,
            checkpoint.calibration.threshold,
        )

    @classmethod
    def read(cls, kept: Any) -> IndexIdentity | None:
        """Read what `written` wrote; None where it is something else."""
        parts = fields(cls)
        if not isinstance(kept, dict) or not all(_fits(kept.get(p.name), p.type) for p in parts):
            return None
        return cls(**{part.name: kept[part.name] for part in parts})

    def written(self) -> dict[str, Any]:
        """Tell it as plain data."""
        return asdict(self)

    def check(self, wanted: IndexIdentity, where: str) -> None:
        """Refuse an index of something else.

        Raises
        ------
        ValueError
            In one line that names both.
        """
        if self.version != wanted.version:
            raise ValueError(
                f"index {where} is of version {self.version}, this Sieve reads {wanted.version}; "
                "upload the codes under another name with `sieve index COLLECTION --to …`"
            )
        for what in ("collection", "checkpoint"):
            theirs, ours = (
                f"{getattr(one, what)} ({getattr(one, what + '_sha256')[:12]})"
                for one in (self, wanted)
            )
            if getattr(self, what + "_sha256") != getattr(wanted, what + "_sha256"):
                raise ValueError(
                    f"index {where} is of {what} {theirs}, but {ours} is opened; open that one, or "
                    "upload these codes under another name with `sieve index COLLECTION --to …`"
                )
        if (self.items, self.m) != (wanted.items, wanted.m):
            raise ValueError(
                f"index {where} says {self.items} items of {self.m} dimensions, the collection "
                f"{wanted.items} of {wanted.m}; upload it again under another name"
            )

    def check_calibration(self, calibration: Calibration, where: str) -> None:
        """Refuse a threshold that the index cannot answer with."""
        if calibration.threshold != self.threshold:
            raise ValueError(
                f"index {where} keeps what is above {self.threshold} for `never`, but "
                f"{calibration.threshold} is asked; upload the codes under another name"
            )


def _fits(value: object, kind: object) -> bool:
    """Whether a value that came from outside is of a field's type."""
    if kind == "str":
        return isinstance(value, str)
    if isinstance(value, bool) or not isinstance(value, int if kind == "int" else (int, float)):
        return False
    return math.isfinite(value)
