from __future__ import annotations

import csv
import random
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from processes import ForkedPython, run_python
from square_source import SquareSource, contents, skipped_rows

from sieve.data_prep.pipeline.plan import CHUNK_ROWS, WorkDir, WorkDirLockedError
from sieve.data_prep.precomputed import PrecomputedEmbeddings
from sieve.data_prep.prepare import prepare
from sieve.data_prep.records import Record
from sieve.model.backbone.clip import Backbone
from sieve.model.collection import BackboneIdentity

pytestmark = pytest.mark.slow

MANY = 3 * CHUNK_ROWS + 40


class Stopping(SquareSource):
    """Raise KeyboardInterrupt when a given image is opened."""

    def __init__(self, at: int, **options: object) -> None:
        super().__init__(MANY, {7: "torn", 600: "torn"}, **options)  # type: ignore[arg-type]
        self.at = at

    def open_image(self, record: Record, size: int) -> Image.Image:
        if record.key == f"s{self.at}":
            raise KeyboardInterrupt
        return super().open_image(record, size)


@pytest.fixture(scope="module")
def uninterrupted(
    tiny_backbone: Backbone, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("uninterrupted") / "c"
    prepare(Stopping(-1), tiny_backbone, out, workers=0, progress=False)
    return contents(out)


def stop(out: Path, backbone: Backbone, at: int) -> str:
    with pytest.raises(KeyboardInterrupt) as stopped:
        prepare(Stopping(at), backbone, out, workers=0, progress=False)
    return str(stopped.value)


def test_ctrl_c_saves_finished_chunks_and_explains_how_to_resume(
    tmp_path: Path, tiny_backbone: Backbone, uninterrupted: dict[str, bytes]
) -> None:
    out = tmp_path / "c"
    assert stop(out, tiny_backbone, 5) == "stopped before anything was saved"
    assert list(tmp_path.iterdir()) == []
    resume = "run the same command again to resume"
    assert stop(out, tiny_backbone, CHUNK_ROWS + 5) == f"stopped after 256 of 808 records; {resume}"
    assert stop(out, tiny_backbone, 2 * CHUNK_ROWS) == f"stopped after 512 of 808 records; {resume}"
    assert [path.name for path in tmp_path.iterdir()] == [".c.part"]
    opened = []

    class Counting(Stopping):
        def open_image(self, record: Record, size: int) -> Image.Image:
            opened.append(int(record.key[1:]))
            return super().open_image(record, size)

    source = Counting(-1)
    source.__class__.__name__ = "Stopping"
    prepare(source, tiny_backbone, out, workers=0, progress=False)
    assert opened == [7, *range(2 * CHUNK_ROWS, MANY)]  # bad images are opened again
    assert contents(out) == uninterrupted
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_corrected_file_is_included_on_resume(tmp_path: Path, tiny_backbone: Backbone) -> None:
    out = tmp_path / "c"
    stop(out, tiny_backbone, 2 * CHUNK_ROWS)
    mended = Stopping(-1)
    mended.bad = {600: "torn"}
    made = prepare(mended, tiny_backbone, out, workers=0, progress=False)
    assert [row[0] for row in skipped_rows(made)[1:]] == ["s600"]
    whole = prepare(mended, tiny_backbone, tmp_path / "whole", workers=0, progress=False)
    assert contents(out) == contents(whole.path)


def test_chunks_of_another_command_are_not_reused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "c"
    n_captions = sum(len(record.captions) for record in SquareSource(MANY).records())
    known = PrecomputedEmbeddings(np.ones((MANY, 6)), np.ones((n_captions, 6)))
    identity = BackboneIdentity("theirs", "ab" * 32, 6)
    with pytest.raises(KeyboardInterrupt):
        prepare(Stopping(CHUNK_ROWS), identity, out, precomputed=known, workers=0, progress=False)
    other = PrecomputedEmbeddings(known.images, np.eye(6)[np.arange(n_captions) % 6])
    made = prepare(Stopping(-1), identity, out, precomputed=other, workers=0, progress=False)
    assert "left by a run with other records, settings or backbone" in caplog.text
    whole = prepare(Stopping(-1), identity, tmp_path / "w", precomputed=other, progress=False)
    assert contents(made.path) == contents(whole.path)


def test_damaged_chunk_is_rebuilt(
    tmp_path: Path, tiny_backbone: Backbone, uninterrupted: dict[str, bytes]
) -> None:
    out = tmp_path / "c"
    stop(out, tiny_backbone, 2 * CHUNK_ROWS)
    first, second = sorted((tmp_path / ".c.part" / "parts").iterdir())
    first.write_bytes(first.read_bytes()[:-99])
    damaged = bytearray(second.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    second.write_bytes(damaged)
    prepare(Stopping(-1), tiny_backbone, out, workers=0, progress=False)
    assert contents(out) == uninterrupted


def test_second_writer_is_rejected(
    tmp_path: Path, tiny_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sieve.data_prep.pipeline.plan._LOCK_TIMEOUT", 0.3)
    with (
        WorkDir.acquire(tmp_path / "c"),
        pytest.raises(WorkDirLockedError, match="another process is preparing"),
    ):
        prepare(SquareSource(3), tiny_backbone, tmp_path / "c", progress=False)
    assert prepare(SquareSource(3), tiny_backbone, tmp_path / "c", progress=False).n_items == 3


def test_too_many_bad_records_preserve_finished_chunks(
    tmp_path: Path, tiny_backbone: Backbone
) -> None:
    bad = {row: "torn" for row in range(300, 400)}
    with pytest.raises(ValueError, match="more than 5% of all 808: 52 × torn"):
        prepare(SquareSource(MANY, bad), tiny_backbone, tmp_path / "c", workers=0, progress=False)
    assert (tmp_path / ".c.part" / "parts" / "000000000.npz").is_file()
    source = SquareSource(MANY, bad)
    made = prepare(source, tiny_backbone, tmp_path / "c", progress=False, keep_going=True)
    whole = prepare(source, tiny_backbone, tmp_path / "w", progress=False, keep_going=True)
    assert contents(made.path) == contents(whole.path)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 900 images, some of them bad, with captions."""
    folder = tmp_path_factory.mktemp("photographs")
    (folder / "images").mkdir()
    noise = np.random.default_rng(0)
    rows = [("image", "caption")]
    for index in range(900):
        path = folder / "images" / f"{index:04}.jpg"
        Image.fromarray(noise.integers(0, 255, (60, 80, 3), np.uint8)).save(path)
        if index % 100 == 17:
            path.write_bytes(path.read_bytes()[:400])
        rows += [(path.name, f"picture {index}"), (path.name, f"the {index}th of them")]
    with (folder / "captions.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return folder


def command(photographs: Path, backbone: Path, out: Path) -> list[str]:
    return [
        *("-m", "sieve", "prepare", "folder", str(photographs / "images")),
        *("--captions", str(photographs / "captions.csv"), "--out", str(out)),
        *("--backbone", f"local-dir:{backbone}", "--device", "cpu", "--workers", "2"),
    ]


@pytest.fixture(scope="module")
def prepared(
    photographs: Path, tiny_backbone_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[float, dict[str, bytes]]:
    """Duration in seconds of an uninterrupted run, and the files that it wrote."""
    out = tmp_path_factory.mktemp("whole") / "c"
    run_python(["-c", "pass"])  # starting the server that forks processes takes seconds
    started = time.monotonic()
    arguments = command(photographs, tiny_backbone_dir, out)
    assert run_python(arguments).returncode == 0
    return time.monotonic() - started, contents(out)


@pytest.mark.parametrize("seed", range(2))
def test_killed_run_resumes_to_identical_bytes(
    photographs: Path,
    tiny_backbone_dir: Path,
    tmp_path: Path,
    prepared: tuple[float, dict[str, bytes]],
    seed: int,
) -> None:
    takes, whole = prepared
    out = tmp_path / "c"
    arguments = command(photographs, tiny_backbone_dir, out)
    running = ForkedPython(arguments, stderr=subprocess.PIPE)
    time.sleep(random.Random(seed).uniform(0.3, 1.0) * takes)
    running.kill()
    running.wait()
    last = run_python(arguments)
    assert last.returncode == 0 or "exists already" in last.stderr, last.stderr
    assert contents(out) == whole
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
