"""Where an index is: `qdrant://HOST:PORT/NAME`, or a folder of this machine to try it with."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import SplitResult, quote, unquote, urlsplit

PORT = 6333
_FORM = "qdrant://HOST:6333/NAME, qdrants:// where it speaks TLS, or qdrant:///FOLDER/NAME"


class IndexAddress(NamedTuple):
    """Where an index is, and what it is called there."""

    url: str
    """Of the server; empty where it is a folder."""
    folder: str
    """Of this machine; empty where it is a server."""
    name: str

    @classmethod
    def parse(cls, text: str) -> IndexAddress:
        """Read an address.

        Parameters
        ----------
        text : str
            `qdrant://HOST:PORT/NAME` (port 6333 by default), `qdrants://…` for TLS, or
            `qdrant:///FOLDER/NAME`, which keeps everything in memory and a folder: to try it with.

        Raises
        ------
        ValueError
            If it is none of these.
        """
        try:
            parts = urlsplit(text.strip())
            server = _server(parts)
        except ValueError:
            parts, server = SplitResult("", "", "", "", ""), ""
        folder, _, name = unquote(parts.path).strip("/").rpartition("/")
        known = parts.scheme in ("qdrant", "qdrants") and not (parts.query or parts.fragment)
        if not (known and name and bool(server) != bool(folder)):
            raise ValueError(f"{text[:200]!r} is no address of an index; write {_FORM}")
        if parts.username is not None or parts.password is not None:
            raise ValueError("keep the key out of the index's address: set QDRANT_API_KEY")
        return cls(server, f"/{folder}" if folder else "", name)

    def __str__(self) -> str:
        folder = quote(self.folder)
        place = self.url.replace("http", "qdrant", 1) if self.url else f"qdrant://{folder}"
        return f"{place}/{quote(self.name)}"


def _server(parts: SplitResult) -> str:
    """Address of the server for its own protocol; empty where there is no host."""
    if not parts.hostname:
        return ""
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"http{'s' if parts.scheme == 'qdrants' else ''}://{host}:{parts.port or PORT}"
