"""BLIP as a backbone: the projections that its image-text contrast is trained on.

BLIP (Li et al. 2022, arXiv 2201.12086) embeds an image by its vision transformer's [CLS] state and
a text by its BERT's, each through a linear projection: the dense part of it, which retrieves, not
the matching head, which reads an image and a text together and cannot search. It comes through the
optional library transformers; nothing here loads it before a BLIP model is asked for.
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

_INTERPOLATION = {2: "bilinear", 3: "bicubic"}
"""What PIL calls by number."""
_SHAPING = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act",
    "layer_norm_eps", "image_size", "patch_size", "max_position_embeddings",
)  # fmt: skip
"""Settings that embeddings follow from; the others of a configuration change with the library."""


class BlipNetwork(nn.Module):
    """The two towers of BLIP with their projections, called as open_clip's networks are.

    Parameters
    ----------
    model : transformers.BlipForImageTextRetrieval
    preprocess : dict
        Settings of `ImageTransform`.
    pad : int
        Token that fills texts up.
    context_length : int
        Most tokens of a text.
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
        """Embed texts: (n, l) int64, filled up with the pad token → (n, d), not normalised."""
        states = self.text_encoder(input_ids=tokens, attention_mask=(tokens != self._pad).long())
        return self.text_proj(states.last_hidden_state[:, 0])


def open_blip(
    files: BackboneFiles,
) -> tuple[BlipNetwork, Callable[[list[str]], Tensor], dict[str, Any]]:
    """Build the network with its weights, its tokenizer and its configuration.

    Parameters
    ----------
    files : BackboneFiles
        As `save_pretrained` of BLIP's model and of its processor write them.

    Raises
    ------
    ValueError
        One line, with what to do, whatever is wrong: it is another kind of model, it
        asks for code to be run, or weights are missing, damaged or do not fit.
    """
    transformers: Any = importlib.import_module("transformers")
    name = files.name.text
    options = {"local_files_only": True, "trust_remote_code": False}
    try:
        # Building a network draws random numbers, which must not shift those of the caller.
        with (
            _quiet(transformers),
            torch.random.fork_rng(devices=[]),
            safe_copy(files.own) as folder,
        ):
            config = transformers.AutoConfig.from_pretrained(folder, **options)
            _check_kind(config)
            processor = transformers.BlipProcessor.from_pretrained(folder, **options)
            model, loading = transformers.BlipForImageTextRetrieval.from_pretrained(
                folder, dtype=torch.float32, output_loading_info=True, weights_only=True, **options
            )
            _check_loaded(loading)
            return _assemble(model, processor)
    except Exception as error:
        # Its faults range from JSON errors over missing keys to those of the network libraries.
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(
            f"backbone {name!r} cannot be opened: {reason}; check the files there, or fetch the "
            "model again"
        ) from error


def _assemble(
    model: Any, processor: Any
) -> tuple[BlipNetwork, Callable[[list[str]], Tensor], dict[str, Any]]:
    tokenizer, settings = processor.tokenizer, model.config
    vision, text = settings.vision_config, settings.text_config
    preprocess = _preprocessing(processor.image_processor, vision.image_size)
    most = min(tokenizer.model_max_length, text.max_position_embeddings)

    def tokenize(texts: list[str]) -> Tensor:
        given = tokenizer(
            texts, padding=True, truncation=True, max_length=most, return_tensors="pt"
        )
        return given["input_ids"]

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
    """Say in `ImageTransform`'s words what BLIP's own image processor does.

    It squashes an image to a square and scales and normalises the pixels.
    """
    size = (processor.size["height"], processor.size["width"])
    if size != (image_size, image_size):
        raise ValueError(
            f"its processor makes images of {size[0]} x {size[1]} pixels, its model reads "
            f"{image_size} x {image_size}"
        )
    interpolation = _INTERPOLATION.get(int(processor.resample))
    if interpolation is None:
        raise ValueError(f"its processor's resample is {processor.resample}; 2 and 3 are known")
    return {
        "size": size,
        "resize_mode": "squash",
        "interpolation": interpolation,
        "mean": tuple(processor.image_mean),
        "std": tuple(processor.image_std),
    }


def _check_kind(config: Any) -> None:
    if config.model_type != "blip":
        raise ValueError(f"it is a model of type {config.model_type!r}, not 'blip'")


def _check_loaded(loading: dict[str, Any]) -> None:
    """Refuse weights that transformers would make up: those of a captioning model lack some."""
    missing = [name for name in sorted(loading["missing_keys"]) if not name.startswith("itm_head")]
    if missing:
        raise ValueError(
            f"its weights lack {len(missing)} of the model's, such as {missing[0]}; a model for "
            "image-text retrieval is needed"
        )


@contextmanager
def _quiet(transformers: ModuleType) -> Iterator[None]:
    """Keep the library's own log lines and progress bars from the person; errors still raise."""
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
