"""Backbones: the frozen dual encoders that put images and texts into one space of `d` dimensions.

A backbone is an open_clip model, the bundled small one too: it lies in a folder and is opened
through open_clip's own `local-dir:` path, the way people open models of their own. BLIP, a peer,
comes from `sieve.model.backbone.blip` and is called in the same way.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from sieve.model.backbone.blip import open_blip
from sieve.model.backbone.files import KNOWN_WORDS, BackboneFiles, find_files
from sieve.model.backbone.image_transform import ImageTransform
from sieve.model.backbone.names import parse_name
from sieve.model.backbone.source import open_source
from sieve.model.backbone.unpadded import encode_unpadded
from sieve.model.words.known import WordList, WordReading

_LONGEST_WORD = 100
_CHARACTERS_PER_TOKEN = 24


def resolve_device(name: str) -> torch.device:
    """Choose the device to compute on.

    Parameters
    ----------
    name : str
        `auto` (the best there is), `cuda`, `mps` or `cpu`.

    Raises
    ------
    ValueError
        If the name is another, or the device is absent on this machine.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next((kind for kind, there in present.items() if there), "cpu"))
    if name != "cpu" and name not in present:
        raise ValueError(f"device must be auto, cuda, mps or cpu; got {name!r}")
    if not present.get(name, True):
        raise ValueError(f"device {name!r} was asked for, but torch finds none; use auto or cpu")
    return torch.device(name)


class Backbone:
    """A frozen dual encoder.

    Attributes
    ----------
    name : str
        Canonical: see `sieve.model.backbone.names`.
    sha256 : str
        Hash of the loaded weights (names and bytes, in order), the configuration and the
        preprocessing: two backbones with the same hash give the same embeddings.
    width : int
        d, the width of the embeddings.
    device : torch.device
    transform : ImageTransform
        What `preprocess` applies, by itself, for decoder processes.
    files : BackboneFiles or None
        What it was loaded from.
    """

    files: BackboneFiles | None = None

    def __init__(
        self,
        name: str,
        network: Any,
        tokenizer: Callable[[list[str]], torch.Tensor],
        model_config: dict[str, Any],
        device: torch.device,
        words: WordList | None = None,
    ) -> None:
        preprocess = dict(network.visual.preprocess_cfg)
        self.name = name
        self.sha256 = _hash(network, {"model": model_config, "preprocess": preprocess})
        self.device = device
        self.transform = ImageTransform(preprocess)
        self._tokenizer = tokenizer
        self._words = words
        self._longest = _CHARACTERS_PER_TOKEN * int(getattr(network, "context_length", 0) or 77)
        # Convolutions run about twice as fast on a CPU in this layout; transformers do not mind.
        network = network.eval().requires_grad_(False)
        # Texts are embedded in turn: a tower's mask is cut to their length meanwhile.
        self._turn = Lock()
        self._network = network.to(device=device, memory_format=torch.channels_last)
        self.width = self._common_width()

    @classmethod
    def load(cls, name: str, device: str = "auto") -> Backbone:
        """Load a backbone.

        Parameters
        ----------
        name : str
            See `sieve.model.backbone.names.parse_name`. Weights of the Hub are downloaded on first
            use.
        device : str, default "auto"
            See `resolve_device`.

        Raises
        ------
        FileNotFoundError
            If a local folder, or a file in it, is missing.
        ValueError
            If the name is unknown, the weights cannot be fetched or do not fit, or the device is
            absent.
        """
        resolve_device(device)
        return cls.of_files(find_files(parse_name(name)), device)

    @classmethod
    def of_files(cls, files: BackboneFiles, device: str = "auto") -> Backbone:
        """Load a backbone from files that were found before.

        Raises
        ------
        ValueError
            As for `load`.
        """
        target, name = resolve_device(device), files.name
        if name.is_blip:
            made = cls(name.text, *open_blip(files), target)
        else:
            network, tokenizer, config = open_source(files)
            words = None
            if path := files.own.get(KNOWN_WORDS):
                words = WordList(path.read_text(encoding="utf-8").split())
            made = cls(name.text, network, tokenizer, config, target, words)
        made.files = files
        return made

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        """Make of any image the (3, H, W) float32 pixels that the model takes."""
        return self.transform(image)

    def encode_images(self, images: Sequence[Image.Image], batch_size: int = 64) -> np.ndarray:
        """Embed images.

        Returns
        -------
        np.ndarray
            (n, d) float32, L2-normalised.
        """
        parts = [np.empty((0, self.width), np.float32)]
        for start in range(0, len(images), batch_size):
            batch = [self.transform(image) for image in images[start : start + batch_size]]
            parts.append(self.encode_pixels(torch.stack(batch)))
        return np.concatenate(parts)

    @torch.inference_mode()
    def encode_pixels(self, pixels: torch.Tensor) -> np.ndarray:
        """Embed images that `preprocess` has made ready.

        Parameters
        ----------
        pixels : torch.Tensor
            (n, 3, H, W) float32.

        Returns
        -------
        np.ndarray
            (n, d) float32, L2-normalised.
        """
        if pixels.ndim != 4 or pixels.shape[1] != 3:
            raise ValueError(f"pixels must be (n, 3, H, W); got {tuple(pixels.shape)}")
        batch = pixels.to(self.device, memory_format=torch.channels_last)
        return self._unit(self._network.encode_image(batch))

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str], batch_size: int = 256) -> np.ndarray:
        """Embed texts as they are: prompt templates are the caller's.

        A text longer than the model's context is cut; an empty one is embedded as such. Safe to
        call from several threads.

        Returns
        -------
        np.ndarray
            (n, d) float32, L2-normalised.
        """
        parts = [np.empty((0, self.width), np.float32)]
        for start in range(0, len(texts), batch_size):
            batch = [_tidy(text, self._longest) for text in texts[start : start + batch_size]]
            tokens = self._tokenizer(batch).to(self.device)
            with self._turn:
                parts.append(self._unit(encode_unpadded(self._network, tokens)))
        return np.concatenate(parts)

    def unknown_words(self, text: str) -> list[str]:
        """Words of the text that the model never saw in training, in order, each once.

        Empty for a backbone without a word list. Numbers and function words are never reported,
        and a plain inflection of a known word counts as known.
        """
        return [] if self._words is None else self._words.unknown(text)

    def read_words(self, text: str, singular: bool = False) -> WordReading:
        """Replace words that the model never saw by a form that it did: beaches by beach.

        A backbone without a word list reads every text as it is. `singular`: see `WordList.read`.
        """
        if self._words is None:
            return WordReading(text, known=text)
        return self._words.read(text, singular)

    def words_read(self, text: str) -> int:
        """Count the words of a text that fit into the model's context."""
        words = _tidy(text, self._longest).split()
        whole = self._tokenizer([" ".join(words)])
        low, high = 0, len(words)  # the tokens of the first `high` words are those of all
        while low < high:
            middle = (low + high) // 2
            if torch.equal(self._tokenizer([" ".join(words[:middle])]), whole):
                high = middle
            else:
                low = middle + 1
        return high

    def _unit(self, features: torch.Tensor) -> np.ndarray:
        unit = F.normalize(features.float(), dim=-1)
        if not torch.isfinite(unit).all():
            raise ValueError(
                f"backbone {self.name!r} gives NaN or infinite embeddings: its weights or the image"
                " are damaged; check the image, then fetch or train the weights again"
            )
        return unit.cpu().numpy()

    def _common_width(self) -> int:
        """Embed one image and one text: the width, after a check that both towers agree on it."""
        self.width = 0  # the empty part of the probes below
        pixels = self.transform(Image.new("RGB", (8, 8)))[None]
        image = self.encode_pixels(pixels).shape[-1]
        with torch.inference_mode():
            tokens = self._tokenizer([""]).to(self.device)
            text = self._unit(self._network.encode_text(tokens)).shape[-1]
        if image != text:
            raise ValueError(
                f"backbone {self.name!r} embeds images in {image} dimensions and texts in {text};"
                " both must be equal: check embed_dim in its configuration"
            )
        return image


def _hash(network: torch.nn.Module, config: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for key, tensor in network.state_dict().items():
        digest.update(f"{key}{tuple(tensor.shape)}{tensor.dtype}".encode())
        raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(raw.numpy().data)
    return digest.hexdigest()


def _tidy(text: str, longest: int) -> str:
    """Drop what no tokenizer should see, and cut what could not fit into the context anyway.

    Byte-pair merging is quadratic in a word's length: ten thousand letters without a space would
    take seconds.
    """
    clean = "".join(c for c in text[: 20 * longest] if unicodedata.category(c) not in ("Cf", "Cs"))
    return " ".join(word[:_LONGEST_WORD] for word in clean.split())[:longest]
