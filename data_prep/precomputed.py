"""Embeddings that are known before a collection is prepared: no backbone has to make them again.

Sparse codes that are known before a collection is prepared, and take the place of embeddings.
"""

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
from sieve.model.codes import SparseCodes
from sieve.model.dimension_name import GIVEN, DimensionName
from sieve.model.external_codes import IMAGE_CODES, TEXT_CODES, WORD_CODES, WORDS
from sieve.model.identity import CodesIdentity

_SLICE = 1 << 14


class RowArray(Protocol):
    """What is read of a two-dimensional array: its shape, and slices of its rows.

    NumPy's own arrays are of this kind, memory-mapped ones too.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, width)."""
        ...

    def __getitem__(self, rows: slice, /) -> np.ndarray:
        """Give the rows of a slice: (r, width)."""
        ...


@dataclass(frozen=True)
class PrecomputedEmbeddings:
    """Embeddings of a source's records, in the source's own order.

    They need not be of length 1. They are read a slice at a time, so that memory-mapped files of
    any size can be given.

    Parameters
    ----------
    images : (r, d) float
        One row for each of the r records that `Source.records` yields.
    texts : (c, d) float, optional
        One row for each caption: those of the first record, then of the second, and so on. Without
        them the backbone embeds the captions.
    """

    images: RowArray
    texts: RowArray | None = None

    def check(self, n_records: int, n_captions: int, width: int, source: str) -> None:
        """Refuse arrays that cannot belong to a source's records.

        Raises
        ------
        ValueError
            Where a shape differs from (records, width) or (captions, width).
        """
        expected = [("images", self.images, n_records, "record")]
        if self.texts is not None:
            expected.append(("texts", self.texts, n_captions, "caption"))
        for name, rows, count, of in expected:
            if tuple(rows.shape) != (count, width):
                raise ValueError(
                    f"known {name} have shape {tuple(rows.shape)}, expected {(count, width)}: "
                    f"one row a {of} of {source}"
                )

    def sha256(self) -> str:
        """Hash all of both arrays, a slice at a time."""
        digest = hashlib.sha256()
        for rows in (self.images, self.texts):
            for start in range(0, rows.shape[0] if rows is not None else 0, _SLICE):
                assert rows is not None
                digest.update(np.ascontiguousarray(read_rows(rows, start, start + _SLICE)).data)
            digest.update(b"end")
        return digest.hexdigest()


def read_rows(rows: RowArray, start: int, stop: int) -> np.ndarray:
    """Read rows into memory of their own; pages of a mapped file are given back."""
    part = np.array(rows[start:stop])
    if isinstance(rows, np.ndarray):
        forget_pages(rows)
    return part


class ConcatRows:
    """Several arrays read as one, such as the numbered files of one large data set.

    Parameters
    ----------
    parts : sequence of (r_i, d) arrays
        At least one, all of one width.
    """

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        self._parts = list(parts)
        self._ends = np.cumsum([len(part) for part in self._parts])
        widths = {part.shape[1] for part in self._parts}
        if len(widths) != 1:
            raise ValueError(f"arrays of one width are expected; these have {sorted(widths)}")
        self.shape = (int(self._ends[-1]), widths.pop())

    def __getitem__(self, rows: slice, /) -> np.ndarray:
        """Give the rows of a slice: (r, d)."""
        start, stop, _ = rows.indices(self.shape[0])
        first = int(np.searchsorted(self._ends, start, "right"))
        pieces = [self._parts[0][:0]]
        for part, end in zip(self._parts[first:], self._ends[first:], strict=True):
            begin = int(end) - len(part)
            if begin >= stop:
                break
            pieces.append(read_rows(part, max(start - begin, 0), stop - begin))
        return np.concatenate(pieces)


def forget_pages(array: np.ndarray) -> None:
    """Let the system have back the memory of a mapped file's pages that were read.

    It would reclaim them itself when it must; until then they count as this process's own.
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
    """Codes of a source's records, in the source's own order, with all that makes sense of them."""

    images: SparseCodes
    """A row for each of the r records that `Source.records` yields."""
    texts: SparseCodes | None
    """A row for each caption: those of the first record, then of the second, and so on."""
    names: Mapping[int, str]
    """Of dimensions."""
    words: tuple[str, ...] = ()
    word_codes: SparseCodes | None = None
    """A row a word."""
    text_encoder: str = ""
    """`package.module:function` that makes codes of texts, or nothing."""

    def embeddings(self, n_captions: int) -> PrecomputedEmbeddings:
        """Embeddings of no width, so that nothing has to be embedded."""
        empty = np.empty((self.images.n, 0), np.float16), np.empty((n_captions, 0), np.float16)
        return PrecomputedEmbeddings(*empty)

    def check(self, n_records: int, n_captions: int, source: str) -> None:
        """Refuse codes that cannot belong to a source's records.

        Raises
        ------
        ValueError
            If there are more or fewer rows than records or captions.
        """
        for what, codes, count in (
            ("images", self.images, n_records),
            ("captions", self.texts, n_captions),
        ):
            if codes is not None and codes.n != count:
                raise ValueError(
                    f"there are codes of {codes.n:,} {what}, but {source} has {count:,}"
                )

    def sha256(self) -> str:
        """Hash all of it."""
        codes = (self.images, self.texts, self.word_codes)
        told = [None if part is None else CodesIdentity.of(part).sha256 for part in codes]
        facts = [told, sorted(self.names.items()), self.words, self.text_encoder]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def write(
        self, folder: Path, name: str, images: np.ndarray, captions: np.ndarray
    ) -> CodesIdentity:
        """Write the codes of some records, and the checkpoint that names their dimensions.

        Parameters
        ----------
        folder : Path
            Of a collection that is being made.
        name : str
            The collection's.
        images, captions : (n,), (c,) int64
            Places of the records and captions that the collection holds.
        """
        kept = self.images.take(images)
        kept.save(folder, IMAGE_CODES)
        if self.texts is not None:
            self.texts.take(captions).save(folder, TEXT_CODES)
        if self.word_codes is not None:
            self.word_codes.save(folder, WORD_CODES)
            text = json.dumps(list(self.words), ensure_ascii=False, indent=0) + "\n"
            (folder / WORDS).write_text(text, encoding="utf-8")
        identity = CodesIdentity.of(kept)
        named = {j: DimensionName(name, 0.0, "", source=GIVEN) for j, name in self.names.items()}
        write_codes_checkpoint(folder, identity, name, named, self.text_encoder)
        return identity
