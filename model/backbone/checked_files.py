"""Files of a backbone, and checked copies of them for the libraries that load them.

Configurations of models and tokenizers can make these libraries run Python: `auto_map` and
`trust_remote_code` name modules, a text or image tower can name another repository or folder, and
an attention implementation a compiled kernel. The libraries therefore never see the original
folder. They get a temporary folder with only known file names, no Python files or pickles, and
checked JSON. Weights are safetensors, or unpickled with `weights_only`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from sieve.model.backbone.hub import hub_file, hub_folder
from sieve.model.backbone.names import CONFIG, BackboneName
from sieve.model.files import check_files

KNOWN_WORDS = "known_words.txt"
VOCABULARIES = (
    "tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model",
    "tokenizer.model",
)  # fmt: skip
TOKENIZER = (
    *VOCABULARIES, "merges.txt", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "config.json",
)  # fmt: skip
"""Allowed files of a tokenizer; none is a pickle or a Python module."""
BLIP_SETTINGS = ("config.json", "preprocessor_config.json", "processor_config.json")
BLIP_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
BLIP_INDEX = "model.safetensors.index.json"

_CHECKED = (*BLIP_SETTINGS, "tokenizer_config.json", "special_tokens_map.json", CONFIG)
_MAX_JSON = 4 << 20
_CLIP_WEIGHTS = (
    "open_clip_model.safetensors", "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin", "open_clip_pytorch_model.pth", "model.safetensors",
    "pytorch_model.bin", "pytorch_model.pth", "model.pth",
)  # fmt: skip
"""In the order of preference of open_clip."""
_HUB_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_TIMM = re.compile(r"[\w.]+")
_TOKENIZER_OPTIONS = {"clean", "strip_sep_token", "language", "reduction_mask"}
_CODE = {
    "auto_map", "trust_remote_code", "custom_generate", "code_revision", "quantization_config",
    "use_kernels",
}  # fmt: skip
"""Settings that make transformers import external modules or kernels."""
_PATHS = {"tokenizer_file", "vocab_file", "merges_file", "special_tokens_map_file", "name_or_path"}
"""Settings with former paths of a tokenizer; removed, as they may point anywhere."""


@dataclass(frozen=True)
class BackboneFiles:
    """Files of a backbone in its folder or repository, or its weights file.

    Attributes
    ----------
    name : BackboneName
    own : mapping of str to Path
    """

    name: BackboneName
    own: Mapping[str, Path]

    @cached_property
    def sha256(self) -> str:
        """Hash of the names and contents of all files."""
        digest = hashlib.sha256(f"{self.name.architecture}\n".encode())
        for file, path in sorted(self.own.items()):
            facts = path.stat()
            content = _file_sha256(path, facts.st_size, facts.st_mtime_ns)
            digest.update(f"{file} {content}\n".encode())
        return digest.hexdigest()

    @property
    def weights(self) -> Path:
        """The weights file of an open_clip model."""
        if self.name.kind == "file":
            return self.name.path
        return next(path for file, path in self.own.items() if _is_weights(file))


@lru_cache(maxsize=256)
def _file_sha256(path: Path, size: int, mtime_ns: int) -> str:  # noqa: ARG001  (they key the cache)
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def find_files(name: BackboneName) -> BackboneFiles:
    """Find the files of a backbone; files of the Hub are downloaded if they are not cached.

    Raises
    ------
    FileNotFoundError
        If a local folder, or a file in it, is missing.
    ValueError
        If the Hub is unreachable or lacks a file; one line.
    """
    if name.is_blip:
        require_transformers(name.text)
    if name.kind == "file":
        return BackboneFiles(name, {"weights": name.path})
    if name.kind in ("bundled", "folder"):
        return BackboneFiles(name, _of_blip(name) if name.is_blip else _of_folder(name))
    try:
        if name.is_blip:
            return BackboneFiles(name, _of_blip(name))
        return BackboneFiles(name, _of_tag(name) if name.kind == "tag" else _of_hub(name))
    except Exception as error:  # the Hub client raises errors of several libraries
        raise cannot_open(name.text, error, local=False) from error


def cannot_open(name: str, error: Exception, *, local: bool) -> ValueError:
    """Turn any error into one line with the backbone, the reason and what to do."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    advice = (
        "check open_clip_config.json and the weights beside it"
        if local
        else "weights are downloaded on first use: check the name and the connection, or use"
        " sieve-lite or local-dir:/PATH, which need no connection"
    )
    return ValueError(f"backbone {name!r} cannot be opened: {reason}; {advice}")


def require_transformers(name: str) -> None:
    """Raise a ValueError if the library transformers is not installed."""
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"backbone {name!r} needs the library transformers; install it with "
            '`pip install "sieve-explorer[peers]"`'
        ) from error


def _of_hub(name: BackboneName) -> dict[str, Path]:
    weights = hub_file(name.place, *_HUB_WEIGHTS)
    return {CONFIG: hub_file(name.place, CONFIG), weights.name: weights}


def _of_folder(name: BackboneName) -> dict[str, Path]:
    folder = name.path
    config = folder / CONFIG
    if not config.is_file():
        what = CONFIG if folder.is_dir() else "folder"
        raise FileNotFoundError(
            f"backbone {name.text!r}: no {what} at {folder}; give a folder with {CONFIG} and "
            "open_clip_model.safetensors"
        )
    check_files(folder, "download or train the weights again", required=name.kind == "bundled")
    others = sorted(folder.glob("*.safetensors")) + sorted(folder.glob("*.bin"))
    candidates = [folder / each for each in _CLIP_WEIGHTS] + others + sorted(folder.glob("*.pth"))
    weights = next((path for path in candidates if path.is_file()), None)
    if weights is None:
        raise ValueError(
            f"backbone {name.text!r} cannot be opened: no weights in {folder}; check {CONFIG} and "
            "the weights beside it"
        )
    found = [config, weights, *(folder / each for each in (KNOWN_WORDS, *TOKENIZER))]
    return {path.name: path for path in found if path.is_file()}


def _of_tag(name: BackboneName) -> dict[str, Path]:
    from open_clip.pretrained import get_pretrained_cfg

    repository, _, file = str(
        get_pretrained_cfg(name.architecture, name.place)["hf_hub"]
    ).rpartition("/")
    safe = [file.rpartition(".")[0] + ".safetensors"] if file.endswith((".bin", ".pth")) else []
    weights = hub_file(repository, *(safe + [file] if file else _HUB_WEIGHTS))
    return {weights.name: weights}


def _of_blip(name: BackboneName) -> dict[str, Path]:
    if name.kind == "hub":
        settings = (*BLIP_SETTINGS, *TOKENIZER)
        folder = hub_folder(name.place, settings, ["config.json"])
        weights = [hub_file(name.place, *BLIP_WEIGHTS)]
    else:
        folder = name.path
        _check_blip_folder(name)
        weights = [folder / file for file in BLIP_WEIGHTS[:1] if (folder / file).is_file()]
        if not weights and (folder / BLIP_INDEX).is_file():
            weights = [folder / BLIP_INDEX, *sorted(folder.glob("model-*.safetensors"))]
        weights = weights or [folder / BLIP_WEIGHTS[1]]
    found = [folder / file for file in (*BLIP_SETTINGS, *TOKENIZER)]
    return {path.name: path for path in [*found, *weights] if path.is_file()}


def _check_blip_folder(name: BackboneName) -> None:
    folder = name.path
    advice = "give a folder written by save_pretrained of the model and its processor"
    wanted = (("config.json",), (*BLIP_WEIGHTS[:1], BLIP_INDEX, *BLIP_WEIGHTS[1:]), VOCABULARIES)
    for files in wanted:
        if not any((folder / file).is_file() for file in files):
            what = files[0] if folder.is_dir() else "folder"
            raise FileNotFoundError(f"backbone {name.text!r}: no {what} at {folder}; {advice}")


@contextmanager
def safe_copy(files: Mapping[str, Path]) -> Iterator[Path]:
    """Create a temporary folder of checked files for a library to load.

    Parameters
    ----------
    files : mapping of str to Path
        By their names in the folder. Weights are linked, other files copied.

    Raises
    ------
    ValueError
        If a configuration requests code execution; one line.
    """
    with tempfile.TemporaryDirectory(prefix="sieve-backbone-") as made:
        for file, path in files.items():
            copy_checked(path, Path(made) / file)
        yield Path(made)


def copy_checked(path: Path, target: Path) -> None:
    """Copy one file of a model; configurations are checked, and paths removed from them."""
    if target.name in _CHECKED:
        settings = read_settings(path)
        target.write_text(json.dumps(_without_paths(settings)), encoding="utf-8")
    elif _is_weights(target.name):
        _link(path.resolve(), target)
    else:
        shutil.copyfile(path, target)


def read_settings(path: Path) -> dict[str, Any]:
    """Read a JSON configuration, and refuse one that requests code execution.

    Raises
    ------
    ValueError
        One line with the file and the setting.
    """
    if path.stat().st_size > _MAX_JSON:
        raise ValueError(f"{path.name} has more than {_MAX_JSON:,} bytes; not a configuration")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is not JSON ({' '.join(str(error).split())[:80]})") from None
    if not isinstance(settings, dict):
        raise ValueError(f"{path.name} is not a JSON object")
    if setting := _code_in(settings):
        raise ValueError(
            f"{path.name} requests code execution ({setting}); Sieve does not run code of a model"
        )
    return settings


def check_clip_config(config: Mapping[str, Any]) -> None:
    """Refuse an open_clip configuration with parts that are not from the Hub.

    Raises
    ------
    ValueError
        One line with the setting.
    """
    model = config.get("model_cfg")
    parts = (
        [model.get(part) for part in ("vision_cfg", "text_cfg")] if isinstance(model, dict) else []
    )
    if not isinstance(model, dict) or not all(isinstance(part, dict) for part in parts):
        raise ValueError(f"{CONFIG} has no model_cfg with vision_cfg and text_cfg")
    vision, text = model["vision_cfg"], model["text_cfg"]
    for part in [text, model.get("multimodal_cfg") or {}]:
        options = part.get("tokenizer_kwargs") or {}
        if not isinstance(options, dict) or set(options) - _TOKENIZER_OPTIONS:
            raise ValueError(
                f"{CONFIG} sets tokenizer_kwargs to {str(options)[:80]}; expected only "
                f"{', '.join(sorted(_TOKENIZER_OPTIONS))}"
            )
    if not _TIMM.fullmatch(str(vision.get("timm_model_name", "none"))):
        raise ValueError(
            f"{CONFIG} names {str(vision['timm_model_name'])[:80]!r} as image tower; expected a "
            "timm architecture, such as vit_base_patch16_224"
        )
    for key in ("hf_model_name", "hf_tokenizer_name"):
        place = text.get(key)
        if place and (not _REPOSITORY.fullmatch(str(place)) or Path(str(place)).exists()):
            raise ValueError(
                f"{CONFIG} sets {key} to {str(place)[:80]!r}; expected a Hub repository, "
                "such as xlm-roberta-base"
            )


def _code_in(value: Any, depth: int = 0) -> str:
    """Return the first setting, at any depth, that makes transformers run external code."""
    if depth > 20:
        raise ValueError("a configuration is nested too deeply")
    if isinstance(value, dict):
        for key, inner in value.items():
            is_kernel = "attn_implementation" in key and "/" in str(inner)
            if (key in _CODE and inner) or is_kernel:
                return str(key)
            if found := _code_in(inner, depth + 1):
                return found
    if isinstance(value, list):
        return next(filter(None, (_code_in(inner, depth + 1) for inner in value)), "")
    return ""


def _without_paths(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in _PATHS}


def _is_weights(file: str) -> bool:
    return file.endswith((".safetensors", ".bin", ".pth", ".pt", ".npz"))


def _link(path: Path, target: Path) -> None:
    """Link a large file if possible, else copy it."""
    for make in (os.symlink, os.link):
        try:
            make(path, target)
            return
        except OSError:
            continue
    shutil.copyfile(path, target)
