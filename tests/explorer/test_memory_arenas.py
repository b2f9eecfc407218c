"""Test the number of malloc arenas of a server's threads."""

from __future__ import annotations

import subprocess
import sys

import pytest

COUNT = """
import ctypes, sys, threading
from sieve.explorer.concurrency import limit_memory_arenas
if sys.argv[1] == "share":
    limit_memory_arenas()
libc = ctypes.CDLL(None)
together = threading.Barrier(24)
def work():
    together.wait()
    bytearray(100_000)
    together.wait()
threads = [threading.Thread(target=work) for _ in range(24)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc.fdopen.restype = ctypes.c_void_p
libc.malloc_info(0, ctypes.c_void_p(libc.fdopen(1, b"w")))
libc.fflush(None)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc has arenas")
def test_threads_share_two_arenas() -> None:
    def arenas(how: str) -> int:
        command = [sys.executable, "-c", COUNT, how]
        completed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        return completed.stdout.count("<heap nr=")

    assert arenas("share") == 2 < arenas("leave")
