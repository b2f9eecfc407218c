"""Detection of sparse autoencoders saved by other tools; no weights are loaded and no code is run.

SAELens           cfg.json (architecture, d_sae), sae_weights.safetensors
sparsify          cfg.json (num_latents, k), sae.safetensors
dictionary_learning, sae-for-vlm      config.json (trainer), ae.pt
overcomplete, openai/sparse_autoencoder   a PyTorch file, recognised by the names of its weights
"""

from __future__ import annotations

import json
import pickletools
import zipfile
from itertools import chain, islice
from pathlib import Path
from typing import Any

from sieve.model.files import UNREADABLE

_ENCODE = {
    "SAELens": "SAE.load_from_disk({path!r}).encode(x)",
    "sparsify": "SparseCoder.load_from_disk({path!r}).encode(x)",
    "overcomplete": "sae.encode(x)[1]",
    "dictionary_learning": "AutoEncoder.from_pretrained({path!r}).encode(x)",
    "openai/sparse_autoencoder": "Autoencoder.from_state_dict(state).encode(x)[0]",
    "": "model.encode(x)",
}
"""Python expressions that encode embeddings x, by tool; empty for an unknown one."""
_WEIGHTS = {
    "dictionary._weights": "overcomplete",
    "overcomplete": "overcomplete",
    "latent_bias": "openai/sparse_autoencoder",
}
"""Names of weights or modules in a pickled file, and the tools that they belong to."""
_PICKLED = (".pt", ".pth", ".bin", ".ckpt", ".pkl")
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
    encode = _ENCODE[tool].format(path=str(place))
    return (
        f"{place} holds {what}{size}, not a Sieve checkpoint; encode your embeddings x with it "
        f"({encode}), save the codes with scipy.sparse.save_npz as image_codes.npz beside a table "
        "items.csv (id, image, caption), and open them with `sieve prepare codes DIR`"
    )


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
