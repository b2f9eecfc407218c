"""Items of a collection that show the same picture, as its `duplicates.csv` lists them."""

from __future__ import annotations

import csv
from collections.abc import Collection as AnyOf

import numpy as np

from sieve.model.collection import DUPLICATES, Collection

SAME, NEAR = "same", "near"
KINDS = (SAME, NEAR)
"""`same`: equal pictures. `near`: embeddings of at least cosine .97, such as another encoding."""

_USED_FOR = ("train", "select", "test")


def duplicate_groups(collection: Collection, kinds: AnyOf[str] = KINDS) -> np.ndarray:
    """Return for each item the first row of its group of duplicates.

    Groups are transitive: copies of copies belong together. An item without duplicates is its own
    group, and so is every item of a collection without `duplicates.csv` (codes, or one shard).

    Parameters
    ----------
    collection : Collection
    kinds : collection of str
        `same` and `near`, or one of them.

    Returns
    -------
    (n,) int64
        Rows; `groups[row] <= row`.

    Raises
    ------
    ValueError
        If the file is damaged.
    """
    first = np.arange(collection.n_items)
    path = collection.path / DUPLICATES
    if DUPLICATES not in collection.manifest["files"]:
        return first
    collection.checked(DUPLICATES)
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            for entry in csv.DictReader(stream):
                if entry["kind"] in kinds:
                    row = collection.row_of_id[entry["id"]]
                    other = collection.row_of_id[entry["duplicate_of"]]
                    one, two = sorted((_root(first, row), _root(first, other)))
                    first[two] = one
    except (KeyError, csv.Error, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:80]
        raise ValueError(
            f"{path} is damaged (unknown column or item: {reason}); prepare the collection again"
        ) from None
    for row in np.flatnonzero(first != np.arange(len(first))):
        first[row] = _root(first, row)
    return first


def evaluation_rows(collection: Collection, split: str) -> np.ndarray:
    """Return the items of a split that resemble no item of a split used before it.

    A test item that is equal or near to a train or select item would be measured on what was
    trained or tuned on, and so would a select item that is near to a train item. `train` is
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
    """
    rows = collection.rows_of_split([split])
    before = collection.rows_of_split(_USED_FOR[: _USED_FOR.index(split)])
    if not len(rows) or not len(before):
        return rows
    groups = duplicate_groups(collection)
    return rows[~np.isin(groups[rows], groups[before])]


def n_dropped(collection: Collection, split: str) -> int:
    """Count the items of a split that `evaluation_rows` leaves out."""
    return len(collection.rows_of_split([split])) - len(evaluation_rows(collection, split))


def _root(first: np.ndarray, row: int) -> int:
    while first[row] != row:
        first[row] = first[first[row]]
        row = int(first[row])
    return row
