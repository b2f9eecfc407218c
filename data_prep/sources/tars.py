"""Samples in tar files, as webdataset and img2dataset write them: read in place, never unpacked.

A sample is the run of members whose names differ only after the first dot (`000000012.jpg`,
`000000012.txt`, `000000012.json`). Going over the headers once gives where each image begins; any
process then reads it from there. Names of members are never used as paths.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from sieve.data_prep.images import load_image_bytes, readable_extensions
from sieve.data_prep.skipped import Skipped

MAX_MEMBER_BYTES = 200 << 20
"""Larger members are refused: an image within the limit of pixels is smaller."""
MAX_TEXT_BYTES = 1 << 20
"""Larger captions and descriptions are refused."""

_REFERENCE = re.compile(r"(?P<tar>.+?\.tar)::(?P<member>.*)@(?P<start>\d+)\+(?P<size>\d+)", re.S)
_TEXTS = (".txt", ".json")


class Reference(NamedTuple):
    """Where an image stands in a tar file; written `TAR::MEMBER@START+SIZE`."""

    tar: Path
    member: str
    start: int
    size: int

    def __str__(self) -> str:
        return f"{self.tar}::{self.member}@{self.start}+{self.size}"

    @classmethod
    def parse(cls, text: str) -> Reference | None:
        """Read a reference; None where it is none."""
        found = _REFERENCE.fullmatch(text)
        if not found:
            return None
        return cls(Path(found["tar"]), found["member"], int(found["start"]), int(found["size"]))


class Sample(NamedTuple):
    """One sample of a tar file."""

    key: str
    """Name of its members up to the first dot."""
    image: Reference
    texts: dict[str, bytes]
    """Content of its `.txt` and `.json` members, by their extension."""


def open_member(reference: Reference) -> Image.Image:
    """Open an image in a tar file; see `sieve.data_prep.images.load_image`."""
    if reference.size > MAX_MEMBER_BYTES:
        raise ValueError(f"too large: {reference.size:,} bytes, over {MAX_MEMBER_BYTES:,}")
    with reference.tar.open("rb") as stream:
        stream.seek(reference.start)
        data = stream.read(reference.size)
    if len(data) < reference.size:
        raise ValueError("truncated: its tar file ends before it does")
    return load_image_bytes(data)


def read_samples(path: Path, name: str, skipped: list[Skipped]) -> Iterator[Sample]:
    """Read the samples of a tar file, in its order, without the images themselves.

    Parameters
    ----------
    path : Path
    name : str
        How the file is called where something of it is left out.
    skipped : list of Skipped
        Grows by members that are no part of a sample with an image, and by the fault that ends
        the reading of a damaged file.
    """
    reading = _Reading(path, name, skipped)
    try:
        # Compressed ones cannot be read from the middle.
        with tarfile.open(path, "r:") as tar:
            before = -1
            for member in tar:
                # It would keep every header it has seen.
                tar.members = []  # pyright: ignore[reportAttributeAccessIssue]
                if member.offset <= before or member.size < 0:
                    raise tarfile.ReadError("its headers lead backwards")
                before = member.offset
                if done := reading.take(tar, member):
                    yield done
            _check_end(path, tar.offset)
    except (tarfile.TarError, OSError, ValueError, OverflowError, RecursionError) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        skipped.append(Skipped(name, str(path), f"damaged tar file, read up to there: {reason}"))
    if done := reading.finish():
        yield done


def _check_end(path: Path, offset: int) -> None:
    """Refuse a file whose headers end at something that is no end: tarfile would say nothing."""
    with path.open("rb") as stream:
        stream.seek(offset)
        if any(stream.read(tarfile.BLOCKSIZE)):
            raise tarfile.ReadError(f"no header at byte {offset}")


class _Reading:
    """The sample that is being put together."""

    def __init__(self, path: Path, name: str, skipped: list[Skipped]) -> None:
        self._path, self._name, self._skipped = path, name, skipped
        self._bytes = path.stat().st_size
        self._key: str | None = None
        self._image: Reference | None = None
        self._texts: dict[str, bytes] = {}

    def take(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> Sample | None:
        """Take in a member; returns the sample before, where the member begins another."""
        if member.isdir():
            return None
        folder, _, file = member.name.rpartition("/")
        stem, dot, extension = file.partition(".")
        key = f"{folder}/{stem}" if folder else stem
        done = self.finish() if key != self._key else None
        self._key = key
        suffix = f".{extension.rpartition('.')[2].lower()}" if dot else ""
        fault = self._fault(member, suffix)
        if fault:
            self._skip(member.name, fault)
        elif suffix in _TEXTS:
            stream = tar.extractfile(member)
            self._texts[suffix] = stream.read(MAX_TEXT_BYTES) if stream else b""
        elif suffix in readable_extensions() and self._image is None:
            self._image = Reference(self._path, member.name, member.offset_data, member.size)
        return done

    def finish(self) -> Sample | None:
        """End the sample; None where it has no image."""
        key, image, texts = self._key, self._image, self._texts
        self._key, self._image, self._texts = None, None, {}
        if key is not None and image is None and texts:
            self._skip(key, "no image in this sample")
        return Sample(key, image, texts) if key is not None and image is not None else None

    def _fault(self, member: tarfile.TarInfo, suffix: str) -> str:
        """Say why a member cannot be used, or nothing."""
        if not member.isreg() or member.issparse():
            return "a link or a device in a tar file: only plain files are read"
        limit = MAX_TEXT_BYTES if suffix in _TEXTS else MAX_MEMBER_BYTES
        if member.size > limit:
            return f"too large: {member.size:,} bytes, over {limit:,}"
        if member.offset_data + member.size > self._bytes:
            return "truncated: its tar file ends before it does"
        return ""

    def _skip(self, member: str, reason: str) -> None:
        self._skipped.append(Skipped(f"{self._name}::{member[:200]}", str(self._path), reason))
