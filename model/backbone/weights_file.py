"""Detect the open_clip architecture of a weights file from tensor names and shapes."""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch

Shapes = dict[str, tuple[int, ...]]

_TORCHSCRIPT = "/constants.pkl"


def architecture_of(path: Path) -> str:
    """Return the architecture of a weights file.

    Parameters
    ----------
    path : Path
        `.safetensors`, or a state dict saved by `torch.save`; only tensors are unpickled.

    Raises
    ------
    ValueError
        If it has no such weights, or matches several architectures; one line, with the name to use
        instead.
    """
    shapes = _shapes(path)
    if any(name.startswith("vision_model.") for name in shapes):
        raise ValueError(
            f"backbone '{path}' has weights in the transformers format; use the open_clip name of "
            "the same model, such as ViT-B-32/openai for openai/clip-vit-base-patch32"
        )
    fitting = _fitting(shapes)
    if not fitting:
        raise ValueError(
            f"the architecture of backbone '{path}' is not clear from its weights; give it as "
            f"ARCHITECTURE/{path.absolute()}, such as ViT-B-32/{path.absolute()}"
        )
    if len(fitting) > 1:
        names = " or ".join(f"{each}/{path.absolute()}" for each in fitting)
        gelu = any(each.endswith("-quickgelu") for each in fitting)
        hint = " (-quickgelu for weights of OpenAI and their fine-tuned versions)" if gelu else ""
        raise ValueError(f"backbone '{path}' matches several architectures; use {names}{hint}")
    return fitting[0]


def _shapes(path: Path) -> Shapes:
    """Return names and shapes of the tensors in a file."""
    try:
        if path.suffix == ".safetensors":
            with safetensors.safe_open(path, "pt") as file:
                return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        if _is_torchscript(path):
            raise ValueError(_torchscript(path))
        state = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except ValueError:
        raise
    except Exception as error:  # zip, pickle and safetensors raise different errors
        reason = " ".join(str(error).split())[:80] or type(error).__name__
        if "weights_only" in str(error) or "Weights only" in str(error):
            reason = "it is a pickle of Python objects, which Sieve does not load"
        raise ValueError(
            f"backbone '{path}' cannot be read as weights ({reason}); give a state dict as "
            ".safetensors or .pt"
        ) from None
    inner = state.get("state_dict", state) if isinstance(state, Mapping) else {}
    return {
        str(name).removeprefix("module."): tuple(value.shape)
        for name, value in inner.items()
        if isinstance(value, torch.Tensor)
    }


def check_no_torchscript(path: Path) -> None:
    """Raise a ValueError if a file is TorchScript, which is a program.

    Raises
    ------
    ValueError
        One line, with the name of the same weights if it is known.
    """
    if _is_torchscript(path):
        raise ValueError(_torchscript(path))


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith(_TORCHSCRIPT) for name in archive.namelist())


def _torchscript(path: Path) -> str:
    """Return the error message for TorchScript, with the name of the same weights if known."""
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg

    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    for architecture, tag in open_clip.list_pretrained():
        if digest in str(get_pretrained_cfg(architecture, tag).get("url", "")):
            return (
                f"backbone '{path}' is a TorchScript program, which Sieve does not run; use "
                f"{architecture}/{tag}, the same weights"
            )
    return (
        f"backbone '{path}' is a TorchScript program, which Sieve does not run; give its state "
        "dict, or for OpenAI's own file the name, such as ViT-B-32/openai"
    )


def _fitting(shapes: Shapes) -> list[str]:
    import open_clip

    found = _facts(shapes)
    if found is None:
        return []
    return [
        name
        for name in open_clip.list_models()
        if _expected(open_clip.get_model_config(name) or {}) == found
    ]


def _facts(shapes: Shapes) -> tuple[Any, ...] | None:
    """Return the sizes in a state dict, in the order of `_expected`."""
    text = "text." if "text.token_embedding.weight" in shapes else ""
    try:
        vocabulary, text_width = shapes[f"{text}token_embedding.weight"]
        context = shapes[f"{text}positional_embedding"][0]
        embed = shapes[f"{text}text_projection"][1]
        text_layers = _count(shapes, rf"{re.escape(text)}transformer\.resblocks\.(\d+)\.")
        first = shapes["visual.conv1.weight"]
        tower: tuple[Any, ...]
        if "visual.class_embedding" in shapes:
            grid = round((shapes["visual.positional_embedding"][0] - 1) ** 0.5)
            layers = _count(shapes, r"visual\.transformer\.resblocks\.(\d+)\.")
            tower = (first[0], first[2], layers, grid * first[2])
        else:
            grid = round((shapes["visual.attnpool.positional_embedding"][0] - 1) ** 0.5)
            stages = [_count(shapes, rf"visual\.layer{i}\.(\d+)\.") for i in range(1, 5)]
            tower = (first[0] * 2, None, tuple(stages), grid * 32)
    except (KeyError, IndexError, ValueError):
        return None
    return (embed, vocabulary, text_width, context, text_layers, tower)


def _expected(config: dict[str, Any]) -> tuple[Any, ...] | None:
    """Return the sizes of an architecture; None if another library builds a part of it."""
    vision, text = config.get("vision_cfg", {}), config.get("text_cfg", {})
    if "timm_model_name" in vision or "hf_model_name" in text or "multimodal_cfg" in config:
        return None
    layers, size = vision.get("layers", 12), vision.get("image_size", 224)
    is_resnet = isinstance(layers, list)
    tower = (
        vision.get("width", 768 if not is_resnet else 64),
        None if is_resnet else vision.get("patch_size", 16),
        tuple(layers) if is_resnet else layers,
        size,
    )
    return (
        config.get("embed_dim"), text.get("vocab_size", 49408), text.get("width", 512),
        text.get("context_length", 77), text.get("layers", 12), tower,
    )  # fmt: skip


def _count(shapes: Shapes, pattern: str) -> int:
    """Count the numbered blocks in the names of tensors."""
    numbers = {match[1] for name in shapes if (match := re.match(pattern, name))}
    return len(numbers)
