"""Test interrupted uploads, indexes of other codes, and unreachable servers."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from test_contract import CODES, IDENTITY, IDS, MEAN

from sieve.model.index.qdrant import (
    ABOUT,
    CODE,
    IndexAddress,
    IndexIdentity,
    QdrantIndex,
    UploadReport,
    connect,
    upload,
)

qdrant_client = pytest.importorskip("qdrant_client")


@pytest.fixture
def client() -> Any:
    return qdrant_client.QdrantClient(":memory:")


def put(client: Any, identity: IndexIdentity = IDENTITY, batch: int = 30) -> UploadReport:
    return upload(client, "photos", identity, CODES, MEAN, IDS, where="here", batch=batch)


class Stopped(Exception):
    pass


def stop_at(client: Any, monkeypatch: pytest.MonkeyPatch, method: str, call: int) -> list[int]:
    """Raise `Stopped` at the given call; returns the sizes of the uploads before it."""
    real: Callable[..., Any] = getattr(client, method)
    sizes: list[int] = []

    def counted(name: str, *arguments: Any, **more: Any) -> Any:
        if len(sizes) == call:
            raise Stopped
        sizes.append(len(arguments[0]))
        return real(name, *arguments, **more)

    monkeypatch.setattr(client, method, counted)
    return sizes


@pytest.mark.parametrize("method", ["upsert", "set_payload"])
def test_interrupted_upload_is_reported_and_resumes(
    client: Any, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    with monkeypatch.context() as patch:
        stop_at(client, patch, method, 3)
        with pytest.raises(Stopped):
            put(client)
    with pytest.raises(ValueError, match=r"has \d+ of 160 items; continue with"):
        QdrantIndex(client, "photos", IDENTITY, "here")
    sizes = stop_at(client, monkeypatch, "upsert", 100)
    done = put(client)
    assert 0 < done.before == 160 - sum(sizes)
    assert client.count("photos").count == 160 + 1
    index = QdrantIndex(client, "photos", IDENTITY, "here")
    assert (index.code(100) == CODES.dense(100)).all()
    assert put(client) == UploadReport(160, 160)


def test_point_has_the_id_of_its_item(client: Any) -> None:
    put(client)
    (point,) = client.retrieve("photos", [5])
    assert point.payload == {"id": IDS[5]}


def test_index_of_an_earlier_release_is_read(client: Any) -> None:
    put(client)
    client.set_payload("photos", {"threshold": 0.25}, points=[ABOUT])
    client.set_payload("photos", {"has": [1, 2]}, points=[5])
    index = QdrantIndex(client, "photos", IDENTITY, "here")
    assert (index.code(5) == CODES.dense(5)).all()


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ({"collection": "cats", "collection_sha256": "c" * 64}, "cats (cccccccccccc)"),
        ({"checkpoint": "wide", "checkpoint_sha256": "d" * 64}, "wide (dddddddddddd)"),
    ],
)
def test_index_of_other_codes_is_rejected_with_both_names(
    client: Any, other: dict[str, str], expected: str
) -> None:
    put(client)
    wanted = replace(IDENTITY, **other)
    for attempt in (
        lambda: QdrantIndex(client, "photos", wanted, "here"),
        lambda: put(client, wanted),
    ):
        with pytest.raises(ValueError) as refused:
            attempt()
        message = str(refused.value)
        assert expected in message and "\n" not in message
        assert "photos (aaaaaaaaaaaa)" in message or "codes (bbbbbbbbbbbb)" in message


def test_collection_of_another_program_is_not_changed(client: Any) -> None:
    from qdrant_client import models

    sparse = {CODE: models.SparseVectorParams()}
    client.create_collection("photos", vectors_config={}, sparse_vectors_config=sparse)
    vector = {CODE: models.SparseVector(indices=[1], values=[1.0])}
    client.upsert("photos", [models.PointStruct(id=1, vector=vector)])
    with pytest.raises(ValueError, match="here holds something else; choose another name"):
        put(client)
    with pytest.raises(ValueError, match="not written by Sieve"):
        QdrantIndex(client, "photos", IDENTITY, "here")
    assert client.count("photos").count == 1


def test_existing_empty_collection_is_filled(client: Any) -> None:
    from qdrant_client import models

    sparse = {CODE: models.SparseVectorParams(index=models.SparseIndexParams(on_disk=True))}
    client.create_collection("photos", vectors_config={}, sparse_vectors_config=sparse)
    assert put(client) == UploadReport(160, 0)


@pytest.mark.parametrize("field", ["collection", "items", "uploaded", "mean_positive", "push"])
def test_damaged_identity_is_rejected(client: Any, field: str) -> None:
    put(client)
    client.set_payload("photos", {field: [["<b>"]]}, points=[ABOUT])
    with pytest.raises(ValueError, match=r"not written by Sieve|is damaged|has .* of 160 items"):
        QdrantIndex(client, "photos", IDENTITY, "here")


def test_item_without_a_code_is_reported(client: Any) -> None:
    put(client)
    client.delete_vectors("photos", vectors=[CODE], points=[7])
    index = QdrantIndex(client, "photos", IDENTITY, "here")
    with pytest.raises(ValueError, match="here holds no code of item 7; upload it again"):
        index.code(7)


def test_missing_index_is_reported(client: Any) -> None:
    with pytest.raises(FileNotFoundError, match="no index here; create it with `sieve index"):
        QdrantIndex(client, "photos", IDENTITY, "here")


def test_unreachable_server_is_reported_with_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = IndexAddress.parse(f"qdrant://127.0.0.1:{taken.getsockname()[1]}/photos")
        with pytest.raises(ValueError, match="no answer from index qdrant://127") as gone:
            QdrantIndex(connect(address), address.name, IDENTITY, str(address))
    assert "\n" not in str(gone.value)


def test_folder_locked_by_another_process_is_reported(tmp_path: Any) -> None:
    address = IndexAddress.parse(f"qdrant://{tmp_path}/photos")
    first = connect(address)
    with pytest.raises(ValueError, match="cannot be opened"):
        connect(address)
    first.close()
