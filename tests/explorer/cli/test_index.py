"""Test building and searching an index from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Sieve, fault

pytest.importorskip("qdrant_client")


def test_index_gives_the_results_of_the_codes(
    sieve: Sieve, home: Path, tiny_collection, tiny_checkpoint, tmp_path: Path
) -> None:
    address = f"qdrant://{tmp_path}/engine/tiny"
    given = (tiny_collection.path, "--checkpoint", tiny_checkpoint.path)
    command = ("search", *given, "a red circle", "--without", "the snow", "--json")
    assert "create it with `sieve index" in fault(sieve(*command, "--index", f"{address}-2"))
    first = sieve("index", *given, "--to", address, "--batch", 7, "--json")
    assert first.code == 0, first.err
    assert (first.data["items"], first.data["were_there"]) == (60, 0)
    again = sieve("index", *given, "--to", address, "--json").data
    assert (again["items"], again["were_there"]) == (60, 60)
    local = sieve(*command).data
    (home / "codes").rename(home / "elsewhere")
    found = sieve(*command, "--index", address).data
    made = [path.name for path in (home / "codes").rglob("*.npy")]
    assert "image_entries.npy" not in made, "only samples are encoded on this machine"
    assert found["off"] == local["off"] and found["off"]
    assert len(found["results"]) == len(local["results"]) == 10
    for ours, theirs in zip(local["results"], found["results"], strict=True):
        assert theirs["score"] == pytest.approx(ours["score"], abs=2e-6)
    contributions = {result["id"]: result["contributions"] for result in local["results"]}
    shared = [result for result in found["results"] if result["id"] in contributions]
    assert len(shared) >= 9, "ties aside"
    assert all(result["contributions"] == contributions[result["id"]] for result in shared)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("tiny", "expected the address of an index"),
        ("qdrant://me:secret@host/tiny", "QDRANT_API_KEY"),
        ("qdrant://127.0.0.1:9/tiny", "no answer from index"),
    ],
)
def test_invalid_index_addresses_are_rejected(
    sieve: Sieve, tiny_collection, tiny_checkpoint, address: str, message: str
) -> None:
    given = (tiny_collection.path, "--checkpoint", tiny_checkpoint.path)
    assert message in fault(sieve("index", *given, "--to", address))
    assert message in fault(sieve("search", *given, "red", "--index", address))
