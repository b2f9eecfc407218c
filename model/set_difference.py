"""Concepts that distinguish one set of items from another.

A concept distinguishes two sets if it is active in different shares of their items. Shares are
compared by Fisher's exact test, corrected for the number of concepts by the false discovery rate
(Benjamini & Hochberg 1995); their difference has Newcombe's interval (1998, hybrid score).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from sieve.model.codes import shape_of
from sieve.model.engine import SearchEngine
from sieve.model.item_filter import ItemFilter
from sieve.model.query_parser import shortened

N_EXAMPLES = 6
FALSE_DISCOVERIES = 0.05
"""Expected share of wrong findings among those called significant."""
MIN_ITEMS = 5
"""Minimum number of items of a set."""


class SetDifference(NamedTuple):
    """Two sets of items, and the concepts that distinguish them."""

    left: np.ndarray
    """(a,) int64: rows that are only in the first set"""
    right: np.ndarray
    """(b,) int64: rows that are only in the second set"""
    shared: int
    """Number of items in both sets, which count in neither."""
    concepts: pd.DataFrame
    """concept, name; left_rate and right_rate, the shares of items in which it is active;
    difference of the rates, with low and high, its 95% interval; q, the false discovery rate at
    which the difference is significant; left_mean and right_mean activation over the items of each
    set. Significant differences come first, the largest first."""

    @property
    def significant(self) -> pd.DataFrame:
        """Concepts whose rates differ significantly."""
        return self.concepts.loc[self.concepts["q"] <= FALSE_DISCOVERIES]


def select_items(engine: SearchEngine, text: str) -> np.ndarray:
    """Return the rows of a set of items, ascending: (n,) int64.

    Parameters
    ----------
    engine : SearchEngine
    text : str
        A filter such as `label:dog split:test`, or `all`: see `sieve.model.item_filter`.

    Raises
    ------
    ValueError
        If the text is no filter, or selects nothing.
    """
    if not text.strip():
        raise ValueError("a set of items is empty; give all, or a filter such as label:dog")
    mask = engine.facets.mask(text)
    rows = np.arange(engine.collection.n_items) if mask is None else np.flatnonzero(mask)
    if not len(rows):
        raise ValueError(f"{text[:60]!r} selects no item of collection {engine.collection.name}")
    return rows


def set_title(text: str) -> str:
    """Return a short title of a set, given as for `select_items`; "" for an empty text.

    Examples
    --------
    >>> set_title("label:dog split:test"), set_title("map:0.1,0.2,0.3,0.4,0.5,0.6")
    ('dog split test', 'selection')
    """
    titles = [facet.title for facet in ItemFilter.parse(text).facets]
    return shortened(" ".join(titles) or text.strip())


def compare_sets(engine: SearchEngine, first: str, second: str = "") -> SetDifference:
    """Find the concepts that distinguish two sets of items, given as for `select_items`.

    Without a second set, it is all items that are not in the first. Items in both count in neither.
    Raises a ValueError if a set has fewer than `MIN_ITEMS` items of its own.
    """
    from scipy.stats import false_discovery_control  # slow to import

    left = select_items(engine, first)
    everything = np.arange(engine.collection.n_items)
    right = select_items(engine, second) if second.strip() else np.setdiff1d(everything, left)
    shared = np.intersect1d(left, right)
    left, right = np.setdiff1d(left, shared), np.setdiff1d(right, shared)
    if min(len(left), len(right)) < MIN_ITEMS:
        raise ValueError(
            f"each set needs at least {MIN_ITEMS} items that the other does not have; got "
            f"{len(left)} and {len(right)}, and {len(shared)} in both"
        )
    leading, codes = engine.concepts.sum(engine.image_codes.by_row)
    columns = [_rates_and_means(codes[rows]) for rows in (left, right)]
    (left_counts, left_mean), (right_counts, right_mean) = columns
    active = (left_counts + right_counts) > 0
    rates = [
        _difference(int(a), len(left), int(b), len(right))
        for a, b in zip(left_counts[active], right_counts[active], strict=True)
    ]
    table = pd.DataFrame(rates, columns=["left_rate", "right_rate", "low", "high", "p"])
    names = engine.names()
    chosen = leading[active].tolist()
    table = pd.DataFrame(
        {
            "concept": chosen,
            "name": [names.concept(j)[1] for j in chosen],
            "left_rate": table["left_rate"],
            "right_rate": table["right_rate"],
            "difference": table["left_rate"] - table["right_rate"],
            "low": table["low"],
            "high": table["high"],
            "q": false_discovery_control(table["p"]),
            "left_mean": left_mean[active],
            "right_mean": right_mean[active],
        }
    )
    order = np.lexsort((-table["difference"].abs(), table["q"] > FALSE_DISCOVERIES))
    return SetDifference(left, right, len(shared), table.iloc[order].reset_index(drop=True))


def strongest_items(
    engine: SearchEngine, concept: int, rows: np.ndarray, most: int = N_EXAMPLES
) -> list[int]:
    """Return the rows of a set in which a concept is strongest, at most `most`."""
    members = engine.concepts.members(concept)
    values = np.asarray(engine.image_codes.by_row[rows][:, members].sum(1)).ravel()
    order = np.argsort(-values, kind="stable")[:most]
    return rows[order[values[order] > 0]].tolist()


def _rates_and_means(codes: csr_array) -> tuple[np.ndarray, np.ndarray]:
    n, width = shape_of(codes)
    return np.bincount(codes.indices, minlength=width), np.asarray(codes.sum(0)).ravel() / n


def _difference(a: int, n_a: int, b: int, n_b: int) -> tuple[float, float, float, float, float]:
    """Return two rates, the interval of their difference, and the p value of Fisher's test."""
    from scipy.stats import binomtest, fisher_exact  # slow to import

    left, right = a / n_a, b / n_b
    (low_a, high_a), (low_b, high_b) = (
        binomtest(count, n).proportion_ci(method="wilson") for count, n in ((a, n_a), (b, n_b))
    )
    gap = left - right
    low = gap - np.hypot(left - low_a, high_b - right)
    high = gap + np.hypot(high_a - left, right - low_b)
    p: float = fisher_exact([[a, n_a - a], [b, n_b - b]])[1]  # type: ignore[assignment]
    return left, right, float(low), float(high), float(p)
