"""Backbones: the frozen dual encoders that put images and texts into one space of `d` dimensions.

A backbone is an open_clip model, the bundled small one too: it lies in a folder and is opened
through open_clip's own `local-dir:` path, the way people open models of their own. BLIP, a peer,
comes from `sieve.model.backbone.blip` and is called in the same way.

Embedding texts without their padding: captions fill a quarter of the places that models have.

In a causal tower that reads the state at a text's last token nothing after it matters, so what
follows can be cut off. Only open_clip's own text tower says that it is of this kind; all others
embed texts as they are.

Building open_clip's networks and tokenizers from checked files, without the noise.

open_clip takes longer to import than all else that the explorer needs before its page is there, so
it is imported when a backbone is first loaded.

The backbone that a collection's embeddings are of.
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
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from sieve.model.backbone.blip import open_blip
from sieve.model.backbone.checked_files import (
    KNOWN_WORDS,
    TOKENIZER,
    VOCABULARIES,
    BackboneFiles,
    cannot_open,
    check_clip_config,
    copy_checked,
    find_files,
    read_settings,
    safe_copy,
)
from sieve.model.backbone.hub import hub_file, hub_folder
from sieve.model.backbone.names import CONFIG, LOCAL, parse_name
from sieve.model.backbone.transforms import ImageTransform
from sieve.model.backbone.trust import trust, trusted_files
from sieve.model.backbone.unavailable import BackboneUnavailable
from sieve.model.backbone.weights_file import check_no_torchscript
from sieve.model.files import disk_is_full, report_full_disk
from sieve.model.words.text import WordList, WordReading

if TYPE_CHECKING:
    from sieve.model.collection import Collection

CHUNKS = 4
"""Texts of like length go together in so many parts of a batch."""


def encode_unpadded(network: Any, tokens: Tensor) -> Tensor:
    """Embed tokens: (b, t) int64 → (b, d), as `network.encode_text` does but faster.

    Not safe between threads, as the network is changed meanwhile.

    Parameters
    ----------
    network : open_clip model
    tokens : (b, t) int64
        Rows end with the largest token, then padding.
    """
    tower = getattr(network, "text", None)
    if not _reads_only_to_the_end(tower) or not len(tokens):
        return network.encode_text(tokens)
    order = tokens.argmax(1).argsort()
    parts = [_encode_cut(network, tower, tokens[rows]) for rows in order.chunk(CHUNKS)]
    return torch.cat(parts)[order.argsort()]


def _reads_only_to_the_end(tower: Any) -> bool:
    from open_clip.transformer import TextTransformer

    return (
        isinstance(tower, TextTransformer)
        and tower.pool_type == "argmax"
        and tower.attn_mask is not None
        and tower.cls_emb is None
    )


def _encode_cut(network: Any, tower: Any, tokens: Tensor) -> Tensor:
    length = int(tokens.argmax(1).max()) + 1
    mask = tower.attn_mask
    # The tower slices its positions but not its mask.
    tower.attn_mask = mask[:length, :length]
    try:
        return network.encode_text(tokens[:, :length])
    finally:
        tower.attn_mask = mask


def open_source(files: BackboneFiles) -> tuple[Any, Callable[[list[str]], torch.Tensor], dict]:
    """Build the network with its weights, its tokenizer and its configuration.

    Raises
    ------
    ValueError
        One line, with what to do, whatever went wrong inside open_clip or the Hub.
    OSError
        If the disk of temporary files is full.
    """
    temporary = Path(tempfile.gettempdir())
    with report_full_disk(temporary):
        try:
            # Building a network draws random numbers, which must not shift those of the caller.
            with _quiet(), torch.random.fork_rng(devices=[]):
                return _built(files)
        except Exception as error:
            if disk_is_full(error, temporary):
                raise
            # The errors range from JSON errors over missing keys to those of network libraries.
            local = files.name.kind in ("bundled", "folder")
            raise cannot_open(files.name.text, error, local=local) from error


def declared_width(name: str) -> int | None:
    """Return the width of a backbone's embeddings by its configuration; None if that is unknown.

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


def _built(files: BackboneFiles) -> tuple[Any, Callable[[list[str]], torch.Tensor], dict]:
    import open_clip

    config, preprocess, quick_gelu = _configuration(files)
    check_clip_config({"model_cfg": config})
    text = config["text_cfg"]
    weights = files.weights
    check_no_torchscript(weights)
    own = {} if files.name.kind == "hub" else files.own
    tokens = {file: path for file, path in own.items() if file in TOKENIZER}
    if text.get("hf_tokenizer_name") and not tokens:
        folder = hub_folder(text["hf_tokenizer_name"], TOKENIZER, VOCABULARIES)
        tokens = {file: folder / file for file in TOKENIZER if (folder / file).is_file()}
    with safe_copy(tokens) as folder:
        used = deepcopy(config)
        if text.get("hf_model_name"):
            used["text_cfg"]["hf_model_name"] = str(_text_tower(text["hf_model_name"], folder))
        written = {"model_cfg": used, "preprocess_cfg": preprocess}
        (folder / CONFIG).write_text(json.dumps(written), encoding="utf-8")
        network: Any = open_clip.create_model(
            f"{LOCAL}{folder}",
            force_quick_gelu=quick_gelu,
            pretrained_text=False,
        )
        open_clip.load_checkpoint(network, str(weights), strict=True, weights_only=True)
        tokenizer = open_clip.get_tokenizer(f"{LOCAL}{folder}")
    return network, tokenizer, config


def _configuration(files: BackboneFiles) -> tuple[dict[str, Any], dict[str, Any], bool]:
    """Read the configurations of the model and of preprocessing, and whether to use QuickGELU.

    open_clip only warns if weights were trained with OpenAI's activation; without it they are
    silently worse.
    """
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg

    name = files.name
    if not name.architecture:
        settings = read_settings(files.own[CONFIG])
        check_clip_config(settings)
        return settings["model_cfg"], settings.get("preprocess_cfg") or {}, False
    config = open_clip.get_model_config(name.architecture) or {}
    tag = get_pretrained_cfg(name.architecture, name.place) if name.kind == "tag" else {}
    return config, dict(tag), bool(tag.get("quick_gelu", False))


def _text_tower(repository: str, folder: Path) -> Path:
    """Put the checked configuration of a text tower of transformers into a folder of its own."""
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
    """Keep the libraries' own log lines and warnings from the person; errors still raise."""
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


def backbone_of(collection: Collection, device: str = "auto") -> Backbone:
    """Load the backbone that made a collection, to embed more in the same space.

    Raises
    ------
    BackboneUnavailable
        If the person has not agreed to load it, it cannot be loaded, or another one has its name by
        now.
    ValueError
        If the device is absent.
    """
    made_by = collection.backbone
    resolve_device(device)
    try:
        backbone = Backbone.of_files(trusted_files(made_by.name), device)
    except BackboneUnavailable:
        raise
    except (ValueError, OSError) as error:
        raise BackboneUnavailable(str(error)) from error
    if not made_by.may_be(backbone.sha256, backbone.width):
        raise BackboneUnavailable(
            f"backbone {backbone.name} has weights {backbone.sha256[:12]}, but collection "
            f"{collection.name} was made with {made_by.sha256[:12]}; prepare the collection again"
        )
    return backbone


def trust_backbone_of(collection: Collection) -> None:
    """Remember that the person agrees to load the backbone that a collection names.

    Raises
    ------
    ValueError, OSError
        If it cannot be found, or `$SIEVE_HOME` cannot be written to.
    """
    if collection.codes is None:
        trust(find_files(parse_name(collection.backbone.name)))
