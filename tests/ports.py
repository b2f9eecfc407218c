"""Ports of servers that tests start, apart for each worker, so that none takes another's."""

from __future__ import annotations

import os

FIRST_PORT = 7960 + 200 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
