"""Embed usable records with the backbone, or look up their precomputed embeddings.

The rows alone decide which records share a batch, so that equal runs give equal bits. Batches are
halved only if memory runs out, and the log then says so.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

import numpy as np
import torch

from sieve.data_prep.precomputed import PrecomputedEmbeddings, RowArray, read_rows
from sieve.data_prep.records import RecordTable
from sieve.model.backbone.clip import Backbone, ImageTransform
from sieve.model.collection import BackboneIdentity

log = logging.getLogger(__name__)

IMAGE_BATCH = 32


def precision(device: torch.device) -> torch.dtype:
    """Return the dtype that a backbone computes in: float16 on CUDA, float32 elsewhere."""
    return torch.float16 if device.type == "cuda" else torch.float32


class Embedder:
    """Embed a source's images and captions.

    Raise ValueError if a needed backbone is not open.
    """

    def __init__(
        self, backbone: Backbone | BackboneIdentity, precomputed: PrecomputedEmbeddings | None,
        table: RecordTable, source: str,
    ) -> None:  # fmt: skip
        self.identity = BackboneIdentity(backbone.name, backbone.sha256, backbone.width)
        self._backbone = None if isinstance(backbone, BackboneIdentity) else backbone
        self.precomputed, self._table = precomputed, table
        self._batch_sizes = {"images": IMAGE_BATCH, "captions": 256}
        self.transform: ImageTransform | None = None
        """Preprocessing of the backbone; None if no pixels are needed."""
        self.computes = "nothing"
        """Device and precision, or "nothing"."""
        n_texts, is_complete = int(table.text_starts[-1]), False
        if precomputed is not None:
            texts, n_records = precomputed.texts, len(table.text_starts) - 1
            assert precomputed.images.shape == (n_records, backbone.width)
            assert texts is None or texts.shape == (n_texts, backbone.width)
            is_complete = texts is not None or not n_texts
        elif self._backbone is not None:
            self.transform = self._backbone.transform
        if not is_complete:
            if self._backbone is None:
                raise ValueError(
                    f"some embeddings of {source} are missing; {backbone} has to be opened to "
                    "compute them"
                )
            self.computes = f"{self._backbone.device.type} {precision(self._backbone.device)}"

    def pixels(self, pixels: list[np.ndarray]) -> np.ndarray:
        """Embed a batch of images, (3, H, W) float32 each: (b, d) float16 of length 1."""
        if not pixels:
            return np.empty((0, self.identity.width), np.float16)
        batch = torch.from_numpy(np.stack(pixels))  # (b, 3, H, W)

        def encode(backbone: Backbone, size: int) -> np.ndarray:
            return np.concatenate([backbone.encode_pixels(part) for part in batch.split(size)])

        return self._encode("images", encode)

    def images(self, rows: np.ndarray) -> np.ndarray:
        """Look up the precomputed embeddings of ascending rows: (b, d) float16; NaN if invalid."""
        assert self.precomputed is not None
        return _unit(_read_at(self.precomputed.images, self._table.positions[rows]))

    def texts(self, rows: np.ndarray) -> np.ndarray:
        """Embed all captions of ascending rows: (c, d) float16; NaN if precomputed but invalid."""
        if self.precomputed is not None and self.precomputed.texts is not None:
            return _unit(_read_at(self.precomputed.texts, self._table.caption_positions(rows)))
        captions = self._table.take(rows)["captions"].to_pylist()
        texts = [text for texts in captions for text in texts]
        if not texts:
            return np.empty((0, self.identity.width), np.float16)
        return self._encode("captions", lambda backbone, size: backbone.encode_texts(texts, size))

    def _encode(self, what: str, encode: Callable[[Backbone, int], np.ndarray]) -> np.ndarray:
        """Encode with the backbone; halve the batch size until it fits into memory."""
        backbone = self._backbone
        assert backbone is not None
        kind = precision(backbone.device)
        while True:
            size = self._batch_sizes[what]
            try:
                with torch.autocast(backbone.device.type, kind, enabled=kind != torch.float32):
                    unit = _unit(encode(backbone, size))
                break
            except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
                no_memory = isinstance(error, torch.OutOfMemoryError | MemoryError)
                if not (no_memory or re.search("(not enough|allocate) memory", str(error))):
                    raise
                if size == 1:
                    raise OSError(
                        f"one of the {what} does not fit into memory even alone; choose a smaller "
                        "--backbone, or --device cpu"
                    ) from None
            torch.cuda.empty_cache()
            self._batch_sizes[what] = size // 2
            log.warning(
                "out of memory: continuing with batches of %d %s; embeddings may differ in the "
                "last bit from those of a run with more memory", size // 2, what,
            )  # fmt: skip
        if np.isnan(unit).any():
            raise ValueError(
                f"an embedding of backbone {self.identity.name} is NaN, infinite or zero; its "
                "weights are damaged: download them again, or choose another --backbone"
            )
        return unit


def _unit(embeddings: np.ndarray) -> np.ndarray:
    """Scale rows to length 1: (r, d) float16; NaN if a row is zero or not finite."""
    embeddings = np.asarray(embeddings, np.float32)
    with np.errstate(all="ignore"):
        lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
        unit = (embeddings / lengths).astype(np.float16)
    unit[~np.isfinite(unit).all(axis=1)] = np.nan
    return unit


def _read_at(rows: RowArray, positions: np.ndarray) -> np.ndarray:
    """Read rows at ascending positions in one slice."""
    if not len(positions):
        return read_rows(rows, 0, 0)
    first = int(positions[0])
    return read_rows(rows, first, int(positions[-1]) + 1)[positions - first]
