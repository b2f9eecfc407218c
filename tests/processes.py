"""Starting several processes that train together."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def torchrun(*arguments: object, path: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Let two processes find each other, on whatever port is free, and run to their end.

    Parameters
    ----------
    arguments
        A script with its arguments, or -m with a module's.
    path : Path
        Where the script's own modules lie.
    """
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return subprocess.run(
        [*launcher, *map(str, arguments)],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(path), str(ROOT), *sys.path]),
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
