"""Test the example source of data_prep/README.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image
from square_source import skipped_rows

from sieve.data_prep.prepare import prepare
from sieve.model.backbone.clip import Backbone

README = Path(__file__).parents[2] / "data_prep" / "README.md"


def test_readme_example_source_can_be_prepared(
    tmp_path: Path, tiny_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "postcards.py").write_text(next(one for one in blocks if "BaseSource" in one))
    monkeypatch.syspath_prepend(tmp_path)
    from postcards import Postcards  # type: ignore[import-not-found]

    images = tmp_path / "images"
    images.mkdir()
    for name in ("paris", "rome", "unnamed"):
        Image.new("RGB", (12, 8), "red").save(images / f"{name}.jpg")
    (images / "paris.txt").write_text("greetings from Paris\n")
    (images / "rome.txt").write_text("greetings from Rome\n")
    made = prepare(Postcards(images), tiny_backbone, tmp_path / "made", progress=False)
    assert list(made.caption_texts) == ["greetings from Paris", "greetings from Rome"]
    assert [row[0] for row in skipped_rows(made)[1:]] == ["unnamed.jpg"]
