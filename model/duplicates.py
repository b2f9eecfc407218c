"""Groups of items that show the same picture, from a collection's `duplicates.csv`."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sieve.model.collection import DUPLICATES, Collection
from sieve.model.files import reason_of

SAME, NEAR = "same", "near"
"""Kinds. `same`: equal pictures. `near`: pictures that look alike and have embeddings of at least
cosine .97, such as another encoding of one photograph."""
_USED_FOR = ("train", "select", "test")


def duplicate_groups(collection: Collection, *, near: bool = False) -> np.ndarray:
    """Return for each item the first row of its group of equal pictures: (n,) int64.

    An item without a copy is its own group, and so is every item of a collection without
    `duplicates.csv` (codes, or one shard). With `near`, near duplicates are grouped as well,
    transitively. Raises a ValueError if the file is damaged.
    """
    kinds = (SAME, NEAR) if near else (SAME,)
    return _groups(collection.n_items, _read_pairs(collection, *kinds))


class Copies:
    """Groups of items that show the same picture, by row: see `duplicate_groups`."""

    def __init__(self, groups: np.ndarray) -> None:
        self.groups = groups
        self._members: dict[int, list[int]] = {}
        for row in np.flatnonzero(groups != np.arange(len(groups))).tolist():
            self._members.setdefault(first := int(groups[row]), [first]).append(row)

    def group(self, row: int) -> int:
        """Return the first row that shows the same picture."""
        return int(self.groups[row])

    def of(self, row: int) -> list[int]:
        """Return all other rows that show the same picture, ascending."""
        return [other for other in self._members.get(self.group(row), ()) if other != row]


def evaluation_rows(collection: Collection, split: str) -> np.ndarray:
    """Return the items of a split that resemble no item of a split used before it: (r,) int64.

    A test item that is equal or near to a train or select item would be measured on what was
    trained or tuned on, and a select item that is near to a train item likewise. `train` is
    returned whole. Raises a ValueError if `duplicates.csv` is damaged.
    """
    rows = collection.rows_of_split([split])
    before = collection.rows_of_split(_USED_FOR[: _USED_FOR.index(split)])
    if not len(rows) or not len(before):
        return rows
    groups = _groups(collection.n_items, _read_pairs(collection, SAME))
    is_before = np.zeros(collection.n_items, bool)
    is_before[before] = True
    seen = np.zeros(collection.n_items, bool)
    seen[groups[before]] = True
    one, two = _read_pairs(collection, SAME, NEAR)
    seen[groups[one[is_before[two]]]] = True
    seen[groups[two[is_before[one]]]] = True
    return rows[~seen[groups[rows]]]


def n_dropped(collection: Collection, split: str) -> int:
    """Count the items of a split that `evaluation_rows` leaves out."""
    return len(collection.rows_of_split([split])) - len(evaluation_rows(collection, split))


def _read_pairs(collection: Collection, *kinds: str) -> np.ndarray:
    """Read the pairs of alike items of some kinds from `duplicates.csv`: (2, p) int64 rows."""
    if DUPLICATES not in collection.manifest.files:
        return np.empty((2, 0), np.int64)
    path = collection.checked(DUPLICATES) / DUPLICATES
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        pairs = table.loc[table["kind"].isin(kinds), ["id", "duplicate_of"]]
        rows = [collection.row_of_id[item_id] for item_id in pairs.to_numpy().ravel("F")]
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged (unknown column or item: {reason_of(error)}); prepare the "
            "collection again"
        ) from None
    return np.array(rows, np.int64).reshape(2, -1)


def _groups(n: int, pairs: np.ndarray) -> np.ndarray:
    """Group pairs, (2, p), transitively: (n,) int64, the first row of each group."""
    if not pairs.size:
        return np.arange(n)
    links = coo_array((np.ones(pairs.shape[1], bool), tuple(pairs)), shape=(n, n))
    n_groups, group = connected_components(links, directed=False)
    first = np.empty(n_groups, np.int64)
    first[group[::-1]] = np.arange(n)[::-1]  # of equal groups, the last assignment remains
    return first[group]
