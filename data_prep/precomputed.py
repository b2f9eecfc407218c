"""Precomputed embeddings, which spare the backbone, and sparse codes, which replace embeddings."""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from sieve.model.checkpoint import write_codes_checkpoint
from sieve.model.codes import IMAGE_CODES, TEXT_CODES, WORD_CODES, WORDS, SparseCodes
from sieve.model.collection import CodesIdentity
from sieve.model.dimension_name import GIVEN, DimensionName

_SLICE = 1 << 14


class RowArray(Protocol):
    """A two-dimensional array with a shape and slices of rows, such as a NumPy array."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, width)."""
        ...

    def __getitem__(self, rows: slice, /) -> np.ndarray:
        """Return a slice of rows: (r, width)."""
        ...


@dataclass(frozen=True)
class PrecomputedEmbeddings:
    """Embeddings of a source's records, in the source's own order.

    They need not have length 1. They are read in slices, so that memory-mapped files of any size
    can be used.
    """

    images: RowArray
    """(r, d): one row for each of the r records that `Source.records` yields"""
    texts: RowArray | None = None
    """(c, d): one row for each caption: those of the first record, then of the second, and so on.
    If None, the backbone embeds the captions."""

    def sha256(self) -> str:
        """Return a hash of both arrays."""
        digest = hashlib.sha256()
        for rows in (self.images, self.texts):
            if rows is not None:
                for start in range(0, rows.shape[0], _SLICE):
                    digest.update(np.ascontiguousarray(read_rows(rows, start, start + _SLICE)).data)
            digest.update(b"end")
        return digest.hexdigest()


def read_rows(rows: RowArray, start: int, stop: int) -> np.ndarray:
    """Copy rows into memory, and release the pages of a memory-mapped file."""
    copy = np.array(rows[start:stop])
    if isinstance(rows, np.ndarray):
        release_pages(rows)
    return copy


class ConcatRows:
    """Concatenation of arrays, (r_i, d), such as the numbered files of a large data set."""

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        self._parts = list(parts)
        self._ends = np.cumsum([len(part) for part in self._parts])
        widths = {part.shape[1] for part in self._parts}
        if len(widths) != 1:
            raise ValueError(f"expected arrays of the same width; got widths {sorted(widths)}")
        self.shape = (int(self._ends[-1]), widths.pop())

    def __getitem__(self, rows: slice, /) -> np.ndarray:
        """Return a slice of rows: (r, d)."""
        start, stop, _ = rows.indices(self.shape[0])
        pieces = [self._parts[0][:0]]
        for part, end in zip(self._parts, self._ends.tolist(), strict=True):
            begin = end - len(part)
            if begin < stop and start < end:
                pieces.append(read_rows(part, max(start - begin, 0), stop - begin))
        return np.concatenate(pieces)


def release_pages(array: np.ndarray) -> None:
    """Release the pages of a memory-mapped file that were read.

    The system would reclaim them when it needs memory; until then they count as this process's.
    """
    base: object = array
    while isinstance(base, np.ndarray):
        if base.flags.writeable:
            return
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


@dataclass(frozen=True)
class PrecomputedCodes:
    """Sparse codes of a source's records, in the source's own order, with names and word codes."""

    images: SparseCodes
    """One row for each of the r records that `Source.records` yields."""
    texts: SparseCodes | None
    """One row for each caption: those of the first record, then of the second, and so on."""
    names: Mapping[int, str]
    """Names by dimension."""
    words: tuple[str, ...] = ()
    word_codes: SparseCodes | None = None
    """One row per word of `words`."""
    text_encoder: str = ""
    """`package.module:function` that encodes texts; empty if there is none."""

    def embeddings(self, n_captions: int) -> PrecomputedEmbeddings:
        """Return embeddings of width 0, so that no backbone has to run."""
        return PrecomputedEmbeddings(
            np.empty((self.images.n, 0), np.float16), np.empty((n_captions, 0), np.float16)
        )

    def sha256(self) -> str:
        """Return a hash of codes, names, words and text encoder."""
        codes = (self.images, self.texts, self.word_codes)
        hashes = [None if part is None else CodesIdentity.of(part).sha256 for part in codes]
        content = [hashes, sorted(self.names.items()), self.words, self.text_encoder]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def write(
        self, folder: Path, name: str, images: np.ndarray, captions: np.ndarray
    ) -> CodesIdentity:
        """Write the codes of some records, and a checkpoint with the names of their dimensions.

        `images` and `captions`, (n,) and (c,) int64, are the positions that the collection holds.
        """
        codes = self.images.take(images)
        codes.save(folder, IMAGE_CODES)
        if self.texts is not None:
            self.texts.take(captions).save(folder, TEXT_CODES)
        if self.word_codes is not None:
            self.word_codes.save(folder, WORD_CODES)
            text = json.dumps(list(self.words), ensure_ascii=False, indent=0) + "\n"
            (folder / WORDS).write_text(text, encoding="utf-8")
        identity = CodesIdentity.of(codes)
        named = {j: DimensionName(name, 0.0, "", source=GIVEN) for j, name in self.names.items()}
        write_codes_checkpoint(folder, identity, name, named, self.text_encoder)
        return identity
