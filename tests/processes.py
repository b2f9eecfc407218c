"""Start processes in tests: distributed training, and ports of servers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FIRST_PORT = 7960 + 200 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
"""First port for servers of this worker; each worker has its own range."""


def torchrun(*arguments: object, path: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a script in two distributed processes on a free port.

    Parameters
    ----------
    arguments
        A script with its arguments, or -m with a module's.
    path : Path
        Folder of the script's own modules.
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
