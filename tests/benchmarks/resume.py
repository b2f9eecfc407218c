"""Kill `sieve prepare` at random moments, run the same command again and compare all bytes.

    python -m tests.benchmarks.resume --times 20

A folder of synthetic images, some of them damaged, is prepared once without interruption. Then,
`--times` times, the command is killed at random moments, up to `--kills` times in a row, and run to
completion. Prints JSON; the exit status is 1 if any byte differs.
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
    """Write noise images with two captions each; every hundredth is truncated."""
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
    """Return the command that prepares the images."""
    return [
        *(sys.executable, "-m", "sieve", "prepare", "folder", str(folder / "images")),
        *("--captions", str(folder / "captions.csv"), "--out", str(out)),
        *("--device", "cpu", "--workers", "2"),
    ]


def contents(folder: Path) -> dict[str, bytes]:
    """Return the contents of all files of a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def killed(command: list[str], after: float) -> bool:
    """Run a command and kill it; returns whether it was still running."""
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        running.wait(after)
        return False
    except subprocess.TimeoutExpired:
        running.send_signal(signal.SIGKILL)
        running.wait()
        return True


def main() -> None:
    """Run the benchmark and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--kills", type=int, default=2, help="maximum number of kills in a row")
    parser.add_argument("--images", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    chance = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        draw(folder / "images", args.images)
        started = time.perf_counter()
        subprocess.run(command(folder, folder / "whole" / "c"), check=True, capture_output=True)
        takes = time.perf_counter() - started
        whole = contents(folder / "whole" / "c")
        identical, kills = 0, []
        for number in range(args.times):
            out = folder / str(number) / "c"
            for _ in range(chance.randint(1, args.kills)):
                moment = chance.uniform(0, takes)
                if killed(command(folder, out), moment):
                    kills.append(round(moment / takes, 2))
            subprocess.run(command(folder, out), capture_output=True, check=False)
            same = contents(out) == whole and [p.name for p in out.parent.iterdir()] == ["c"]
            identical += same
    report = {
        "images": args.images,
        "unbroken_seconds": round(takes, 1),
        "killed_at_share_of_it": sorted(kills),
        "times": args.times,
        "identical": identical,
    }
    print(json.dumps(report))
    sys.exit(identical != args.times)


if __name__ == "__main__":
    main()
