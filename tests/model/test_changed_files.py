"""Test that a file that changes while open gives a one-line error, never wrong results.

Truncation under a memory map ends a process with SIGBUS, so it is tested in a subprocess.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import run_python
from unavailable_backbone import write_embeddings

from sieve.model.collection import IMAGE_EMBEDDINGS, MANIFEST
from sieve.model.engine import SearchEngine
from sieve.model.exclusion import Strictness

pytestmark = pytest.mark.slow

LINE = "has changed or was removed while it was open; restart Sieve"
CODES = "image_entries.npy"


@pytest.fixture
def engine(tiny_collection, tiny_checkpoint, tmp_path: Path, home: Path) -> SearchEngine:  # noqa: ARG001
    """An engine of copies, with memory-mapped codes in a separate $SIEVE_HOME."""
    collection = shutil.copytree(tiny_collection.path, tmp_path / "collection")
    checkpoint = shutil.copytree(tiny_checkpoint.path, tmp_path / "checkpoint")
    SearchEngine.open(collection, checkpoint, "cpu")  # writes the codes that the next engine maps
    return SearchEngine.open(collection, checkpoint, "cpu")


def overwrite(path: Path) -> None:
    """Change the last bytes in place; the size is unchanged."""
    with path.open("r+b") as stream:
        stream.seek(-4, os.SEEK_END)
        stream.write(b"\x12\x34\x56\x3e")


def truncate(path: Path) -> None:
    os.truncate(path, 200)


def replace(path: Path) -> None:
    """Replace the file by another one of the same size and time."""
    stat, other = path.stat(), path.with_name("other")
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.replace(path)


@pytest.mark.parametrize("change", [overwrite, truncate, replace, Path.unlink])
@pytest.mark.parametrize("name", [CODES, MANIFEST])
def test_search_rejects_changed_files(
    engine: SearchEngine, home: Path, name: str, change: Callable[[Path], None]
) -> None:
    query = engine.encode(item=engine.collection.items["id"][0])
    assert engine.search(query, off=(1,), strictness=Strictness(never=True)).results
    path = engine.collection.path / name if name == MANIFEST else next(home.rglob(name))
    change(path)
    with pytest.raises(ValueError, match=LINE) as raised:
        engine.search(query, off=(1,), strictness=Strictness(never=True))
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_dense_search_and_dimension_pages_reject_changed_files(
    engine: SearchEngine, home: Path
) -> None:
    query = engine.encode(item=engine.collection.items["id"][0])
    assert engine.search_dense(query)
    dimension = query.dimensions[0].dimension
    assert engine.dimension(dimension)
    truncate(engine.collection.path / IMAGE_EMBEDDINGS)
    with pytest.raises(ValueError, match=f"{IMAGE_EMBEDDINGS} {LINE}"):
        engine.search_dense(query)
    truncate(next(home.rglob(CODES)))
    with pytest.raises(ValueError, match=f"{CODES} {LINE}"):
        engine.dimension(dimension)


def test_reading_or_linking_a_file_is_no_change(engine: SearchEngine, home: Path) -> None:
    query = engine.encode(item=engine.collection.items["id"][0])
    before = engine.search(query)
    path = next(home.rglob(CODES))
    path.read_bytes()
    path.chmod(0o600)
    os.link(path, path.with_name("backup.npy"))
    assert engine.search(query).results == before.results


@pytest.mark.parametrize("never", [False, True])
def test_search_checks_each_file_a_few_times(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch, never: bool
) -> None:
    query = engine.encode(item=engine.collection.items["id"][0])
    strictness = Strictness(never=never)
    engine.search(query, (1,), strictness)  # reads files that are read only once
    looked_at, stat = [], os.stat
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", lambda path, **more: looked_at.append(path) or stat(path, **more))
        engine.search(query, (1,), strictness)
    assert {Path(path).name for path in looked_at} == {MANIFEST, CODES}
    assert len(looked_at) <= 8  # 2 µs each, and independent of the number of results


TRUNCATED = """
import os, sys
from pathlib import Path
from sieve.model.engine import SearchEngine
engine = SearchEngine.open(sys.argv[1], sys.argv[2], "cpu")
for path in Path(os.environ["SIEVE_HOME"]).rglob("image_entries.npy"):
    os.truncate(path, 200)
first = engine.collection.items["id"][0]
for ask in (lambda: engine.encode(item=first), lambda: engine.dimension(3)):
    try:
        ask()
    except ValueError as error:
        print(error)
"""


def test_truncated_codes_do_not_end_the_process(engine: SearchEngine) -> None:
    folders = (engine.collection.path, engine.checkpoint.path)
    done = run_python(["-c", TRUNCATED, *folders])
    assert done.returncode == 0, done.stderr
    assert [LINE in line for line in done.stdout.splitlines()] == [True, True]


TRUNCATED_INPUT = """
import os, sys
from pathlib import Path
from sieve.data_prep.precomputed import PrecomputedEmbeddings
from sieve.explorer.cli import main
folder, out = Path(sys.argv[1]), sys.argv[2]
sha256 = PrecomputedEmbeddings.sha256
def truncated(known):
    os.truncate(folder / "text_features.npy", 200)  # as a copy that is still being written
    return sha256(known)
PrecomputedEmbeddings.sha256 = truncated
main(["prepare", "embeddings", str(folder), "--backbone", "my-lab/own", "--out", out])
"""
TRUNCATED_TRAINING = """
import os, sys
from pathlib import Path
from sieve.model.collection import Collection
from sieve.model.hyperparameters import TrainingConfig
from sieve.model.training.trainer import train
folder = Path(sys.argv[1])
config = TrainingConfig(m=64, k=8, epochs=20, batch_size=32, n_words=8)
def on_step(report):
    if report.step == 3:
        os.truncate(folder / "image_embeddings.npy", 200)
try:
    collection, out = Collection.open(folder), Path(sys.argv[2])
    train(collection, out, config, device="cpu", progress=False, on_step=on_step)
except ValueError as error:
    print(f"sieve: {error}", file=sys.stderr)
    sys.exit(1)
"""
TRUNCATED_CAPTIONS = """
import os, sys
from pathlib import Path
from sieve.model.text_encoder import CaptionEncoder
from sieve.model.collection import Collection
collection = Collection.open(sys.argv[1])
encoder = CaptionEncoder.of_collection(collection)
os.truncate(Path(sys.argv[1]) / "text_embeddings.npy", 200)
try:
    encoder.encode_texts(["a red circle"])
except ValueError as error:
    print(f"sieve: {error}", file=sys.stderr)
    sys.exit(1)
"""


def run_to_its_fault(script: str, *arguments: Path) -> str:
    done = run_python(["-c", script, *arguments])
    assert done.returncode == 1, (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


def test_embeddings_truncated_during_preparation_are_reported(tmp_path: Path, home: Path) -> None:
    folder = write_embeddings(tmp_path / "own")
    line = run_to_its_fault(TRUNCATED_INPUT, folder, tmp_path / "out")
    assert line.startswith(f"sieve: {folder / 'text_features.npy'} {LINE}")
    assert home.is_dir() and not (tmp_path / "out").exists()


@pytest.mark.parametrize("script", [TRUNCATED_TRAINING, TRUNCATED_CAPTIONS], ids=["train", "read"])
def test_embeddings_truncated_during_use_are_reported(engine: SearchEngine, script: str) -> None:
    folder = engine.collection.path
    line = run_to_its_fault(script, folder, folder.with_name("trained"))
    assert line.startswith(f"sieve: {folder}/") and LINE in line
