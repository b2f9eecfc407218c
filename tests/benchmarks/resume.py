"""Kill preparations with -9 at random moments, run the same command again, compare all bytes.

    python -m tests.benchmarks.resume --times 20

A folder of drawn pictures, some of them damaged, is prepared by the real command, once unbroken.
Then, so many times, it is killed at a random moment of that time, up to `--kills` times in a row,
and run to its end. Prints JSON; exits with 1 where any byte differs.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image


def draw(folder: Path, count: int) -> None:
    """Draw noise with two captions each; every hundredth is torn."""
    noise = np.random.default_rng(0)
    folder.mkdir()
    rows = [("image", "caption")]
    for index in range(count):
        path = folder / f"{index:05}.jpg"
        Image.fromarray(noise.integers(0, 255, (120, 160, 3), np.uint8)).save(path)
        if index % 100 == 17:
            path.write_bytes(path.read_bytes()[:400])
        rows += [(path.name, f"picture {index}"), (path.name, f"the {index}th of them")]
    with (folder.parent / "captions.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)


def command(folder: Path, out: Path) -> list[str]:
    """Give the command that prepares them."""
    return [
        *(sys.executable, "-m", "sieve", "prepare", "folder", str(folder / "images")),
        *("--captions", str(folder / "captions.csv"), "--out", str(out)),
        *("--device", "cpu", "--workers", "2"),
    ]


def contents(folder: Path) -> dict[str, bytes]:
    """Read all files of a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def killed(asked: list[str], after: float) -> bool:
    """Run and kill; returns whether it was still running."""
    running = subprocess.Popen(asked, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        running.wait(after)
        return False
    except subprocess.TimeoutExpired:
        running.send_signal(signal.SIGKILL)
        running.wait()
        return True


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--kills", type=int, default=2, help="at most so many a time")
    parser.add_argument("--images", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    chance = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        draw(folder / "images", asked.images)
        started = time.perf_counter()
        subprocess.run(command(folder, folder / "whole" / "c"), check=True, capture_output=True)
        takes = time.perf_counter() - started
        whole = contents(folder / "whole" / "c")
        identical, kills = 0, []
        for number in range(asked.times):
            out = folder / str(number) / "c"
            for _ in range(chance.randint(1, asked.kills)):
                moment = chance.uniform(0, takes)
                if killed(command(folder, out), moment):
                    kills.append(round(moment / takes, 2))
            subprocess.run(command(folder, out), capture_output=True, check=False)
            same = contents(out) == whole and [p.name for p in out.parent.iterdir()] == ["c"]
            identical += same
    report = {
        "images": asked.images,
        "unbroken_seconds": round(takes, 1),
        "killed_at_share_of_it": sorted(kills),
        "times": asked.times,
        "identical": identical,
    }
    print(json.dumps(report))
    sys.exit(identical != asked.times)


if __name__ == "__main__":
    main()
