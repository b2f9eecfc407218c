from __future__ import annotations

import sys

import pytest

from sieve.model.index.qdrant import IndexAddress, connect


@pytest.mark.parametrize(
    ("text", "url", "folder", "name", "normalised"),
    [
        ("qdrant://host/a", "http://host:6333", "", "a", "qdrant://host:6333/a"),
        ("qdrant://host:7000/a", "http://host:7000", "", "a", "qdrant://host:7000/a"),
        ("qdrants://host:443/a", "https://host:443", "", "a", "qdrants://host:443/a"),
        ("qdrant://[::1]:6333/a", "http://[::1]:6333", "", "a", "qdrant://[::1]:6333/a"),
        ("qdrant:///tmp/here/a", "", "/tmp/here", "a", "qdrant:///tmp/here/a"),
        ("qdrant:///a%20b/c%3F/d", "", "/a b/c?", "d", "qdrant:///a%20b/c%3F/d"),
        ("qdrant://host/a%23b", "http://host:6333", "", "a#b", "qdrant://host:6333/a%23b"),
    ],
)
def test_addresses_are_parsed(text: str, url: str, folder: str, name: str, normalised: str) -> None:
    address = IndexAddress.parse(text)
    assert address == IndexAddress(url, folder, name)
    assert str(address) == normalised and IndexAddress.parse(normalised) == address


@pytest.mark.parametrize(
    "text",
    [
        "", "photos", "http://host:6333/a", "qdrant://host:6333", "qdrant://host:6333/", "qdrant:a",
        "qdrant://host:port/a", "qdrant://host:99999/a", "qdrant://host/a/b", "qdrant:///a",
        "qdrant://host/a?x=1", "qdrant://host/a#b", "qdrant://[::1/a",
    ],
)  # fmt: skip
def test_other_texts_are_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="expected the address of an index, qdrant://HOST"):
        IndexAddress.parse(text)


def test_key_in_an_address_is_rejected() -> None:
    with pytest.raises(ValueError, match="QDRANT_API_KEY") as refused:
        IndexAddress.parse("qdrant://me:secret@host/a")
    assert "secret" not in str(refused.value)


def test_missing_qdrant_client_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "qdrant_client", None)
    with pytest.raises(ValueError, match=r"pip install 'sieve-explorer\[qdrant\]'"):
        connect(IndexAddress.parse("qdrant://host/a"))
