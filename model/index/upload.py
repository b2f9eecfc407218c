"""Uploading codes to Qdrant in batches; an upload that was killed goes on where it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from tqdm import tqdm

from sieve.model.codes import SparseCodes
from sieve.model.index.identity import IndexIdentity
from sieve.model.index.qdrant import ABOUT, CODE, HAS, asking, read_about

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qdrant_client import QdrantClient, models

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
