"""Identities of a collection's embeddings or codes: names and hashes."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

import numpy as np

from sieve.model.codes import SparseCodes

_UNKNOWN = "unknown-"


@dataclass(frozen=True)
class BackboneIdentity:
    """Identity of the frozen backbone that made a collection's embeddings."""

    name: str
    sha256: str
    width: int

    def __post_init__(self) -> None:
        # Windows would send the user's credentials to any machine that a collection names.
        if re.search(r"(^|[:/])[\\/]{2}", self.name):
            raise ValueError(
                f"backbone {self.name[:80]!r} is on another machine; copy it to this one"
            )

    @classmethod
    def unknown(cls, name: str, width: int) -> BackboneIdentity:
        """Identify a backbone that cannot be opened by the hash of its name."""
        return cls(name, _UNKNOWN + hashlib.sha256(name.encode()).hexdigest()[:32], width)

    @property
    def is_known(self) -> bool:
        """Whether the weights' hash is known."""
        return not self.sha256.startswith(_UNKNOWN)

    def may_be(self, sha256: str, width: int) -> bool:
        """Return whether an opened backbone may be this one; if its hash is unknown, by width."""
        return width == self.width and (sha256 == self.sha256 or not self.is_known)

    def __str__(self) -> str:
        known = self.sha256[:12] if self.is_known else "weights unknown"
        return f"backbone {self.name} ({known})"


@dataclass(frozen=True)
class CodesIdentity:
    """Identity of the codes that a collection holds."""

    m: int
    """Number of dimensions."""
    sha256: str
    """Hash of the images' codes."""

    @classmethod
    def of(cls, codes: SparseCodes) -> CodesIdentity:
        """Identify codes by a hash of their arrays."""
        digest = hashlib.sha256()
        for part in (codes.by_row.indptr, codes.by_row.indices, codes.by_row.data):
            digest.update(np.ascontiguousarray(part).data)
            digest.update(b"end")
        return cls(codes.m, digest.hexdigest())

    def __str__(self) -> str:
        return f"codes of {self.m} dimensions ({self.sha256[:12]})"
