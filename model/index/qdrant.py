"""Codes in Qdrant (https://qdrant.tech), for collections that one machine is too small for.

One point an item, its id the item's row: the code as a sparse vector, and as payload the item's id
and the dimensions above τ, with an index on these. One query answers a search, as Qdrant adds up
negative weights exactly (it only skips less of the postings then), and `never` is a filter on the
dimensions kept. Its index of sparse vectors is exact. One more point, without a vector and so never
found, remembers what the index is of. Sharding, replication and storage are Qdrant's affair: a
collection that was made empty with such a sparse vector before is uploaded to as it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from sieve.model.checkpoint import Checkpoint
from sieve.model.codes import SparseCodes
from sieve.model.collection import Collection
from sieve.model.exclusion import Query
from sieve.model.index.address import IndexAddress
from sieve.model.index.identity import IndexIdentity
from sieve.model.index.protocol import Found

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

CODE = "code"
"""Name of the sparse vector."""
HAS = "has"
"""Name of the payload that lists the dimensions above τ."""
ABOUT = "51e7e000-0000-4000-8000-000000000001"
"""Id of the point that says what the index is of: a UUID, as rows are numbers."""
_TIMEOUT = 60


def connect(address: IndexAddress) -> QdrantClient:
    """Reach a server, or open a folder; the key of a server is read from QDRANT_API_KEY.

    Raises
    ------
    ValueError
        If the extra is not installed, or another process has the folder open.
    """
    try:
        from qdrant_client import QdrantClient
    except ImportError:
        raise ValueError(
            "an index in Qdrant needs qdrant-client: pip install 'sieve-explorer[qdrant]'"
        ) from None
    try:
        if address.folder:
            return QdrantClient(path=address.folder, force_disable_check_same_thread=True)
        key = os.environ.get("QDRANT_API_KEY") or None
        return QdrantClient(
            url=address.url, api_key=key, timeout=_TIMEOUT, check_compatibility=False
        )
    except (RuntimeError, OSError) as error:
        raise ValueError(f"index {address} cannot be opened: {error}") from None


@contextmanager
def asking(where: str) -> Iterator[None]:
    """Tell what goes wrong with the engine in one line.

    Raises
    ------
    ValueError
    """
    from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

    try:
        yield
    except ResponseHandlingException as error:
        raise ValueError(
            f"no answer from index {where} ({error.source or type(error.source).__name__}); is the "
            "server running, and is that its address?"
        ) from None
    except UnexpectedResponse as error:
        hint = "; is QDRANT_API_KEY right?" if error.status_code in (401, 403) else ""
        told = " ".join(error.content.decode(errors="replace").split())[:200]
        raise ValueError(f"index {where} answers {error.status_code}: {told}{hint}") from None


def read_about(client: QdrantClient, name: str) -> dict[str, Any] | None:
    """Read what an index remembers; None where it is none of Sieve's."""
    points = client.retrieve(name, [ABOUT], with_payload=True, with_vectors=False)
    return dict(points[0].payload or {}) if points else None


class QdrantIndex:
    """An opened index, complete and of the collection and checkpoint that are opened with it.

    Parameters
    ----------
    client : QdrantClient
    name : str
        Of the collection in Qdrant.
    identity : IndexIdentity
        What it must be of.
    where : str
        Its address, for messages.

    Raises
    ------
    FileNotFoundError
        If there is no such index.
    ValueError
        If it is of something else, not whole, or does not answer.
    """

    def __init__(
        self, client: QdrantClient, name: str, identity: IndexIdentity, where: str
    ) -> None:
        self._client, self._name, self._where = client, name, where
        with asking(where):
            there = client.collection_exists(name)
            about = read_about(client, name) if there else None
        if not there:
            raise FileNotFoundError(
                f"there is no index {where}; make it with `sieve index COLLECTION --to {where}`"
            )
        kept = IndexIdentity.read(about)
        if about is None or kept is None:
            raise ValueError(f"{where} is no index of Sieve's; choose another name")
        kept.check(identity, where)
        uploaded = about.get("uploaded")
        if uploaded != kept.items:
            raise ValueError(
                f"index {where} has {uploaded} of {kept.items} items; go on with "
                f"`sieve index {kept.collection} --to {where}`"
            )
        self.identity = kept
        self.mean_positive = _numbers(about.get("mean_positive"))
        if self.mean_positive.shape != (kept.m,):
            raise ValueError(f"index {where} is damaged; upload the codes under another name")

    @classmethod
    def open(cls, text: str, collection: Collection, checkpoint: Checkpoint) -> QdrantIndex:
        """Open the index at an address.

        Parameters
        ----------
        text : str
            See `IndexAddress.parse`.
        collection, checkpoint
            What it must be of.
        """
        address = IndexAddress.parse(text)
        identity = IndexIdentity.of(collection, checkpoint)
        return cls(connect(address), address.name, identity, str(address))

    def search(self, query: Query, top: int) -> Found:
        """Find the best rows that share a dimension with the query."""
        from qdrant_client import models

        m = self.identity.m
        if len(query.code) != m:
            raise ValueError(f"the query has {len(query.code)} dimensions, the codes {m}")
        factors = query.factors
        asked = np.flatnonzero(factors)
        if top < 1 or not len(asked):
            return self._found([])
        without = None
        if query.never and query.off:
            self.identity.check_calibration(query.calibration, self._where)
            off = models.FieldCondition(key=HAS, match=models.MatchAny(any=list(query.off)))
            without = models.Filter(must_not=[off])
        vector = models.SparseVector(indices=asked.tolist(), values=factors[asked].tolist())
        with asking(self._where):
            answer = self._client.query_points(
                self._name,
                query=vector,
                using=CODE,
                query_filter=without,
                limit=top,
                with_payload=False,
                with_vectors=[CODE],
            )
        return self._found([point for point in answer.points if point.score])

    def code(self, row: int) -> np.ndarray:
        """One row's code with its zeros: (m,) float32."""
        with asking(self._where):
            points = self._client.retrieve(
                self._name, [row], with_payload=False, with_vectors=[CODE]
            )
        return self._codes(points).dense(0) if points else np.zeros(self.identity.m, np.float32)

    def _found(self, points: list[Any]) -> Found:
        """Put what came back into arrays; equal scores by row."""
        points = sorted(points, key=lambda point: (-point.score, point.id))
        rows = np.array([point.id for point in points], np.int64)
        if len(rows) and not (rows.min() >= 0 and rows.max() < self.identity.items):
            raise ValueError(f"index {self._where} holds items that the collection has not")
        scores = np.array([point.score for point in points], np.float32)
        return Found(rows, scores, self._codes(points))

    def _codes(self, points: list[Any]) -> SparseCodes:
        """Read the codes that came back with points; ValueError where one came without."""
        bare = [point.id for point in points if not (point.vector or {}).get(CODE)]
        if bare:
            raise ValueError(
                f"index {self._where} holds no code of item {bare[0]}; upload it anew with "
                "`sieve index COLLECTION --to ADDRESS`"
            )
        vectors = [point.vector[CODE] for point in points]
        lengths = [len(vector.indices) for vector in vectors]
        indptr = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        indices = np.array([j for vector in vectors for j in vector.indices], np.int32)
        values = np.array([v for vector in vectors for v in vector.values], np.float32)
        return SparseCodes(indptr, indices, values, self.identity.m)


def _numbers(kept: Any) -> np.ndarray:
    """Read a list of finite numbers: (x,) float32; (0,) where it is something else."""
    try:
        numbers = np.array(kept, np.float32)
    except (TypeError, ValueError):
        return np.zeros(0, np.float32)
    return numbers if np.isfinite(numbers).all() else np.zeros(0, np.float32)
