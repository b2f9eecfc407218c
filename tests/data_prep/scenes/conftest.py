from __future__ import annotations

import pytest

from sieve.data_prep.records import Record
from sieve.data_prep.scenes import record_of
from sieve.data_prep.scenes.compose import Scene, compose


@pytest.fixture(scope="package")
def scenes() -> list[Scene]:
    return [compose(0, index) for index in range(5000)]


@pytest.fixture(scope="package")
def records(scenes: list[Scene]) -> list[Record]:
    return [record_of(scene) for scene in scenes]
