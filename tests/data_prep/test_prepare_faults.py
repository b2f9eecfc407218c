"""Test failures of `sieve prepare`: damaged weights, no memory, a full disk, Ctrl-C."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from square_source import SquareSource

from sieve.data_prep.pipeline.decode import ThumbnailWriter
from sieve.data_prep.prepare import prepare
from sieve.data_prep.records import Record
from sieve.model.backbone.clip import Backbone


def test_damaged_backbone_is_rejected(
    tmp_path: Path, tiny_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = np.zeros((30, tiny_backbone.width), np.float32)
    monkeypatch.setattr(Backbone, "encode_pixels", lambda *_: nothing)
    with pytest.raises(ValueError, match="is NaN, infinite or zero; its weights are damaged"):
        prepare(SquareSource(30), tiny_backbone, tmp_path / "c", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_batch_that_exceeds_memory_is_halved(
    tmp_path: Path,
    tiny_backbone: Backbone,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = SquareSource(70)
    whole = prepare(source, tiny_backbone, tmp_path / "whole", progress=False)
    encode, most = Backbone.encode_pixels, 9

    def small(self: Backbone, pixels: torch.Tensor) -> np.ndarray:
        if len(pixels) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(self, pixels)

    monkeypatch.setattr(Backbone, "encode_pixels", small)
    halved = prepare(source, tiny_backbone, tmp_path / "halved", progress=False)
    difference = halved.image_embeddings.astype(float) - whole.image_embeddings.astype(float)
    assert np.abs(difference).max() < 2e-3
    assert [record.message.split(";")[0] for record in caplog.records] == [
        "out of memory: continuing with batches of 16 images",
        "out of memory: continuing with batches of 8 images",
    ]
    assert "embeddings may differ in the last bit" in caplog.text
    most = 0
    with pytest.raises(OSError, match="one of the images does not fit into memory even alone"):
        prepare(source, tiny_backbone, tmp_path / "none", progress=False)


@pytest.mark.parametrize("workers", [0, 1])
def test_full_disk_is_reported_and_leaves_no_files(
    tmp_path: Path, tiny_backbone: Backbone, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "a.webp")

    monkeypatch.setattr(ThumbnailWriter, "write", full)
    with pytest.raises(OSError, match="the disk that holds .* is full; free some space"):
        prepare(SquareSource(9), tiny_backbone, tmp_path / "c", workers=workers, progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("writer", ["numpy.savez", "sieve.data_prep.pipeline.write.write_items"])
def test_disk_full_at_the_end_is_reported(
    tmp_path: Path, tiny_backbone: Backbone, monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    def short_write(*_: object, **__: object) -> None:
        raise OSError("4096 requested and 12 written")  # the message of NumPy, without errno

    monkeypatch.setattr(writer, short_write)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0))
    with pytest.raises(OSError, match="the disk that holds .* is full"):
        prepare(SquareSource(3), tiny_backbone, tmp_path / "c", progress=False)
    assert not (tmp_path / "c").exists()
    monkeypatch.undo()
    assert prepare(SquareSource(3), tiny_backbone, tmp_path / "c", progress=False).n_items == 3
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_ctrl_c_leaves_no_files(tmp_path: Path, tiny_backbone: Backbone) -> None:
    class Interrupted(SquareSource):
        def open_image(self, record: Record, size: int) -> Image.Image:
            if record.key == "s50":
                raise KeyboardInterrupt
            return super().open_image(record, size)

    with pytest.raises(KeyboardInterrupt):
        prepare(Interrupted(60), tiny_backbone, tmp_path / "c", workers=0, progress=False)
    assert list(tmp_path.iterdir()) == []
