"""Names of backbones: spellings to canonical names, and the architecture of a weights file."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import safetensors

from sieve.assets import ROOT
from sieve.model.files import reason_of
from sieve.model.hub import SCHEME, is_reference

BUNDLED = ("sieve-lite",)
"""Backbones that ship with Sieve; each is a folder under `assets/backbones`."""
EXAMPLES = "sieve-lite, ViT-B-32/openai, hf-hub:ORG/MODEL, local-dir:/PATH or blip:ORG/MODEL"
BLIP = "blip:"
LOCAL, HUB = "local-dir:", "hf-hub:"
CONFIG = "open_clip_config.json"

Kind = Literal["bundled", "tag", "file", "folder", "hub"]

_CLIP_RETRIEVAL = "open_clip:"
_OPENAI = (
    "RN50", "RN101", "RN50x4", "RN50x16", "RN50x64", "ViT-B/32", "ViT-B/16", "ViT-L/14",
    "ViT-L/14@336px",
)  # fmt: skip
"""Names of models in the `clip` package of OpenAI and in clip-retrieval."""
TRANSFORMERS = {
    "openai/clip-vit-base-patch32": "ViT-B-32/openai",
    "openai/clip-vit-base-patch16": "ViT-B-16/openai",
    "openai/clip-vit-large-patch14": "ViT-L-14/openai",
    "openai/clip-vit-large-patch14-336": "ViT-L-14-336/openai",
    "sentence-transformers/clip-vit-b-32": "ViT-B-32/openai",
    "sentence-transformers/clip-vit-b-16": "ViT-B-16/openai",
    "sentence-transformers/clip-vit-l-14": "ViT-L-14/openai",
    "google/siglip-base-patch16-224": "ViT-B-16-SigLIP/webli",
    "google/siglip-base-patch16-256": "ViT-B-16-SigLIP-256/webli",
    "google/siglip-base-patch16-384": "ViT-B-16-SigLIP-384/webli",
    "google/siglip-base-patch16-512": "ViT-B-16-SigLIP-512/webli",
    "google/siglip-large-patch16-256": "ViT-L-16-SigLIP-256/webli",
    "google/siglip-large-patch16-384": "ViT-L-16-SigLIP-384/webli",
    "google/siglip-so400m-patch14-224": "ViT-SO400M-14-SigLIP/webli",
    "google/siglip-so400m-patch14-384": "ViT-SO400M-14-SigLIP-384/webli",
    "google/siglip2-base-patch16-224": "ViT-B-16-SigLIP2/webli",
    "google/siglip2-base-patch32-256": "ViT-B-32-SigLIP2-256/webli",
    "google/siglip2-so400m-patch14-384": "ViT-SO400M-14-SigLIP2-378/webli",
    "facebook/metaclip-b32-400m": "ViT-B-32-quickgelu/metaclip_400m",
    "facebook/metaclip-b16-400m": "ViT-B-16-quickgelu/metaclip_400m",
    "facebook/metaclip-l14-400m": "ViT-L-14-quickgelu/metaclip_400m",
    "facebook/metaclip-h14-fullcc2.5b": "ViT-H-14-quickgelu/metaclip_fullcc",
}
"""Repositories in the transformers format, and the open_clip names of the same weights."""
WEIGHT_SUFFIXES = (".pt", ".pth", ".bin", ".safetensors", ".ckpt")
_PREFIX = re.compile(r"^(module\.)?(text\.)?")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


class BackboneName(NamedTuple):
    """A resolved backbone name."""

    text: str
    """Canonical; local paths are absolute."""
    kind: Kind
    place: str
    """A bundled name, a tag, a path or a Hub repository."""
    architecture: str = ""
    """open_clip architecture, for tags and weights files."""
    is_blip: bool = False

    @property
    def path(self) -> Path:
        """Folder or file of a local backbone."""
        return ROOT / "backbones" / self.place if self.kind == "bundled" else Path(self.place)


def parse_name(name: str) -> BackboneName:
    """Resolve a backbone name, without loading or downloading anything.

    It is `sieve-lite`, `ARCHITECTURE/WEIGHTS` of open_clip (`ViT-B-32/openai`, also as
    `ARCHITECTURE//PATH` of a file), OpenAI's own name (`ViT-B/32`), `hf-hub:ORG/MODEL` (also as
    `hf://ORG/MODEL`, and with `@REVISION`), `local-dir:/PATH` or `/PATH` of a folder with
    `open_clip_config.json`, `/PATH` of a file of weights, `blip:ORG/MODEL` or `blip:/PATH`. Raises
    a ValueError of one line, with the name to use if there is one, if it is unknown.
    """
    name = name.strip().removeprefix(_CLIP_RETRIEVAL)
    if is_reference(name):
        name = HUB + name.removeprefix(SCHEME)
    if name in BUNDLED:
        return BackboneName(name, "bundled", name)
    if name.startswith(BLIP):
        return _blip(name)
    if name.startswith(LOCAL) and name != LOCAL:
        return _folder(name.removeprefix(LOCAL))
    place = name.removeprefix(HUB)
    if name.startswith(HUB) and place and place.lower() not in TRANSFORMERS:
        return BackboneName(name, "hub", place)
    if found := known_name(name):
        raise ValueError(
            f"backbone {name!r} is not an open_clip name; use {found}, which reads the same weights"
        )
    return _path(name) or _of_open_clip(name)


def is_local_name(name: str) -> bool:
    """Return whether a backbone's name is a path on this machine, also if it is not valid."""
    try:
        return parse_name(name).kind in ("file", "folder")
    except ValueError:
        return "/" in name and Path(name.rpartition(":")[2]).is_absolute()


def known_name(name: str) -> str | None:
    """Return the open_clip name of a transformers model, or None if unknown."""
    name = name.strip().removeprefix(_CLIP_RETRIEVAL)
    text = name.removeprefix(HUB).strip("/").lower()
    if text.startswith("clip-vit-"):
        text = f"sentence-transformers/{text}"
    if text.startswith("salesforce/blip-itm"):
        return BLIP + name
    is_repository = _REPOSITORY.fullmatch(text) is not None
    return TRANSFORMERS.get(text) or (_tag_with("hf_hub", text) if is_repository else None)


def _tag_with(field: str, value: str) -> str | None:
    """Return `ARCHITECTURE/WEIGHTS` of weights that open_clip finds in a repository or at a URL."""
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg

    for architecture, tag in open_clip.list_pretrained():
        found = str(get_pretrained_cfg(architecture, tag).get(field, "")).lower().strip("/")
        if value == found or (field == "url" and value in found):
            return f"{architecture}/{tag}"
    return None


def _path(name: str) -> BackboneName | None:
    """Resolve the path of a folder or a weights file; None if the name is not a path."""
    path = Path(name).expanduser()
    is_weights = path.suffix in WEIGHT_SUFFIXES
    is_path = path.is_absolute() or name.startswith(("./", "../", "~"))
    if is_path and (path / CONFIG).is_file():
        return _folder(name)
    if (is_path or is_weights) and path.is_file():
        return _file(_architecture_of(path), name)
    if is_weights and (is_path or "/" not in name):
        raise ValueError(f"backbone {name!r}: there is no file {path}; check the path")
    return None


def _absolute(place: str) -> str:
    return os.path.abspath(Path(place).expanduser())


def _folder(place: str) -> BackboneName:
    return BackboneName(LOCAL + _absolute(place), "folder", _absolute(place))


def _file(architecture: str, place: str) -> BackboneName:
    path = _absolute(place)
    return BackboneName(f"{architecture}/{path}", "file", path, architecture)


def _blip(name: str) -> BackboneName:
    place = name.removeprefix(BLIP)
    if place.startswith(("/", "~", ".")) or (place and Path(place).is_dir()):
        path = _absolute(place)
        return BackboneName(BLIP + path, "folder", path, is_blip=True)
    if not _REPOSITORY.fullmatch(place):
        raise ValueError(
            f"unknown backbone {name!r}; expected one like blip:Salesforce/blip-itm-base-coco or "
            "blip:/PATH"
        )
    return BackboneName(name, "hub", place, is_blip=True)


def _of_open_clip(name: str) -> BackboneName:
    import open_clip

    if name in _OPENAI:
        name = f"{name.replace('/', '-').replace('@336px', '-336')}/openai"
    architecture, _, weights = name.partition("/")
    architectures = open_clip.list_models()
    if architecture not in architectures:
        near = _nearest(name, architectures)
        if not near and _REPOSITORY.fullmatch(name):
            near = f"; {HUB}{name} loads a Hub repository that has {CONFIG}"
        raise ValueError(f"unknown backbone {name!r}; expected one like {EXAMPLES}{near}")
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if weights in tags:
        return BackboneName(name, "tag", weights, architecture)
    if weights and Path(weights).expanduser().is_file():
        return _file(architecture, weights)
    if Path(weights).is_absolute():
        raise ValueError(f"backbone {name!r}: there is no file {weights}; check the path")
    known = ", ".join(tags) or "none; give the path of a weights file"
    raise ValueError(
        f"backbone {name!r} names no weights; give {architecture}/WEIGHTS, of: {known}"
    )


def _nearest(name: str, architectures: list[str]) -> str:
    if not name or name.startswith(("/", ".", "~")):
        return ""
    of = {each.lower(): each for each in architectures}
    first, _, weights = name.partition("/")
    if same := of.get(first.lower()):
        return f"; did you mean {same}/{weights or 'WEIGHTS'}?"
    # As in names of OpenAI, the slash may be part of the architecture: ViT-H/14.
    spellings = (name.replace("/", "-").lower(), first.lower())
    near = [found for text in spellings for found in difflib.get_close_matches(text, of, 3, 0.8)]
    found = ", ".join(f"{of[each]}/WEIGHTS" for each in list(dict.fromkeys(near))[:3])
    return f"; did you mean {found}?" if found else ""


def _architecture_of(path: Path) -> str:
    """Return the open_clip architecture whose tensor names and shapes a weights file has.

    Raises a ValueError with the name to use instead if there is none, or if there are several.
    """
    import open_clip

    shapes = _shapes(path)
    if any(name.startswith("vision_model.") for name in shapes):
        raise ValueError(
            f"backbone '{path}' has weights in the transformers format; use the open_clip name of "
            "the same model, such as ViT-B-32/openai for openai/clip-vit-base-patch32"
        )
    fitting = [name for name in open_clip.list_models() if _fits(name, shapes)]
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


def check_no_torchscript(path: Path) -> None:
    """Raise a ValueError if a file is TorchScript, which is a program; it says what to use."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        if not any(name.endswith("/constants.pkl") for name in archive.namelist()):
            return
    with path.open("rb") as stream:
        same = _tag_with("url", hashlib.file_digest(stream, "sha256").hexdigest())
    use = (
        f"use {same}, the same weights"
        if same
        else "give its state dict, or for OpenAI's own file the name, such as ViT-B-32/openai"
    )
    raise ValueError(f"backbone '{path}' is a TorchScript program, which Sieve does not run; {use}")


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors in a file by their names, without prefixes of wrappers."""
    import torch  # slow to import, and names of backbones do not need it

    try:
        if path.suffix == ".safetensors":
            with safetensors.safe_open(path, "np") as file:
                names = file.keys()
                shapes = {name: file.get_slice(name).get_shape() for name in names}
        else:
            check_no_torchscript(path)
            mapped = zipfile.is_zipfile(path)
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
            inner = state.get("state_dict", state) if isinstance(state, Mapping) else {}
            tensors = {n: value for n, value in inner.items() if isinstance(value, torch.Tensor)}
            shapes = {str(name): value.shape for name, value in tensors.items()}
    except ValueError:
        raise
    except Exception as error:  # zip, pickle and safetensors raise different errors
        reason = reason_of(error)
        if "weights_only" in str(error) or "Weights only" in str(error):
            reason = "it is a pickle of Python objects, which Sieve does not load"
        raise ValueError(
            f"backbone '{path}' cannot be read as weights ({reason}); give a state dict as "
            ".safetensors or .pt"
        ) from None
    return {_PREFIX.sub("", name): tuple(shape) for name, shape in shapes.items()}


def _fits(architecture: str, shapes: dict[str, tuple[int, ...]]) -> bool:
    """Return whether tensors are those of an architecture that open_clip builds alone."""
    import open_clip
    import torch

    config = open_clip.get_model_config(architecture) or {}
    others = {"timm_model_name", "hf_model_name", "multimodal_cfg"}
    if others & {*config, *config.get("vision_cfg", ()), *config.get("text_cfg", ())}:
        return False
    if shapes.get("text_projection", (0,))[-1] != config.get("embed_dim"):
        return False  # most architectures, without building them
    build = open_clip.CustomTextCLIP if config.pop("custom_text", False) else open_clip.CLIP
    with torch.device("meta"):
        expected = build(**config).state_dict()
    return all(
        shapes.get(_PREFIX.sub("", name)) == tuple(value.shape) for name, value in expected.items()
    )
