"""Baselines of the search benchmark, which all run the same queries.

An engine returns the best rows of a query and their scores. The exact engines return Sieve's
results; for the approximate and the dense ones, the share of Sieve's results found is reported.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Protocol

import faiss
import numpy as np

from sieve.model.codes import SparseCodes
from sieve.model.exclusion import Hits, Query, best

Search = Callable[[Query], Hits]


class SearchEngine(Protocol):
    """A search engine with its index built."""

    name: str
    exact: bool

    def search(self, query: Query, top: int) -> Hits:
        """Return the best rows and their scores."""
        ...


def signed(query: Query) -> np.ndarray:
    """Return a query as one vector, negative where dimensions are off: (m,) float32."""
    vector = query.code.copy()
    vector[list(query.off)] = -query.push * np.array(query.weights, np.float32)
    return vector


def removed(codes: SparseCodes, query: Query) -> np.ndarray:
    """Return the rows that `never` excludes: (n,) bool."""
    if query.hides is None:
        return np.zeros(codes.n, bool)
    return query.hides(codes.by_row, np.arange(codes.n))


class FlatCodes:
    """Exhaustive inner product of FAISS over the dense form of the codes."""

    name, exact = "FAISS flat, codes", True

    def __init__(self, codes: SparseCodes, block: int = 1 << 14) -> None:
        self._codes = codes
        self._index = faiss.IndexFlatIP(codes.m)
        for start in range(0, codes.n, block):
            self._index.add(codes.by_row[start : start + block].toarray())

    def search(self, query: Query, top: int) -> Hits:
        """Return the best rows and their scores."""
        return _search_index(self._index, signed(query), top, removed(self._codes, query))


class RowProduct:
    """Product of all codes (CSR) with the query in scipy."""

    name, exact = "scipy CSR", True

    def __init__(self, codes: SparseCodes) -> None:
        self._codes = codes

    def search(self, query: Query, top: int) -> Hits:
        """Return the best rows and their scores."""
        total = np.asarray(self._codes.by_row @ signed(query))
        total[removed(self._codes, query)] = -np.inf
        return best(total, top)


class Dense:
    """FAISS over dense vectors of `d` numbers, as in search without sparse codes.

    The vectors are a random projection of the codes, which approximately preserves their inner
    products. Only the time is of interest: a dense method would learn another projection.
    """

    exact = False

    def __init__(
        self, codes: SparseCodes, factory: str, d: int = 512, block: int = 1 << 14
    ) -> None:
        random = np.random.default_rng(0)
        self.name = f"FAISS {factory}, dense"
        self._codes = codes
        self._map = (random.standard_normal((codes.m, d)) / np.sqrt(d)).astype(np.float32)
        self._index = faiss.index_factory(d, factory, faiss.METRIC_INNER_PRODUCT)
        if not self._index.is_trained:
            sample = random.permutation(codes.n)[: 1 << 16]
            self._index.train(codes.by_row[np.sort(sample)] @ self._map)
        for start in range(0, codes.n, block):
            self._index.add(codes.by_row[start : start + block] @ self._map)

    def search(self, query: Query, top: int) -> Hits:
        """Return the best rows and their scores; `never` is an IDSelector."""
        return _search_index(
            self._index, signed(query) @ self._map, top, removed(self._codes, query)
        )


class Seismic:
    """pyseismic-lsr's approximate index of sparse vectors.

    It does not support negative weights: it retrieves four times as many rows without the
    dimensions that are off, which are then sorted by their exact scores.
    """

    name, exact = "pyseismic-lsr", False

    def __init__(self, codes: SparseCodes) -> None:
        seismic = import_module("seismic")  # not in an extra: pip install pyseismic-lsr
        self._codes, self._text = codes, seismic.get_seismic_string()
        data = seismic.SeismicDataset()
        rows = codes.by_row
        data.add_documents_by_id(
            list(map(str, range(codes.n))),
            rows.indices.astype(np.int64),
            rows.data,
            rows.indptr.astype(np.int64),
        )
        self._index = seismic.SeismicIndex.build_from_dataset(data)

    def search(self, query: Query, top: int) -> Hits:
        """Return the best of the retrieved rows and their scores."""
        weights = query.code.copy()
        weights[list(query.off)] = 0
        on = np.flatnonzero(weights)
        found = self._index.search(
            "q",
            np.array(list(map(str, on)), self._text),
            weights[on],
            k=top * (4 if query.off else 1),
            query_cut=len(on),
            heap_factor=0.9,
        )
        rows = np.sort(np.array([int(row) for _, _, row in found], np.int64))
        total = np.asarray(self._codes.by_row[rows] @ signed(query))
        total[removed(self._codes, query)[rows]] = -np.inf
        hits = best(total, top)
        return Hits(rows[hits.rows], hits.scores)


def _search_index(index: faiss.Index, vector: np.ndarray, top: int, out: np.ndarray) -> Hits:
    """Search an index; a bitmap excludes rows."""
    settings = None
    if out.any():
        bits = np.packbits(~out, bitorder="little")
        selector = faiss.IDSelectorBitmap(bits)  # type: ignore[call-issue]
        kind = {
            faiss.IndexIVFFlat: faiss.SearchParametersIVF,
            faiss.IndexHNSWFlat: faiss.SearchParametersHNSW,  # type: ignore[attr-defined]
        }.get(type(index), faiss.SearchParameters)
        settings = kind(sel=selector)
        if isinstance(index, faiss.IndexIVFFlat):
            settings.nprobe = index.nprobe
    scores, rows = index.search(vector[None].astype(np.float32), top, params=settings)
    found = rows[0] >= 0
    return Hits(rows[0][found], scores[0][found])
