"""Where codes are searched: the local engine, or Qdrant where one machine is too small."""

from sieve.model.index.protocol import Found, Index, LocalIndex
from sieve.model.index.qdrant import QdrantIndex

__all__ = ["Found", "Index", "LocalIndex", "QdrantIndex"]
