"""What a collection's numbers are of: a frozen backbone's embeddings, or codes from elsewhere."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

import numpy as np

from sieve.model.codes import SparseCodes

_UNKNOWN = "unknown-"


@dataclass(frozen=True)
class BackboneIdentity:
    """Which frozen backbone made a collection's embeddings."""

    name: str
    sha256: str
    width: int

    def __post_init__(self) -> None:
        # Windows would send the person's credentials to whatever machine a collection names.
        if re.search(r"(^|[:/])[\\/]{2}", self.name):
            raise ValueError(
                f"backbone {self.name[:80]!r} lies on another machine; copy it to this one"
            )

    @classmethod
    def unknown(cls, name: str, width: int) -> BackboneIdentity:
        """Name a backbone that cannot be opened here: its hash is of its name alone."""
        return cls(name, _UNKNOWN + hashlib.sha256(name.encode()).hexdigest()[:32], width)

    @property
    def is_known(self) -> bool:
        """Whether the hash is of the weights."""
        return not self.sha256.startswith(_UNKNOWN)

    def may_be(self, sha256: str, width: int) -> bool:
        """Whether an opened backbone is this one, as far as can be told."""
        return width == self.width and (sha256 == self.sha256 or not self.is_known)

    def __str__(self) -> str:
        known = self.sha256[:12] if self.is_known else "weights unknown"
        return f"backbone {self.name} ({known})"


@dataclass(frozen=True)
class CodesIdentity:
    """Which codes a collection holds."""

    m: int
    """How many dimensions they have."""
    sha256: str
    """Of the images' codes."""

    @classmethod
    def of(cls, codes: SparseCodes) -> CodesIdentity:
        """Identify codes by their numbers."""
        digest = hashlib.sha256()
        for part in (codes.by_row.indptr, codes.by_row.indices, codes.by_row.data):
            digest.update(np.ascontiguousarray(part).data)
            digest.update(b"end")
        return cls(codes.m, digest.hexdigest())

    def __str__(self) -> str:
        return f"codes of {self.m} dimensions ({self.sha256[:12]})"
