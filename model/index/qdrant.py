"""Codes in Qdrant (https://qdrant.tech), for collections that one machine is too small for.

One point an item, its id the item's row: the code as a sparse vector, and as payload the item's id
and the dimensions above τ, with an index on these. One query answers a search, as Qdrant adds up
negative weights exactly (it only skips less of the postings then), and `never` is a filter on the
dimensions kept. Its index of sparse vectors is exact. One more point, without a vector and so never
found, remembers what the index is of. Sharding, replication and storage are Qdrant's affair: a
collection that was made empty with such a sparse vector before is uploaded to as it is.

Where an index is: `qdrant://HOST:PORT/NAME`, or a folder of this machine to try it with.

What an index is of: one collection's images, coded by one checkpoint.

Uploading codes to Qdrant in batches; an upload that was killed goes on where it was.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import SplitResult, quote, unquote, urlsplit

import numpy as np
from tqdm import tqdm

from sieve.model.checkpoint import Checkpoint
from sieve.model.codes import SparseCodes
from sieve.model.collection import Collection
from sieve.model.exclusion import Calibration, Query
from sieve.model.index.protocol import Found

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qdrant_client import QdrantClient, models

PORT = 6333
_FORM = "qdrant://HOST:6333/NAME, qdrants:// where it speaks TLS, or qdrant:///FOLDER/NAME"


class IndexAddress(NamedTuple):
    """Where an index is, and what it is called there."""

    url: str
    """Of the server; empty where it is a folder."""
    folder: str
    """Of this machine; empty where it is a server."""
    name: str

    @classmethod
    def parse(cls, text: str) -> IndexAddress:
        """Read an address.

        Parameters
        ----------
        text : str
            `qdrant://HOST:PORT/NAME` (port 6333 by default), `qdrants://…` for TLS, or
            `qdrant:///FOLDER/NAME`, which keeps everything in memory and a folder: to try it with.

        Raises
        ------
        ValueError
            If it is none of these.
        """
        try:
            parts = urlsplit(text.strip())
            server = _server(parts)
        except ValueError:
            parts, server = SplitResult("", "", "", "", ""), ""
        folder, _, name = unquote(parts.path).strip("/").rpartition("/")
        known = parts.scheme in ("qdrant", "qdrants") and not (parts.query or parts.fragment)
        if not (known and name and bool(server) != bool(folder)):
            raise ValueError(f"{text[:200]!r} is no address of an index; write {_FORM}")
        if parts.username is not None or parts.password is not None:
            raise ValueError("keep the key out of the index's address: set QDRANT_API_KEY")
        return cls(server, f"/{folder}" if folder else "", name)

    def __str__(self) -> str:
        folder = quote(self.folder)
        place = self.url.replace("http", "qdrant", 1) if self.url else f"qdrant://{folder}"
        return f"{place}/{quote(self.name)}"


def _server(parts: SplitResult) -> str:
    """Address of the server for its own protocol; empty where there is no host."""
    if not parts.hostname:
        return ""
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"http{'s' if parts.scheme == 'qdrants' else ''}://{host}:{parts.port or PORT}"


VERSION = 1
"""Of what an index holds; another version's is refused."""


@dataclass(frozen=True)
class IndexIdentity:
    """Names, hashes and calibration that an index remembers, and how far its upload is."""

    collection: str
    collection_sha256: str
    checkpoint: str
    checkpoint_sha256: str
    items: int
    m: int
    push: float
    threshold: float
    """τ: of each item the dimensions above it are kept, for `never`."""
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
            checkpoint.calibration.threshold,
        )

    @classmethod
    def read(cls, kept: Any) -> IndexIdentity | None:
        """Read what `written` wrote; None where it is something else."""
        parts = fields(cls)
        if not isinstance(kept, dict) or not all(_fits(kept.get(p.name), p.type) for p in parts):
            return None
        return cls(**{part.name: kept[part.name] for part in parts})

    def written(self) -> dict[str, Any]:
        """Tell it as plain data."""
        return asdict(self)

    def check(self, wanted: IndexIdentity, where: str) -> None:
        """Refuse an index of something else.

        Raises
        ------
        ValueError
            In one line that names both.
        """
        if self.version != wanted.version:
            raise ValueError(
                f"index {where} is of version {self.version}, this Sieve reads {wanted.version}; "
                "upload the codes under another name with `sieve index COLLECTION --to …`"
            )
        for what in ("collection", "checkpoint"):
            theirs, ours = (
                f"{getattr(one, what)} ({getattr(one, what + '_sha256')[:12]})"
                for one in (self, wanted)
            )
            if getattr(self, what + "_sha256") != getattr(wanted, what + "_sha256"):
                raise ValueError(
                    f"index {where} is of {what} {theirs}, but {ours} is opened; open that one, or "
                    "upload these codes under another name with `sieve index COLLECTION --to …`"
                )
        if (self.items, self.m) != (wanted.items, wanted.m):
            raise ValueError(
                f"index {where} says {self.items} items of {self.m} dimensions, the collection "
                f"{wanted.items} of {wanted.m}; upload it again under another name"
            )

    def check_calibration(self, calibration: Calibration, where: str) -> None:
        """Refuse a threshold that the index cannot answer with."""
        if calibration.threshold != self.threshold:
            raise ValueError(
                f"index {where} keeps what is above {self.threshold} for `never`, but "
                f"{calibration.threshold} is asked; upload the codes under another name"
            )


def _fits(value: object, kind: object) -> bool:
    """Whether a value that came from outside is of a field's type."""
    if kind == "str":
        return isinstance(value, str)
    if isinstance(value, bool) or not isinstance(value, int if kind == "int" else (int, float)):
        return False
    return math.isfinite(value)


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


BATCH = 1000


class Uploaded(NamedTuple):
    """What an upload did."""

    items: int
    """How many the index has now: all."""
    before: int
    """How many it had already."""


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
) -> Uploaded:
    """Put all codes into an index.

    Each batch is there before the index remembers it, so that what a killed upload repeats is at
    most one batch, which then overwrites itself.

    Parameters
    ----------
    client : QdrantClient
    name : str
        Of the collection in Qdrant; made where there is none.
    identity : IndexIdentity
        What the codes are of.
    codes : SparseCodes
    mean_positive : (m,) float32
    item_ids : sequence of str
        Of each row.
    where : str
        The index's address, for messages.
    batch : int
        Items a request.
    progress : bool
        Show a bar.

    Raises
    ------
    ValueError
        If the index holds something else, or does not answer.
    """
    if batch < 1:
        raise ValueError(f"a batch must have at least 1 item; got {batch}")
    with asking(where):
        before = _begin(client, name, identity, mean_positive, where)
        with tqdm(
            total=codes.n, initial=before, unit="item", unit_scale=True, disable=not progress
        ) as bar:
            for start in range(before, codes.n, batch):
                end = min(start + batch, codes.n)
                rows = range(start, end)
                points = _points(codes, rows, item_ids[start:end], identity.threshold)
                client.upsert(name, points, wait=True)
                client.set_payload(name, {"uploaded": end}, points=[ABOUT], wait=True)
                bar.update(len(rows))
    return Uploaded(codes.n, before)


def _begin(
    client: QdrantClient, name: str, identity: IndexIdentity, mean: np.ndarray, where: str
) -> int:
    """Make the index, or find out how far it is."""
    from qdrant_client import models

    if not client.collection_exists(name):
        client.create_collection(
            name,
            vectors_config={},
            sparse_vectors_config={CODE: models.SparseVectorParams()},
            on_disk_payload=True,
        )
    about = read_about(client, name)
    if about is not None:
        kept, uploaded = IndexIdentity.read(about), about.get("uploaded")
        if kept is None or not isinstance(uploaded, int) or not 0 <= uploaded <= kept.items:
            raise ValueError(f"{where} is no index of Sieve's; choose another name")
        kept.check(identity, where)
        return uploaded
    sparse = client.get_collection(name).config.params.sparse_vectors or {}
    if client.count(name, exact=True).count or CODE not in sparse:
        raise ValueError(f"{where} holds something else; choose another name")
    integers = models.IntegerIndexParams(
        type=models.IntegerIndexType.INTEGER, lookup=True, range=False
    )
    client.create_payload_index(name, HAS, integers, wait=True)
    about = {**identity.written(), "mean_positive": mean.tolist(), "uploaded": 0}
    client.upsert(name, [models.PointStruct(id=ABOUT, vector={}, payload=about)], wait=True)
    return 0


def _points(
    codes: SparseCodes, rows: range, item_ids: Sequence[str], threshold: float
) -> list[models.PointStruct]:
    """Make the points of some rows."""
    from qdrant_client import models

    points = []
    for row, item_id in zip(rows, item_ids, strict=True):
        dimensions, values = codes.row(row)
        vector = models.SparseVector(indices=dimensions.tolist(), values=values.tolist())
        has = dimensions[values > threshold].tolist()
        points.append(
            models.PointStruct(id=row, vector={CODE: vector}, payload={"id": item_id, HAS: has})
        )
    return points
