"""Thumbnails: small WebP images, each with a checksum of itself.

They are too many to be compared when a collection is opened, and WebP has no checksum: of a flipped
bit a decoder makes another picture. So each file ends in a chunk of ours, which decoders pass over,
with the CRC-32 of all that stands before it. A thumbnail without it is refused.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from sieve.model.collection import THUMBNAILS, thumbnail_path

MAX_BYTES = 1 << 20
"""Twice what 320 x 320 pixels take uncompressed."""
_HEAD = 8
"""Bytes of a chunk before its data: its name and its size."""
_MARK = struct.pack("<4sI", b"SIEV", 4)


def add_checksum(webp: bytes) -> bytes:
    """Add its checksum to a WebP image."""
    size = struct.pack("<I", len(webp) + len(_MARK) + 4 - _HEAD)
    body = webp[:4] + size + webp[_HEAD:] + _MARK
    return body + struct.pack("<I", zlib.crc32(body))


def thumbnail_file(collection: Path, item_id: str) -> Path:
    """Find an item's thumbnail, whoever made the collection.

    Parameters
    ----------
    collection : Path
        Its folder.
    item_id : str
        Sixteen hex digits.

    Raises
    ------
    ValueError
        In a few words, where it is missing, or a link out of the collection's thumbnails, which
        would show a stranger a file of this machine.
    """
    path = collection / thumbnail_path(item_id)
    if not path.resolve().is_relative_to(collection.resolve() / THUMBNAILS):
        raise ValueError("is a link that leaves the collection's thumbnails")
    if not path.is_file():  # a pipe or a device would hang or never end
        raise ValueError("file is missing")
    return path


def read_thumbnail(collection: Path, item_id: str) -> bytes:
    """Read an item's thumbnail, whole and unchanged.

    Raises
    ------
    ValueError
        In a few words, where it is damaged, or for the reasons of `thumbnail_file`.
    """
    with thumbnail_file(collection, item_id).open("rb") as stream:
        data = stream.read(MAX_BYTES + 1)
    if fault := _fault(data):
        raise ValueError(f"is damaged: {fault}")
    return data


def _fault(data: bytes) -> str:
    """Tell what is wrong with the bytes of a thumbnail; nothing where they are whole."""
    if len(data) > MAX_BYTES:
        return "it is too large for a thumbnail"
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return "it is no WebP image"
    if not _is_whole(data):
        return "it is not whole"
    if data[-12:-4] != _MARK:
        return "it has no checksum"
    if zlib.crc32(data[:-4]) != struct.unpack("<I", data[-4:])[0]:
        return "its bytes have changed"
    return ""


def _is_whole(data: bytes) -> bool:
    """Whether a file ends where its head says, and so does the last of its chunks."""
    end = struct.unpack_from("<I", data, 4)[0] + _HEAD
    at = 12
    while at + _HEAD <= end == len(data):
        size = struct.unpack_from("<I", data, at + 4)[0]
        at += _HEAD + size + size % 2
    return at == end == len(data) > 12
