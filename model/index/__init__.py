"""Where codes are searched: the local engine, or Qdrant where one machine is too small."""

from model.index.local import LocalIndex
from model.index.protocol import Found, Index

__all__ = ["Found", "Index", "LocalIndex"]
