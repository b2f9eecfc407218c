"""BLIP as a backbone, by the projections of its image-text contrastive loss.

BLIP (Li et al. 2022, arXiv 2201.12086) embeds an image by the [CLS] state of its vision transformer
and a text by that of its BERT, each followed by a linear projection. The matching head is not used:
it needs an image and a text together and cannot search. BLIP requires the optional library
transformers, which is imported only when a BLIP model is loaded.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from sieve.model.backbone.checked_files import BackboneFiles, safe_copy

Tokenizer = Callable[[list[str]], Tensor]

_INTERPOLATION = {2: "bilinear", 3: "bicubic"}
"""Interpolation modes by their number in PIL."""
_SHAPING = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act",
    "layer_norm_eps", "image_size", "patch_size", "max_position_embeddings",
)  # fmt: skip
"""Settings that determine the embeddings; others vary with the library version."""


class BlipNetwork(nn.Module):
    """The two towers of BLIP with their projections, with the interface of open_clip networks.

    Parameters
    ----------
    model : transformers.BlipForImageTextRetrieval
    preprocess : dict
        Settings of `ImageTransform`.
    pad : int
        Padding token.
    context_length : int
        Maximum number of tokens of a text.
    """

    def __init__(
        self, model: Any, preprocess: dict[str, Any], pad: int, context_length: int
    ) -> None:
        super().__init__()
        self.vision_model, self.vision_proj = model.vision_model, model.vision_proj
        self.text_encoder, self.text_proj = model.text_encoder, model.text_proj
        self.visual = SimpleNamespace(preprocess_cfg=preprocess)
        self.context_length = context_length
        self._pad = pad

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Embed images: (n, 3, H, W) → (n, d), not normalised."""
        return self.vision_proj(self.vision_model(pixel_values=pixels).last_hidden_state[:, 0])

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Embed texts: (n, l) int64, padded → (n, d), not normalised."""
        states = self.text_encoder(input_ids=tokens, attention_mask=(tokens != self._pad).long())
        return self.text_proj(states.last_hidden_state[:, 0])


def open_blip(files: BackboneFiles) -> tuple[BlipNetwork, Tokenizer, dict[str, Any]]:
    """Load the network, the tokenizer and the configuration, as written by `save_pretrained`.

    Raises a ValueError if it is another kind of model or its configuration requests code execution,
    and any error if its weights are missing, damaged or of the wrong shape.
    """
    transformers: Any = importlib.import_module("transformers")
    options = {"local_files_only": True, "trust_remote_code": False}
    with _quiet(transformers), safe_copy(files.own) as folder:
        kind = transformers.AutoConfig.from_pretrained(folder, **options).model_type
        if kind != "blip":
            raise ValueError(f"it is a model of type {kind!r}, not 'blip'")
        processor = transformers.BlipProcessor.from_pretrained(folder, **options)
        model, loading = transformers.BlipForImageTextRetrieval.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True, weights_only=True, **options
        )
    # transformers would initialise missing weights, as of a captioning model.
    names = sorted(loading["missing_keys"])
    if missing := [name for name in names if not name.startswith("itm_head")]:
        raise ValueError(
            f"{len(missing)} weights are missing, such as {missing[0]}; expected a model for "
            "image-text retrieval"
        )
    return _assemble(model, processor)


def _assemble(model: Any, processor: Any) -> tuple[BlipNetwork, Tokenizer, dict[str, Any]]:
    tokenizer, settings = processor.tokenizer, model.config
    vision, text = settings.vision_config, settings.text_config
    preprocess = _preprocessing(processor.image_processor, vision.image_size)
    most = min(tokenizer.model_max_length, text.max_position_embeddings)

    def tokenize(texts: list[str]) -> Tensor:
        encoded = tokenizer(
            texts, padding=True, truncation=True, max_length=most, return_tensors="pt"
        )
        return encoded["input_ids"]

    words = json.dumps(sorted(tokenizer.get_vocab().items())).encode()
    config = {
        "kind": settings.model_type,
        "vision": _shaping(vision),
        "text": _shaping(text),
        "vocabulary": hashlib.sha256(words).hexdigest(),
        "lower_case": bool(getattr(tokenizer, "do_lower_case", True)),
    }
    return BlipNetwork(model, preprocess, tokenizer.pad_token_id, most), tokenize, config


def _shaping(config: Any) -> dict[str, Any]:
    return {name: getattr(config, name) for name in _SHAPING if hasattr(config, name)}


def _preprocessing(processor: Any, image_size: int) -> dict[str, Any]:
    """Convert the settings of BLIP's image processor to those of `ImageTransform`."""
    size = (processor.size["height"], processor.size["width"])
    if size != (image_size, image_size):
        raise ValueError(
            f"its processor makes images of {size[0]} x {size[1]} pixels, its model expects "
            f"{image_size} x {image_size}"
        )
    interpolation = _INTERPOLATION.get(int(processor.resample))
    if interpolation is None:
        raise ValueError(f"its processor has resample {processor.resample}; expected 2 or 3")
    return {
        "size": size,
        "resize_mode": "squash",
        "interpolation": interpolation,
        "mean": tuple(processor.image_mean),
        "std": tuple(processor.image_std),
    }


@contextmanager
def _quiet(transformers: ModuleType) -> Iterator[None]:
    """Suppress log lines and progress bars of the library; errors are still raised."""
    log = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity(log.CRITICAL)
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()
