"""Test that imported encoders compute the activations of the tool that trained them.

Where a tool is installed, its own classes are the reference: SAELens 6.54, sparsify 1.3,
overcomplete 0.3. Its documented formulas are always one too. MSAE (commit c0bf439) is not packaged.
"""

from __future__ import annotations

import json
import math
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import normalize

from sieve.model.encoder import SparseEncoder
from sieve.model.encoder_conversion import read_encoder
from sieve.model.hyperparameters import IMAGE, TEXT, ImportSettings

D, M, K = 16, 48, 5
NORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "constant_norm_rescale": lambda x: x * math.sqrt(D) / x.norm(dim=-1, keepdim=True),
    "layer_norm": lambda x: (
        (x - x.mean(-1, keepdim=True))
        / ((x - x.mean(-1, keepdim=True)).std(-1, keepdim=True) + 1e-5)
    ),
}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


X = normalize(random(100, D, seed=7), dim=1)
W, B, W_DEC, B_DEC = random(D, M), 0.3 * random(M), random(M, D, seed=1), 0.1 * random(D)
THRESHOLD = random(M, seed=2).abs()


def top(values: Tensor, k: int) -> Tensor:
    found = values.topk(k, dim=-1)
    return torch.zeros_like(values).scatter(-1, found.indices, found.values).relu()


def codes(encoder: SparseEncoder) -> Tensor:
    """Encode X, which must not depend on the modality: (100, M)."""
    image, text = (encoder.encode(X, modality) for modality in (IMAGE, TEXT))
    assert torch.equal(image.values, text.values)
    return torch.zeros(len(X), encoder.config.m).scatter(1, image.indices, image.values)


def check(path: Path, expected: Tensor, **settings: Any) -> None:
    assert (expected > 0).any()
    found = codes(read_encoder(path, D, ImportSettings(**settings))[0])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def save_saelens(folder: Path, tensors: dict[str, Tensor], **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: part.contiguous() for name, part in tensors.items()},
        folder / "sae_weights.safetensors",
    )
    facts = {"d_in": D, "d_sae": M, "metadata": {"sae_lens_version": "6.0.0"}, **config}
    (folder / "cfg.json").write_text(json.dumps(facts))
    return folder


WEIGHTS = {"W_enc": W, "b_enc": B, "W_dec": W_DEC, "b_dec": B_DEC}


@pytest.mark.parametrize("subtracts", [True, False])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("architecture", ["standard", "topk", "jumprelu"])
def test_saelens(tmp_path: Path, architecture: str, norm: str, subtracts: bool) -> None:
    tensors = {**WEIGHTS, **({"threshold": THRESHOLD} if architecture == "jumprelu" else {})}
    folder = save_saelens(
        tmp_path, tensors, architecture=architecture, normalize_activations=norm, k=K,
        apply_b_dec_to_input=subtracts,
    )  # fmt: skip
    linear = (NORMS[norm](X) - B_DEC * subtracts) @ W + B
    expected = {
        "standard": linear.relu(),
        "topk": top(linear, K),
        "jumprelu": linear.relu() * (linear > THRESHOLD),
    }[architecture]
    check(folder, expected)


def test_saelens_rescaling_by_decoder_norms(tmp_path: Path) -> None:
    folder = save_saelens(
        tmp_path / "topk", WEIGHTS, architecture="topk", k=K, rescale_acts_by_decoder_norm=True
    )
    linear = ((X - B_DEC) @ W + B) * W_DEC.norm(dim=1)
    check(folder, top(linear, K))
    batch = {**WEIGHTS, "topk_threshold": torch.tensor(1.5, dtype=torch.double)}
    folder = save_saelens(tmp_path / "batchtopk", batch, architecture="batchtopk", k=K + 0.5)
    check(folder, linear.relu() * (linear > 1.5))


def test_stated_settings_must_agree_with_the_files(tmp_path: Path) -> None:
    folder = save_saelens(tmp_path, WEIGHTS, architecture="topk", k=K)
    for settings, message in (
        ({"activation": "relu"}, "has the activation topk, not relu"),
        ({"k": K + 1}, f"has k = {K}, not {K + 1}"),
        ({"threshold": 0.5}, "which has no threshold"),
    ):
        with pytest.raises(ValueError, match=message):
            read_encoder(folder, D, ImportSettings(**settings))
    folder = save_saelens(tmp_path, WEIGHTS, architecture="standard")
    with pytest.raises(ValueError, match="has the activation relu, not topk"):
        read_encoder(folder, D, ImportSettings(k=K))


def test_saelens_of_older_versions(tmp_path: Path) -> None:
    folder = save_saelens(
        tmp_path, WEIGHTS, activation_fn_str="topk", activation_fn_kwargs={"k": K},
        normalize_activations=True, metadata=None,
    )  # fmt: skip
    with pytest.raises(ValueError, match="factor is not saved; add it as --input-scale"):
        read_encoder(folder, D)
    check(folder, top((3 * X - B_DEC) @ W + B, K), input_scale=3.0)


def random_weights(model: Any) -> Any:
    with torch.no_grad():
        for at, part in enumerate(model.parameters()):
            part.copy_(0.3 * random(*part.shape, seed=at))
        if hasattr(model, "threshold"):
            model.threshold.abs_()
    return model


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ["Standard", "TopK", "JumpReLU"])
def test_saelens_library(tmp_path: Path, name: str, norm: str) -> None:
    lens = pytest.importorskip("sae_lens")
    config = getattr(lens, f"{name}SAEConfig")(
        d_in=D, d_sae=M, normalize_activations=norm, **({"k": K} if name == "TopK" else {})
    )
    random_weights(getattr(lens, f"{name}SAE")(config)).save_model(tmp_path)
    check(tmp_path, lens.SAE.load_from_disk(tmp_path).encode(X).detach())


def save_sparsify(folder: Path, **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {"encoder.weight": W.T.contiguous(), "encoder.bias": B, "W_dec": W_DEC}
    save_file({**tensors, "b_dec": B_DEC}, folder / "sae.safetensors")
    facts = {"d_in": D, "num_latents": M, "expansion_factor": 32, "k": K, **config}
    (folder / "cfg.json").write_text(json.dumps(facts))
    return folder


def test_sparsify(tmp_path: Path) -> None:
    check(save_sparsify(tmp_path / "image_embeds"), top((X - B_DEC) @ W + B, K))


def test_sparsify_library(tmp_path: Path) -> None:
    sparsify = pytest.importorskip("sparsify")
    coder = random_weights(sparsify.SparseCoder(D, sparsify.SparseCoderConfig(num_latents=M, k=K)))
    coder.save_to_disk(tmp_path)
    active = coder.encode(X)
    check(tmp_path, torch.zeros(len(X), M).scatter(1, active.top_indices, active.top_acts.detach()))


def overcomplete(**more: Tensor) -> dict[str, Tensor]:
    return {
        "encoder.final_block.0.weight": W.T, "encoder.final_block.0.bias": B,
        "dictionary._weights": W_DEC, "dictionary.multiplier": torch.tensor(0.0), **more,
    }  # fmt: skip


def test_overcomplete(tmp_path: Path) -> None:
    linear = X @ W + B
    torch.save(overcomplete(), tmp_path / "sae.pt")
    check(tmp_path, linear.relu(), activation="relu")
    check(tmp_path, top(linear, K), activation="topk", k=K)
    check(tmp_path, linear * (linear >= 1.5), activation="batchtopk", threshold=1.5)
    with pytest.raises(ValueError, match="do not record the activation; add --activation"):
        read_encoder(tmp_path, D)
    torch.save(overcomplete(thresholds=THRESHOLD.log()), tmp_path / "sae.pt")
    check(tmp_path, linear.relu() * (linear > THRESHOLD))
    tied = {"dictionary._weights": normalize(W_DEC), "dictionary.multiplier": torch.tensor(0.7)}
    tied |= {"encoder.tied_to._weights": normalize(W_DEC), "encoder.bias": B}
    torch.save(tied, tmp_path / "sae.pt")
    check(tmp_path, top(X @ normalize(W_DEC).T * math.exp(0.7) + B, K), k=K)


def test_overcomplete_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib.cm
    import matplotlib.pyplot

    # overcomplete 0.3 uses a function that Matplotlib 3.9 removed.
    monkeypatch.setattr(matplotlib.cm, "get_cmap", matplotlib.pyplot.get_cmap, raising=False)
    library = pytest.importorskip("overcomplete.sae")
    for model, settings in (
        (library.SAE(D, M), {"activation": "relu"}),
        (library.TopKSAE(D, M, top_k=K), {"k": K}),
        (library.TopKSAE(D, M, top_k=K).tied(bias=True), {"k": K}),
        (library.TopKSAE(D, M, top_k=K).untied(), {"k": K}),
        (library.JumpSAE(D, M), {}),
    ):
        random_weights(model).eval()
        torch.save(model.state_dict(), tmp_path / "sae.pt")
        check(tmp_path, model.encode(X)[1].detach(), **settings)


def save_msae(folder: Path, name: str, **more: Any) -> Path:
    model = {
        "pre_bias": B_DEC, "encoder": W, "latent_bias": B, "decoder": W_DEC,
        "latents_activation_frequency": torch.zeros(M, dtype=torch.int64),
        **{key: value for key, value in more.items() if key.startswith("activation")},
    }  # fmt: skip
    state = {
        "model": model,
        "mean_center": more.get("mean", torch.zeros(D)),
        "scaling_factor": more.get("scale", 1.0),
        "target_norm": np.sqrt(D),
    }
    path = folder / f"{M}_{D}_{name}_images.pth"
    torch.save(state, path)
    return path


def test_msae(tmp_path: Path) -> None:
    mean, scale = 0.1 * random(D, seed=5), 2.5
    linear = ((X - mean) * scale - B_DEC) @ W + B
    path = save_msae(tmp_path, f"TopKReLU_{K}_UW_False_False_0.0", mean=mean, scale=scale)
    check(path, top(linear, K))
    path = save_msae(tmp_path, "ReLU_03_False_False_3.0", mean=mean, scale=scale)
    check(path, 3 * torch.tanh(linear.relu() / 3))
    path = save_msae(tmp_path, f"TopKReLU_{K}_False_True_0.0", scale=scale)
    check(path, top((NORMS["layer_norm"](scale * X) - B_DEC) @ W + B, K))
    jump = {"activation.log_threshold": THRESHOLD.log()}
    path = save_msae(tmp_path, f"JumpReLU_{M}_False_False_0.0", **jump)
    linear = (X - B_DEC) @ W + B
    check(path, linear.relu() * (linear > THRESHOLD))
    with pytest.raises(ValueError, match="TopK of MSAE keeps negative values"):
        read_encoder(save_msae(tmp_path, f"TopK_{K}_False_False_0.0"), D)
    with pytest.raises(ValueError, match="both subtracts a mean and normalises"):
        read_encoder(save_msae(tmp_path, f"TopKReLU_{K}_False_True_0.0", mean=mean), D)
    with pytest.raises(ValueError, match="records the activation in the file's name; restore it"):
        read_encoder(path.rename(tmp_path / "best.pth"), D)


def test_stated_tensors(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"enc.w": W, "enc.b": B[None], "mean": B_DEC, "theta": torch.tensor(1.5)}, path)
    names = {"encode": "enc.w", "bias": "enc.b", "input_bias": "mean"}
    linear = (X - B_DEC) @ W + B
    check(path, top(linear, K), tensors=names, k=K)
    check(path, linear.relu() * (linear > 1.5), tensors={**names, "threshold": "theta"})
    with pytest.raises(ValueError, match="no tensor 'w'; there are: enc.b, enc.w, mean, theta"):
        read_encoder(path, D, ImportSettings(tensors={"encode": "w"}, k=K))
    with pytest.raises(ValueError, match="name them with --tensors encode=NAME"):
        read_encoder(path, D)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"architecture": "gated"}, "'gated' of SAELens is not supported; choose"),
        ({"architecture": "jumprelu_transcoder"}, "'jumprelu_transcoder' of SAELens is not"),
        ({"d_in": 2 * D}, f"width {2 * D}, but those of the backbone have {D}; give"),
        ({"d_sae": 1 << 30}, "1 to 131,072 can be explored"),
        ({"d_sae": M + 1}, r"'W_enc' has shape \(16, 48\); expected \(16, 49\)"),
        ({"normalize_activations": "covariance_whitening"}, "whitening' is not supported; choose"),
        ({"reshape_activations": "hook_z"}, "its input is reshaped"),
        ({"activation_fn": "tanh-relu"}, "'tanh-relu' is not supported; choose"),
        (
            {"metadata": {"hook_name": "blocks.8.hook_resid_pre", "model_name": "gpt2-small"}},
            "it reads 'blocks.8.hook_resid_pre' of gpt2-small, not the image and text embeddings",
        ),
        ({"d_in": "x"}, "d_in"),
    ],
)  # fmt: skip
def test_unsupported_saelens_is_refused_by_name(
    tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        read_encoder(save_saelens(tmp_path, WEIGHTS, **config), D)
    assert "\n" not in str(refused.value)


def test_other_unsupported_encoders_are_refused_by_name(tmp_path: Path) -> None:
    for config, message in (
        ({"transcode": True}, "transcoder of sparsify"),
        (
            {"activation": "groupmax"},
            "'groupmax' is not supported; choose an encoder with topk",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            read_encoder(save_sparsify(tmp_path / "sae", **config), D)
    with pytest.raises(ValueError, match="it reads 'layers.3', not the image and text embeddings"):
        read_encoder(save_sparsify(tmp_path / "layers.3"), D)
    codes(read_encoder(tmp_path / "layers.3", D, ImportSettings(any_hook=True))[0])
    with pytest.raises(ValueError, match="holds 2 files of weights"):
        read_encoder(tmp_path, D)
    for name, more in (("QSAE", {"Q": torch.zeros(4)}), ("W_gate", {"W_gate": W})):
        torch.save(overcomplete(**more), tmp_path / "sae.pt")
        with pytest.raises(ValueError, match=name):
            read_encoder(tmp_path / "sae.pt", D, ImportSettings(k=K))


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", WEIGHTS)
def test_number_that_is_not_finite_is_refused(tmp_path: Path, name: str, value: float) -> None:
    part = WEIGHTS[name].clone()
    part.view(-1)[3] = value
    folder = save_saelens(tmp_path, {**WEIGHTS, name: part}, architecture="standard")
    with pytest.raises(ValueError, match=f"'{name}' has a number that is not finite"):
        read_encoder(folder, D)


class Evil:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


def test_pickled_objects_are_refused_and_not_executed(tmp_path: Path) -> None:
    path, ran = tmp_path / "sae.pt", tmp_path / "ran"
    torch.save({**overcomplete(), "x": Evil(ran)}, path)
    with pytest.raises(ValueError, match=r"pickled object, .*getattr.*save its state_dict\(\)"):
        read_encoder(path, D)
    path.write_bytes(pickle.dumps(Evil(ran)))
    with pytest.raises(ValueError, match="cannot be read as weights"):
        read_encoder(path, D)
    assert not ran.exists()


def rewrite(path: Path, change: Callable[[str, bytes], bytes], compression: int) -> None:
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in parts.items():
            archive.writestr(name, change(name, data))


def test_file_cannot_take_more_memory_than_its_size(tmp_path: Path) -> None:
    path = tmp_path / "sae.pt"
    torch.save(overcomplete(), path)
    rewrite(path, lambda _, data: data, zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="archive is compressed"):
        read_encoder(path, D)
    torch.save(overcomplete(), path)

    def allocate(name: str, data: bytes) -> bytes:
        # bytearray(2³⁰), which weights_only allows
        huge = b"\x80\x02cbuiltins\nbytearray\nJ\x00\x00\x00\x40\x85R."
        return huge if name.endswith("data.pkl") else data

    rewrite(path, allocate, zipfile.ZIP_STORED)
    with pytest.raises(ValueError, match="pickled object, builtins.bytearray"):
        read_encoder(path, D)
    # A tensor of many equal rows takes one row of the file.
    torch.save(overcomplete() | {"dictionary._weights": B_DEC.expand(1 << 24, D)}, path)
    with pytest.raises(ValueError, match="16,777,216 dimensions, and 1 to 131,072"):
        read_encoder(path, D)


def test_damaged_files_give_one_line(tmp_path: Path) -> None:
    good = save_saelens(tmp_path, WEIGHTS, architecture="standard")
    weights = good / "sae_weights.safetensors"
    data = weights.read_bytes()
    for damaged in (b"", data[:100], data[:-7], b"\xff" * 8 + data[8:]):
        weights.write_bytes(damaged)
        with pytest.raises(ValueError, match="cannot be read as weights") as refused:
            read_encoder(good, D)
        assert "\n" not in str(refused.value)
    weights.write_bytes(data)
    for text in ("", "[1]", "{", '{"d_in": 16, "d_sae": 1e999}', "[" * 100_000):
        (good / "cfg.json").write_text(text)
        with pytest.raises(ValueError) as refused:
            read_encoder(good, D)
        assert "\n" not in str(refused.value)
