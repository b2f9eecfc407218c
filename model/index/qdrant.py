"""Sparse codes in Qdrant (https://qdrant.tech), for collections too large for one machine.

Each item is a point whose id is the item's row: its code is a sparse vector, and its payload holds
the item's id. A search is one query, and exact: Qdrant adds up negative weights. For `never`, more
points than wanted are requested, until enough of them are not left out. One more point, without a
vector and so never returned, stores which collection and checkpoint the codes are of, and how far
the upload is.

Sharding, replication and storage are configured in Qdrant: `upload` also fills an empty collection
that has a sparse vector `code`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import SplitResult, quote, unquote, urlsplit

import numpy as np
from pydantic import FiniteFloat, NonNegativeInt, TypeAdapter, ValidationError
from tqdm import tqdm

from sieve.model.checkpoint import Checkpoint
from sieve.model.codes import SparseCodes
from sieve.model.collection import Collection
from sieve.model.exclusion import Query
from sieve.model.index import Found

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qdrant_client import QdrantClient, models

PORT = 6333
VERSION = 1
"""Version of the stored data; other versions are refused."""
CODE = "code"
"""Name of the sparse vector."""
ABOUT = "51e7e000-0000-4000-8000-000000000001"
"""Id of the point that stores the identity: a UUID, as all other ids are row numbers."""
_OVERSAMPLING = 4
"""`never` requests this multiple of the wanted points first, then this multiple of those."""
_TIMEOUT_S = 60
_AGAIN = "upload the codes under another name with `sieve index COLLECTION --to …`"
_FORMS = "qdrant://HOST:6333/NAME, qdrants://… for TLS, or qdrant:///FOLDER/NAME"


class IndexAddress(NamedTuple):
    """Address of an index: a server or a folder, and the collection's name in it."""

    url: str
    """Of the server; empty if the index is in a folder."""
    folder: str
    """On this machine; empty if the index is on a server."""
    name: str

    @classmethod
    def parse(cls, text: str) -> IndexAddress:
        """Parse an address.

        It is `qdrant://HOST:PORT/NAME` (port 6333 by default), `qdrants://…` for TLS, or
        `qdrant:///FOLDER/NAME` for the client's own in-memory engine, which stores its data in a
        folder and is meant for trials. Raises a ValueError if it has another form, or contains a
        user name or a key.
        """
        server = ""
        try:
            parts = urlsplit(text.strip())
            if host := parts.hostname:
                host = f"[{host}]" if ":" in host else host
                secure = "s" if parts.scheme == "qdrants" else ""
                server = f"http{secure}://{host}:{parts.port or PORT}"
        except ValueError:
            parts = SplitResult("", "", "", "", "")
        folder, _, name = unquote(parts.path).strip("/").rpartition("/")
        is_plain = parts.scheme in ("qdrant", "qdrants") and not (parts.query or parts.fragment)
        if not (is_plain and name and bool(server) != bool(folder)):
            raise ValueError(f"expected the address of an index, {_FORMS}; got {text[:200]!r}")
        if parts.username is not None or parts.password is not None:
            raise ValueError(
                "the index's address must not contain a key; set QDRANT_API_KEY instead"
            )
        return cls(server, f"/{folder}" if folder else "", name)

    def __str__(self) -> str:
        folder = quote(self.folder)
        place = self.url.replace("http", "qdrant", 1) if self.url else f"qdrant://{folder}"
        return f"{place}/{quote(self.name)}"


@dataclass(frozen=True)
class IndexIdentity:
    """Collection and checkpoint whose codes an index holds."""

    collection: str
    collection_sha256: str
    checkpoint: str
    checkpoint_sha256: str
    items: int
    m: int
    push: FiniteFloat
    version: int = VERSION

    @classmethod
    def of(cls, collection: Collection, checkpoint: Checkpoint) -> IndexIdentity:
        """Identify the codes that a checkpoint makes of a collection."""
        return cls(
            collection.name,
            collection.sha256,
            checkpoint.path.resolve().name,
            checkpoint.sha256,
            collection.n_items,
            checkpoint.m,
            checkpoint.calibration.push,
        )

    def check(self, wanted: IndexIdentity, where: str) -> None:
        """Raise a ValueError that names both if an index holds other codes than the wanted ones."""
        if self.version != wanted.version:
            raise ValueError(
                f"index {where} has version {self.version}, but this Sieve reads version "
                f"{wanted.version}; {_AGAIN}"
            )
        for kind in ("collection", "checkpoint"):
            theirs, ours = (
                f"{getattr(one, kind)} ({getattr(one, kind + '_sha256')[:12]})"
                for one in (self, wanted)
            )
            if getattr(self, kind + "_sha256") != getattr(wanted, kind + "_sha256"):
                raise ValueError(
                    f"index {where} holds codes of {kind} {theirs}, but {ours} is open; open that "
                    f"one, or {_AGAIN}"
                )


@dataclass(frozen=True, kw_only=True)
class _StoredIndex(IndexIdentity):
    """Payload of the point that describes an index."""

    uploaded: NonNegativeInt
    mean_positive: list[FiniteFloat]


def connect(address: IndexAddress) -> QdrantClient:
    """Connect to a server, with the key in QDRANT_API_KEY, or open a folder.

    Raises a ValueError if qdrant-client is not installed, or another process has the folder open.
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
            url=address.url, api_key=key, timeout=_TIMEOUT_S, check_compatibility=False
        )
    except (RuntimeError, OSError) as error:
        raise ValueError(f"index {address} cannot be opened: {error}") from None


@contextmanager
def _request(where: str) -> Iterator[None]:
    """Turn a failed request into a ValueError of one line."""
    from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

    try:
        yield
    except ResponseHandlingException as error:
        raise ValueError(
            f"no answer from index {where} ({error.source or type(error.source).__name__}); check "
            "that the server is running and that the address is right"
        ) from None
    except UnexpectedResponse as error:
        hint = "; check QDRANT_API_KEY" if error.status_code in (401, 403) else ""
        body = " ".join(error.content.decode(errors="replace").split())[:200]
        raise ValueError(f"index {where} answers {error.status_code}: {body}{hint}") from None


def _read_stored(client: QdrantClient, name: str, where: str) -> _StoredIndex | None:
    """Read the description of an index; return None if there is none."""
    points = client.retrieve(name, [ABOUT], with_payload=True, with_vectors=False)
    try:
        return TypeAdapter(_StoredIndex).validate_python(points[0].payload) if points else None
    except ValidationError:
        raise ValueError(f"{where} was not written by Sieve; choose another name") from None


class QdrantIndex:
    """Complete index of one collection's codes by one checkpoint.

    Parameters
    ----------
    name : str
        Name of the collection in Qdrant.
    identity : IndexIdentity
        Expected identity of the codes.
    where : str
        The index's address, for messages.

    Raises
    ------
    FileNotFoundError
        If there is no such index.
    ValueError
        If the index holds other codes, is incomplete, or does not answer.
    """

    def __init__(
        self, client: QdrantClient, name: str, identity: IndexIdentity, where: str
    ) -> None:
        self._client, self._name, self._where = client, name, where
        with _request(where):
            if not client.collection_exists(name):
                raise FileNotFoundError(
                    f"there is no index {where}; create it with "
                    f"`sieve index COLLECTION --to {where}`"
                )
            stored = _read_stored(client, name, where)
        if stored is None:
            raise ValueError(f"{where} was not written by Sieve; choose another name")
        stored.check(identity, where)
        if stored.uploaded != stored.items:
            raise ValueError(
                f"index {where} has {stored.uploaded} of {stored.items} items; continue with "
                f"`sieve index {stored.collection} --to {where}`"
            )
        self.identity = stored
        self.mean_positive = np.array(stored.mean_positive, np.float32)
        if self.mean_positive.shape != (stored.m,):
            raise ValueError(f"index {where} is damaged; {_AGAIN}")

    @classmethod
    def open(cls, text: str, collection: Collection, checkpoint: Checkpoint) -> QdrantIndex:
        """Open the index of the codes of a collection and a checkpoint at an address."""
        address = IndexAddress.parse(text)
        identity = IndexIdentity.of(collection, checkpoint)
        return cls(connect(address), address.name, identity, str(address))

    def search(self, query: Query, top: int) -> Found:
        """Return the best rows that share a dimension with the query."""
        from qdrant_client import models

        factors = query.factors
        active = np.flatnonzero(factors)
        if top < 1 or not len(active):
            return self._found([])
        vector = models.SparseVector(indices=active.tolist(), values=factors[active].tolist())
        wanted = top if query.hides is None else _OVERSAMPLING * top
        among = None
        if query.among is not None:
            rows: list[Any] = np.flatnonzero(query.among).tolist()
            condition: Any = models.HasIdCondition(has_id=rows)
            among = models.Filter(must=condition)
        while True:
            with _request(self._where):
                answer = self._client.query_points(
                    self._name,
                    query=vector,
                    using=CODE,
                    query_filter=among,
                    limit=wanted,
                    with_payload=False,
                    with_vectors=[CODE],
                )
            found = self._found([point for point in answer.points if point.score])
            if query.hides is None:
                return found
            shown = np.flatnonzero(~query.hides(found.codes.by_row, found.rows))
            if len(shown) >= top or len(answer.points) < wanted:
                shown = shown[:top]
                return Found(found.rows[shown], found.scores[shown], found.codes.take(shown))
            wanted *= _OVERSAMPLING

    def code(self, row: int) -> np.ndarray:
        """Return the code of one row: (m,) float32."""
        with _request(self._where):
            points = self._client.retrieve(
                self._name, [row], with_payload=False, with_vectors=[CODE]
            )
        return self._codes(points).dense(0) if points else np.zeros(self.identity.m, np.float32)

    def _found(self, points: list[Any]) -> Found:
        """Convert an answer's points to arrays; ties by row."""
        points = sorted(points, key=lambda point: (-point.score, point.id))
        rows = np.array([point.id for point in points], np.int64)
        if len(rows) and not (rows.min() >= 0 and rows.max() < self.identity.items):
            raise ValueError(f"index {self._where} holds items that the collection does not have")
        scores = np.array([point.score for point in points], np.float32)
        return Found(rows, scores, self._codes(points))

    def _codes(self, points: list[Any]) -> SparseCodes:
        """Return the codes of points; raise a ValueError if one has none."""
        bare = [point.id for point in points if not (point.vector or {}).get(CODE)]
        if bare:
            raise ValueError(
                f"index {self._where} holds no code of item {bare[0]}; upload it again with "
                "`sieve index COLLECTION --to ADDRESS`"
            )
        vectors = [point.vector[CODE] for point in points]
        lengths = [len(vector.indices) for vector in vectors]
        indptr = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        indices = np.array([j for vector in vectors for j in vector.indices], np.int32)
        values = np.array([v for vector in vectors for v in vector.values], np.float32)
        return SparseCodes(indptr, indices, values, self.identity.m)


BATCH = 1000


class UploadReport(NamedTuple):
    """Numbers of items of an upload."""

    items: int
    """Items in the index now: all."""
    before: int
    """Items that were already in the index."""


def upload(
    client: QdrantClient,
    name: str,
    identity: IndexIdentity,
    codes: SparseCodes,
    mean_positive: np.ndarray,
    item_ids: Sequence[str],
    *,
    where: str,
    batch: int = BATCH,
    progress: bool = False,
) -> UploadReport:
    """Upload all codes to an index, which is created if it does not exist.

    Progress is stored after each batch, so an interrupted upload continues from the last batch.

    Parameters
    ----------
    client, name, identity, where
        As for `QdrantIndex`.
    codes : (n, m) SparseCodes
    mean_positive : (m,) float32
    item_ids : sequence of str
        Id of each row.
    batch : int
        Items per request.

    Raises
    ------
    ValueError
        If the index holds something else, or does not answer.
    """
    if batch < 1:
        raise ValueError(f"a batch must have at least 1 item; got {batch}")
    with _request(where):
        before = _begin(client, name, identity, mean_positive, where)
        with tqdm(
            total=codes.n, initial=before, unit="item", unit_scale=True, disable=not progress
        ) as bar:
            for start in range(before, codes.n, batch):
                rows = range(start, min(start + batch, codes.n))
                points = [_point(codes, row, item_ids[row]) for row in rows]
                client.upsert(name, points, wait=True)
                client.set_payload(name, {"uploaded": rows.stop}, points=[ABOUT], wait=True)
                bar.update(len(rows))
    return UploadReport(codes.n, before)


def _begin(
    client: QdrantClient, name: str, identity: IndexIdentity, mean: np.ndarray, where: str
) -> int:
    """Create the index if needed; return the number of items that it already has."""
    from qdrant_client import models

    if not client.collection_exists(name):
        client.create_collection(
            name,
            vectors_config={},
            sparse_vectors_config={CODE: models.SparseVectorParams()},
            on_disk_payload=True,
        )
    if stored := _read_stored(client, name, where):
        stored.check(identity, where)
        return stored.uploaded
    sparse = client.get_collection(name).config.params.sparse_vectors or {}
    if client.count(name, exact=True).count or CODE not in sparse:
        raise ValueError(f"{where} holds something else; choose another name")
    about = {**asdict(identity), "mean_positive": mean.tolist(), "uploaded": 0}
    client.upsert(name, [models.PointStruct(id=ABOUT, vector={}, payload=about)], wait=True)
    return 0


def _point(codes: SparseCodes, row: int, item_id: str) -> models.PointStruct:
    from qdrant_client import models

    dimensions, values = codes.row(row)
    vector = models.SparseVector(indices=dimensions.tolist(), values=values.tolist())
    return models.PointStruct(id=row, vector={CODE: vector}, payload={"id": item_id})
