"""Networks of backbones that open_clip does not load: BLIP, and the bundled sieve-lite.

BLIP (Li et al. 2022, arXiv 2201.12086) embeds an image by the [CLS] state of its vision transformer
and a text by that of its BERT, each followed by a linear projection. The matching head is not used:
it needs an image and a text together and cannot search. BLIP requires the optional library
transformers, which is imported only when a BLIP model is loaded.

Importing open_clip takes longer than a whole search. The text tower of sieve-lite is built here
from the same layers, so that embeddings are equal bit for bit; images are embedded by the open_clip
network, which is loaded when an image is first embedded.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from sieve.model.backbone.checked_files import BackboneFiles, read_settings, safe_copy
from sieve.model.backbone.names import CONFIG

Tokenizer = Callable[[list[str]], Tensor]

_INTERPOLATION = {2: "bilinear", 3: "bicubic"}
"""Interpolation modes by their number in PIL."""
_SHAPING = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act",
    "layer_norm_eps", "image_size", "patch_size", "max_position_embeddings",
)  # fmt: skip
"""Settings that determine the embeddings; others vary with the library version."""
_SIEVE_LITE_SHA256 = "6607550f20154c53c11e3925f1860b99dc30c497501e675ee165d0b2adaa966e"
"""`Backbone.sha256` of the open_clip network. Bundled files are compared with their checksums."""
_TEXT = "text."
"""Prefix of the weights of the text tower."""


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


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        layers = {
            "c_fc": nn.Linear(width, inner), "gelu": nn.GELU(), "c_proj": nn.Linear(inner, width)
        }  # fmt: skip
        self.mlp = nn.Sequential(OrderedDict(layers))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        read = self.ln_1(x)
        x = x + self.attn(read, read, read, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


class SieveLiteNetwork(nn.Module):
    """The text tower, and the image tower on demand, with the interface of open_clip networks.

    Parameters
    ----------
    config : dict
        Content of `open_clip_config.json`.
    load : callable
        Loads the open_clip network.
    """

    sha256 = _SIEVE_LITE_SHA256

    def __init__(self, config: dict[str, Any], load: Callable[[], Any]) -> None:
        super().__init__()
        model, text = config["model_cfg"], config["model_cfg"]["text_cfg"]
        self.visual = SimpleNamespace(preprocess_cfg=config["preprocess_cfg"])
        self.width = model["embed_dim"]
        self.context_length, width = text["context_length"], text["width"]
        # Unlike `nn.Embedding`, this draws no random numbers.
        self.token_embedding = nn.Embedding.from_pretrained(torch.empty(text["vocab_size"], width))
        self.positional_embedding = nn.Parameter(torch.empty(self.context_length, width))
        inner = int(width * text["mlp_ratio"])
        blocks = [_Block(width, text["heads"], inner) for _ in range(text["layers"])]
        self.transformer = nn.ModuleDict({"resblocks": nn.ModuleList(blocks)})
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.empty(width, self.width))
        self._load = load
        self._images: Any = None

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Embed images: (n, 3, H, W) → (n, d), not normalised."""
        if self._images is None:
            network = self._load().eval().requires_grad_(False)
            # In a tuple, the network is not registered as a part of this one.
            self._images = (network.to(pixels.device, memory_format=torch.channels_last),)
        return self._images[0].encode_image(pixels)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Embed tokens by the state of the last one, without padding: (b, t) → (b, d)."""
        last = tokens.argmax(1)
        tokens = tokens[:, : int(last.max()) + 1]
        length = tokens.shape[1]
        x = self.token_embedding(tokens) + self.positional_embedding[:length]
        mask = torch.full((length, length), float("-inf"), device=x.device).triu_(1)
        for block in self.transformer["resblocks"]:  # type: ignore[union-attr]
            x = block(x, mask)
        return self.ln_final(x)[torch.arange(len(x)), last] @ self.text_projection


def open_sieve_lite(
    files: BackboneFiles, load: Callable[[], Any]
) -> tuple[SieveLiteNetwork, Tokenizer, dict[str, Any]]:
    """Open the bundled backbone; `load` loads its open_clip network."""
    config = read_settings(files.own[CONFIG])
    network = SieveLiteNetwork(config, load)
    with safe_open(files.weights, "pt") as stored:
        names = [name for name in stored.keys() if name.startswith(_TEXT)]  # noqa: SIM118
        weights = {name[len(_TEXT) :]: stored.get_tensor(name).float() for name in names}
    network.load_state_dict(weights, assign=True)
    return network, _open_tokenizer(network.context_length), config["model_cfg"]


def _open_tokenizer(context_length: int) -> Tokenizer:
    """Return open_clip's tokenizer from its module alone, without its package."""
    package = find_spec("open_clip")
    assert package and package.submodule_search_locations
    path = Path(package.submodule_search_locations[0]) / "tokenizer.py"
    spec = spec_from_file_location("open_clip.tokenizer", path)
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.SimpleTokenizer(context_length=context_length)
