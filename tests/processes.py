"""Start processes in tests: Python with its imports done, distributed training, and ports."""

from __future__ import annotations

import atexit
import io
import logging
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Sequence
from multiprocessing import forkserver, resource_tracker
from multiprocessing.reduction import DupFd
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any
from unittest.mock import patch

import pytest

ROOT = Path(__file__).parents[1]
FIRST_PORT = 7960 + 200 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
"""First port for servers of this worker; each worker has its own range."""
PRELOADED = ["sieve.explorer.app", "sieve.model.training.trainer", "open_clip"]

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(PRELOADED)


def fork_server() -> None:
    """Start the server of `ForkedPython` as a fork of this process, which has most of its imports.

    To be called before the first test, while this process has no other threads that hold locks.
    """
    resource_tracker.ensure_running()
    with patch.object(forkserver.util, "spawnv_passfds", _fork_and_run):
        forkserver.ensure_running()


def _fork_and_run(_: str, arguments: Sequence[str], descriptors: Sequence[int]) -> int:
    """Run the code of a command, `python … -c CODE`, in a fork of this process."""
    if pid := os.fork():
        return pid
    try:
        logging.root.handlers.clear()
        null = os.open(os.devnull, os.O_RDWR)
        for other in {int(name) for name in os.listdir("/proc/self/fd")} - {0, 1, 2, *descriptors}:
            os.dup2(null, other, inheritable=False)  # not closed: an object may still use it
        exec(arguments[-1], {})
    finally:
        os._exit(0)


class ForkedPython:
    """A new Python process without the seconds of importing PyTorch and open_clip.

    It is forked from a server process, which each worker starts once: see `fork_server`. It has the
    interface of `subprocess.Popen`, for a command `python [-P] (-m MODULE | -c CODE) ARGUMENT…`.
    Start a process with `subprocess` instead if its imports, its hash seed or its locale matter.
    """

    def __init__(
        self,
        command: Sequence[object],
        *,
        cwd: str | Path = ROOT,
        env: dict[str, str] | None = None,
        stdin: int = subprocess.DEVNULL,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
        pass_fds: Sequence[int] = (),
        start_new_session: bool = False,
    ) -> None:
        assert stdin == subprocess.DEVNULL
        self.stdout, out = _output(stdout, 1)
        self.stderr, err = _output(stderr, 2)
        arguments = [str(word) for word in command if word not in (sys.executable, "-P")]
        self._process = _SERVER.Process(
            target=_run,
            args=(
                arguments,
                str(cwd),
                dict(os.environ if env is None else env),
                [_Descriptor(number) for number in (out, err, *pass_fds)],
                start_new_session,
            ),
        )
        self._process.start()
        atexit.register(self._process.kill)  # else a failed test would keep pytest from ending
        for stream, end in ((self.stdout, out), (self.stderr, err)):
            if stream is not None:
                os.close(end)  # only the process writes to the pipe

    @property
    def pid(self) -> int:
        assert self._process.pid
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("python", timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Read the outputs to their end, standard error first, and wait."""
        err, out = (stream.read() if stream else "" for stream in (self.stderr, self.stdout))
        self.wait(timeout)
        return out, err


def run_python(command: Sequence[object], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command of `ForkedPython` to its end and capture its output."""
    running = ForkedPython(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    out, err = running.communicate(timeout=300)
    return subprocess.CompletedProcess(list(command), running.returncode or 0, out, err)


@pytest.fixture
def forked_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start jobs of the Train and Benchmark tabs without importing their libraries again."""
    known = SimpleNamespace(Popen=ForkedPython, DEVNULL=subprocess.DEVNULL)
    monkeypatch.setattr("sieve.explorer.jobs.manager.subprocess", known)


def _output(given: int | IO[Any] | None, default: int) -> tuple[IO[str] | None, int]:
    """Return the stream to read from, if it is a pipe, and the descriptor to write to."""
    if given == subprocess.PIPE:
        reading, writing = os.pipe()
        return os.fdopen(reading, encoding="utf-8"), writing
    if given is None:
        return None, default
    return None, given if isinstance(given, int) else given.fileno()


class _Descriptor:
    """A file descriptor that a process receives when it is started."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (DupFd(self.number),)


def _received(duplicate: Any) -> int:
    return duplicate.detach()


def _run(
    command: list[str], cwd: str, env: dict[str, str], descriptors: list[int], session: bool
) -> None:
    """Run a command in the new process."""
    for number, descriptor in enumerate(descriptors[:2], start=1):
        os.dup2(descriptor, number)
    encoding = env.get("PYTHONIOENCODING", "utf-8")
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(io.FileIO(number, "w", closefd=False), encoding) for number in (1, 2)
    )
    if session:
        os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    multiprocessing.set_start_method(None, force=True)  # the default, for its own processes
    warnings.filterwarnings("ignore", "'sieve.* found in sys.modules", RuntimeWarning, "runpy")
    how, what, *arguments = command
    sys.argv = [how, *arguments]
    if how == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        exec(compile(what, "-c", "exec"), {"__name__": "__main__"})


def run_two(command: Sequence[object]) -> subprocess.CompletedProcess[str]:
    """Run a command of `ForkedPython` in two distributed processes and capture their outputs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    running = [
        ForkedPython(
            command,
            env={**os.environ, **place, "WORLD_SIZE": "2", "RANK": rank, "LOCAL_RANK": rank},
            **pipes,
        )
        for rank in "01"
    ]
    outputs = [
        "".join(both) for both in zip(*(one.communicate(300) for one in running), strict=True)
    ]
    code = max(one.returncode or 0 for one in running)
    return subprocess.CompletedProcess(list(command), code, *outputs)


def torchrun(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a script, or -m with a module, in two distributed processes on a free port."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    path = os.pathsep.join([str(ROOT), *sys.path])
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return run_python([*launcher, *arguments], env=env)
