"""Test a full disk: a one-line error, no partial files, and older files unchanged.

Uses a small file system if it can be mounted (as root), and otherwise a limit on the file size,
which fails at the same places.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Sieve, fault

from sieve.explorer.annotations.database import Database
from sieve.explorer.annotations.store import Annotations
from sieve.model.checkpoint import Checkpoint
from sieve.model.collection import Collection

pytestmark = pytest.mark.slow


class Disk:
    """A folder with limited space."""

    def __init__(self, folder: Path, mounted: bool) -> None:
        self.folder, self._mounted = folder, mounted
        self._before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(self, left: int) -> None:
        """Leave the given number of bytes free, or limit the size of files to it."""
        if not self._mounted:
            resource.setrlimit(resource.RLIMIT_FSIZE, (left, self._before[1]))
            return
        free = shutil.disk_usage(self.folder).free
        (self.folder / "filler").write_bytes(bytes(max(free - left, 0)))

    def empty(self) -> None:
        """Remove the limit."""
        resource.setrlimit(resource.RLIMIT_FSIZE, self._before)
        (self.folder / "filler").unlink(missing_ok=True)

    def names(self) -> set[str]:
        """Return the names in the folder, except temporary ones."""
        return {path.name for path in self.folder.iterdir() if path.name[0] != "."} - {"filler"}


@pytest.fixture(params=["mounted", "limited"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = request.param == "mounted"
    if mounted:
        made = ("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder))
        if not shutil.which("mount") or subprocess.run(made, capture_output=True).returncode:
            pytest.skip("no file system can be mounted here")
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    small = Disk(folder, mounted)
    try:
        yield small
    finally:
        small.empty()
        signal.signal(signal.SIGXFSZ, before)
        if mounted:
            subprocess.run(("umount", "-l", str(folder)), check=True)


def full(line: str) -> str:
    """Check the error message of a full disk."""
    assert "the disk that holds" in line and "is full; free some space" in line, line
    return line


def test_full_disk_while_preparing(
    disk: Disk, sieve: Sieve, pictures: Path, tiny_backbone_dir: Path
) -> None:
    out = disk.folder / "c"
    requested = (
        *("prepare", "folder", pictures / "images", "--captions", pictures / "captions.csv"),
        *("--backbone", f"local-dir:{tiny_backbone_dir}", "--device", "cpu", "--out", out),
    )
    for left in (0, 2_000, 9_000):
        disk.fill(left)
        full(fault(sieve(*requested)))
        assert disk.names() == set()
        disk.empty()
    assert sieve(*requested).code == 0
    assert Collection.open(out).n_items == 60 and disk.names() == {"c"}


def test_full_disk_while_training(disk: Disk, sieve: Sieve, tiny_collection: Collection) -> None:
    out = disk.folder / "codes"
    requested = ("train", tiny_collection.path, "--out", out, "--device", "cpu", "--epochs", "1")
    small = ("--m", "64", "--k", "8", "--batch-size", "32")
    disk.fill(3_000)
    full(fault(sieve(*requested, *small)))
    assert disk.names() == set()
    disk.empty()
    assert sieve(*requested, *small).code == 0
    assert Checkpoint.load(out).m == 64 and disk.names() == {"codes"}


def test_full_disk_while_exporting_over_an_older_file(
    disk: Disk, sieve: Sieve, tiny_engine, home: Path
) -> None:
    opened = (tiny_engine.collection.path, "codes", "--checkpoint", tiny_engine.checkpoint.path)
    out = disk.folder / "codes.npz"
    assert sieve("export", *opened, "-o", out).code == 0
    before = out.read_bytes()
    for left in (0, 500):
        disk.fill(left)
        full(fault(sieve("export", *opened, "-o", out)))
        assert out.read_bytes() == before and disk.names() == {"codes.npz"}
        assert not [path for path in disk.folder.iterdir() if path.name.startswith(".codes")]
        disk.empty()
    assert home.is_dir()


def test_full_disk_while_annotating(disk: Disk) -> None:
    def store() -> Annotations:
        return Annotations(Database(disk.folder / "notes.sqlite", "c" * 64, "d" * 64), m=4096)

    disk.fill(0)
    with pytest.raises(ValueError, match=r"notes cannot be saved: .* (disk|written|created)"):
        store().write(1, "name", "dog", 0)
    assert disk.names() == set()
    disk.empty()
    assert store().write(1, "name", "dog", 0).saved
    size = (disk.folder / "notes.sqlite").stat().st_size
    disk.fill(0 if disk.names() != {"notes.sqlite"} else size)
    lines = []
    for dimension in range(2, 400):
        try:
            store().write(dimension, "note", "a long note " * 300, 0)
        except ValueError as error:
            lines.append(str(error))
            break
    assert lines and "notes cannot be saved" in lines[0] and "\n" not in lines[0]
    disk.empty()
    saved = store().all()
    assert saved[1]["name"].value == "dog" and set(saved) == set(range(1, dimension))
    assert store().write(dimension, "note", "now", 0).saved
    assert os.listdir(disk.folder) == ["notes.sqlite"]
