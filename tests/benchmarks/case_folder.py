"""The folder of a case in `../shared/cases`: its input, its command and what the command wrote."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases"
LIMIT_S = 300


class Run(NamedTuple):
    """Outcome of a command."""

    code: int
    out: str
    err: str
    seconds: float
    first_line: float
    """Seconds until the first line on stderr; infinite if there is none."""

    @property
    def is_one_line(self) -> bool:
        """Whether it failed with one line, not counting notices about loading a backbone."""
        notices = ("sieve: loading backbone ", "sieve: looking for the collection's backbone")
        lines = [line for line in self.err.splitlines() if not line.startswith(notices)]
        return self.code in (1, 2) and len(lines) == 1 and lines[0].startswith("sieve: ")

    @property
    def output(self) -> str:
        """The end of its output, at most 160 characters."""
        return " ".join((self.out + self.err).split())[-160:]


class Case:
    """Folder of one case and the output of its command."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.out = folder / "in"
        self._n = 0

    def make(self, *more: str, name: str = "") -> None:
        """Write the input."""
        self.out.mkdir(exist_ok=True)
        script = CASES / (name or self.name) / "make.py"
        subprocess.run([sys.executable, script, self.out, *more], check=True, capture_output=True)

    def sieve(self, *arguments: object, **environment: str) -> Run:
        """Run `sieve`."""
        started = time.perf_counter()
        with (
            tempfile.TemporaryFile("w+", encoding="utf-8") as out,
            subprocess.Popen(
                [sys.executable, "-m", "sieve", *map(str, arguments)],
                cwd=self.folder,
                env={**os.environ, **environment},
                stdout=out,
                stderr=subprocess.PIPE,
                text=True,
            ) as running,
        ):
            assert running.stderr is not None
            stop = threading.Timer(LIMIT_S, running.kill)
            stop.start()
            err = running.stderr.readline()
            first_line = time.perf_counter() - started if err else float("inf")
            err += running.stderr.read()
            code = running.wait()
            stop.cancel()
            seconds = time.perf_counter() - started
            out.seek(0)
            return Run(code, out.read(), err, seconds, first_line)

    def prepare(self, *arguments: object, **environment: str) -> tuple[Run, Path]:
        """Run `sieve prepare` into a new folder."""
        self._n += 1
        made = self.folder / f"made-{self._n}"
        return self.sieve("prepare", *arguments, "--out", made, **environment), made


def items(made: Path) -> pd.DataFrame:
    """Read the items of a collection; an empty table if there is none."""
    path = made / "items.parquet"
    columns = ["id", "image", "captions", "split"]
    return pd.read_parquet(path) if path.is_file() else pd.DataFrame(columns=columns)


def skipped(made: Path) -> str:
    """Read `skipped.csv` as text."""
    path = made / "skipped.csv"
    return path.read_text("utf-8") if path.is_file() else ""


def captions(made: Path) -> dict[str, list[str]]:
    """Return captions by the file name of the image."""
    found = items(made)
    return {
        Path(image).name: list(of)
        for image, of in zip(found["image"], found["captions"], strict=True)
    }


def picture(number: int) -> tuple[Image.Image, str]:
    """Draw the picture of a number; returns it and its caption."""
    sys.path.insert(0, str(CASES))
    from mk import pic  # type: ignore[import-not-found]

    return pic(number)


def shows(made: Path, item_id: str, number: int) -> bool:
    """Return whether an item's thumbnail shows the picture of a number."""
    with Image.open(made / "thumbnails" / item_id[:2] / f"{item_id}.webp") as thumbnail:
        shown = np.asarray(thumbnail.convert("RGB"), np.float32)
    wanted = np.asarray(picture(number)[0].resize(shown.shape[1::-1]), np.float32)
    return bool(np.abs(shown - wanted).mean() < 12)


Check = Callable[[Case], tuple[str, str, bool]]
"""Returns the expected result, the actual result, and whether the check passes."""
CHECKS: dict[str, Check] = {}


def check(function: Check) -> Check:
    """Register a check; its name is that of the case."""
    CHECKS[function.__name__] = function
    return function


def outcome(name: str) -> tuple[str, str, bool]:
    """Run the check of a case: the expected result, the actual one, and whether it passes."""
    if name not in CHECKS:
        return "", "no check is defined", False
    with tempfile.TemporaryDirectory(prefix="sieve-case-") as folder:
        try:
            return CHECKS[name](Case(name, Path(folder)))
        except Exception as error:  # noqa: BLE001  (a check that raises fails)
            return "", f"{type(error).__name__}: {error}", False


def machine_load() -> float:
    """Measure how much slower the machine is than when idle, as a factor of at least 1."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch, open_clip"], check=True)
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return max(seconds / used, 1.0)
