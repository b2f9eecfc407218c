"""Where codes are searched: the local engine, or Qdrant where one machine is too small."""

from model.index.local import LocalIndex
from model.index.protocol import Found, Index
from model.index.qdrant import QdrantIndex

__all__ = ["Found", "Index", "LocalIndex", "QdrantIndex"]
