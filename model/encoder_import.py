"""Import sparse autoencoders of other tools: see `sieve.model.encoder_formats`."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sieve.model.checkpoint import Checkpoint, save_checkpoint
from sieve.model.codes import encode_codes
from sieve.model.collection import BackboneIdentity, Collection
from sieve.model.dimensions.naming import name_encoder
from sieve.model.dimensions.vocabulary import TextTower
from sieve.model.encoder import SparseEncoder
from sieve.model.encoder_formats import READERS, ExternalEncoder
from sieve.model.exclusion import Calibration
from sieve.model.external_sae import find_weights, tool_of_config
from sieve.model.hyperparameters import IMAGE, ImportSettings
from sieve.model.tensor_files import TensorFile
from sieve.model.training.data import modality_means
from sieve.model.training.validation import calibrate, code_quality

log = logging.getLogger(__name__)

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
