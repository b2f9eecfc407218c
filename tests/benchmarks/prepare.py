"""Images a second of `prepare`, over a bare loop of the same backbone on tensors already decoded.

    python -m tests.benchmarks.prepare IMAGES_FOLDER --backbone ViT-B-32

Both take turns in one process on the same photographs, so that what else the machine does weighs on
both alike. The bare loop embeds batches of 32 and does nothing else; `prepare` finds, decodes,
checks, thumbnails, embeds and writes. Its start (opening decoder processes) and end (writing the
collection) count. ARCHITECTURE without weights is opened with random ones: the work is the same.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import open_clip
import torch

from sieve.data_prep.pipeline.embed import IMAGE_BATCH, precision
from sieve.data_prep.prepare import prepare
from sieve.data_prep.records import Source
from sieve.data_prep.sources.folder import Folder
from sieve.model.backbone import Backbone, resolve_device

BUDGET = 0.85


def open_backbone(name: str, device: str) -> Backbone:
    """Open a backbone by its name, or an architecture with random weights."""
    if name not in open_clip.list_models():
        return Backbone.load(name, device)
    torch.manual_seed(0)
    network = open_clip.create_model(name)
    tokenizer = cast(Any, open_clip.get_tokenizer(name))
    return Backbone(name, network, tokenizer, {"made-up": name}, resolve_device(device))


def bare(backbone: Backbone, pixels: torch.Tensor) -> float:
    """Images a second of the backbone alone."""
    started = time.perf_counter()
    with torch.autocast(
        backbone.device.type,
        precision(backbone.device),
        enabled=precision(backbone.device) != torch.float32,
    ):
        for batch in pixels.split(IMAGE_BATCH):
            backbone.encode_pixels(batch)
    return len(pixels) / (time.perf_counter() - started)


def whole(backbone: Backbone, folder: Folder, out: Path) -> float:
    """Images a second of a preparation."""
    started = time.perf_counter()
    made = prepare(cast(Source, folder), backbone, out, progress=False)
    return made.n_items / (time.perf_counter() - started)


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backbone", default="ViT-B-32")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="torch's; by default its own choice")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    if asked.threads:
        torch.set_num_threads(asked.threads)
    backbone = open_backbone(asked.backbone, asked.device)
    with tempfile.TemporaryDirectory() as root:
        only = Path(root) / "only.txt"
        names = [record.key for record in Folder(asked.folder).records()][: asked.images]
        only.write_text("\n".join(names))
        folder = Folder(asked.folder, only=only)
        records = list(folder.records())
        pixels = torch.stack([backbone.transform(folder.open_image(r, 320)) for r in records])
        bare(backbone, pixels[: 2 * IMAGE_BATCH])  # warms up
        rounds = []
        for number in range(asked.rounds):
            own = whole(backbone, folder, Path(root) / f"c{number}")
            rounds.append((own, bare(backbone, pixels)))
    ours, theirs = np.array(rounds).T
    ratio = float(np.median(ours / theirs))
    report = {
        "backbone": asked.backbone,
        "device": backbone.device.type,
        "threads": torch.get_num_threads(),
        "images": len(records),
        "prepare_per_s": ours.round(1).tolist(),
        "bare_per_s": theirs.round(1).tolist(),
        "ratio": round(ratio, 3),
        "budget": BUDGET,
        "holds": ratio >= BUDGET,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
