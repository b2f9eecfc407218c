"""Building open_clip's networks and tokenizers from checked files, without the noise.

open_clip takes longer to import than all else that the explorer needs before its page is there, so
it is imported when a backbone is first loaded.
"""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

from sieve.model.backbone.files import (
    TOKENIZER,
    VOCABULARIES,
    BackboneFiles,
    cannot_open,
    check_clip_config,
    copy_checked,
    read_settings,
    safe_copy,
)
from sieve.model.backbone.hub import hub_file, hub_folder
from sieve.model.backbone.names import CONFIG, LOCAL, parse_name
from sieve.model.backbone.weights_file import check_no_torchscript
from sieve.model.faults import disk_is_full, writing_in


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
    with writing_in(temporary):
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
