"""Backbones: frozen dual encoders that embed images and texts in one space of width `d`.

A backbone is an open_clip model, loaded from checked files through the `local-dir:` path of
open_clip, or a network of `sieve.model.backbone.networks`. open_clip is imported on first use,
because its import takes longer than everything else that the explorer needs for its page.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import cached_property, partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from sieve.model.backbone.checked_files import (
    KNOWN_WORDS,
    TOKENIZER,
    VOCABULARIES,
    BackboneFiles,
    BackboneUnavailable,
    cannot_open,
    check_clip_config,
    copy_checked,
    find_files,
    read_settings,
    safe_copy,
    trust,
    trusted_files,
)
from sieve.model.backbone.names import CONFIG, LOCAL, check_no_torchscript, parse_name
from sieve.model.backbone.networks import SieveLiteNetwork, Tokenizer, open_blip, open_sieve_lite
from sieve.model.files import disk_is_full, report_full_disk
from sieve.model.hub import hub_file, hub_folder
from sieve.model.words.text import WordList, WordReading

if TYPE_CHECKING:
    from sieve.model.collection import Collection

_TEXT_CHUNKS = 4
"""Number of parts of a batch of texts, grouped by length."""
_LONGEST_WORD = 100
_CHARACTERS_PER_TOKEN = 24
_WIDEST_ASPECT = 8.0


class ImageTransform:
    """Image preprocessing of a model; picklable, as it does not hold the weights."""

    def __init__(self, preprocess: dict[str, Any]) -> None:
        from open_clip.transform import PreprocessCfg, image_transform_v2

        self._crops = preprocess.get("resize_mode") == "shortest"
        transform = image_transform_v2(PreprocessCfg(**preprocess), is_train=False)
        self._transform = cast(Callable[[Image.Image], Tensor], transform)

    def __call__(self, image: Image.Image) -> Tensor:
        """Return (3, H, W) float32 pixels of an upright RGB image, normalised for the model."""
        return self._transform(_trim(image) if self._crops else image)


def _trim(image: Image.Image) -> Image.Image:
    """Crop very long images around the centre before their short side is scaled up.

    A centre crop follows, so the model sees the same pixels. Otherwise a 1 x 10,000 image would be
    scaled up to gigabytes.
    """
    width, height = image.size
    limit = int(_WIDEST_ASPECT * min(width, height))
    if max(width, height) <= limit:
        return image
    return ImageOps.fit(image, (min(width, limit), min(height, limit)))


def _load_network(files: BackboneFiles) -> tuple[Any, Tokenizer, dict[str, Any]]:
    temporary = Path(tempfile.gettempdir())
    with report_full_disk(temporary):
        try:
            # Building a network draws random numbers; keep the random state of the caller.
            with _quiet(), torch.random.fork_rng(devices=[]):
                if files.name.is_blip:
                    return open_blip(files)
                if files.name.kind == "bundled":
                    return open_sieve_lite(files, lambda: _load_image_tower(files))
                return _open_clip_model(files)
        except Exception as error:
            if disk_is_full(error, temporary):
                raise
            # Errors range from invalid JSON and missing keys to errors of network libraries.
            raise cannot_open(files.name, error) from error


def _load_image_tower(files: BackboneFiles) -> Any:
    with _quiet(), torch.random.fork_rng(devices=[]):
        return _open_clip_model(files)[0]


def declared_width(name: str) -> int | None:
    """Return the embedding width in the configuration of a backbone; None if unknown.

    Nothing is downloaded and no weights are read.
    """
    config: Any = None
    try:
        parsed = parse_name(name)
        architecture = parsed.architecture
        if parsed.kind in ("bundled", "folder") and not parsed.is_blip:
            config = read_settings(parsed.path / CONFIG)["model_cfg"]
    except (OSError, ValueError, KeyError):
        architecture = name.partition("/")[0]
    if architecture:
        import open_clip

        config = open_clip.get_model_config(architecture)
    width = config.get("embed_dim") if isinstance(config, dict) else None
    return width if isinstance(width, int) else None


def _open_clip_model(files: BackboneFiles) -> tuple[Any, Tokenizer, dict[str, Any]]:
    import open_clip

    config, preprocess, quick_gelu = _configuration(files)
    check_clip_config({"model_cfg": config})
    text = config["text_cfg"]
    weights = files.weights
    check_no_torchscript(weights)
    own = {} if files.name.kind == "hub" else files.own
    tokens = {file: path for file, path in own.items() if file in TOKENIZER}
    if text.get("hf_tokenizer_name") and not tokens:
        folder = hub_folder(text["hf_tokenizer_name"], TOKENIZER, *VOCABULARIES)
        tokens = {file: folder / file for file in TOKENIZER if (folder / file).is_file()}
    with safe_copy(tokens) as folder:
        used = deepcopy(config)
        if text.get("hf_model_name"):
            used["text_cfg"]["hf_model_name"] = str(_text_tower(text["hf_model_name"], folder))
        written = {"model_cfg": used, "preprocess_cfg": preprocess}
        (folder / CONFIG).write_text(json.dumps(written), encoding="utf-8")
        network: Any = open_clip.create_model(
            f"{LOCAL}{folder}", force_quick_gelu=quick_gelu, pretrained_text=False
        )
        open_clip.load_checkpoint(network, str(weights), strict=True, weights_only=True)
        tokenizer = open_clip.get_tokenizer(f"{LOCAL}{folder}")
    return network, tokenizer, config


def _configuration(files: BackboneFiles) -> tuple[Any, dict[str, Any], bool]:
    """Return the configurations of model and preprocessing, and whether to use QuickGELU.

    Weights trained with QuickGELU are silently worse without it; open_clip only logs a warning.
    """
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg

    name = files.name
    if not name.architecture:
        settings = read_settings(files.own[CONFIG])
        return settings.get("model_cfg"), settings.get("preprocess_cfg") or {}, False
    config = open_clip.get_model_config(name.architecture) or {}
    tag = get_pretrained_cfg(name.architecture, name.place) if name.kind == "tag" else {}
    return config, dict(tag), bool(tag.get("quick_gelu", False))


def _text_tower(repository: str, folder: Path) -> Path:
    """Copy the checked configuration of a transformers text tower to its own folder."""
    from open_clip.hf_configs import arch_dict

    tower = folder / "text-tower"
    tower.mkdir()
    config = hub_file(repository, "config.json")
    kind = read_settings(config).get("model_type")
    if kind not in arch_dict:
        raise ValueError(
            f"{repository} is a model of type {str(kind)[:40]!r}, unknown to open_clip"
        )
    copy_checked(config, tower / "config.json")
    return tower


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress log lines and warnings of the libraries; errors are still raised."""
    root, handler = logging.getLogger(), logging.NullHandler()

    def drop(record: logging.LogRecord) -> bool:
        return "open_clip" not in record.pathname

    root.addFilter(drop)
    root.addHandler(handler)  # else logging.info() would install a handler that prints
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.removeHandler(handler)
        root.removeFilter(drop)


def resolve_device(name: str) -> torch.device:
    """Return the device `cuda`, `mps` or `cpu`, or the best available one for `auto`.

    Raises a ValueError if the name is invalid or the device unavailable.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next((kind for kind, usable in available.items() if usable), "cpu"))
    if name != "cpu" and name not in available:
        raise ValueError(f"device must be auto, cuda, mps or cpu; got {name!r}")
    if not available.get(name, True):
        raise ValueError(f"device {name!r} is not available to torch; use auto or cpu")
    return torch.device(name)


class Backbone:
    """A frozen dual encoder.

    Attributes
    ----------
    sha256 : str
        Hash of the loaded weights (names and bytes, in order), the configuration and the
        preprocessing. Equal hashes mean equal embeddings.
    width : int
        d, the width of the embeddings.
    files : BackboneFiles or None
        Files it was loaded from.
    """

    files: BackboneFiles | None = None

    def __init__(
        self,
        name: str,
        network: Any,
        tokenizer: Tokenizer,
        model_config: dict[str, Any],
        device: torch.device,
        words: WordList | None = None,
    ) -> None:
        preprocess = dict(network.visual.preprocess_cfg)
        self.name = name
        lite = network if isinstance(network, SieveLiteNetwork) else None
        config = {"model": model_config, "preprocess": preprocess}
        self.sha256 = lite.sha256 if lite else _hash(network, config)
        self.device = device
        self._preprocess = preprocess
        self._tokenizer = tokenizer
        self._words = words
        self._longest = _CHARACTERS_PER_TOKEN * int(getattr(network, "context_length", 0) or 77)
        # Convolutions are about twice as fast on a CPU in this layout.
        network = network.eval().requires_grad_(False)
        # `_encode_unpadded` is not thread-safe.
        self._text_lock = Lock()
        self._network = network.to(device=device, memory_format=torch.channels_last)
        self.width: int = lite.width if lite else self._common_width()

    @cached_property
    def transform(self) -> ImageTransform:
        """The preprocessing without the weights, for decoder processes."""
        return ImageTransform(self._preprocess)

    @classmethod
    def load(cls, name: str, device: str = "auto") -> Backbone:
        """Load a backbone by name: see `parse_name` and `resolve_device`.

        Hub weights are downloaded on first use. Raises a FileNotFoundError if a local folder, or a
        file in it, is missing, and a ValueError if the name is unknown, the weights cannot be
        downloaded or do not fit, or the device is unavailable.
        """
        resolve_device(device)
        return cls.of_files(find_files(parse_name(name)), device)

    @classmethod
    def of_files(cls, files: BackboneFiles, device: str = "auto") -> Backbone:
        """Load a backbone from its files; raise a ValueError as for `load`."""
        target = resolve_device(device)
        path = files.own.get(KNOWN_WORDS)
        words = WordList(path.read_text(encoding="utf-8").split()) if path else None
        backbone = cls(files.name.text, *_load_network(files), target, words)
        backbone.files = files
        return backbone

    def encode_images(self, images: Sequence[Image.Image], batch_size: int = 64) -> np.ndarray:
        """Embed upright RGB images: (n, d) float32, L2-normalised."""
        parts = [np.empty((0, self.width), np.float32)]
        for start in range(0, len(images), batch_size):
            batch = [self.transform(image) for image in images[start : start + batch_size]]
            parts.append(self.encode_pixels(torch.stack(batch)))
        return np.concatenate(parts)

    @torch.inference_mode()
    def encode_pixels(self, pixels: Tensor) -> np.ndarray:
        """Embed preprocessed images: (n, 3, H, W) float32 → (n, d) float32, L2-normalised."""
        if pixels.ndim != 4 or pixels.shape[1] != 3:
            raise ValueError(f"pixels must be (n, 3, H, W); got {tuple(pixels.shape)}")
        batch = pixels.to(self.device, memory_format=torch.channels_last)
        return self._unit(self._network.encode_image(batch))

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str], batch_size: int = 256) -> np.ndarray:
        """Embed texts without a prompt template: (n, d) float32, L2-normalised. Thread-safe.

        Texts longer than the context of the model are truncated.
        """
        parts = [np.empty((0, self.width), np.float32)]
        for start in range(0, len(texts), batch_size):
            batch = [_tidy(text, self._longest) for text in texts[start : start + batch_size]]
            tokens = self._tokenizer(batch).to(self.device)
            with self._text_lock:
                parts.append(self._unit(_encode_unpadded(self._network, tokens)))
        return np.concatenate(parts)

    def unknown_words(self, text: str) -> list[str]:
        """Return the distinct words of a text that the model was not trained on, in order.

        Empty for a backbone without a word list. Numbers, function words and regular inflections of
        known words count as known.
        """
        return [] if self._words is None else self._words.unknown(text)

    def read_words(self, text: str, singular: bool = False) -> WordReading:
        """Replace unknown words by a known form: beaches by beach.

        Without a word list the text is unchanged. `singular`: see `WordList.read`.
        """
        if self._words is None:
            return WordReading(text, known=text)
        return self._words.read(text, singular)

    def words_read(self, text: str) -> int:
        """Return the number of words of a text that fit into the context of the model."""
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

    def _unit(self, features: Tensor) -> np.ndarray:
        unit = F.normalize(features.float(), dim=-1)
        if not torch.isfinite(unit).all():
            raise ValueError(
                f"backbone {self.name!r} returned NaN or infinite embeddings: its weights or the "
                "image are damaged; check the image, then download or train the weights again"
            )
        return unit.cpu().numpy()

    def _common_width(self) -> int:
        """Return the embedding width, after a check that both towers agree on it."""
        self.width = 0  # width of the empty part below
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


def _encode_unpadded(network: Any, tokens: Tensor) -> Tensor:
    """Embed tokens as `network.encode_text` does, but faster: (b, t) int64 → (b, d).

    Captions fill a quarter of the context. In a causal tower that reads the state of the last
    token, the tokens after it have no effect and are cut off. Only open_clip's own text tower is
    known to be of this kind. Not thread-safe: its attention mask is changed temporarily.
    """
    encode = _unpadded_encoder(network)
    if encode is None or not len(tokens):
        return network.encode_text(tokens)
    order = tokens.argmax(1).argsort()
    parts = [encode(tokens[rows]) for rows in order.chunk(_TEXT_CHUNKS)]
    return torch.cat(parts)[order.argsort()]


def _unpadded_encoder(network: Any) -> Callable[[Tensor], Tensor] | None:
    if isinstance(network, SieveLiteNetwork):
        return network.encode_text
    if not isinstance(tower := getattr(network, "text", None), torch.nn.Module):
        return None
    from open_clip.transformer import TextTransformer

    ignores_padding = (
        isinstance(tower, TextTransformer)
        and tower.pool_type == "argmax"
        and tower.attn_mask is not None
        and tower.cls_emb is None
    )
    return partial(_encode_cut, network, tower) if ignores_padding else None


def _encode_cut(network: Any, tower: Any, tokens: Tensor) -> Tensor:
    length = int(tokens.argmax(1).max()) + 1
    mask = tower.attn_mask
    # The tower slices its position embeddings but not its mask.
    tower.attn_mask = mask[:length, :length]
    try:
        return network.encode_text(tokens[:, :length])
    finally:
        tower.attn_mask = mask


def _hash(network: torch.nn.Module, config: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for key, tensor in network.state_dict().items():
        digest.update(f"{key}{tuple(tensor.shape)}{tensor.dtype}".encode())
        raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(raw.numpy().data)
    return digest.hexdigest()


def _tidy(text: str, longest: int) -> str:
    """Remove control characters, and cut text that cannot fit into the context.

    Byte-pair merging is quadratic in the length of a word: ten thousand letters take seconds.
    """
    clean = "".join(c for c in text[: 20 * longest] if unicodedata.category(c) not in ("Cf", "Cs"))
    return " ".join(word[:_LONGEST_WORD] for word in clean.split())[:longest]


def backbone_of(collection: Collection, device: str = "auto") -> Backbone:
    """Load the backbone of a collection.

    Raises `BackboneUnavailable` if it is not trusted, cannot be loaded, or its weights have
    changed, and a ValueError if the device is unavailable.
    """
    identity = collection.backbone
    resolve_device(device)
    try:
        backbone = Backbone.of_files(trusted_files(identity.name), device)
    except BackboneUnavailable:
        raise
    except (ValueError, OSError) as error:
        raise BackboneUnavailable(str(error)) from error
    if not identity.may_be(backbone.sha256, backbone.width):
        raise BackboneUnavailable(
            f"backbone {backbone.name} has weights {backbone.sha256[:12]}, but collection "
            f"{collection.name} was prepared with {identity.sha256[:12]}; prepare it again"
        )
    return backbone


def trust_backbone_of(collection: Collection) -> None:
    """Trust the backbone that a collection names, permanently.

    Raises a ValueError or OSError if it cannot be found, or the trust cannot be saved.
    """
    if collection.codes is None:
        trust(find_files(parse_name(collection.backbone.name)))
