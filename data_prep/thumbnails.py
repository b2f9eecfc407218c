"""Read thumbnails: small WebP images that end in a checksum.

A collection has too many thumbnails to verify them when it is opened, so each file ends in a RIFF
chunk, which decoders ignore, with the CRC-32 of all bytes before it.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from sieve.model.collection import THUMBNAILS, thumbnail_path

MAX_BYTES = 1 << 20
"""Twice what 320 x 320 pixels take uncompressed."""
_HEAD = 8
"""Size of a RIFF chunk header in bytes: name and size."""
_MARK = struct.pack("<4sI", b"SIEV", 4)


def add_checksum(webp: bytes) -> bytes:
    """Append the checksum chunk to a WebP image."""
    size = struct.pack("<I", len(webp) + len(_MARK) + 4 - _HEAD)
    body = webp[:4] + size + webp[_HEAD:] + _MARK
    return body + struct.pack("<I", zlib.crc32(body))


def thumbnail_file(collection: Path, item_id: str) -> Path:
    """Return the path of an item's thumbnail in the folder of a collection, maybe an untrusted one.

    Raise ValueError if the file is missing, or is a link out of the collection's thumbnails, which
    could expose any file of this machine.
    """
    path = collection / thumbnail_path(item_id)
    if not path.resolve().is_relative_to(collection.resolve() / THUMBNAILS):
        raise ValueError("is a link that leaves the collection's thumbnails")
    if not path.is_file():  # reading a pipe or a device might never end
        raise ValueError("file is missing")
    return path


def read_thumbnail(collection: Path, item_id: str) -> bytes:
    """Read an item's thumbnail; raise ValueError if that fails or its checksum differs."""
    with thumbnail_file(collection, item_id).open("rb") as stream:
        data = stream.read(MAX_BYTES + 1)
    fault = ""
    if len(data) > MAX_BYTES:
        fault = "it is too large for a thumbnail"
    elif data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        fault = "it is not a WebP image"
    elif struct.unpack_from("<I", data, 4)[0] + _HEAD != len(data):
        fault = "it is incomplete"
    elif data[-12:-4] != _MARK:
        fault = "it has no checksum"
    elif zlib.crc32(data[:-4]) != struct.unpack("<I", data[-4:])[0]:
        fault = "its bytes have changed"
    if fault:
        raise ValueError(f"is damaged: {fault}")
    return data
