"""Correctness and speed of training, encoding, embedding and search on a GPU.

The repository need not be installed: where the package `sieve` is missing, its import name is made
here. Needed are torch, NumPy, SciPy, scikit-learn, pandas, pyarrow, safetensors, Pillow, pydantic,
open_clip, ftfy, platformdirs and tqdm.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path


def make_importable() -> None:
    """Make `sieve.model` importable from a copy of the repository that is not installed."""
    if importlib.util.find_spec("sieve") is None:
        spec = ModuleSpec("sieve", None, is_package=True)
        spec.submodule_search_locations = [str(Path(__file__).parents[3])]
        sys.modules["sieve"] = importlib.util.module_from_spec(spec)


make_importable()
