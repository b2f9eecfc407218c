"""Sparse codes of many rows, by row and by dimension.

By row (CSR) they tell what one item is made of; by dimension (CSC, the postings) they tell which
items have a factor, which is all that a search has to read. Each copy takes 8 bytes an active
entry: an int32 index and a float32 value.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import cast

import numpy as np
from scipy.sparse import csc_array, csr_array

from sieve.model.opened_files import OpenedFiles

_PARTS = ("indptr", "indices", "values")


def code_files(name: str) -> list[str]:
    """Names of the files that codes are kept in."""
    return [f"{name}_{part}.npy" for part in _PARTS]


def _postings_files(name: str) -> list[str]:
    """Names of the files that codes by dimension are kept in."""
    return code_files(f"{name}_postings")


def columns_of(matrix: csr_array | csc_array) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Give each column's rows and values in turn: (p,) integer, (p,) float."""
    columns = csc_array(matrix)
    rows, values = np.asarray(columns.indices), np.asarray(columns.data)
    for start, end in pairwise(np.asarray(columns.indptr).tolist()):
        yield rows[start:end], values[start:end]


def shape_of(matrix: csr_array | csc_array) -> tuple[int, int]:
    """Rows and columns of a sparse matrix."""
    return cast("tuple[int, int]", matrix.shape)


class SparseCodes:
    """Unit-norm, non-negative codes of `n` rows in `m` dimensions.

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

    Notes
    -----
    Codes that were mapped by `load` raise a ValueError once one of their files has changed.
    """

    def __init__(self, indptr: np.ndarray, indices: np.ndarray, values: np.ndarray, m: int) -> None:
        # scipy gives both index arrays the wider of their types; int32 holds 2³¹ entries.
        narrow = np.int32 if len(values) < 2**31 else np.int64
        parts = (values, indices.astype(narrow, copy=False), indptr.astype(narrow, copy=False))
        self._by_row = csr_array(parts, shape=(len(indptr) - 1, m))
        self._by_dimension: csc_array | None = None
        self._m = m
        self._files, self._postings_files = OpenedFiles(), OpenedFiles()

    @classmethod
    def from_active(cls, values: np.ndarray, indices: np.ndarray, m: int) -> SparseCodes:
        """Normalise and compress what `SparseEncoder.encode` returns.

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
        """Normalise the rows of a non-negative CSR matrix without repetitions; zeros are dropped.

        Parameters
        ----------
        matrix : (n, m) of finite numbers
            Dimensions ascending in each row.
        """
        n, m = shape_of(matrix)
        row_of = np.repeat(np.arange(n), np.diff(matrix.indptr))
        values = np.asarray(matrix.data, np.float64)
        highest, squares = np.zeros(n), np.zeros(n)
        np.maximum.at(highest, row_of, values)
        with np.errstate(invalid="ignore", divide="ignore"):
            values = values / highest[row_of]  # so that no square is too large or too small
        np.add.at(squares, row_of, np.nan_to_num(values) ** 2)
        unit = np.nan_to_num(values / np.sqrt(np.maximum(squares, 1.0))[row_of]).astype(np.float32)
        active = unit > 0
        indptr = np.concatenate([[0], np.cumsum(np.bincount(row_of[active], minlength=n))])
        return cls(indptr, np.asarray(matrix.indices)[active], unit[active], m)

    def take(self, rows: np.ndarray) -> SparseCodes:
        """Choose some rows, in this order."""
        chosen = csr_array(self.by_row[rows])
        return SparseCodes(chosen.indptr, chosen.indices, chosen.data, self.m)

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self._by_row.indptr) - 1

    @property
    def m(self) -> int:
        """Number of dimensions."""
        return self._m

    @property
    def by_row(self) -> csr_array:
        """The codes: (n, m), dimensions ascending in each row."""
        self._files.check()
        return self._by_row

    @property
    def by_dimension(self) -> csc_array:
        """The postings: (n, m), rows ascending in each dimension."""
        self._postings_files.check()
        if self._by_dimension is None:
            self._by_dimension = self.by_row.tocsc()
        return self._by_dimension

    def row(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Active dimensions of one row and their values: (a,) int32, (a,) float32."""
        codes = self.by_row
        span = slice(codes.indptr[row], codes.indptr[row + 1])
        return codes.indices[span], codes.data[span]

    def postings(self, dimension: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows that have a dimension and its values there: (p,) int32, (p,) float32."""
        codes = self.by_dimension
        span = slice(codes.indptr[dimension], codes.indptr[dimension + 1])
        return codes.indices[span], codes.data[span]

    def dense(self, row: int) -> np.ndarray:
        """One row's code with its zeros: (m,) float32."""
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

    def save_postings(self, folder: Path, name: str) -> None:
        """Write `NAME_postings_…npy` too: `load` then need not sort all entries by dimension."""
        codes = self.by_dimension
        arrays = (codes.indptr, codes.indices, codes.data)
        for file, array in zip(_postings_files(name), arrays, strict=True):
            np.save(folder / file, array)

    @classmethod
    def load(cls, folder: Path, name: str, m: int) -> SparseCodes:
        """Map what `save` wrote, and what `save_postings` did: read is what a search needs."""
        files, arrays = _mapped(folder, code_files(name))
        codes = cls(*arrays, m)
        codes._files = files
        if all((folder / file).is_file() for file in _postings_files(name)):
            codes._postings_files, (indptr, rows, values) = _mapped(folder, _postings_files(name))
            codes._by_dimension = csc_array((values, rows, indptr), shape=(codes.n, m))
        return codes


def _mapped(
    folder: Path, files: list[str]
) -> tuple[OpenedFiles, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Map the three arrays of a sparse matrix; pointers are few, and read."""
    opened = OpenedFiles(*(folder / file for file in files[1:]))
    pointers, indices, values = (
        np.load(folder / file, mmap_mode="r", allow_pickle=False) for file in files
    )
    return opened, (np.array(pointers), indices, values)
