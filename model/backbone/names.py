"""Resolve the spellings of backbone names to canonical names."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import Literal, NamedTuple

from sieve.assets import ROOT

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
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


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
        if self.kind == "bundled":
            return ROOT / "backbones" / self.place
        return Path(self.place)


def parse_name(name: str) -> BackboneName:
    """Resolve a backbone name, without loading or downloading anything.

    Parameters
    ----------
    name : str
        `sieve-lite`, `ARCHITECTURE/WEIGHTS` of open_clip (`ViT-B-32/openai`, also as
        `ARCHITECTURE//PATH` of a file), OpenAI's own names (`ViT-B/32`), `hf-hub:ORG/MODEL`,
        `local-dir:/PATH` or `/PATH` of a folder with `open_clip_config.json`, `/PATH` of a file of
        weights, `blip:ORG/MODEL` or `blip:/PATH`.

    Raises
    ------
    ValueError
        If the name is unknown; one line, with the name to use if there is one.
    """
    name = name.strip().removeprefix(_CLIP_RETRIEVAL)
    if name in BUNDLED:
        return BackboneName(name, "bundled", name)
    if name.startswith(BLIP):
        return _blip(name)
    if name.startswith(LOCAL) and name != LOCAL:
        return _folder(name.removeprefix(LOCAL))
    place = name.removeprefix(HUB)
    if name.startswith(HUB) and place and place.lower() not in TRANSFORMERS:
        return BackboneName(name, "hub", place)
    if found := _of_transformers(name):
        raise ValueError(
            f"backbone {name!r} is not an open_clip name; use {found}, which has the same weights"
        )
    return _path(name) or _of_open_clip(name)


def known_name(name: str) -> str | None:
    """Return the open_clip name of a transformers model, or None if unknown."""
    return _of_transformers(name.strip().removeprefix(_CLIP_RETRIEVAL))


def _path(name: str) -> BackboneName | None:
    """Resolve the path of a folder or a weights file; None if the name is not a path."""
    path = Path(name).expanduser()
    is_weights = path.suffix in WEIGHT_SUFFIXES
    is_path = path.is_absolute() or name.startswith(("./", "../", "~"))
    if is_path and (path / CONFIG).is_file():
        return _folder(name)
    if (is_path or is_weights) and path.is_file():
        from sieve.model.backbone.weights_file import architecture_of

        return _file(architecture_of(path), str(path))
    if is_weights and (is_path or "/" not in name):
        raise ValueError(f"backbone {name!r}: there is no file {path}; check the path")
    return None


def _folder(place: str) -> BackboneName:
    path = os.path.abspath(Path(place).expanduser())
    return BackboneName(LOCAL + path, "folder", path)


def _file(architecture: str, place: str) -> BackboneName:
    path = os.path.abspath(Path(place).expanduser())
    return BackboneName(f"{architecture}/{path}", "file", path, architecture)


def _blip(name: str) -> BackboneName:
    place = name.removeprefix(BLIP)
    if place.startswith(("/", "~", ".")) or (place and Path(place).is_dir()):
        path = os.path.abspath(Path(place).expanduser())
        return BackboneName(BLIP + path, "folder", path, is_blip=True)
    if not _REPOSITORY.fullmatch(place):
        raise ValueError(
            f"unknown backbone {name!r}; expected one like blip:Salesforce/blip-itm-base-coco or "
            "blip:/PATH"
        )
    return BackboneName(name, "hub", place, is_blip=True)


def _of_transformers(name: str) -> str | None:
    text = name.removeprefix(HUB).strip("/").lower()
    if text.startswith("clip-vit-"):
        text = f"sentence-transformers/{text}"
    if text.startswith("salesforce/blip-itm"):
        return BLIP + name
    is_repository = _REPOSITORY.fullmatch(text) is not None
    return TRANSFORMERS.get(text) or (_tag_of_repository(text) if is_repository else None)


def _tag_of_repository(repository: str) -> str | None:
    """Return `ARCHITECTURE/WEIGHTS` of a repository that open_clip downloads weights from."""
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg

    for architecture, tag in open_clip.list_pretrained():
        hub = str(get_pretrained_cfg(architecture, tag).get("hf_hub", ""))
        if hub.lower().strip("/") == repository:
            return f"{architecture}/{tag}"
    return None


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
    """Return a suggestion of architectures with similar names."""
    if not name or name.startswith(("/", ".", "~")):
        return ""
    of = {each.lower(): each for each in architectures}
    if same := of.get(name.partition("/")[0].lower()):
        return f"; did you mean {same}/{name.partition('/')[2] or 'WEIGHTS'}?"
    # As in names of OpenAI, the slash may be part of the architecture: ViT-H/14.
    spellings = [name.replace("/", "-").lower(), name.partition("/")[0].lower()]
    near = dict.fromkeys(
        of[found] for text in spellings for found in difflib.get_close_matches(text, of, 3, 0.8)
    )
    return (
        f"; did you mean {', '.join(f'{each}/WEIGHTS' for each in list(near)[:3])}?" if near else ""
    )
