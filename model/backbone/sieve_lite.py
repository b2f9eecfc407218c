"""The bundled backbone, whose texts are encoded without an import of open_clip.

Importing open_clip takes longer than a whole search. Its text tower is built here from the same
layers, so that embeddings are equal bit for bit; images are embedded by the open_clip network,
which is loaded when an image is first embedded.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from sieve.model.backbone.blip import Tokenizer
from sieve.model.backbone.checked_files import BackboneFiles, read_settings
from sieve.model.backbone.names import CONFIG

SHA256 = "6607550f20154c53c11e3925f1860b99dc30c497501e675ee165d0b2adaa966e"
"""`Backbone.sha256` of the open_clip network. Bundled files are compared with their checksums."""
_TEXT = "text."
"""Prefix of the weights of the text tower."""


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

    sha256 = SHA256

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
