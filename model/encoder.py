"""Sparse encoder: frozen embeddings to sparse codes, and back.

    x̃ = (x - μ_modality) / |x - μ_modality|
    z = TopK_k(ReLU(W_enc x̃ + b_modality))
    x̂ = W_dec z, with unit columns

Images and texts share all weights except the centre and the bias: CLIP embeds the two modalities
in separate cones (the modality gap), which centring removes. TopK as in Gao et al. 2024 (arXiv
2406.04093). After training, the activations of texts are raised to a power, which concentrates a
short text on few dimensions.

Encoders of other tools (`sieve.model.encoder_conversion`) read the embedding without centring, and
may have JumpReLU: z = ReLU(a) where a = W_enc y + b exceeds the threshold of its dimension, else 0.
Texts and images then share the bias as well.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sieve.model.hyperparameters import MODALITIES, TEXT, SparseEncoderConfig

LAYER_NORM_EPS = 1e-5
"""Added to the standard deviation, as in SAELens, sentence-transformers and MSAE."""


class ActiveCode(NamedTuple):
    """Codes without their zeros; k is the most active dimensions of a row."""

    values: Tensor
    """(B, k) float32, non-negative, descending; not normalised; zeros are inactive."""
    indices: Tensor
    """(B, k) int64, distinct in a row."""


class SparseEncoder(nn.Module):
    """TopK encoder with a linear decoder, shared by both modalities.

    `generator` draws the initial weights.
    """

    def __init__(
        self, config: SparseEncoderConfig, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.config = config
        weights_md = torch.randn(config.m, config.d, generator=generator)
        weights_md = functional.normalize(weights_md, dim=1)
        self.encode_md = nn.Parameter(weights_md.clone())
        self.decode_md = nn.Parameter(weights_md.clone())
        self.bias = nn.Parameter(torch.zeros(len(MODALITIES), config.m))
        self.register_buffer("centre", torch.zeros(len(MODALITIES), config.d))
        self.centre: Tensor
        if config.activation == "jumprelu":
            self.register_buffer("threshold", torch.zeros(config.m))
            self.threshold: Tensor
        if not config.is_trainable:
            self.register_buffer("decode_bias", torch.zeros(config.d))
            self.decode_bias: Tensor

    def centred(self, embeddings: Tensor, modality: str) -> Tensor:
        """Subtract the modality's centre and renormalise: (B, d) → (B, d), unit rows."""
        centre = self.centre[MODALITIES.index(modality)]
        return functional.normalize(embeddings.to(centre.dtype) - centre, dim=-1)

    def read(self, embeddings: Tensor, modality: str) -> Tensor:
        """Normalise embeddings as the encoder expects them: (B, d) → (B, d)."""
        norm, scale = self.config.input_norm, self.config.input_scale
        if norm == "centred":
            return self.centred(embeddings, modality)
        given = embeddings.to(self.encode_md.dtype)
        if norm == "unit":
            return scale * functional.normalize(given, dim=-1)
        if norm == "layer":
            shifted = scale * given
            shifted = shifted - shifted.mean(-1, keepdim=True)
            return shifted / (shifted.std(-1, keepdim=True) + LAYER_NORM_EPS)
        return scale * given

    def activations(self, inputs: Tensor, modality: str) -> Tensor:
        """Return all activations: (B, d) from `read` → (B, m), non-negative unless `dense`."""
        return self.activate(self.linear(inputs, modality))

    def linear(self, inputs: Tensor, modality: str) -> Tensor:
        """Return the pre-activations: (B, d) from `read` → (B, m)."""
        return functional.linear(inputs, self.encode_md, self.bias[MODALITIES.index(modality)])

    def activate(self, linear: Tensor) -> Tensor:
        """Apply the activation function to pre-activations: (B, m) → (B, m)."""
        if self.config.activation == "jumprelu":
            return functional.relu(linear) * (linear > self.threshold)
        if self.config.activation == "dense":
            return linear
        if self.config.activation == "elu":
            return functional.elu(linear) + 1
        return functional.relu(linear)

    def keep(self, activations: Tensor, k: int) -> Tensor:
        """Zero inactive dimensions at k: (B, m) → (B, m), with gradients to the active ones."""
        if self.config.activation == "dense":
            return activations
        return keep_top(activations, k, self.config.floor)

    def encode(self, embeddings: Tensor, modality: str) -> ActiveCode:
        """Encode L2-normalised embeddings, (B, d) float, without building dense codes."""
        active = self.activations(self.read(embeddings, modality), modality)
        k = self.config.active(modality)
        if self.config.activation == "jumprelu":
            k = max(int((active > 0).sum(-1).max()), 1) if len(active) else 1
        values, indices = torch.topk(active, k, dim=-1)
        values = _above(values, values[..., :1], self.config.floor)
        if cap := self.config.soft_cap:
            values = cap * torch.tanh(values / cap)
        return ActiveCode(values**self.config.text_power if modality == TEXT else values, indices)

    def decode(self, codes: Tensor) -> Tensor:
        """Reconstruct what `read` returns from dense codes: (B, m) → (B, d)."""
        if not self.config.is_trainable:
            return codes @ self.decode_md + self.decode_bias
        return codes @ functional.normalize(self.decode_md, dim=1)

    @property
    def directions(self) -> np.ndarray:
        """Decoder direction of each dimension: (m, d) float32, unit rows."""
        return functional.normalize(self.decode_md.detach(), dim=1).cpu().numpy()


def keep_top(activations: Tensor, k: int, floor: float = 0.0) -> Tensor:
    """Zero all but the k largest of each row, with gradients to those: (B, m) → (B, m).

    Values below `floor` times the row's largest are zeroed as well.
    """
    values, indices = torch.topk(activations, k, dim=-1, sorted=False)
    if floor:
        values = _above(values, values.amax(-1, keepdim=True), floor)
    return torch.zeros_like(activations).scatter(-1, indices, values)


def _above(values: Tensor, largest: Tensor, floor: float) -> Tensor:
    """Zero values below a share of the largest."""
    return torch.where(values >= floor * largest, values, 0.0) if floor else values


@torch.inference_mode()
def encode_dense(
    encoder: SparseEncoder, embeddings: np.ndarray, modality: str, batch_size: int = 8192
) -> np.ndarray:
    """Encode with a dense control: (n, d) → (n, m) float32, signed, unit rows."""
    parts = [np.empty((0, encoder.config.m), np.float32)]
    for start in range(0, len(embeddings), batch_size):
        batch = torch.from_numpy(np.asarray(embeddings[start : start + batch_size], np.float32))
        linear = encoder.activations(encoder.centred(batch, modality), modality)
        parts.append(functional.normalize(linear, dim=1).numpy())
    return np.concatenate(parts)
