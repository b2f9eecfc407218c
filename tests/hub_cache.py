"""A cache of the Hugging Face Hub with repositories that were never downloaded."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

PutRepository = Callable[[str, Path], Path]

_COMMIT = "0" * 40


@pytest.fixture
def put_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PutRepository:
    """Put a folder into the cache as a repository; the network is out of reach."""
    from huggingface_hub import constants

    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def put(repository: str, folder: Path) -> Path:
        place = cache / f"models--{repository.replace('/', '--')}"
        (place / "refs").mkdir(parents=True)
        (place / "refs" / "main").write_text(_COMMIT)
        return Path(shutil.copytree(folder, place / "snapshots" / _COMMIT))

    return put
