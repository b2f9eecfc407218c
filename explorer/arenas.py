"""Memory of a server of many threads: kept in few places, so that what is freed is used again.

glibc gives up to eight times as many arenas as there are cores to the threads that allocate, and
what one thread has freed is of no use to another. Measured with 50 people at once: a server without
a limit came to 1,534 MiB after 30,000 requests and still grew, one with two arenas to 1,266 MiB
after 18,000, its slope within noise.
"""

from __future__ import annotations

import ctypes
import sys

ARENAS = 2
_M_ARENA_MAX = -8
"""Of glibc's `malloc.h`."""


def share_arenas() -> None:
    """Let all threads of this process share two arenas; without glibc there is nothing to do.

    To be called before the threads are there.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, ARENAS)
