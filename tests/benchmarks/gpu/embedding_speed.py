"""Throughput of a backbone with random weights, compared with a bare loop over its network."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import numpy as np
import open_clip
import torch
from torch.nn import functional

from sieve.model.backbone.clip import Backbone
from tests.benchmarks.gpu.measuring import Case, Row, Setup, median_seconds

TINY_ARCHITECTURE = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1},
}
_TEXT_BATCH = 256
_REPEATS = 3


def random_backbone(setup: Setup) -> tuple[Backbone, Any]:
    """Create a backbone with random weights; return its network as well."""
    name = setup.sizes.architecture
    if name == "tiny":
        (setup.folder / "tiny.json").write_text(json.dumps(TINY_ARCHITECTURE))
        open_clip.add_model_config(setup.folder / "tiny.json")
    torch.manual_seed(0)
    network = open_clip.create_model(name)
    config = open_clip.get_model_config(name)
    backbone = Backbone(
        "random", network, open_clip.get_tokenizer(name), dict(config or {}), setup.device
    )
    return backbone, network


def _autocast(device: torch.device) -> AbstractContextManager[object]:
    # The precision of `sieve prepare`: float16 on CUDA, float32 on a CPU.
    return torch.autocast(device.type, torch.float16, enabled=device.type == "cuda")


@torch.inference_mode()
def measure_images(setup: Setup, batch_size: int) -> Row:
    """Measure images per second; they are decoded already, on the device or on the host."""
    backbone, network = random_backbone(setup)
    size = network.visual.image_size
    height, width = size if isinstance(size, tuple | list) else (size, size)
    n = setup.sizes.images
    on_host = torch.randn(min(n, 1024), 3, height, width)
    on_device = on_host.to(setup.device)

    def bare() -> torch.Tensor:
        channels_last = on_device.to(memory_format=torch.channels_last)
        parts = [functional.normalize(network.encode_image(part).float(), dim=-1)
                 for part in channels_last.split(batch_size)]  # fmt: skip
        return torch.cat(parts).cpu()

    def ours(pixels: torch.Tensor) -> np.ndarray:
        return np.concatenate([backbone.encode_pixels(part) for part in pixels.split(batch_size)])

    with _autocast(setup.device):
        difference = float(np.abs(ours(on_device) - bare().numpy()).max())
        seconds = {
            name: median_seconds(call, setup.device, _REPEATS)
            for name, call in (
                ("bare", bare),
                ("ours", partial(ours, on_device)),
                ("from_host", partial(ours, on_host)),
            )
        }
    ratio = seconds["bare"] / seconds["ours"]
    row: Row = {
        "images_per_s": len(on_host) / seconds["ours"],
        "bare_images_per_s": len(on_host) / seconds["bare"],
        "ratio": ratio,
        "images_per_s_from_host": len(on_host) / seconds["from_host"],
        "ratio_from_host": seconds["bare"] / seconds["from_host"],
        "largest_difference": difference,
    }
    return row if setup.is_tiny else {**row, "must": "ratio >= 0.9", "reached": ratio >= 0.9}


@torch.inference_mode()
def measure_texts(setup: Setup) -> Row:
    """Measure texts per second, tokenising included; the bare loop has padded tokens already."""
    backbone, network = random_backbone(setup)
    subjects = ("dog", "red car", "man on a horse", "city at night")
    texts = [f"photo {i} of a {subjects[i % 4]} near the water" for i in range(setup.sizes.images)]
    tokenizer = open_clip.get_tokenizer(setup.sizes.architecture)
    tokens = tokenizer(texts).to(setup.device)

    def bare() -> torch.Tensor:
        parts = [functional.normalize(network.encode_text(part).float(), dim=-1)
                 for part in tokens.split(_TEXT_BATCH)]  # fmt: skip
        return torch.cat(parts).cpu()

    with _autocast(setup.device):
        difference = float(np.abs(backbone.encode_texts(texts) - bare().numpy()).max())
        ours = median_seconds(partial(backbone.encode_texts, texts), setup.device, _REPEATS)
        plain = median_seconds(bare, setup.device, _REPEATS)
        tokenising = median_seconds(partial(tokenizer, texts), setup.device, 1)
    row: Row = {
        "texts_per_s": len(texts) / ours,
        "bare_texts_per_s": len(texts) / plain,
        "ratio": plain / ours,
        "tokenising_share": tokenising / ours,
        "largest_difference": difference,
    }
    if setup.is_tiny:
        return row
    return {**row, "must": "ratio >= 0.9", "reached": row["ratio"] >= 0.9}


def cases(setup: Setup) -> list[Case]:
    """Return the cases of images, for each batch size, and of texts."""
    images = [
        Case(f"images, batches of {size}", partial(measure_images, setup, size), 12.0)
        for size in setup.sizes.image_batches
    ]
    return [*images, Case("texts", partial(measure_texts, setup), 12.0)]
