"""Kill a server and a command at random moments, and check that everything opens again.

    python -m tests.benchmarks.crash_recovery --times 10 [--seed 0] [--port 8970] [--what WHAT]

`sieve explore` on the bundled collection is killed with SIGKILL during a training run started from
its page, and while two clients write names and a third exports results. `sieve export` is killed
while it overwrites an older file. Checks:

- training: the run is reported as stopped or done, can be resumed, and every checkpoint opens;
- annotating: every name that was acknowledged as saved is read again;
- exporting: the file is the complete old one or the complete new one.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from sieve.data_prep.bundled import locate_collection
from sieve.explorer.annotations.store import open_annotations
from sieve.explorer.jobs.manager import JobState
from sieve.explorer.tabs.train import TrainingManager
from sieve.model.checkpoint import Checkpoint
from sieve.model.checkpoint_choice import find_checkpoint
from sieve.model.collection import Collection
from sieve.model.files import sieve_home
from tests.page_api import RPC_URL, request_body, server_functions

_PATIENCE = 240.0
_SETTINGS = {"preset": "compact", "m": 64, "k": 8, "epochs": 40}


class Server:
    """A running `sieve explore`."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "sieve", "explore", "scenes", "--port", str(port)]
        self._process = subprocess.Popen(
            [*command, "--device", "cpu"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until = time.monotonic() + _PATIENCE
        while not self._names(until):
            time.sleep(0.2)

    def _names(self, until: float) -> bool:
        """Find the components that have server functions, once the server responds."""
        assert self._process.poll() is None and time.monotonic() < until, (
            "the server did not restart"
        )
        try:
            config = httpx.get(f"{self._url}/config", timeout=20).json()
        except httpx.HTTPError:
            return False
        self._functions = server_functions(config)
        return True

    def ask(self, name: str, data: Any) -> dict[str, Any]:
        """Call a server function as the page does."""
        body = request_body(self._functions, f"sieve_{name}", data)
        return httpx.post(f"{self._url}{RPC_URL}", json=body, timeout=60).json()

    def kill(self) -> None:
        """Kill the server, as the kernel does if memory runs out."""
        self._process.kill()
        self._process.wait()


def training(chance: random.Random, port: int, collection: Collection) -> str:
    """Kill the server while it trains; returns the state of the training run."""
    server = Server(port)
    answer = server.ask("training_start", _SETTINGS)
    assert "error" not in answer, answer
    time.sleep(chance.uniform(0, 25))
    server.kill()
    trainings = TrainingManager(collection, "cpu")
    _wait(lambda: not trainings.job_lock.running_job())
    folder = trainings.latest()
    assert folder is not None
    left = trainings.progress(folder)
    assert left.state in (JobState.STOPPED, JobState.DONE) or "did not start" in left.fault, left
    for path in (sieve_home() / "checkpoints").glob("[!.]*"):
        Checkpoint.load(path)
    if left.state == JobState.DONE:
        return "done"
    trainings.resume()
    _wait(lambda: trainings.progress(folder).step > left.step
          or trainings.progress(folder).state in (JobState.DONE, JobState.FAILED))  # fmt: skip
    now = trainings.progress(folder)
    assert now.state != JobState.FAILED and now.step >= left.step, now
    if trainings.job_lock.running_job():
        trainings.stop()
        _wait(lambda: not trainings.job_lock.running_job())
    trainings.discard()
    return "stopped, resumed" if left.state == JobState.STOPPED else "not started, then started"


def annotating(chance: random.Random, port: int, collection: Collection) -> str:
    """Kill the server while clients write and export; returns how many names were saved."""
    server = Server(port)
    saved: dict[int, tuple[int, str]] = {}
    errors: list[dict[str, Any]] = []
    checkpoint = Checkpoint.load(find_checkpoint(collection))
    store = open_annotations(collection.sha256, checkpoint.sha256, checkpoint.m)
    versions = {j: row["name"].version for j, row in store.all().items() if "name" in row}

    def write(first: int) -> None:
        for number in range(first, first + 800, 2):
            name, dimension = f"name {chance.random()}", number % checkpoint.m
            version = saved[dimension][0] if dimension in saved else versions.get(dimension, 0)
            fields = {"dimension": dimension, "field": "name", "value": name, "version": version}
            try:
                answer = server.ask("notes_write", fields)
            except (httpx.HTTPError, ValueError):
                return
            if "error" in answer:
                errors.append(answer)
                return
            saved[dimension] = (version + 1, name)

    def export() -> None:
        while True:
            try:
                answer = server.ask("export_results", {"q": "a dog", "kind": "csv"})
            except (httpx.HTTPError, ValueError):
                return
            if "error" in answer:
                errors.append(answer)
                return

    clients = [threading.Thread(target=write, args=(first,)) for first in (0, 1)]
    clients.append(threading.Thread(target=export))
    for client in clients:
        client.start()
    time.sleep(chance.uniform(0.2, 5))
    server.kill()
    for client in clients:
        client.join()
    assert not errors, errors
    stored = store.all()
    lost = [j for j, (version, _) in saved.items() if stored[j]["name"].version < version]
    assert not lost and not store.fault(), (lost, store.fault())
    return f"{len(saved)} saved"


def exporting(chance: random.Random, _: int, __: Collection) -> str:
    """Kill an export that overwrites an older file; returns which of the two remains."""
    folder = sieve_home() / "exported"
    folder.mkdir(exist_ok=True)
    out = folder / "codes.parquet"
    command = [sys.executable, "-m", "sieve", "export", "scenes", "codes", "-o", str(out)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    if not (folder / "whole").is_file():
        begun = time.monotonic()
        subprocess.run(command, check=True, **quiet)
        (folder / "whole").write_bytes(out.read_bytes())
        (folder / "seconds").write_text(str(time.monotonic() - begun))
    out.write_bytes(b"older")
    takes = float((folder / "seconds").read_text())
    running = subprocess.Popen(command, **quiet)
    time.sleep(chance.uniform(0.5 * takes, 1.1 * takes))
    ended = running.poll() is not None
    running.kill()
    running.wait()
    data = out.read_bytes()
    assert data in (b"older", (folder / "whole").read_bytes())
    return f"{'older' if data == b'older' else 'new'}{', export had finished' if ended else ''}"


def _wait(until: Callable[[], bool]) -> None:
    end = time.monotonic() + _PATIENCE
    while not until():
        assert time.monotonic() < end, f"not done after {_PATIENCE:.0f} s"
        time.sleep(0.1)


def main() -> None:
    """Run the cases and print how many passed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--port", type=int, default=8970)
    cases = {case.__name__: case for case in (training, annotating, exporting)}
    parser.add_argument("--what", nargs="+", choices=cases, default=list(cases))
    given = parser.parse_args()
    chance = random.Random(given.seed)
    shared = locate_collection("scenes", device="cpu", progress=False)
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as home:
        shutil.copytree(sieve_home() / "codes", Path(home) / "codes")
        (Path(home) / "collections").symlink_to(shared.parent)
        os.environ["SIEVE_HOME"] = home
        collection = Collection.open(locate_collection("scenes"))
        for name in given.what:
            passed = [cases[name](chance, given.port, collection) for _ in range(given.times)]
            report[name] = {"killed": given.times, "passed": len(passed), "each": passed}
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
