"""Groups of items that show the same picture, from a collection's `duplicates.csv`."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sieve.model.collection import DUPLICATES, Collection

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
    pairs = _read_pairs(collection)
    return _groups(collection.n_items, pairs if near else pairs[pairs["kind"] == SAME])


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
    pairs = _read_pairs(collection)
    groups = _groups(collection.n_items, pairs[pairs["kind"] == SAME])
    is_before = np.zeros(collection.n_items, bool)
    is_before[before] = True
    seen = np.zeros(collection.n_items, bool)
    seen[groups[before]] = True
    one, two = (pairs[name].to_numpy() for name in ("row", "other"))
    seen[groups[one[is_before[two]]]] = True
    seen[groups[two[is_before[one]]]] = True
    return rows[~seen[groups[rows]]]


def n_dropped(collection: Collection, split: str) -> int:
    """Count the items of a split that `evaluation_rows` leaves out."""
    return len(collection.rows_of_split([split])) - len(evaluation_rows(collection, split))


def _read_pairs(collection: Collection) -> pd.DataFrame:
    """Read the rows of two alike items, row and other, and their kind from `duplicates.csv`."""
    if DUPLICATES not in collection.manifest.files:
        return pd.DataFrame({"row": np.empty(0, int), "other": np.empty(0, int), "kind": ""})
    path = collection.checked(DUPLICATES) / DUPLICATES
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        rows = {
            name: np.array([collection.row_of_id[item_id] for item_id in table[column]], np.int64)
            for name, column in (("row", "id"), ("other", "duplicate_of"))
        }
        return pd.DataFrame({**rows, "kind": table["kind"]})
    except (KeyError, ValueError) as error:
        reason = " ".join(str(error).split())[:80]
        raise ValueError(
            f"{path} is damaged (unknown column or item: {reason}); prepare the collection again"
        ) from None


def _groups(n: int, pairs: pd.DataFrame) -> np.ndarray:
    """Group pairs transitively: (n,) int64, the first row of each group."""
    if not len(pairs):
        return np.arange(n)
    links = (np.ones(len(pairs), bool), (pairs["row"].to_numpy(), pairs["other"].to_numpy()))
    n_groups, group = connected_components(coo_array(links, shape=(n, n)), directed=False)
    first = np.empty(n_groups, np.int64)
    first[group[::-1]] = np.arange(n)[::-1]  # of equal groups, the last assignment remains
    return first[group]
