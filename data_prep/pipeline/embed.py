"""Embed usable records with the backbone, or look up their precomputed embeddings.

The rows alone decide which records share a batch, so that equal runs give equal bits. Batches are
halved only if memory runs out, and the log then says so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import torch

from sieve.data_prep.pipeline.record_table import RecordTable
from sieve.data_prep.precomputed import PrecomputedEmbeddings, RowArray, read_rows
from sieve.model.backbone import Backbone, ImageTransform
from sieve.model.collection import BackboneIdentity

log = logging.getLogger(__name__)

IMAGE_BATCH = 32
_TEXT_BATCH = 256


def precision(device: torch.device) -> torch.dtype:
    """Return the dtype that a backbone computes in: float16 on CUDA, float32 elsewhere."""
    return torch.float16 if device.type == "cuda" else torch.float32


class Embedder:
    """Embed a source's images and captions.

    Attributes
    ----------
    identity : BackboneIdentity
    precomputed : PrecomputedEmbeddings or None
    transform : ImageTransform or None
        Preprocessing of the backbone; None if no pixels are needed.
    computes : str
        Device and precision, or "nothing".

    Raises
    ------
    ValueError
        If `precomputed` does not match the source, or a needed backbone is not open.
    """

    def __init__(
        self,
        backbone: Backbone | BackboneIdentity,
        precomputed: PrecomputedEmbeddings | None,
        table: RecordTable,
        source: str,
    ) -> None:
        self.identity = BackboneIdentity(backbone.name, backbone.sha256, backbone.width)
        self._backbone = None if isinstance(backbone, BackboneIdentity) else backbone
        self.precomputed, self._table = precomputed, table
        self._image_batch, self._text_batch = IMAGE_BATCH, _TEXT_BATCH
        n_texts = int(table.text_starts[-1])
        if precomputed is not None:
            precomputed.check(len(table.text_starts) - 1, n_texts, backbone.width, source)
        is_complete = precomputed is not None and (precomputed.texts is not None or not n_texts)
        if self._backbone is None and not is_complete:
            raise ValueError(
                f"some embeddings of {source} are missing; {backbone} has to be opened to "
                "compute them"
            )
        self.transform: ImageTransform | None = None
        if self._backbone is not None and precomputed is None:
            self.transform = self._backbone.transform
        self.computes = "nothing"
        if self._backbone is not None and not is_complete:
            self.computes = f"{self._backbone.device.type} {precision(self._backbone.device)}"

    def pixels(self, pixels: list[np.ndarray]) -> np.ndarray:
        """Embed a batch of images, (3, H, W) float32 each: (b, d) float16 of length 1."""
        if self._backbone is None or not pixels:
            return np.empty((0, self.identity.width), np.float16)
        backbone = self._backbone
        batch = torch.from_numpy(np.stack(pixels))  # (b, 3, H, W)

        def encode(size: int) -> np.ndarray:
            return np.concatenate([backbone.encode_pixels(part) for part in batch.split(size)])

        with self._autocast(backbone):
            embeddings, self._image_batch = _with_smaller_batches(
                encode, self._image_batch, "images"
            )
        return self._normalised(embeddings)

    def images(self, rows: np.ndarray) -> np.ndarray:
        """Look up the precomputed embeddings of ascending rows: (b, d) float16; NaN if invalid."""
        assert self.precomputed is not None
        positions = self._table.positions[rows]
        return _unit(_read_ranges(self.precomputed.images, positions, positions + 1))

    def texts(self, rows: np.ndarray) -> np.ndarray:
        """Embed all captions of ascending rows: (c, d) float16; NaN if precomputed but invalid."""
        if self.precomputed is not None and self.precomputed.texts is not None:
            positions, starts = self._table.positions[rows], self._table.text_starts
            return _unit(
                _read_ranges(self.precomputed.texts, starts[positions], starts[positions + 1])
            )
        lists = self._table.columns.take(rows)["captions"]
        texts = [text for captions in lists.to_pylist() for text in captions]
        if self._backbone is None or not texts:
            return np.empty((0, self.identity.width), np.float16)
        backbone = self._backbone
        with self._autocast(backbone):
            embeddings, self._text_batch = _with_smaller_batches(
                lambda size: backbone.encode_texts(texts, size), self._text_batch, "captions"
            )
        return self._normalised(embeddings)

    @staticmethod
    def _autocast(backbone: Backbone) -> torch.autocast:
        kind = precision(backbone.device)
        return torch.autocast(backbone.device.type, kind, enabled=kind != torch.float32)

    def _normalised(self, embeddings: np.ndarray) -> np.ndarray:
        unit = _unit(embeddings)
        if np.isnan(unit).any():
            raise ValueError(
                f"an embedding of backbone {self.identity.name} is NaN, infinite or zero; its "
                "weights are damaged: download them again, or choose another --backbone"
            )
        return unit


def _with_smaller_batches(
    encode: Callable[[int], np.ndarray], size: int, what: str
) -> tuple[np.ndarray, int]:
    """Halve the batch size until it fits into memory; return the embeddings and that size."""
    while True:
        try:
            return encode(size), size
        except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
            if not _is_out_of_memory(error):
                raise
            if size == 1:
                raise OSError(
                    f"one of the {what} does not fit into memory even alone; choose a smaller "
                    "--backbone, or --device cpu"
                ) from None
        torch.cuda.empty_cache()
        size //= 2
        log.warning(
            "out of memory: continuing with batches of %d %s; embeddings may differ in the last "
            "bit from those of a run with more memory",
            size,
            what,
        )


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return "not enough memory" in str(error) or "can't allocate memory" in str(error)


def _unit(embeddings: np.ndarray) -> np.ndarray:
    """Scale rows to length 1: (r, d) float16; NaN if a row is zero or not finite."""
    embeddings = np.asarray(embeddings, np.float32)
    with np.errstate(all="ignore"):
        lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
        unit = (embeddings / lengths).astype(np.float16)
    unit[~np.isfinite(unit).all(axis=1)] = np.nan
    return unit


def _read_ranges(rows: RowArray, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """Read ascending ranges of rows in one slice."""
    if not len(starts):
        return read_rows(rows, 0, 0)
    first, last = int(starts[0]), int(stops[-1])
    steps = np.zeros(last - first + 1, np.int8)
    np.add.at(steps, starts - first, 1)
    np.add.at(steps, stops - first, -1)
    return read_rows(rows, first, last)[np.cumsum(steps[:-1]) > 0]
