"""Compare the activations of encoders that cross between Sieve and other tools.

    pip install sae-lens eai-sparsify overcomplete sentence-transformers
    python -m tests.benchmarks.round_trips

Each line gives the largest absolute difference between the activations of Sieve and of the tool
itself, and the largest activation, over all listed variants and 200 random unit vectors (exports of
the bundled checkpoint: 200 image embeddings of the scenes). MSAE is not packaged, so the reference
is its documented formula, as for a plain file. Tools that are not installed are listed as such.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import normalize

from sieve.data_prep.bundled import scenes_embeddings_path
from sieve.model.checkpoint import Checkpoint
from sieve.model.checkpoint_choice import checkpoint_path
from sieve.model.collection import BackboneIdentity
from sieve.model.encoder import SparseEncoder
from sieve.model.encoder_conversion import export_encoder, import_encoder, read_encoder
from sieve.model.hyperparameters import IMAGE, ImportSettings

N, D, M, K = 200, 256, 1024, 32
SAELENS_NORMS = ("none", "constant_norm_rescale", "layer_norm")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


X = normalize(random(N, D, seed=7), dim=1)
WEIGHTS = {"W_enc": random(D, M) / math.sqrt(D), "b_enc": 0.1 * random(M)}
WEIGHTS |= {"W_dec": normalize(random(M, D, seed=1), dim=1), "b_dec": 0.1 * random(D)}


def with_random_weights(model: Any) -> Any:
    """Set all parameters of a module of another tool; thresholds are positive."""
    with torch.no_grad():
        for at, part in enumerate(model.parameters()):
            scale = 1 / math.sqrt(D) if part.ndim == 2 else 0.1
            part.copy_(scale * random(*part.shape, seed=at))
        if hasattr(model, "threshold"):
            model.threshold.abs_()
    return model.eval()


def activations(encoder: SparseEncoder, x: Tensor) -> Tensor:
    found = encoder.encode(x, IMAGE)
    return torch.zeros(len(x), encoder.config.m).scatter(1, found.indices, found.values).detach()


def top(values: Tensor) -> Tensor:
    found = values.topk(K, dim=-1)
    return torch.zeros_like(values).scatter(-1, found.indices, found.values).relu()


class Agreement(NamedTuple):
    difference: float
    largest: float
    """The largest activation."""


def compare(found: Tensor, expected: Tensor) -> Agreement:
    return Agreement(float((found - expected).abs().max()), float(expected.max()))


def imported(path: Path, expected: Tensor, **settings: Any) -> Agreement:
    """Compare an imported encoder with the tool's activations."""
    encoder, _ = read_encoder(path, D, ImportSettings(**settings))
    return compare(activations(encoder, X), expected.detach())


def saelens_model(name: str, norm: str) -> Any:
    import sae_lens

    more = {"k": K} if name == "TopK" else {}
    config = getattr(sae_lens, f"{name}SAEConfig")(
        d_in=D, d_sae=M, normalize_activations=norm, **more
    )
    return with_random_weights(getattr(sae_lens, f"{name}SAE")(config))


def from_saelens(folder: Path) -> Iterator[Agreement]:
    for name in ("Standard", "TopK", "JumpReLU"):
        for norm in SAELENS_NORMS:
            model = saelens_model(name, norm)
            model.save_model(folder / f"{name}-{norm}")
            yield imported(folder / f"{name}-{norm}", model.encode(X))


def from_sparsify(folder: Path) -> Iterator[Agreement]:
    from sparsify import SparseCoder, SparseCoderConfig

    model = with_random_weights(SparseCoder(D, SparseCoderConfig(num_latents=M, k=K)))
    model.save_to_disk(folder)
    found = model.encode(X)
    expected = torch.zeros(N, M).scatter(1, found.top_indices, found.top_acts.detach())
    yield imported(folder, expected)


def from_overcomplete(folder: Path) -> Iterator[Agreement]:
    import matplotlib.cm
    import matplotlib.pyplot

    # overcomplete 0.3 uses a function that Matplotlib 3.9 removed.
    vars(matplotlib.cm).setdefault("get_cmap", matplotlib.pyplot.get_cmap)
    from overcomplete.sae import SAE, JumpSAE, TopKSAE

    for model, settings in (
        (SAE(D, M), {"activation": "relu"}),
        (TopKSAE(D, M, top_k=K), {"k": K}),
        (TopKSAE(D, M, top_k=K).tied(bias=True), {"k": K}),
        (TopKSAE(D, M, top_k=K).untied(), {"k": K}),
        (JumpSAE(D, M), {}),
    ):
        torch.save(with_random_weights(model).state_dict(), folder / "sae.pt")
        yield imported(folder, model.encode(X)[1], **settings)


def from_msae(folder: Path) -> Iterator[Agreement]:
    mean, scale = 0.1 * random(D, seed=5), 2.5
    linear = ((X - mean) * scale - WEIGHTS["b_dec"]) @ WEIGHTS["W_enc"] + WEIGHTS["b_enc"]
    model = {
        "pre_bias": WEIGHTS["b_dec"], "encoder": WEIGHTS["W_enc"], "latent_bias": WEIGHTS["b_enc"],
        "decoder": WEIGHTS["W_dec"], "latents_activation_frequency": torch.zeros(M).long(),
    }  # fmt: skip
    state = {"model": model, "mean_center": mean, "scaling_factor": scale}
    state["target_norm"] = math.sqrt(D)
    for name, expected in (
        (f"TopKReLU_{K}_UW_False_False_0.0", top(linear)),
        ("ReLU_03_False_False_3.0", 3 * torch.tanh(linear.relu() / 3)),
    ):
        path = folder / f"{M}_{D}_{name}_images.pth"
        torch.save(state, path)
        yield imported(path, expected)


def from_plain(folder: Path) -> Iterator[Agreement]:
    path = folder / "model.safetensors"
    save_file({"w": WEIGHTS["W_enc"], "b": WEIGHTS["b_enc"], "mean": WEIGHTS["b_dec"]}, path)
    linear = (X - WEIGHTS["b_dec"]) @ WEIGHTS["W_enc"] + WEIGHTS["b_enc"]
    names = {"encode": "w", "bias": "b", "input_bias": "mean"}
    yield imported(path, top(linear), tensors=names, k=K)
    yield imported(path, linear.relu(), tensors=names, activation="relu")


def scenes() -> tuple[Checkpoint, Tensor, Tensor]:
    """Return the bundled checkpoint, image embeddings, and the activations of Sieve."""
    checkpoint = Checkpoint.load(checkpoint_path("scenes"))
    embeddings = np.load(scenes_embeddings_path(), mmap_mode="r")[:N].astype(np.float32)
    x = normalize(torch.from_numpy(embeddings), dim=1)
    return checkpoint, x, activations(checkpoint.encoder, x)


def to_saelens(folder: Path) -> Iterator[Agreement]:
    from sae_lens import SAE

    for name in ("TopK", "JumpReLU"):
        for norm in SAELENS_NORMS:
            saelens_model(name, norm).save_model(folder / "theirs" / f"{name}-{norm}")
            source, out = (folder / part / f"{name}-{norm}" for part in ("theirs", "ours"))
            checkpoint = import_encoder(
                source, folder / "checkpoints" / out.name, BackboneIdentity.unknown("random", D)
            )
            export_encoder(checkpoint, out, "saelens")
            found = SAE.load_from_disk(out).encode(X).detach()
            yield compare(found, activations(checkpoint.encoder, X))
    checkpoint, x, expected = scenes()
    export_encoder(checkpoint, folder / "own", "saelens", IMAGE, centred_input=True)
    mean = load_file(folder / "own" / "input_mean.safetensors")["mean"]
    found = SAE.load_from_disk(folder / "own").encode(x - mean).detach()
    yield compare(found, expected)


def to_sentence_transformers(folder: Path) -> Iterator[Agreement]:
    from sentence_transformers import SparseEncoder as TheirEncoder

    checkpoint, x, expected = scenes()
    export_encoder(checkpoint, folder / "own", "sentence-transformers", IMAGE)
    model = TheirEncoder(str(folder / "own"), device="cpu").eval()
    with torch.inference_mode():
        found = model({"sentence_embedding": x.clone()})["sentence_embedding"]
    yield compare(found, expected)


Trip = Callable[[Path], Iterator[Agreement]]
TRIPS: dict[str, tuple[str, Trip]] = {
    "SAELens → Sieve": ("standard, topk, jumprelu; three normalisations", from_saelens),
    "sparsify → Sieve": ("topk", from_sparsify),
    "overcomplete → Sieve": ("relu, topk, tied and untied topk, jumprelu", from_overcomplete),
    "MSAE → Sieve": ("topk, relu with a soft cap", from_msae),
    "plain safetensors → Sieve": ("topk, relu", from_plain),
    "Sieve → SAELens": ("topk, jumprelu, bundled checkpoint", to_saelens),
    "Sieve → sentence-transformers": ("bundled checkpoint", to_sentence_transformers),
}


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    print("| from → to | variants | largest difference | largest activation |\n|---|---|---|---|")
    for name, (variants, trip) in TRIPS.items():
        with TemporaryDirectory() as folder:
            try:
                differences, largest = zip(*trip(Path(folder)), strict=True)
                shown = f"{max(differences):.1e} | {max(largest):.2f}"
            except ImportError as error:
                shown = f"not measured: {error} |"
        print(f"| {name} | {variants} | {shown} |")


if __name__ == "__main__":
    main()
