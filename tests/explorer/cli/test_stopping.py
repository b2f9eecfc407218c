"""Test Ctrl-C and SIGTERM. For SIGKILL, see `data_prep/pipeline/test_resume`."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image
from processes import FIRST_PORT, ForkedPython

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def many_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 3,000 images, more than are prepared before a signal arrives."""
    folder = tmp_path_factory.mktemp("many")
    pixels = np.random.default_rng(0).integers(0, 255, (3000, 8, 8, 3), np.uint8)
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{index:04}.png")
    return folder


@pytest.mark.parametrize(
    ("sent", "code", "message"),
    [
        (
            *(signal.SIGINT, 130),
            r"sieve: stopped after \d+ of 3,000 records; run the same command again to resume\n",
        ),
        (signal.SIGTERM, 143, ""),
    ],
    ids=["Ctrl-C", "terminated"],
)
def test_interrupted_preparation_preserves_finished_work(
    many_images: Path,
    tiny_backbone_dir: Path,
    tmp_path: Path,
    sent: signal.Signals,
    code: int,
    message: str,
) -> None:
    command = [
        sys.executable, "-m", "sieve", "prepare", "folder", str(many_images),
        "--backbone", f"local-dir:{tiny_backbone_dir}", "--out", str(tmp_path / "c"),
    ]  # fmt: skip
    running = ForkedPython(command, stderr=subprocess.PIPE, start_new_session=True)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob(".c.part/parts/*.npz")):
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    if sent == signal.SIGINT:
        os.killpg(running.pid, sent)  # as a terminal does, also to the decoder processes
    else:
        running.send_signal(sent)
    _, err = running.communicate(timeout=60)
    assert running.returncode == code
    assert re.fullmatch(message, err)
    assert [path.name for path in tmp_path.iterdir()] == [".c.part"]


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_explorer_stops_at_once_with_open_pages(
    opened: tuple, home: Path, sent: signal.Signals, code: int
) -> None:
    command = [sys.executable, "-m", "sieve", "explore", *map(str, opened)]
    running = ForkedPython(
        [*command, "--port", str(FIRST_PORT + 90)],
        env={**os.environ, "SIEVE_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert running.stdout is not None
    url = running.stdout.readline().split()[3]
    streams = [urlopen(f"{url}/gradio_api/heartbeat/page{n}", timeout=60) for n in range(5)]
    started = time.monotonic()
    running.send_signal(sent)
    _, err = running.communicate(timeout=60)
    assert (running.returncode, err) == (code, "")
    assert time.monotonic() - started < 4  # 1.4 s with Chromium's pages; more under load
    for stream in streams:
        stream.close()
