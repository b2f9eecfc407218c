"""Files of backbones: found or downloaded, trusted by the user, and checked before they are loaded.

Configurations of models and tokenizers can make the libraries that load them run Python:
`auto_map` and `trust_remote_code` name modules, a text or image tower can name another repository
or folder, and an attention implementation a compiled kernel. The libraries therefore never see the
original folder. They get a temporary folder with only known file names, no Python files or pickles,
and checked JSON. Weights are safetensors, or unpickled with `weights_only`.

A collection from another person names a backbone. The bundled one, and weights that open_clip lists
under a tag, are always loaded. A folder, a file or a Hub repository is loaded only if the user has
used it before or confirms it with `--trust-backbone`, which `$SIEVE_HOME/trusted_backbones.json`
records. Trust is given to contents, not locations: changed files must be confirmed again, a moved
folder need not.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from sieve.model.backbone.names import CONFIG, BackboneName, parse_name
from sieve.model.files import (
    Schema,
    atomic_file,
    check_files,
    link_or_copy,
    read_json,
    reason_of,
    sieve_home,
)
from sieve.model.hub import hub_file, hub_folder

log = logging.getLogger(__name__)

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

_BLIP_SETTINGS = ("config.json", "preprocessor_config.json", "processor_config.json")
_BLIP_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_BLIP_INDEX = "model.safetensors.index.json"
_SETTINGS = (*_BLIP_SETTINGS, "tokenizer_config.json", "special_tokens_map.json", CONFIG)
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
_ALWAYS_TRUSTED = ("bundled", "tag")
"""Kinds of names that need no trust: bundled with Sieve or listed by open_clip."""


class TrustedBackbones(Schema):
    """Content of `trusted_backbones.json`: names by the hash of the files."""

    backbones: dict[str, str]


class BackboneUnavailable(ValueError):
    """The backbone of a collection cannot be loaded: missing, offline, changed or not trusted.

    The message is one line with the reason and what to do. The collection still opens, but new
    texts and images cannot be encoded.
    """


@dataclass(frozen=True)
class BackboneFiles:
    """Files of a backbone in its folder or repository, by name, or its weights file."""

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

    Raises a FileNotFoundError if a local folder, or a file in it, is missing, and a ValueError of
    one line if the Hub is unreachable or lacks a file, or a library is missing.
    """
    if name.is_blip and importlib.util.find_spec("transformers") is None:
        raise ValueError(
            f"backbone {name.text!r} needs the library transformers; install it with "
            '`pip install "sieve-explorer[blip]"`'
        )
    if name.kind == "file":
        return BackboneFiles(name, {"weights": name.path})
    if name.kind in ("bundled", "folder"):
        return BackboneFiles(name, _of_blip_folder(name) if name.is_blip else _of_folder(name))
    try:
        return BackboneFiles(name, _of_tag(name) if name.kind == "tag" else _of_hub(name))
    except Exception as error:  # the Hub client raises errors of several libraries
        raise cannot_open(name, error) from error


def cannot_open(name: BackboneName, error: Exception) -> ValueError:
    """Turn any error into one line with the backbone, the reason and what to do."""
    advice = (
        "weights are downloaded on first use: check the name and the connection, or use sieve-lite "
        "or local-dir:/PATH, which need no connection"
    )
    if name.kind in ("bundled", "folder"):
        config = "the configurations" if name.is_blip else CONFIG
        advice = f"check {config} and the weights beside it"
    return ValueError(f"backbone {name.text!r} cannot be opened: {reason_of(error, 200)}; {advice}")


def _of_tag(name: BackboneName) -> dict[str, Path]:
    from open_clip.pretrained import get_pretrained_cfg

    place = str(get_pretrained_cfg(name.architecture, name.place)["hf_hub"])
    repository, _, file = place.rpartition("/")
    safe = [file.rpartition(".")[0] + ".safetensors"] if file.endswith((".bin", ".pth")) else []
    weights = hub_file(repository, *(safe + [file] if file else _HUB_WEIGHTS))
    return {weights.name: weights}


def _of_hub(name: BackboneName) -> dict[str, Path]:
    if not name.is_blip:
        weights = hub_file(name.place, *_HUB_WEIGHTS)
        return {CONFIG: hub_file(name.place, CONFIG), weights.name: weights}
    settings = (*_BLIP_SETTINGS, *TOKENIZER)
    folder = hub_folder(name.place, settings, "config.json")
    return _existing(folder, settings, [hub_file(name.place, *_BLIP_WEIGHTS)])


def _of_folder(name: BackboneName) -> dict[str, Path]:
    folder = name.path
    _require(name, (CONFIG,), f"give a folder with {CONFIG} and open_clip_model.safetensors")
    check_files(folder, "download or train the weights again", required=name.kind == "bundled")
    others = (sorted(folder.glob(f"*{suffix}")) for suffix in (".safetensors", ".bin", ".pth"))
    candidates = [folder / each for each in _CLIP_WEIGHTS] + sum(others, [])
    weights = next((path for path in candidates if path.is_file()), None)
    if weights is None:
        raise cannot_open(name, ValueError(f"no weights in {folder}"))
    return _existing(folder, (CONFIG, KNOWN_WORDS, *TOKENIZER), [weights])


def _of_blip_folder(name: BackboneName) -> dict[str, Path]:
    folder = name.path
    for wanted in (("config.json",), (*_BLIP_WEIGHTS, _BLIP_INDEX), VOCABULARIES):
        _require(name, wanted, "give a folder written by save_pretrained of the model and its "
                 "processor")  # fmt: skip
    whole, pickled = (folder / file for file in _BLIP_WEIGHTS)
    weights = [whole if whole.is_file() else pickled]
    if not whole.is_file() and (folder / _BLIP_INDEX).is_file():
        weights = [folder / _BLIP_INDEX, *sorted(folder.glob("model-*.safetensors"))]
    return _existing(folder, (*_BLIP_SETTINGS, *TOKENIZER), weights)


def _require(name: BackboneName, files: tuple[str, ...], advice: str) -> None:
    if not any((name.path / file).is_file() for file in files):
        missing = files[0] if name.path.is_dir() else "folder"
        raise FileNotFoundError(f"backbone {name.text!r}: no {missing} at {name.path}; {advice}")


def _existing(folder: Path, names: tuple[str, ...], weights: list[Path]) -> dict[str, Path]:
    found = [*(folder / name for name in names), *weights]
    return {path.name: path for path in found if path.is_file()}


@contextmanager
def safe_copy(files: Mapping[str, Path]) -> Iterator[Path]:
    """Create a temporary folder of checked files, by name, for a library to load.

    Weights are linked, other files copied. Raises a ValueError of one line if a configuration
    requests code execution.
    """
    with tempfile.TemporaryDirectory(prefix="sieve-backbone-") as made:
        for file, path in files.items():
            copy_checked(path, Path(made) / file)
        yield Path(made)


def copy_checked(path: Path, target: Path) -> None:
    """Copy one file of a model; configurations are checked, and paths removed from them."""
    if target.name in _SETTINGS:
        settings = {key: value for key, value in read_settings(path).items() if key not in _PATHS}
        target.write_text(json.dumps(settings), encoding="utf-8")
    elif _is_weights(target.name):
        link_or_copy(path, target)
    else:
        shutil.copyfile(path, target)


def _is_weights(file: str) -> bool:
    return file.endswith((".safetensors", ".bin", ".pth", ".pt", ".npz"))


def read_settings(path: Path) -> dict[str, Any]:
    """Read a JSON configuration; raise a ValueError if it requests code execution."""
    if path.stat().st_size > _MAX_JSON:
        raise ValueError(f"{path.name} has more than {_MAX_JSON:,} bytes; not a configuration")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is not JSON ({reason_of(error)})") from None
    if not isinstance(settings, dict):
        raise ValueError(f"{path.name} is not a JSON object")
    if setting := _code_in(settings):
        raise ValueError(
            f"{path.name} requests code execution ({setting}); Sieve does not run code of a model"
        )
    return settings


def _code_in(value: Any, depth: int = 0) -> str:
    """Return the first setting, at any depth, that makes transformers run external code."""
    if depth > 20:
        raise ValueError("a configuration is nested too deeply")
    if not isinstance(value, dict | list):
        return ""
    for key, inner in value.items() if isinstance(value, dict) else ():
        if (key in _CODE and inner) or ("attn_implementation" in key and "/" in str(inner)):
            return str(key)
    parts = value.values() if isinstance(value, dict) else value
    return next(filter(None, (_code_in(part, depth + 1) for part in parts)), "")


def check_clip_config(config: Mapping[str, Any]) -> None:
    """Raise a ValueError if an open_clip configuration names parts that are not from the Hub."""
    model = config.get("model_cfg")
    model = model if isinstance(model, dict) else {}
    vision, text = model.get("vision_cfg"), model.get("text_cfg")
    if not isinstance(vision, dict) or not isinstance(text, dict):
        raise ValueError(f"{CONFIG} has no model_cfg with vision_cfg and text_cfg")
    for part in (text, model.get("multimodal_cfg") or {}):
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
        place = str(text.get(key) or "")
        if place and (not _REPOSITORY.fullmatch(place) or Path(place).exists()):
            raise ValueError(
                f"{CONFIG} sets {key} to {place[:80]!r}; expected a Hub repository, such as "
                "xlm-roberta-base"
            )


def trusted_files(name: str) -> BackboneFiles:
    """Return the files of a backbone that a collection names, if it is trusted.

    Nothing is downloaded from a repository that is not trusted. Raises `BackboneUnavailable` if it
    is not trusted or its files have changed, and a FileNotFoundError, OSError or ValueError if it
    cannot be found.
    """
    parsed = parse_name(name)
    _check_repository(parsed)
    files = find_files(parsed)
    trusted = _read_trusted()
    if parsed.kind not in _ALWAYS_TRUSTED and files.sha256 not in trusted:
        raise _not_trusted(parsed, changed=parsed.text in trusted.values())
    return files


def check_consent(name: str) -> None:
    """Check, without network access, that a backbone that a collection names is trusted.

    Raises as `trusted_files`, except for errors that need network access.
    """
    parsed = parse_name(name)
    if parsed.kind in ("file", "folder"):
        trusted_files(name)
    _check_repository(parsed)


def _check_repository(name: BackboneName) -> None:
    if name.kind == "hub" and name.text not in _read_trusted().values():
        raise _not_trusted(name)


def _not_trusted(name: BackboneName, changed: bool = False) -> BackboneUnavailable:
    place = {"hub": "of the Hub", "file": "in a file", "folder": "in a folder"}[name.kind]
    why = "has changed since you used it" if changed else "is not one that you have used"
    return BackboneUnavailable(
        f"this collection names backbone {name.text!r} {place}, which {why}; if you trust its "
        "source, give --trust-backbone once"
    )


def trust(files: BackboneFiles) -> None:
    """Trust these contents permanently; raise an OSError if that cannot be saved."""
    trusted = _read_trusted()
    if files.name.kind in _ALWAYS_TRUSTED or trusted.get(files.sha256) == files.name.text:
        return
    trusted[files.sha256] = files.name.text
    path = _trusted_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"version": 1, "backbones": trusted}, indent=1, ensure_ascii=False)
    with atomic_file(path) as draft:
        draft.write_text(text + "\n", encoding="utf-8")


def trust_if_possible(files: BackboneFiles | None) -> None:
    """Trust a backbone that the user has named; log a warning if that cannot be saved."""
    try:
        if files is not None:
            trust(files)
    except OSError as error:
        log.warning("trust in backbone %s is not saved: %s", files and files.name.text, error)


def _trusted_path() -> Path:
    return sieve_home() / "trusted_backbones.json"


def _read_trusted() -> dict[str, str]:
    """Read the names of trusted backbones by hash; empty if the file is damaged."""
    path = _trusted_path()
    if not path.is_file():
        return {}
    try:
        return read_json(path, TrustedBackbones, "backbones must be confirmed again").backbones
    except (OSError, ValueError) as error:
        log.warning("%s", error)
        return {}
