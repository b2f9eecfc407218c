"""Where a backbone comes from: its name, and opening it through open_clip without the noise.

open_clip takes longer to import than all else that the explorer needs before its page is there, so
this room imports it when a backbone is first opened.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from sieve.assets import ROOT

BUNDLED = ("sieve-lite",)
"""Backbones that ship with Sieve; each is a folder under `assets/backbones`."""
EXAMPLES = "sieve-lite, ViT-B-32/openai, hf-hub:ORG/MODEL, local-dir:/PATH or blip:ORG/MODEL"

_LOCAL, _HUB = "local-dir:", "hf-hub:"


class Source(NamedTuple):
    """What open_clip is asked for."""

    model: str
    weights: str | None
    """A tag or a file, where the model's name alone does not say which."""
    folder: Path | None
    """Where it is local."""


def resolve(name: str) -> Source:
    """Find out what a backbone's name stands for, without opening it.

    Raises
    ------
    FileNotFoundError
        If a local folder or its configuration is missing.
    ValueError
        If the name or its weights are unknown.
    """
    if name in BUNDLED:
        name = f"{_LOCAL}{ROOT / 'backbones' / name}"
    if name.startswith(_LOCAL):
        folder = Path(name.removeprefix(_LOCAL)).expanduser()
        config = folder / "open_clip_config.json"
        if not folder.is_dir() or not config.is_file():
            what = "open_clip_config.json" if folder.is_dir() else "folder"
            raise FileNotFoundError(
                f"backbone {name!r}: no {what} at {folder}; give a folder with"
                " open_clip_config.json and open_clip_model.safetensors"
            )
        return Source(f"{_LOCAL}{folder}", None, folder)
    if name.startswith(_HUB) and len(name) > len(_HUB):
        return Source(name, None, None)
    import open_clip

    architecture, _, weights = name.partition("/")
    if architecture not in open_clip.list_models():
        raise ValueError(f"unknown backbone {name!r}; expected one like {EXAMPLES}")
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if weights not in tags and not (weights and Path(weights).is_file()):
        known = ", ".join(tags) or "none; give the path of a file"
        raise ValueError(f"backbone {name!r}: say which weights, {architecture}/WEIGHTS: {known}")
    return Source(architecture, weights, None)


def declared_width(name: str) -> int | None:
    """Return the width of a backbone's embeddings by its configuration; None if that is unknown.

    Nothing is downloaded and no weights are read.
    """
    if name in BUNDLED:
        name = f"{_LOCAL}{ROOT / 'backbones' / name}"
    config: Any
    if name.startswith(_LOCAL):
        file = Path(name.removeprefix(_LOCAL)).expanduser() / "open_clip_config.json"
        try:
            config = json.loads(file.read_text(encoding="utf-8"))["model_cfg"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
    else:
        import open_clip

        config = open_clip.get_model_config(name.partition("/")[0])
    width = config.get("embed_dim") if isinstance(config, dict) else None
    return width if isinstance(width, int) else None


def open_source(name: str, source: Source) -> tuple[Any, Callable[[list[str]], torch.Tensor], dict]:
    """Build the network with its weights, its tokenizer and its configuration.

    Raises
    ------
    ValueError
        One line, with what to do, whatever went wrong inside open_clip or the hub.
    """
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg

    # open_clip only warns where weights were trained with OpenAI's activation; without it they are
    # silently worse.
    tag = get_pretrained_cfg(source.model, source.weights) if source.weights else {}
    try:
        # Building a network draws random numbers, which must not shift those of the caller.
        with _quiet(), torch.random.fork_rng(devices=[]):
            network = open_clip.create_model_from_pretrained(
                source.model,
                source.weights,
                force_quick_gelu=bool(tag.get("quick_gelu", False)),
                return_transform=False,
            )
            tokenizer = open_clip.get_tokenizer(source.model)
            config = open_clip.get_model_config(source.model)
    except Exception as error:
        # Its faults range from JSON errors over missing keys to those of the network libraries.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        advice = (
            "check open_clip_config.json and the weights beside it"
            if source.folder
            else "weights are fetched on first use: check the name and the connection, or use"
            " sieve-lite or local-dir:/PATH, which need none"
        )
        raise ValueError(f"backbone {name!r} cannot be opened: {reason}; {advice}") from error
    return network, tokenizer, config or {}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries' own log lines and warnings from the person; errors still raise."""
    root, handler = logging.getLogger(), logging.NullHandler()
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.CRITICAL)  # it tells of every one of a dozen tries to connect

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
        hub.setLevel(level)
