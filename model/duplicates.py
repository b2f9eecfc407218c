"""Groups of items that show the same picture, from a collection's `duplicates.csv`."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from sieve.model.collection import DUPLICATES, Collection

SAME, NEAR = "same", "near"
"""Kinds. `same`: equal pictures. `near`: pictures that look alike and have embeddings of at least
cosine .97, such as another encoding of one photograph."""

_USED_FOR = ("train", "select", "test")


class _Pair(NamedTuple):
    row: int
    other: int
    kind: str


def duplicate_groups(collection: Collection, *, near: bool = False) -> np.ndarray:
    """Return for each item the first row of its group of equal pictures.

    An item without a copy is its own group, and so is every item of a collection without
    `duplicates.csv` (codes, or one shard).

    Parameters
    ----------
    collection : Collection
    near : bool
        Also group near duplicates, transitively.

    Returns
    -------
    (n,) int64
        Rows; `groups[row] <= row`.

    Raises
    ------
    ValueError
        If the file is damaged.
    """
    return _groups(collection.n_items, (p for p in _pairs(collection) if near or p.kind == SAME))


class Copies:
    """Groups of items of a collection that show the same picture, by row.

    Parameters
    ----------
    groups : (n,) int64
        See `duplicate_groups`.
    """

    def __init__(self, groups: np.ndarray) -> None:
        self.groups = groups
        repeated = np.flatnonzero(groups != np.arange(len(groups)))
        self._members = {first: [first] for first in np.unique(groups[repeated]).tolist()}
        for row in repeated.tolist():
            self._members[int(groups[row])].append(row)

    def __bool__(self) -> bool:
        """Return whether any picture occurs more than once."""
        return bool(self._members)

    def group(self, row: int) -> int:
        """Return the first row that shows the same picture."""
        return int(self.groups[row])

    def of(self, row: int) -> list[int]:
        """Return all other rows that show the same picture, ascending."""
        return [other for other in self._members.get(self.group(row), ()) if other != row]


def evaluation_rows(collection: Collection, split: str) -> np.ndarray:
    """Return the items of a split that resemble no item of a split used before it.

    A test item that is equal or near to a train or select item would be measured on what was
    trained or tuned on, and a select item that is near to a train item likewise. `train` is
    returned whole.

    Parameters
    ----------
    collection : Collection
    split : str
        `train`, `select` or `test`.

    Returns
    -------
    (r,) int64
        Ascending.

    Raises
    ------
    ValueError
        If `duplicates.csv` is damaged.
    """
    rows = collection.rows_of_split([split])
    before = collection.rows_of_split(_USED_FOR[: _USED_FOR.index(split)])
    if not len(rows) or not len(before):
        return rows
    pairs = list(_pairs(collection))
    groups = _groups(collection.n_items, (pair for pair in pairs if pair.kind == SAME))
    is_before = np.zeros(collection.n_items, bool)
    is_before[before] = True
    seen = np.zeros(collection.n_items, bool)
    seen[groups[before]] = True
    for row, other, _ in pairs:
        seen[groups[row]] |= is_before[other]
        seen[groups[other]] |= is_before[row]
    return rows[~seen[groups[rows]]]


def n_dropped(collection: Collection, split: str) -> int:
    """Count the items of a split that `evaluation_rows` leaves out."""
    return len(collection.rows_of_split([split])) - len(evaluation_rows(collection, split))


def _pairs(collection: Collection) -> Iterator[_Pair]:
    """Read `duplicates.csv`, if there is one."""
    if DUPLICATES not in collection.manifest.files:
        return
    path = collection.checked(DUPLICATES) / DUPLICATES
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            for entry in csv.DictReader(stream):
                row, other = (collection.row_of_id[entry[name]] for name in ("id", "duplicate_of"))
                yield _Pair(row, other, entry["kind"])
    except (KeyError, csv.Error, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:80]
        raise ValueError(
            f"{path} is damaged (unknown column or item: {reason}); prepare the collection again"
        ) from None


def _groups(n: int, pairs: Iterator[_Pair]) -> np.ndarray:
    """Group pairs transitively: (n,) int64, the first row of each group."""
    first = np.arange(n)
    for row, other, _ in pairs:
        one, two = sorted((_root(first, row), _root(first, other)))
        first[two] = one
    for row in np.flatnonzero(first != np.arange(n)):
        first[row] = first[first[row]]  # rows ascend, so an earlier row already has its root
    return first


def _root(first: np.ndarray, row: int) -> int:
    while first[row] != row:
        first[row] = first[first[row]]
        row = int(first[row])
    return row
