from __future__ import annotations

import sys

import pytest

from sieve.model.index.qdrant import IndexAddress, connect


@pytest.mark.parametrize(
    ("text", "url", "folder", "name", "told"),
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
def test_addresses(text: str, url: str, folder: str, name: str, told: str) -> None:
    address = IndexAddress.parse(text)
    assert address == IndexAddress(url, folder, name)
    assert str(address) == told and IndexAddress.parse(told) == address


@pytest.mark.parametrize(
    "text",
    [
        "", "photos", "http://host:6333/a", "qdrant://host:6333", "qdrant://host:6333/", "qdrant:a",
        "qdrant://host:port/a", "qdrant://host:99999/a", "qdrant://host/a/b", "qdrant:///a",
        "qdrant://host/a?x=1", "qdrant://host/a#b", "qdrant://[::1/a",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no address of an index; write qdrant://HOST"):
        IndexAddress.parse(text)


def test_a_key_does_not_belong_into_it() -> None:
    with pytest.raises(ValueError, match="QDRANT_API_KEY") as refused:
        IndexAddress.parse("qdrant://me:secret@host/a")
    assert "secret" not in str(refused.value)


def test_the_extra_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "qdrant_client", None)
    with pytest.raises(ValueError, match=r"pip install 'sieve-explorer\[qdrant\]'"):
        connect(IndexAddress.parse("qdrant://host/a"))
