"""Compare the throughput of `prepare` with a bare loop of the backbone on decoded tensors.

    python -m tests.benchmarks.prepare IMAGES_FOLDER --backbone ViT-B-32

Both alternate in one process on the same photographs, so that other load on the machine affects
both equally. The bare loop only embeds batches of 32; `prepare` finds, decodes, validates and
embeds images and writes thumbnails, including the time to start decoder processes and to write the
collection. An architecture without weights gets random ones: the amount of work is the same.
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
from sieve.data_prep.sources.folder import Folder
from sieve.model.backbone.clip import Backbone, resolve_device

BUDGET = 0.85


def open_backbone(name: str, device: str) -> Backbone:
    """Load a backbone by name, or an architecture with random weights."""
    if name not in open_clip.list_models():
        return Backbone.load(name, device)
    torch.manual_seed(0)
    network = open_clip.create_model(name)
    tokenizer = cast(Any, open_clip.get_tokenizer(name))
    return Backbone(name, network, tokenizer, {"random weights": name}, resolve_device(device))


def bare(backbone: Backbone, pixels: torch.Tensor) -> float:
    """Return images per second of the backbone alone."""
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
    """Return images per second of `prepare`."""
    started = time.perf_counter()
    made = prepare(folder, backbone, out, progress=False)
    return made.n_items / (time.perf_counter() - started)


def main() -> None:
    """Run the benchmark and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backbone", default="ViT-B-32")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="number of PyTorch threads")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    if args.threads:
        torch.set_num_threads(args.threads)
    backbone = open_backbone(args.backbone, args.device)
    with tempfile.TemporaryDirectory() as root:
        only = Path(root) / "only.txt"
        names = [record.key for record in Folder(args.folder).records()][: args.images]
        only.write_text("\n".join(names))
        folder = Folder(args.folder, only=only)
        records = list(folder.records())
        pixels = torch.stack([backbone.transform(folder.open_image(r, 320)) for r in records])
        bare(backbone, pixels[: 2 * IMAGE_BATCH])  # warm-up
        rounds = []
        for number in range(args.rounds):
            own = whole(backbone, folder, Path(root) / f"c{number}")
            rounds.append((own, bare(backbone, pixels)))
    ours, theirs = np.array(rounds).T
    ratio = float(np.median(ours / theirs))
    report = {
        "backbone": args.backbone,
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
