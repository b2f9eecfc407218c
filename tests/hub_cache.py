"""A cache of the Hugging Face Hub, filled with local repositories."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

PutRepository = Callable[[str, Path], Path]

_COMMIT = "0" * 40


@pytest.fixture
def put_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PutRepository:
    """Put a folder into the cache as a repository; the Hub is offline."""
    from huggingface_hub import constants

    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def put(repository: str, folder: Path) -> Path:
        root = cache / f"models--{repository.replace('/', '--')}"
        (root / "refs").mkdir(parents=True)
        (root / "refs" / "main").write_text(_COMMIT)
        return Path(shutil.copytree(folder, root / "snapshots" / _COMMIT))

    return put
