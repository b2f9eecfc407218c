"""Whether three arrays are a CSR matrix of sparse codes: asked of all that comes from outside.

SciPy trusts column numbers; one that is out of range would be written outside of memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MAX_DIMENSIONS = 1 << 17
"""Wider codes are refused: each dimension is a row on screen, a query is kept with its zeros."""


def csr_fault(
    indptr: np.ndarray, indices: np.ndarray, values: np.ndarray, shape: Sequence[int]
) -> str:
    """Tell why arrays are no matrix of codes, in a few words; nothing where they are one.

    Parameters
    ----------
    indptr, indices, values : arrays
        As SciPy's CSR has them, of any type.
    shape : sequence of int
        (rows, dimensions).
    """
    return (
        _kind_fault(indptr, indices, values)
        or _shape_fault(indptr, indices, values, shape)
        or _order_fault(indptr, indices, shape[1])
        or _value_fault(indptr, indices, values)
    )


def _kind_fault(indptr: np.ndarray, indices: np.ndarray, values: np.ndarray) -> str:
    for name, array, kinds in (
        ("indptr", indptr, "iu"),
        ("indices", indices, "iu"),
        ("data", values, "fiub"),
    ):
        if array.ndim != 1 or array.dtype.kind not in kinds:
            return (
                f"its {name} has shape {array.shape} of {array.dtype}; expected one row of numbers"
            )
    return ""


def _shape_fault(
    indptr: np.ndarray, indices: np.ndarray, values: np.ndarray, shape: Sequence[int]
) -> str:
    rows, m = shape
    if not 1 <= m <= MAX_DIMENSIONS:
        return f"it has {m:,} dimensions; 1 to {MAX_DIMENSIONS:,} can be explored"
    if len(indptr) != rows + 1 or len(indices) != len(values):
        return (
            f"its arrays have {len(indptr):,}, {len(indices):,} and {len(values):,} numbers, which "
            f"fits no matrix of {rows:,} rows"
        )
    steps_back = (indptr[1:] < indptr[:-1]).any()
    if indptr[0] != 0 or indptr[-1] != len(values) or steps_back:
        return f"its indptr does not lead from 0 up to its {len(values):,} entries"
    return ""


def _order_fault(indptr: np.ndarray, indices: np.ndarray, m: int) -> str:
    outside = (indices < 0) | (indices >= m)
    if outside.any():
        at = int(outside.argmax())
        found = int(indices[at])
        return f"row {_row(indptr, at):,} has dimension {found}; dimensions are 0 to {m - 1}"
    within = np.ones(max(len(indices) - 1, 0), bool)
    starts = indptr[1:-1].astype(np.int64)
    within[starts[(starts > 0) & (starts < len(indices))] - 1] = False
    for name, wrong, mend in (
        ("twice", indices[1:] == indices[:-1], "sum_duplicates"),
        ("out of order", indices[1:] < indices[:-1], "sort_indices and sum_duplicates"),
    ):
        found = within & wrong
        if found.any():
            at = int(found.argmax()) + 1
            return (
                f"row {_row(indptr, at):,} has dimension {int(indices[at])} {name}; call {mend} "
                "before you save it"
            )
    return ""


def _value_fault(indptr: np.ndarray, indices: np.ndarray, values: np.ndarray) -> str:
    for name, wrong in (("not a finite", ~np.isfinite(values)), ("a negative", values < 0)):
        if wrong.any():
            at = int(wrong.argmax())
            return (
                f"row {_row(indptr, at):,} has {name} value in dimension {int(indices[at])}; codes "
                "are 0 or more"
            )
    return ""


def _row(indptr: np.ndarray, entry: int) -> int:
    """Find the row of an entry."""
    return int(np.searchsorted(indptr, entry, "right")) - 1
