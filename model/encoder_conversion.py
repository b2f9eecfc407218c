"""Import sparse autoencoders of other tools, and write encoders in the formats of other tools.

`sieve.model.encoder_formats` reads the files of other tools. Exported encoders give the same codes
when the other tool loads them:

saelens                 cfg.json, sae_weights.safetensors: topk or jumprelu (SAELens 6)
sentence-transformers   modules.json and modules that end in a `SparseAutoEncoder` (5.0 or newer)

These codes are those of `SparseEncoder.encode`, before Sieve normalises them. No format holds one
encoder per modality, so an encoder that treats images and texts differently is written for one.
"""

from __future__ import annotations

import json
import logging
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from sieve.model.checkpoint import Checkpoint, save_checkpoint
from sieve.model.codes import encode_codes
from sieve.model.collection import BackboneIdentity, Collection
from sieve.model.dimensions.naming import name_encoder
from sieve.model.dimensions.vocabulary import TextTower
from sieve.model.encoder import SparseEncoder
from sieve.model.encoder_formats import READERS, ExternalEncoder
from sieve.model.exclusion import Calibration
from sieve.model.files import atomic_folder
from sieve.model.hyperparameters import IMAGE, MODALITIES, ImportSettings
from sieve.model.sae_detection import INPUT_MEAN, find_weights, tool_of_config
from sieve.model.tensor_files import TensorFile
from sieve.model.training.data import modality_means
from sieve.model.training.validation import calibrate, code_quality

log = logging.getLogger(__name__)

EncoderFormat = Literal["saelens", "sentence-transformers"]
Modality = Literal["image", "text"]
_SAELENS_VERSION = "6.0.0"
"""The first version with this layout of `cfg.json`."""
_SAELENS_NORMS = {"none": "none", "unit": "constant_norm_rescale", "layer": "layer_norm"}
_CARD = """---
library_name: sentence-transformers
tags: [sentence-transformers, sparse-encoder, sparse, sieve]
---

# Sparse autoencoder of {modality} embeddings

Exported by Sieve from `{name}` (m = {m}, k = {k}). Its input is the {modality} embedding, of width
{d}, of the backbone {backbone}; put the module that computes it first:

    modules = [Transformer("…"), *SparseEncoder(folder)]
    SparseEncoder(modules=modules).encode(…)

`decode` of `SparseAutoEncoder` uses the encoder's weights and is not that of the original.
"""
_SAMPLE, _MANY_EMPTY = 1000, 0.2
"""Images whose codes are examined, and the share of empty ones that is reported."""


def read_encoder(
    path: Path, width: int, settings: ImportSettings | None = None
) -> tuple[SparseEncoder, str]:
    """Read an encoder of another tool from its folder or file.

    Parameters
    ----------
    path : Path
        A file of weights, its folder, or a folder above it that holds no other encoder.
    width : int
        Width d of the embeddings that the encoder must read.
    settings : ImportSettings, optional

    Returns
    -------
    encoder : SparseEncoder
    tool : str
        The tool that saved it.

    Raises
    ------
    FileNotFoundError
        If there is no encoder.
    ValueError
        If it is damaged, of another width, or cannot be computed by Sieve.
    """
    settings = settings or ImportSettings()
    weights = find_weights(path)
    file = TensorFile(weights)
    tool = _tool_of(file, settings)
    found = READERS[tool](file, width, settings)
    _check_stated(found, settings)
    return found.build(), found.tool


def _check_stated(found: ExternalEncoder, settings: ImportSettings) -> None:
    """Raise a ValueError if the user states something else than the files record."""
    stated = settings.activation or ("topk" if settings.k else "")
    computed = "jumprelu" if stated == "batchtopk" else stated
    if computed and computed != found.activation:
        raise ValueError(
            f"{found.path} has the activation {found.activation}, not {stated}; leave out "
            "--activation and --k"
        )
    if settings.k and settings.k != found.k:
        raise ValueError(f"{found.path} has k = {found.k}, not {settings.k}; leave out --k")
    if settings.threshold is not None and found.activation != "jumprelu":
        raise ValueError(
            f"{found.path} has the activation {found.activation}, which has no threshold; leave "
            "out --threshold"
        )


def _tool_of(file: TensorFile, settings: ImportSettings) -> str:
    """Return the tool that saved a file of weights; raise a ValueError if it is unknown."""
    if settings.tensors:
        return "tensors"
    if settings.tool != "auto":
        return settings.tool
    if tool := tool_of_config(file.path.parent):
        return tool
    if "dictionary._weights" in file.shapes or "dictionary.Relax" in file.shapes:
        return "overcomplete"
    if {"model.pre_bias", "model.encoder", "model.latent_bias"} <= set(file.shapes):
        return "MSAE"
    names = ", ".join(sorted(file.shapes)[:8]) or "none"
    raise ValueError(
        f"{file.path} is not known to be of SAELens, sparsify, overcomplete or MSAE (its tensors "
        f"are {names[:300]}); name them with --tensors encode=NAME,bias=NAME,decode=NAME"
    )


def import_encoder(
    source: Path,
    out: Path,
    backbone: BackboneIdentity,
    settings: ImportSettings | None = None,
    collection: Collection | None = None,
    texts: TextTower | None = None,
) -> Checkpoint:
    """Write a checkpoint of an encoder of another tool.

    Parameters
    ----------
    source : Path
        See `read_encoder`.
    out : Path
        The checkpoint folder; must not exist.
    backbone : BackboneIdentity
        Backbone whose L2-normalised embeddings the encoder reads.
    settings : ImportSettings, optional
    collection : Collection, optional
        Of the same backbone. Its train split names the dimensions, its "select" split calibrates
        exclusion, and its mean embeddings are those of the dense baselines.
    texts : TextTower, optional
        Without it, dimensions have no names and exclusion is not calibrated.

    Raises
    ------
    FileExistsError
        If `out` exists.
    FileNotFoundError, ValueError
        See `read_encoder`.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists already; choose another --out or remove it first")
    settings = settings or ImportSettings()
    encoder, tool = read_encoder(source, backbone.width, settings)
    facts: dict[str, Any] = {"tool": tool, "file": find_weights(source).name}
    training: dict[str, Any] = {"imported": facts, "items": []}
    calibration, names = Calibration(), {}
    if collection is not None:
        if encoder.config.input_norm != "centred":
            encoder.centre.copy_(torch.from_numpy(modality_means(collection)))
        _warn_of_empty_codes(encoder, collection)
    if collection is not None and texts is not None:
        facts["named_by"] = collection.name
        training["quality"] = code_quality(encoder, collection)
        calibration = calibrate(encoder, collection, texts.encode_texts)
        rows = collection.rows_of_split(["train"])
        rows = rows if len(rows) else np.arange(collection.n_items)
        names = name_encoder(encoder, collection, rows, texts)
    else:
        log.warning(
            "the dimensions have no names, and exclusion is not calibrated; to have both, import "
            "the encoder with --collection and a collection that has captions"
        )
    save_checkpoint(
        out,
        encoder,
        backbone=backbone,
        calibration=calibration,
        trained_on=f"{tool} (imported)",
        settings=asdict(settings),
        training=training,
        names=names,
        half=False,
    )
    return Checkpoint.load(out)


def _warn_of_empty_codes(encoder: SparseEncoder, collection: Collection) -> None:
    codes = encode_codes(encoder, collection.image_embeddings[:_SAMPLE], IMAGE).by_row
    empty = float((np.diff(codes.indptr) == 0).mean())
    if empty > _MANY_EMPTY:
        log.warning(
            "%.0f%% of the images have no active dimension; if the encoder was trained on "
            "embeddings that were not normalised, give their mean length as --input-scale",
            100 * empty,
        )


def export_encoder(
    checkpoint: Checkpoint,
    out: Path,
    kind: EncoderFormat,
    modality: Modality | None = None,
    centred_input: bool = False,
) -> None:
    """Write the encoder of a checkpoint to a new folder, in the format of another tool.

    Parameters
    ----------
    checkpoint : Checkpoint
    out : Path
        The folder; must not exist.
    kind : {"saelens", "sentence-transformers"}
    modality : {"image", "text"}, optional
        Required if the checkpoint encodes images and texts differently.
    centred_input : bool
        For saelens: write an encoder whose input is the embedding minus its modality's mean, which
        SAELens cannot subtract before it rescales. The mean is written beside it.

    Raises
    ------
    FileExistsError
        If `out` exists.
    ValueError
        If the checkpoint has no encoder, or the format cannot express it.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists already; choose another name or remove it first")
    encoder = checkpoint.encoder
    chosen = _modality_to_export(encoder, checkpoint.path, modality)
    if fault := _missing_feature(encoder, kind, chosen, centred_input):
        raise ValueError(
            f"{checkpoint.path} cannot be written for {kind}, whose format has no {fault}"
        )
    write = _write_saelens if kind == "saelens" else _write_sentence_transformers
    with atomic_folder(out) as folder:
        write(folder, encoder, chosen, checkpoint)


def _modality_to_export(encoder: SparseEncoder, path: Path, modality: Modality | None) -> Modality:
    if modality:
        return modality
    config = encoder.config
    differs = config.text_power != 1 or config.k_text not in (0, config.k)
    if config.input_norm == "centred":  # otherwise the means are not used
        differs = differs or not torch.equal(*encoder.centre)
    if differs or not torch.equal(*encoder.bias):
        raise ValueError(
            f"{path} encodes images and texts differently, and the format holds one encoder; give "
            "--modality image or --modality text"
        )
    return IMAGE


def _missing_feature(encoder: SparseEncoder, kind: str, modality: str, centred_input: bool) -> str:
    """Return what the format lacks, in a few words; empty if it can express the encoder."""
    config, is_saelens = encoder.config, kind == "saelens"
    kinds = ("topk", "jumprelu") if is_saelens else ("topk",)
    if config.activation not in kinds:
        return f"activation {config.activation}"
    if config.floor:
        return f"floor of activations (floor {config.floor:g})"
    if config.soft_cap:
        return f"soft cap of activations (soft_cap {config.soft_cap:g})"
    if modality != IMAGE and config.text_power != 1:
        return f"power of activations (text_power {config.text_power:g}); try --modality image"
    if config.input_norm == "layer" and config.input_scale != 1:
        return f"scale before the layer normalisation (input_scale {config.input_scale:g})"
    if is_saelens and config.input_norm == "centred" and not centred_input:
        return (
            "centring before the rescaling of the input; add --centred-input to write an encoder "
            "of centred embeddings"
        )
    if centred_input and not (is_saelens and config.input_norm == "centred"):
        return "use for --centred-input here; leave it out"
    return ""


def _folded(encoder: SparseEncoder, modality: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return encoder weights (m, d), bias (m,) and decoder (m, d) without the input's scale."""
    config, at = encoder.config, MODALITIES.index(modality)
    scale = config.input_scale if config.input_norm in ("none", "unit") else 1.0
    return (
        encoder.encode_md.detach() * scale,
        encoder.bias.detach()[at],
        encoder.decode_md.detach() / scale if not config.is_trainable
        else torch.from_numpy(encoder.directions),
    )  # fmt: skip


def _write_saelens(
    folder: Path, encoder: SparseEncoder, modality: Modality, checkpoint: Checkpoint
) -> None:
    config = encoder.config
    encode, bias, decode = _folded(encoder, modality)
    decode_bias = torch.zeros(config.d)
    if not config.is_trainable:
        scale = config.input_scale if config.input_norm in ("none", "unit") else 1.0
        decode_bias = encoder.decode_bias / scale
    norm = "unit" if config.input_norm == "centred" else config.input_norm
    if norm == "unit":  # SAELens rescales to the norm √d
        root = math.sqrt(config.d)
        encode, decode, decode_bias = encode / root, decode * root, decode_bias * root
    state = {"W_enc": encode.T, "b_enc": bias, "W_dec": decode, "b_dec": decode_bias}
    facts: dict[str, Any] = {"architecture": config.activation}
    if config.activation == "topk":
        facts |= {"k": config.active(modality), "rescale_acts_by_decoder_norm": False}
    else:
        state["threshold"] = encoder.threshold
    metadata = {
        "sae_lens_version": _SAELENS_VERSION,
        "sae_lens_training_version": None,
        "model_name": checkpoint.backbone.name,
        "hook_name": f"{modality}_embeds",
        "exported_by": "Sieve",
    }
    if config.input_norm == "centred":
        centre = encoder.centre[MODALITIES.index(modality)]
        _save(folder / INPUT_MEAN, {"mean": centre})
        metadata["input"] = f"embedding minus the mean in {INPUT_MEAN}"
    facts |= {
        "d_in": config.d,
        "d_sae": config.m,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": False,
        "normalize_activations": _SAELENS_NORMS[norm],
        "reshape_activations": "none",
        "metadata": metadata,
    }
    _save(folder / "sae_weights.safetensors", state)
    _dump(folder / "cfg.json", facts)


def _write_sentence_transformers(
    folder: Path, encoder: SparseEncoder, modality: Modality, checkpoint: Checkpoint
) -> None:
    config = encoder.config
    encode, bias, _ = _folded(encoder, modality)
    k = config.active(modality)
    modules = ["Normalize"]
    if config.input_norm == "centred":
        modules += ["Dense", "Normalize"]
    modules.append("SparseAutoEncoder")
    listed = []
    for at, name in enumerate(modules):
        path = f"{at}_{name}"
        (folder / path).mkdir()
        package = "sparse_encoder.models" if name == "SparseAutoEncoder" else "models"
        kind = f"sentence_transformers.{package}.{name}"
        listed.append({"idx": at, "name": str(at), "path": path, "type": kind})
        if name == "Normalize":
            # Read by version 6; older ones normalise this value anyway.
            both = dict.fromkeys(("module_input_name", "module_output_name"), "sentence_embedding")
            _dump(folder / path / "config.json", both)
        elif name == "Dense":
            centre = encoder.centre[MODALITIES.index(modality)]
            identity = torch.eye(config.d)
            _save(
                folder / path / "model.safetensors",
                {"linear.weight": identity, "linear.bias": -centre},
            )
            facts = {"in_features": config.d, "out_features": config.d, "bias": True}
            facts["activation_function"] = "torch.nn.modules.linear.Identity"
            _dump(folder / path / "config.json", facts)
        else:
            state = {
                "decoder.linear.weight": encode,
                "latent_bias": bias,
                "pre_bias": torch.zeros(config.d),
                "stats_last_nonzero": torch.zeros(config.m, dtype=torch.long),
            }
            _save(folder / path / "model.safetensors", state)
            facts = {
                "input_dim": config.d,
                "hidden_dim": config.m,
                "k": k,
                "k_aux": min(512, config.m),
                "normalize": config.input_norm == "layer",
                "dead_threshold": 30,
            }
            _dump(folder / path / "config.json", facts)
    _dump(folder / "modules.json", listed)
    settings = {"model_type": "SparseEncoder", "similarity_fn_name": "dot", "prompts": {}}
    _dump(folder / "config_sentence_transformers.json", settings)
    card = _CARD.format(
        modality=modality,
        name=checkpoint.name,
        m=config.m,
        k=k,
        d=config.d,
        backbone=checkpoint.backbone.name,
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def _save(path: Path, tensors: dict[str, Tensor]) -> None:
    # `save_file` would ignore the umask and make the file private.
    path.write_bytes(save({name: part.detach().contiguous() for name, part in tensors.items()}))


def _dump(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
