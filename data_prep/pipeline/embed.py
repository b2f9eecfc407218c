"""Embeddings of usable records: looked up where they are known, made by the backbone where not.

Which records share a batch is fixed by their rows, so that the same run gives the same bits; only
where memory does not suffice are batches halved, and the log says so.
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
    """Choose what a backbone computes in: half precision pays on CUDA, which has units for it."""
    return torch.float16 if device.type == "cuda" else torch.float32


class Embedder:
    """Embeds a source's images and captions.

    Attributes
    ----------
    identity : BackboneIdentity
    known : PrecomputedEmbeddings or None
    transform : ImageTransform or None
        What makes pixels of an image; None where no pixels are needed.
    computes : str
        Device and precision, or "nothing".

    Raises
    ------
    ValueError
        If `known` does not fit the source, or a backbone is missing that has to run.
    """

    def __init__(
        self,
        backbone: Backbone | BackboneIdentity,
        known: PrecomputedEmbeddings | None,
        table: RecordTable,
        source: str,
    ) -> None:
        self.identity = BackboneIdentity(backbone.name, backbone.sha256, backbone.width)
        self._backbone = None if isinstance(backbone, BackboneIdentity) else backbone
        self.known, self._table = known, table
        self._image_batch, self._text_batch = IMAGE_BATCH, _TEXT_BATCH
        n_texts = int(table.text_starts[-1])
        if known is not None:
            known.check(len(table.text_starts) - 1, n_texts, backbone.width, source)
        all_known = known is not None and (known.texts is not None or not n_texts)
        if self._backbone is None and not all_known:
            raise ValueError(
                f"not all embeddings of {source} are known: {backbone} has to be opened for them"
            )
        self.transform: ImageTransform | None = None
        if self._backbone is not None and known is None:
            self.transform = self._backbone.transform
        self.computes = "nothing"
        if self._backbone is not None and not all_known:
            self.computes = f"{self._backbone.device.type} {precision(self._backbone.device)}"

    def pixels(self, pixels: list[np.ndarray]) -> np.ndarray:
        """Embed a batch's images: b times (3, H, W) float32 → (b, d) float16 of length 1."""
        if self._backbone is None or not pixels:
            return np.empty((0, self.identity.width), np.float16)
        backbone = self._backbone
        batch = torch.from_numpy(np.stack(pixels))  # (b, 3, H, W)

        def encode(size: int) -> np.ndarray:
            return np.concatenate([backbone.encode_pixels(part) for part in batch.split(size)])

        with self._computing(backbone):
            embeddings, self._image_batch = _fitting(encode, self._image_batch, "images")
        return self._made(embeddings)

    def images(self, rows: np.ndarray) -> np.ndarray:
        """Look up the known embeddings of rows, ascending: (b, d) float16; NaN where unusable."""
        assert self.known is not None
        places = self._table.places[rows]
        return _unit(_read(self.known.images, places, places + 1))

    def texts(self, rows: np.ndarray) -> np.ndarray:
        """Embed all captions of rows, ascending: (c, d) float16; NaN where known but unusable."""
        if self.known is not None and self.known.texts is not None:
            places, starts = self._table.places[rows], self._table.text_starts
            return _unit(_read(self.known.texts, starts[places], starts[places + 1]))
        lists = self._table.columns.take(rows)["captions"]
        texts = [text for captions in lists.to_pylist() for text in captions]
        if self._backbone is None or not texts:
            return np.empty((0, self.identity.width), np.float16)
        backbone = self._backbone
        with self._computing(backbone):
            embeddings, self._text_batch = _fitting(
                lambda size: backbone.encode_texts(texts, size), self._text_batch, "captions"
            )
        return self._made(embeddings)

    @staticmethod
    def _computing(backbone: Backbone) -> torch.autocast:
        kind = precision(backbone.device)
        return torch.autocast(backbone.device.type, kind, enabled=kind != torch.float32)

    def _made(self, embeddings: np.ndarray) -> np.ndarray:
        unit = _unit(embeddings)
        if np.isnan(unit).any():
            raise ValueError(
                f"an embedding of backbone {self.identity.name} is NaN, infinite or zero; its "
                "weights are damaged: fetch them again, or choose another --backbone"
            )
        return unit


def _fitting(encode: Callable[[int], np.ndarray], size: int, what: str) -> tuple[np.ndarray, int]:
    """Embed in batches that fit into memory; returns the embeddings and the size that did."""
    while True:
        try:
            return encode(size), size
        except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
            if not _wants_memory(error):
                raise
            if size == 1:
                raise OSError(
                    f"one of the {what} alone does not fit into memory; choose a smaller "
                    "--backbone, or --device cpu"
                ) from None
        torch.cuda.empty_cache()
        size //= 2
        log.warning(
            "out of memory: from here on %d %s at once; rows may differ in the last bit from those "
            "of a run that had more",
            size,
            what,
        )


def _wants_memory(error: Exception) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return "not enough memory" in str(error) or "can't allocate memory" in str(error)


def _unit(embeddings: np.ndarray) -> np.ndarray:
    """Scale rows to length 1: (r, d) float16; NaN where a row is no direction."""
    embeddings = np.asarray(embeddings, np.float32)
    with np.errstate(all="ignore"):
        lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
        unit = (embeddings / lengths).astype(np.float16)
    unit[~np.isfinite(unit).all(axis=1)] = np.nan
    return unit


def _read(rows: RowArray, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """Read ascending ranges of rows at once."""
    if not len(starts):
        return read_rows(rows, 0, 0)
    first, last = int(starts[0]), int(stops[-1])
    inside = np.zeros(last - first + 1, np.int8)
    np.add.at(inside, starts - first, 1)
    np.add.at(inside, stops - first, -1)
    return read_rows(rows, first, last)[np.cumsum(inside[:-1]) > 0]
