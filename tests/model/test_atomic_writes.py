"""Test atomic writes: a file or folder is complete when it has its final name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sieve.model.files import atomic_file, atomic_folder, claim_name, temporary_beside


def test_concurrent_writers_do_not_mix(tmp_path: Path) -> None:
    target = tmp_path / "made"
    with (
        pytest.raises(FileExistsError, match="another process"),
        atomic_folder(target) as first,
        atomic_folder(target) as second,
    ):
        (first / "first").touch()
        (second / "second").touch()
    assert [path.name for path in target.iterdir()] == ["second"]
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_failed_writer_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "made") as draft:
        (draft / "part").touch()
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_file_is_replaced_only_when_complete(tmp_path: Path) -> None:
    path = tmp_path / "curve.json"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_file(path) as draft:
        draft.write_text("ne")
        raise RuntimeError
    assert path.read_text() == "old"
    with atomic_file(path) as draft:
        assert draft.parent == tmp_path and draft.suffix == ".json" and path.read_text() == "old"
        draft.write_text("new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("links", [True, False])
def test_existing_name_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no links")))
    path = tmp_path / "made.json"
    for word, taken in (("first", True), ("second", False)):
        with temporary_beside(path) as draft:
            draft.write_text(word)
            assert claim_name(draft, path) is taken
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("umask", [0o077, 0o022, 0o002])
def test_permissions_follow_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with atomic_file(tmp_path / "notes.json") as draft:
            draft.write_text("mine")
        with atomic_folder(tmp_path / "made") as folder:
            (folder / "part").touch()
    finally:
        os.umask(before)
    assert (tmp_path / "notes.json").stat().st_mode & 0o777 == 0o666 & ~umask
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o777 & ~umask
