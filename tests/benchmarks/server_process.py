"""A server in a separate process: wait until it responds, measure its memory and files."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

_LOOK_EVERY = 0.05


@contextmanager
def running(
    command: Sequence[str], environment: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the block ends; its output goes to `log`."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=stream, stderr=subprocess.STDOUT
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path, seconds: float = 300) -> None:
    """Wait until an address responds.

    Raises
    ------
    RuntimeError
        If the server exited or did not respond in time.
    """
    end = time.perf_counter() + seconds
    while time.perf_counter() < end and process.poll() is None:
        try:
            if httpx.get(url, timeout=30, trust_env=False).is_success:
                return
        except httpx.TransportError:
            time.sleep(_LOOK_EVERY)
    raise RuntimeError(f"no response from {url}: {log.read_text()[-1000:]}")


def memory_mib(process: int, name: str = "VmRSS") -> float:
    """Return the memory of a process in MiB: VmRSS, VmHWM (peak) or RssAnon (no files)."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"the kernel does not report {name}")


def folder_size(folder: Path) -> tuple[int, float]:
    """Return the number of entries below a folder and their size in MiB."""
    entries, size = 0, 0
    for place, folders, files in os.walk(folder):
        entries += len(folders) + len(files)
        for name in files:
            try:
                size += (Path(place) / name).stat().st_size
            except FileNotFoundError:
                entries -= 1  # removed since it was listed
    return entries, size / 2**20
