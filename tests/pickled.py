"""A pickle that shows whether anybody loaded it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


class Payload:
    """A pickle that leaves a file behind where it is loaded."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)
