"""Detection of sparse autoencoders saved by other tools; no weights are loaded and no code is run.

SAELens           cfg.json (architecture, d_sae), sae_weights.safetensors
sparsify          cfg.json (num_latents, k), sae.safetensors
dictionary_learning, sae-for-vlm      config.json (trainer), ae.pt
overcomplete, MSAE, openai/sparse_autoencoder   a PyTorch file, recognised by names in it

`sieve.model.encoder_conversion` opens those of SAELens, sparsify, overcomplete and MSAE.
"""

from __future__ import annotations

import json
import pickletools
import shlex
import zipfile
from itertools import chain, islice
from pathlib import Path
from typing import Any

from sieve.model.files import UNREADABLE

IMPORTED = ("SAELens", "sparsify", "overcomplete", "MSAE")
"""Tools whose encoders `sieve import-encoder` opens."""
INPUT_MEAN = "input_mean.safetensors"
"""Beside an exported encoder that expects centred embeddings: the mean that was subtracted."""
_ENCODE = {
    "dictionary_learning": "AutoEncoder.from_pretrained({path!r}).encode(x)",
    "openai/sparse_autoencoder": "Autoencoder.from_state_dict(state).encode(x)[0]",
    "": "model.encode(x)",
}
"""Python expressions that encode embeddings x, by tool; empty for an unknown one."""
_WEIGHTS = {
    "dictionary._weights": "overcomplete",
    "overcomplete": "overcomplete",
    "scaling_factor": "MSAE",
    "latent_bias": "openai/sparse_autoencoder",
}
"""Names of weights or modules in a pickled file, and the tools that they belong to."""
_PICKLED = (".pt", ".pth", ".bin", ".ckpt", ".pkl")
_NO_ENCODER = (INPUT_MEAN, "sparsity.safetensors")
_SPARSIFY_SIZE = {"num_latents", "expansion_factor"}
_MAX_JSON = 1 << 20
_MAX_PICKLE = 1 << 24
_MAX_ENTRIES = 200
"""Maximum number of entries of a folder that are examined."""


def external_sae_fault(path: Path) -> str:
    """Return which tool saved a sparse autoencoder in a file or a folder, and how to use it.

    One line; empty if there is no such autoencoder.
    """
    found = _find(path)
    if found is None:
        return ""
    tool, place, size = found
    what = f"a sparse autoencoder of {tool}" if tool else "pickled weights"
    if tool in IMPORTED:
        return (
            f"{place} holds {what}{size}, not a Sieve checkpoint; make one of it with `sieve "
            f"import-encoder {shlex.quote(str(place))} --backbone NAME --out CHECKPOINT`"
        )
    encode = _ENCODE[tool].format(path=str(place))
    return (
        f"{place} holds {what}{size}, not a Sieve checkpoint; encode your embeddings x with it "
        f"({encode}), save the codes with scipy.sparse.save_npz as image_codes.npz beside a table "
        "items.csv (id, image, caption), and open them with `sieve prepare codes DIR`"
    )


def find_weights(path: Path) -> Path:
    """Return the file of weights of an encoder: a file, or the only one up to three folders deep.

    Raises a FileNotFoundError if there is none, and a ValueError if there are several.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise FileNotFoundError(f"there is no file or folder {path}")
    nested = (islice(path.glob(pattern), _MAX_ENTRIES) for pattern in ("*", "*/*", "*/*/*"))
    kinds = (".safetensors", *_PICKLED)
    found = [
        file
        for file in chain.from_iterable(map(sorted, nested))
        if file.is_file() and file.suffix.lower() in kinds and file.name not in _NO_ENCODER
    ]
    if not found:
        raise FileNotFoundError(
            f"{path} holds no encoder; expected sae_weights.safetensors (SAELens), sae.safetensors "
            "(sparsify), or a .safetensors or .pt file"
        )
    if len(found) > 1:
        names = ", ".join(str(one.relative_to(path)) for one in found[:4])
        more = ", …" if len(found) > 4 else ""
        raise ValueError(f"{path} holds {len(found)} files of weights ({names}{more}); give one")
    return found[0]


def tool_of_config(folder: Path) -> str:
    """Return the tool whose `cfg.json` is in a folder, SAELens or sparsify; empty if neither."""
    config = _read(folder / "cfg.json")
    if "d_sae" in config:
        return "SAELens"
    return "sparsify" if "k" in config and _SPARSIFY_SIZE & set(config) else ""


def _find(path: Path) -> tuple[str, Path, str] | None:
    """Return the tool, the place and the size of an autoencoder in a file or two folders deep."""
    if path.is_file():
        return _of_pickle(path) or _of_folder(path.parent)
    nested = (islice(path.glob(pattern), _MAX_ENTRIES) for pattern in ("*", "*/*"))
    for folder in (one for one in chain([path], *map(sorted, nested)) if one.is_dir()):
        parts = (part for part in sorted(folder.iterdir())[:_MAX_ENTRIES] if part.is_file())
        found = _of_folder(folder) or next(filter(None, map(_of_pickle, parts)), None)
        if found:
            return found
    return None


def _of_folder(folder: Path) -> tuple[str, Path, str] | None:
    config = _read(folder / "cfg.json")
    if "d_sae" in config or (folder / "sae_weights.safetensors").is_file():
        return "SAELens", folder, _size(config.get("d_in"), config.get("d_sae"))
    if (folder / "sae.safetensors").is_file() or {"num_latents", "expansion_factor"} <= set(config):
        return "sparsify", folder, _size(config.get("d_in"), config.get("num_latents"))
    trainer = _read(folder / "config.json").get("trainer")
    if isinstance(trainer, dict) and (folder / "ae.pt").is_file():
        size = _size(trainer.get("activation_dim"), trainer.get("dict_size"))
        return "dictionary_learning", folder / "ae.pt", size
    return None


def _size(d: object, m: object) -> str:
    return f" ({d} → {m} dimensions)" if isinstance(d, int) and isinstance(m, int) and m else ""


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open(encoding="utf-8") as stream:
            value = json.loads(stream.read(_MAX_JSON))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _of_pickle(path: Path) -> tuple[str, Path, str] | None:
    """Recognise a PyTorch file by its strings; the pickle's opcodes are listed, never run."""
    if path.suffix.lower() not in _PICKLED:
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            inside = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            with archive.open(inside) as stream:
                code = stream.read(_MAX_PICKLE)
        text = "\n".join(str(part) for _, part, _ in pickletools.genops(code) if part is not None)
    except (*UNREADABLE, StopIteration):
        text = ""
    return next((tool for word, tool in _WEIGHTS.items() if word in text), ""), path, ""
