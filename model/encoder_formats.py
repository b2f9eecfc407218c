"""Formats of sparse autoencoders of other tools, read as encoders of Sieve.

SAELens       cfg.json, sae_weights.safetensors: standard, topk, jumprelu, batchtopk
sparsify      cfg.json, sae.safetensors: topk
overcomplete  state dict: SAE, TopKSAE, JumpSAE, BatchTopKSAE, with a linear or a tied encoder
MSAE          its .pth, whose name records the activation
any other     safetensors or a state dict, with the names of its tensors stated

All of these compute

    y = norm(s x),   a = W (y - c) + b,   z = f(a)

with norm the identity, L2 or layer normalisation, and f ReLU, TopK or JumpReLU. `c` is folded into
the bias, b - W c, and everything else is kept, so that Sieve computes the tool's own activations.
Texts and images share the weights. BatchTopK has a fixed threshold at inference, so it becomes
JumpReLU, as in SAELens. What cannot be computed like this is refused by name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from sieve.model.codes import MAX_DIMENSIONS
from sieve.model.encoder import SparseEncoder
from sieve.model.external_sae import INPUT_MEAN
from sieve.model.files import Schema, Size, read_json
from sieve.model.hyperparameters import (
    MODALITIES,
    ImportSettings,
    InputNorm,
    SparseEncoderConfig,
)
from sieve.model.tensor_files import TensorFile

_MAX_CONFIG = 1 << 20
_SAVE = "save it again with the tool that made it"
_EMBEDDING_HOOK = re.compile(r"embed|proj|pool|final|output", re.IGNORECASE)
_LAYER = re.compile(r"(^|[./_])(layers?|blocks?|h|resblocks)[./_]?\d+", re.IGNORECASE)
_MSAE_NAME = re.compile(
    r"\d+_\d+_(?P<activation>[A-Za-z]+)(?:_(?P<number>\d+))?(?:_(?:UW|RW))?"
    r"_(?P<tied>True|False)_(?P<normalize>True|False)_(?P<cap>\d+(?:\.\d+)?)(?:_.*)?"
)
_UNIT_TOLERANCE = 0.02


@dataclass
class ExternalEncoder:
    """An encoder of another tool, in the terms of this module's docstring."""

    tool: str
    path: Path
    encode_md: Tensor
    bias: Tensor
    decode_md: Tensor
    decode_bias: Tensor
    activation: Literal["relu", "topk", "jumprelu"]
    k: int = 0
    threshold: Tensor | None = None
    input_bias: Tensor | None = None
    input_norm: InputNorm = "none"
    input_scale: float = 1.0
    soft_cap: float = 0.0
    mean: Tensor | None = None
    """Subtracted before L2 normalisation, if the input is `centred`."""

    def build(self) -> SparseEncoder:
        """Return it as an encoder of Sieve; raise a ValueError for an invalid shape or k."""
        m, d = self.encode_md.shape
        is_topk = self.activation == "topk"
        if is_topk and not 1 <= self.k <= m:
            raise ValueError(f"{self.path} keeps k = {self.k} of {m} dimensions; give a valid --k")
        config = SparseEncoderConfig(
            d,
            m,
            self.k if is_topk else m,
            "topk" if is_topk else "jumprelu",
            input_norm=self.input_norm,
            input_scale=self.input_scale,
            soft_cap=self.soft_cap,
        )
        encoder = SparseEncoder(config)
        bias = self.bias
        if self.input_bias is not None:
            folded = self.encode_md.double() @ self.input_bias.double()
            bias = (bias.double() - folded).float()
        state = {
            "encode_md": self.encode_md,
            "decode_md": self.decode_md,
            "bias": bias.expand(len(MODALITIES), m),
            "centre": torch.zeros(len(MODALITIES), d) if self.mean is None
            else self.mean.expand(len(MODALITIES), d),
        }  # fmt: skip
        if not config.is_trainable:
            state["decode_bias"] = self.decode_bias
        if not is_topk:
            state["threshold"] = torch.zeros(m) if self.threshold is None else self.threshold
        for name, part in state.items():
            if not part.isfinite().all():
                raise ValueError(f"{self.path} has weights whose {name} is beyond float32")
        encoder.load_state_dict(state)
        return encoder.eval()


def _supported(names: Iterable[str]) -> str:
    return f"choose an encoder with {' or '.join(names)}"


def _refuse(file: TensorFile, what: str, remedy: str = "") -> ValueError:
    return ValueError(f"{file.path} cannot be imported: {what}{'; ' + remedy if remedy else ''}")


def _matrix(file: TensorFile, name: str, width: int, m: int | None = None) -> Tensor:
    """Read a matrix as (m, d); a transposed one is recognised by the width d."""
    shape = file.shapes.get(name, ())
    if name in file.shapes and (len(shape) != 2 or width not in shape):
        raise _refuse(
            file,
            f"tensor {name[:80]!r} has shape {shape}, but the backbone's embeddings have width "
            f"{width}",
            "give the --backbone that it was trained on",
        )
    wide = m or (math.prod(shape) // width if shape else 1)
    _check_m(file, wide)
    value = file.tensor(name, (wide, width), (width, wide))
    return value if value.shape == (wide, width) else value.T.contiguous()


def _check_m(file: TensorFile, m: int) -> None:
    if not 1 <= m <= MAX_DIMENSIONS:
        raise _refuse(file, f"it has {m:,} dimensions, and 1 to {MAX_DIMENSIONS:,} can be explored")


def _check_width(file: TensorFile, d: int, width: int) -> None:
    if d != width:
        raise _refuse(
            file,
            f"it reads embeddings of width {d}, but those of the backbone have {width}",
            "give the --backbone that it was trained on",
        )


def _check_hook(file: TensorFile, hook: str, model: str, settings: ImportSettings) -> None:
    if not hook or settings.any_hook:
        return
    if _LAYER.search(hook) or not _EMBEDDING_HOOK.search(hook):
        of = f" of {model[:80]}" if model else ""
        raise _refuse(
            file,
            f"it reads {hook[:80]!r}{of}, not the image and text embeddings of a dual encoder",
            "if it does, add --any-hook",
        )


def _check_names(file: TensorFile, known: set[str]) -> None:
    if unknown := sorted(set(file.shapes) - known):
        raise _refuse(file, f"it has a tensor {unknown[0][:80]!r}, which Sieve does not compute")


def _threshold(
    file: TensorFile, settings: ImportSettings, m: int, recorded: Tensor | None = None
) -> Tensor:
    if recorded is not None:
        return recorded
    if settings.threshold is None:
        raise _refuse(file, "it does not record the threshold of its activation", "add --threshold")
    return torch.full((m,), settings.threshold)


def _stated_activation(
    file: TensorFile, tool: str, m: int, settings: ImportSettings
) -> tuple[Literal["relu", "topk", "jumprelu"], int, Tensor | None]:
    """Return the activation, k and threshold that the user states."""
    if settings.activation == "topk" or (not settings.activation and settings.k):
        if not settings.k:
            raise _refuse(file, f"files of {tool} do not record k", "add --k")
        return "topk", settings.k, None
    if settings.activation in ("jumprelu", "batchtopk"):
        return "jumprelu", 0, _threshold(file, settings, m)
    if settings.activation == "relu":
        return "relu", 0, None
    raise _refuse(
        file,
        f"files of {tool} do not record the activation",
        "add --activation topk --k K, --activation relu, or --activation batchtopk --threshold T",
    )


class _SaeLensConfig(Schema):
    """`cfg.json` of SAELens 6, and of older versions."""

    architecture: str = "standard"
    d_in: Size
    d_sae: Size
    k: float | None = None
    apply_b_dec_to_input: bool = True
    normalize_activations: str | bool | None = "none"
    reshape_activations: str | None = "none"
    rescale_acts_by_decoder_norm: bool | None = None
    finetuning_scaling_factor: bool | None = False
    activation_fn: str | None = None
    activation_fn_str: str | None = None
    activation_fn_kwargs: dict[str, Any] | None = None
    hook_name: str | None = None
    hook_point: str | None = None
    model_name: str | None = None
    metadata: dict[str, Any] | None = None

    def fact(self, name: str) -> str:
        """Return a fact about the training, as text; empty if it is not recorded."""
        value = (self.metadata or {}).get(name)
        return str(value if value is not None else getattr(self, name, None) or "")


_SAELENS_NORMS: dict[str, InputNorm] = {
    "none": "none",
    "constant_norm_rescale": "unit",
    "layer_norm": "layer",
}
_SAELENS_ARCHITECTURES = ("standard", "topk", "jumprelu", "batchtopk", "matryoshka_batchtopk")


def _read_saelens(file: TensorFile, width: int, settings: ImportSettings) -> ExternalEncoder:
    config = read_json(file.path.with_name("cfg.json"), _SaeLensConfig, _SAVE, _MAX_CONFIG)
    _check_width(file, config.d_in, width)
    _check_m(file, config.d_sae)
    hook = config.fact("hook_name") or config.hook_point or ""
    _check_hook(file, hook, config.fact("model_name"), settings)
    if config.reshape_activations not in (None, "none"):
        raise _refuse(file, f"its input is reshaped ({config.reshape_activations[:40]})")
    if config.finetuning_scaling_factor:
        raise _refuse(file, "it has a fine-tuned scaling factor of activations")
    norm = config.normalize_activations
    norm = "expected_average_only_in" if norm is True else norm or "none"
    scale = settings.input_scale
    if norm == "expected_average_only_in":
        if scale == 1.0:
            raise _refuse(
                file,
                "its input is scaled (normalize_activations is expected_average_only_in), but the "
                "factor is not saved",
                "add it as --input-scale",
            )
        norm = "none"
    if norm not in _SAELENS_NORMS:
        what = f"normalize_activations {norm[:40]!r} is not supported"
        raise _refuse(file, what, _supported(_SAELENS_NORMS))
    m, d = config.d_sae, config.d_in
    old = config.activation_fn or config.activation_fn_str or "relu"
    architecture = config.architecture
    if architecture == "standard" and old == "topk":
        architecture = "topk"
    elif architecture == "standard" and old != "relu":
        remedy = _supported(("relu", "topk"))
        raise _refuse(file, f"its activation function {old[:40]!r} is not supported", remedy)
    if architecture not in _SAELENS_ARCHITECTURES:
        what = f"the architecture {architecture[:60]!r} of SAELens is not supported"
        raise _refuse(file, what, _supported(_SAELENS_ARCHITECTURES))
    extra = {
        "jumprelu": {"threshold", "log_threshold"},
        "batchtopk": {"topk_threshold"},
        "matryoshka_batchtopk": {"topk_threshold"},
    }.get(architecture, set())
    _check_names(file, {"W_enc", "b_enc", "W_dec", "b_dec"} | extra)
    encode = file.tensor("W_enc", (d, m)).T.contiguous()
    bias, decode = file.tensor("b_enc", (m,)), file.tensor("W_dec", (m, d))
    decode_bias = file.tensor("b_dec", (d,))
    is_batch = "batchtopk" in architecture
    rescales = config.rescale_acts_by_decoder_norm
    # Training configurations of BatchTopK leave out the default, which is to rescale.
    if architecture == "topk" and rescales or is_batch and rescales is not False:
        norms = decode.norm(dim=1)
        encode, bias = encode * norms[:, None], bias * norms
        decode = decode / norms.clamp(min=1e-30)[:, None]
    found = ExternalEncoder(
        "SAELens", file.path, encode, bias, decode, decode_bias, "relu",
        input_bias=decode_bias if config.apply_b_dec_to_input else None,
        input_norm=_SAELENS_NORMS[norm],
        input_scale=math.sqrt(d) if norm == "constant_norm_rescale" else scale,
    )  # fmt: skip
    if architecture == "topk":
        k = config.k or (config.activation_fn_kwargs or {}).get("k") or settings.k
        if not isinstance(k, int | float) or k != int(k):
            raise _refuse(file, "its k is not a whole number", "add --k")
        found.activation, found.k = "topk", int(k)
    elif architecture == "jumprelu":
        found.activation = "jumprelu"
        found.threshold = (
            file.tensor("log_threshold", (m,)).exp() if "log_threshold" in file.shapes
            else file.tensor("threshold", (m,))
        )  # fmt: skip
    elif is_batch:
        recorded = None
        if "topk_threshold" in file.shapes:
            recorded = file.tensor("topk_threshold", (), (1,)).expand(m)
        found.activation = "jumprelu"
        found.threshold = _threshold(file, settings, m, recorded)
    return _centred_input(found, d)


def _centred_input(found: ExternalEncoder, d: int) -> ExternalEncoder:
    """Read the mean that `export_encoder` wrote beside an encoder, if there is one."""
    path = found.path.with_name(INPUT_MEAN)
    if path.is_file() and found.input_norm == "unit":
        found.mean = TensorFile(path).tensor("mean", (d,))
        found.encode_md = found.encode_md * found.input_scale
        found.input_norm, found.input_scale = "centred", 1.0
    return found


class _SparsifyConfig(Schema):
    """`cfg.json` of sparsify."""

    d_in: Size
    k: Size
    activation: str = "topk"
    expansion_factor: int = 32
    num_latents: int = 0
    transcode: bool = False
    skip_connection: bool = False
    signed: bool = False


def _read_sparsify(file: TensorFile, width: int, settings: ImportSettings) -> ExternalEncoder:
    config = read_json(file.path.with_name("cfg.json"), _SparsifyConfig, _SAVE, _MAX_CONFIG)
    _check_width(file, config.d_in, width)
    hook = file.path.parent.name
    _check_hook(file, hook if _LAYER.search(hook) else "", "", settings)
    for name in ("transcode", "skip_connection", "signed"):
        if getattr(config, name):
            raise _refuse(file, f"it is a transcoder of sparsify or has signed codes ({name})")
    if config.activation != "topk":
        what = f"the activation {config.activation[:40]!r} is not supported"
        raise _refuse(file, what, _supported(["topk"]))
    d, m = config.d_in, config.num_latents or config.d_in * config.expansion_factor
    _check_m(file, m)
    _check_names(file, {"encoder.weight", "encoder.bias", "W_dec", "b_dec"})
    encode, decode_bias = file.tensor("encoder.weight", (m, d)), file.tensor("b_dec", (d,))
    decode = file.tensor("W_dec", (m, d)) if "W_dec" in file.shapes else encode.clone()
    return ExternalEncoder(
        "sparsify", file.path, encode, file.tensor("encoder.bias", (m,)), decode, decode_bias,
        "topk", config.k, input_bias=decode_bias, input_scale=settings.input_scale,
    )  # fmt: skip


def _read_overcomplete(file: TensorFile, width: int, settings: ImportSettings) -> ExternalEncoder:
    names = set(file.shapes)
    if "Q" in names:
        raise _refuse(file, "the quantised codes of QSAE are not supported")
    if "dictionary.Relax" in names:
        raise _refuse(file, "the relaxed archetypal dictionary of RA-SAE is not supported")
    decode = _matrix(file, "dictionary._weights", width)
    m = len(decode)
    norms = decode.norm(dim=1, keepdim=True)
    if (norms - 1).abs().max() < _UNIT_TOLERANCE:  # the default, l2, normalises at each step
        decode = decode / (norms + 1e-8)
    if "dictionary.multiplier" in names:
        decode = decode * file.tensor("dictionary.multiplier", (), (1,)).exp()
    known = {"dictionary._weights", "dictionary.multiplier", "thresholds"}
    if "encoder.final_block.0.weight" in names:
        weight, bias = "encoder.final_block.0.weight", "encoder.final_block.0.bias"
    else:
        weight, bias = "encoder.weight", "encoder.bias"
    known |= {weight, bias, "encoder.tied_to._weights", "encoder.tied_to.multiplier"}
    if weight not in names and "encoder.tied_to._weights" not in names:
        raise _refuse(file, "its encoder is neither linear nor tied to the dictionary")
    _check_names(file, known)
    encode = _matrix(file, weight, width, m) if weight in names else decode.clone()
    if "thresholds" in names:
        activation: Literal["relu", "topk", "jumprelu"] = "jumprelu"
        k, threshold = 0, file.tensor("thresholds", (m,)).exp()
    else:
        activation, k, threshold = _stated_activation(file, "overcomplete", m, settings)
    if settings.activation == "batchtopk" and threshold is not None:
        # overcomplete keeps values equal to the threshold
        threshold = torch.nextafter(threshold, torch.tensor(-math.inf))
    return ExternalEncoder(
        "overcomplete", file.path, encode,
        file.tensor(bias, (m,)) if bias in names else torch.zeros(m),
        decode, torch.zeros(width), activation, k, threshold, input_scale=settings.input_scale,
    )  # fmt: skip


def _read_msae(file: TensorFile, width: int, settings: ImportSettings) -> ExternalEncoder:
    named = _MSAE_NAME.fullmatch(file.path.stem)
    if not named:
        raise _refuse(
            file,
            "MSAE records the activation in the file's name",
            "restore it, such as 8192_512_TopKReLU_64_UW_False_False_0.0_DATA.pth",
        )
    encode = _matrix(file, "model.encoder", width)
    m = len(encode)
    decode = _matrix(file, "model.decoder", width, m) if "model.decoder" in file.shapes else None
    pre_bias, bias = file.tensor("model.pre_bias", (width,)), file.tensor("model.latent_bias", (m,))
    mean = torch.zeros(width)
    if "mean_center" in file.shapes:
        mean = file.tensor("mean_center", (width,), (1, width)).reshape(width)
    scale = float(file.numbers.get("scaling_factor", 1.0)) * settings.input_scale
    if not 0 < scale < math.inf:
        raise _refuse(file, f"its scaling factor is {scale}")
    layer = named["normalize"] == "True"
    if layer and mean.any():
        raise _refuse(file, "it both subtracts a mean and normalises each embedding")
    activation, number = named["activation"], int(named["number"] or 0)
    threshold, k, kind = None, 0, "jumprelu"
    if activation == "TopKReLU":
        kind, k = "topk", settings.k or number
    elif activation == "JumpReLU":
        threshold = file.tensor("model.activation.log_threshold", (m,)).exp()
    elif activation == "BatchTopKReLU":
        threshold = _threshold(file, settings, m)
    elif activation == "ReLU":
        kind = "relu"
    else:
        raise _refuse(
            file, f"the activation {activation} of MSAE keeps negative values or their absolutes"
        )
    return ExternalEncoder(
        "MSAE", file.path, encode, bias,
        encode.clone() if decode is None else decode, pre_bias,
        kind, k, threshold,  # type: ignore[arg-type]
        # (x - mean) s = s x - s mean, where the user's scale is part of x
        input_bias=pre_bias + mean * (scale / settings.input_scale),
        input_norm="layer" if layer else "none", input_scale=scale,
        soft_cap=float(named["cap"]),
    )  # fmt: skip


def _read_tensors(file: TensorFile, width: int, settings: ImportSettings) -> ExternalEncoder:
    names = settings.tensors
    if "encode" not in names:
        raise _refuse(file, "the tensor of the encoder is not named", "add --tensors encode=NAME")
    encode = _matrix(file, names["encode"], width)
    m = len(encode)

    def vector(role: str, size: int) -> Tensor:
        if role not in names:
            return torch.zeros(size)
        return file.tensor(names[role], (size,), (1, size)).reshape(size)

    if "threshold" in names:
        activation: Literal["relu", "topk", "jumprelu"] = "jumprelu"
        k, threshold = 0, file.tensor(names["threshold"], (m,), (), (1,)).expand(m).clone()
    else:
        activation, k, threshold = _stated_activation(file, "other tools", m, settings)
    decode = _matrix(file, names["decode"], width, m) if "decode" in names else encode.clone()
    input_bias = vector("input_bias", width)
    return ExternalEncoder(
        "tensors", file.path, encode, vector("bias", m), decode,
        vector("decode_bias", width) if "decode_bias" in names else input_bias,
        activation, k, threshold, input_bias, input_scale=settings.input_scale,
    )  # fmt: skip


READERS: dict[str, Callable[[TensorFile, int, ImportSettings], ExternalEncoder]] = {
    "SAELens": _read_saelens,
    "sparsify": _read_sparsify,
    "overcomplete": _read_overcomplete,
    "MSAE": _read_msae,
    "tensors": _read_tensors,
}
