"""Sparse codes of many rows, stored by row and by dimension.

By row (CSR) they give the dimensions of one item, by dimension (CSC, the postings) the items that
have a dimension, which is all that a search reads. Each copy takes 8 bytes per active entry: an
int32 index and a float32 value.

`csr_fault` validates arrays that come from outside, because SciPy trusts column numbers and writes
outside of memory if one is out of range.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.lib.format import write_array_header_1_0
from scipy.sparse import csc_array, csr_array

from sieve.model.files import UNREADABLE, OpenedFiles, read_json, reason_of

if TYPE_CHECKING:
    from sieve.model.encoder import SparseEncoder

log = logging.getLogger(__name__)
MAX_DIMENSIONS = 1 << 17
"""Maximum width: each dimension is a row on screen, and queries are stored densely."""
_AGAIN = "prepare the collection again"


def csr_fault(
    indptr: np.ndarray, indices: np.ndarray, values: np.ndarray, shape: Sequence[int]
) -> str:
    """Return why arrays are not a valid matrix of codes, in a few words; empty if they are.

    Parameters
    ----------
    indptr, indices, values : arrays
        Arrays of a SciPy CSR matrix, of any type.
    shape : sequence of int
        (rows, dimensions).
    """
    for name, array, kinds in (
        ("indptr", indptr, "iu"),
        ("indices", indices, "iu"),
        ("data", values, "fiub"),
    ):
        if array.ndim != 1 or array.dtype.kind not in kinds:
            return (
                f"its {name} has shape {array.shape} of {array.dtype}; expected one row of numbers"
            )
    rows, m = shape
    if not 1 <= m <= MAX_DIMENSIONS:
        return f"it has {m:,} dimensions; 1 to {MAX_DIMENSIONS:,} can be explored"
    if len(indptr) != rows + 1 or len(indices) != len(values):
        return (
            f"its arrays have {len(indptr):,}, {len(indices):,} and {len(values):,} numbers, which "
            f"fits no matrix of {rows:,} rows"
        )
    if indptr[0] != 0 or indptr[-1] != len(values) or (indptr[1:] < indptr[:-1]).any():
        return f"its indptr does not lead from 0 up to its {len(values):,} entries"
    return _entry_fault(indptr, indices, values, m)


def _entry_fault(indptr: np.ndarray, indices: np.ndarray, values: np.ndarray, m: int) -> str:
    follows = np.ones(len(indices), bool)  # another entry of its row
    follows[indptr[:-1][indptr[:-1] < len(indices)]] = False
    before, after, within = indices[:-1], indices[1:], follows[1:]
    for has_fault, fault in (
        (lambda: (indices < 0) | (indices >= m), f"dimension {{}}; dimensions are 0 to {m - 1}"),
        (
            lambda: np.append(False, within & (after == before)),
            "dimension {} twice; call sum_duplicates before you save it",
        ),
        (
            lambda: np.append(False, within & (after < before)),
            "dimension {} out of order; call sort_indices and sum_duplicates before you save it",
        ),
        (
            lambda: ~np.isfinite(values),
            "a value that is not finite in dimension {}; codes are 0 or more",
        ),
        (lambda: values < 0, "a negative value in dimension {}; codes are 0 or more"),
    ):
        if len(indices) and (wrong := has_fault()).any():
            at = int(wrong.argmax())
            row = int(np.searchsorted(indptr, at, "right")) - 1
            return f"row {row:,} has {fault.format(int(indices[at]))}"
    return ""


IMAGE_CODES, TEXT_CODES, WORD_CODES = "image", "text", "word"
"""Names of external codes of images, captions and words."""
WORDS = "words.json"
_PARTS = ("indptr", "indices", "values")


def code_files(name: str) -> list[str]:
    """Return the names of the files that `SparseCodes.save` writes."""
    return [f"{name}_{part}.npy" for part in _PARTS]


CODE_FILES = (*code_files(IMAGE_CODES), *code_files(TEXT_CODES), *code_files(WORD_CODES), WORDS)
"""All files of external codes."""


def code_file_names(folder: Path) -> list[str]:
    """Return the names of the files of external codes that exist in a folder."""
    return [name for name in CODE_FILES if (folder / name).is_file()]


_CACHED = ("entries", "indptr", "postings_indptr")


def columns_of(matrix: csr_array | csc_array) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield each column's rows and values: (p,) integer, (p,) float."""
    columns = csc_array(matrix)
    rows, values = np.asarray(columns.indices), np.asarray(columns.data)
    for start, end in pairwise(np.asarray(columns.indptr).tolist()):
        yield rows[start:end], values[start:end]


def shape_of(matrix: csr_array | csc_array) -> tuple[int, int]:
    """Return the numbers of rows and columns of a sparse matrix."""
    return cast("tuple[int, int]", matrix.shape)


class SparseCodes:
    """Unit-norm, non-negative codes of `n` rows in `m` dimensions.

    Codes that `load_cache` mapped raise a ValueError once their file has changed.

    Parameters
    ----------
    indptr : (n + 1,) integer
        Row i owns entries `indptr[i]:indptr[i + 1]`.
    indices : (e,) int32
        Dimension of each active entry, ascending in a row.
    values : (e,) float32
        Positive; each row has L2 norm 1, or no entry at all.
    m : int
        Number of dimensions.
    """

    def __init__(self, indptr: np.ndarray, indices: np.ndarray, values: np.ndarray, m: int) -> None:
        # SciPy converts both index arrays to the wider type; int32 holds 2³¹ entries.
        narrow = np.int32 if len(values) < 2**31 else np.int64
        parts = (values, indices.astype(narrow, copy=False), indptr.astype(narrow, copy=False))
        self.n, self.m = len(indptr) - 1, m
        self._by_row = csr_array(parts, shape=(self.n, m))
        self._by_dimension: csc_array | None = None
        self._file = OpenedFiles()

    @classmethod
    def from_active(cls, values: np.ndarray, indices: np.ndarray, m: int) -> SparseCodes:
        """Build normalised codes from the output of `SparseEncoder.encode`.

        Parameters
        ----------
        values : (n, k) float32
            Non-negative; zeros are inactive.
        indices : (n, k) integer
            Dimensions, without repetition in a row.
        m : int
        """
        order = np.argsort(indices, axis=1, kind="stable")
        values = np.take_along_axis(np.asarray(values, np.float32), order, 1)
        indices = np.take_along_axis(np.asarray(indices, np.int32), order, 1)
        norms = np.sqrt((values.astype(np.float64) ** 2).sum(1, keepdims=True))
        unit = (values / np.maximum(norms, 1e-30)).astype(np.float32)
        active = unit > 0
        indptr = np.concatenate([[0], np.cumsum(active.sum(1))]).astype(np.int64)
        return cls(indptr, indices[active], unit[active], m)

    @classmethod
    def from_rows(cls, matrix: csr_array) -> SparseCodes:
        """Build normalised codes from a non-negative, finite CSR matrix, and drop zeros.

        The dimensions ascend in each row, without duplicates.
        """
        n, m = shape_of(matrix)
        row_of = np.repeat(np.arange(n), np.diff(matrix.indptr))
        values = np.asarray(matrix.data, np.float64)
        highest, squares = np.zeros(n), np.zeros(n)
        np.maximum.at(highest, row_of, values)
        with np.errstate(invalid="ignore", divide="ignore"):
            values = values / highest[row_of]  # so that no square overflows or underflows
        np.add.at(squares, row_of, np.nan_to_num(values) ** 2)
        unit = np.nan_to_num(values / np.sqrt(np.maximum(squares, 1.0))[row_of]).astype(np.float32)
        active = unit > 0
        indptr = np.concatenate([[0], np.cumsum(np.bincount(row_of[active], minlength=n))])
        return cls(indptr, np.asarray(matrix.indices)[active], unit[active], m)

    @classmethod
    def concatenate(cls, parts: Sequence[SparseCodes]) -> SparseCodes:
        """Join the rows of codes of the same width; `parts` must not be empty."""
        rows = [part.by_row for part in parts]
        counts = np.concatenate([np.diff(part.indptr) for part in rows])
        return cls(
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            np.concatenate([part.indices for part in rows]),
            np.concatenate([part.data for part in rows]),
            parts[0].m,
        )

    def take(self, rows: np.ndarray) -> SparseCodes:
        """Return the codes of some rows, in this order."""
        chosen = csr_array(self.by_row[rows])
        return SparseCodes(chosen.indptr, chosen.indices, chosen.data, self.m)

    @property
    def by_row(self) -> csr_array:
        """The codes: (n, m), dimensions ascending in each row."""
        self._file.check()
        return self._by_row

    @property
    def by_dimension(self) -> csc_array:
        """The postings: (n, m), rows ascending in each dimension."""
        self._file.check()
        if self._by_dimension is None:
            self._by_dimension = self.by_row.tocsc()
        return self._by_dimension

    def row(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the active dimensions of one row and their values: (a,) int32, (a,) float32."""
        return _span(self.by_row, row)

    def postings(self, dimension: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows that have a dimension, with its values: (p,) int32, (p,) float32."""
        return _span(self.by_dimension, dimension)

    def dense(self, row: int) -> np.ndarray:
        """Return one row as a dense array: (m,) float32."""
        code = np.zeros(self.m, np.float32)
        indices, values = self.row(row)
        code[indices] = values
        return code

    def save(self, folder: Path, name: str) -> None:
        """Write `NAME_indptr.npy`, `NAME_indices.npy`, `NAME_values.npy`."""
        codes = self.by_row
        arrays = (codes.indptr, codes.indices, codes.data)
        for file, array in zip(code_files(name), arrays, strict=True):
            np.save(folder / file, array)

    def save_cache(self, folder: Path, name: str, postings: bool = False) -> None:
        """Write codes for `load_cache`, with all large arrays in one file.

        With the postings, `load_cache` does not need to sort all entries.
        """
        copies = [self.by_row, *([self.by_dimension] if postings else [])]
        entries, *pointers = (folder / f"{name}_{part}.npy" for part in _CACHED)
        for path, copy in zip(pointers, copies, strict=False):
            np.save(path, copy.indptr)
        _write_rows(entries, [part for copy in copies for part in (copy.indices, copy.data)])

    @classmethod
    def load_cache(cls, folder: Path, name: str, m: int) -> SparseCodes:
        """Memory-map what `save_cache` wrote; only the pointers are read."""
        entries, *pointers = (folder / f"{name}_{part}.npy" for part in _CACHED)
        file = OpenedFiles(entries)
        rows = np.load(entries, mmap_mode="r", allow_pickle=False)
        starts = [np.load(path, allow_pickle=False) for path in pointers if path.is_file()]
        codes = cls(starts[0], rows[0], rows[1].view(np.float32), m)
        if len(starts) > 1:
            parts = (rows[3].view(np.float32), rows[2], starts[1])
            codes._by_dimension = csc_array(parts, shape=(codes.n, m))
        codes._file = file
        return codes


def _span(codes: csr_array | csc_array, at: int) -> tuple[np.ndarray, np.ndarray]:
    span = slice(codes.indptr[at], codes.indptr[at + 1])
    return codes.indices[span], codes.data[span]


def _write_rows(path: Path, parts: Sequence[np.ndarray]) -> None:
    """Write arrays of e 4-byte numbers as one (p, e) int32 array, without copying them all."""
    head = {"descr": "<i4", "fortran_order": False, "shape": (len(parts), len(parts[0]))}
    with path.open("wb") as stream:
        write_array_header_1_0(stream, head)
        for part in parts:
            narrow = part if part.dtype == np.float32 else part.astype(np.int32, copy=False)
            stream.write(np.ascontiguousarray(narrow).data)


def read_codes(folder: Path, part: str, n: int, m: int) -> SparseCodes:
    """Read external codes of images, texts or words; return all-zero codes if there are none.

    Raises a ValueError if the arrays are not valid codes of `n` rows.
    """
    paths = [folder / name for name in code_files(part)]
    if not all(path.is_file() for path in paths):
        return SparseCodes(np.zeros(n + 1, np.int32), np.empty(0, np.int32), np.empty(0), m)
    try:
        indptr, indices, values = (np.load(path, allow_pickle=False) for path in paths)
    except UNREADABLE as error:
        raise ValueError(
            f"codes of {folder} cannot be read ({reason_of(error)}); {_AGAIN}"
        ) from None
    if fault := csr_fault(indptr, indices, values, (n, m)):
        raise ValueError(f"{paths[0]} is damaged: {fault}; {_AGAIN}")
    return SparseCodes(indptr, indices, values.astype(np.float32, copy=False), m)


def read_words(folder: Path) -> list[str]:
    """Read the words that have codes, if any; raise a ValueError if the file is damaged."""
    path = folder / WORDS
    return read_json(path, list[str], _AGAIN) if path.is_file() else []


def encode_codes(
    encoder: SparseEncoder, embeddings: np.ndarray, modality: str, batch_size: int = 8192
) -> SparseCodes:
    """Encode embeddings in batches, each of which is read from disk when it is needed.

    If the device runs out of memory, the batch size is halved and the batch is encoded again.

    Parameters
    ----------
    embeddings : (n, d) float16 or float32
        May be memory-mapped.
    modality : "image" or "text"

    Raises
    ------
    ValueError
        If an embedding is not finite, or the encoder is dense.
    torch.OutOfMemoryError
        If not even one embedding can be encoded.
    """
    import torch  # slow to import, and cached codes do not need it

    config = encoder.config
    assert embeddings.shape[1] == config.d
    if config.activation == "dense":  # such as a control in the cache of the benchmark
        raise ValueError("a dense control has no sparse codes; choose another checkpoint")
    parts = [SparseCodes.from_active(np.zeros((0, 1)), np.zeros((0, 1), np.int32), config.m)]
    device = encoder.encode_md.device
    start = 0
    while start < len(embeddings):
        batch = np.asarray(embeddings[start : start + batch_size], np.float32)
        if not np.isfinite(batch).all():
            row = start + int(np.argmin(np.isfinite(batch).all(1)))
            raise ValueError(f"{modality} embedding {row} is not finite; prepare it again")
        try:
            with torch.inference_mode():
                active = encoder.encode(torch.from_numpy(batch).to(device), modality)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
            batch_size = len(batch) // 2
        else:
            values, indices = active.values.cpu().numpy(), active.indices.cpu().numpy()
            parts.append(SparseCodes.from_active(values, indices, config.m))
            start += len(batch)
            continue
        # Outside the handler: there, the exception would still hold the tensors of the batch.
        torch.cuda.empty_cache()
        log.warning("out of memory: encoding continues in batches of %d", batch_size)
    return SparseCodes.concatenate(parts)
