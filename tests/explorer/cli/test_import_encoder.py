"""Test `sieve import-encoder` and `sieve export --format`, and that an imported encoder opens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import Sieve, fault
from safetensors.torch import load_file, save_file
from torch.nn.functional import normalize

import sieve as api
from sieve.explorer.tabs.search import SearchHandlers
from sieve.model.backbone.checked_files import find_files, trust
from sieve.model.backbone.names import parse_name
from sieve.model.checkpoint import Checkpoint
from sieve.model.codes import encode_codes
from sieve.model.collection import Collection
from sieve.model.compare import DENSE_METHODS, dense_scores, embed_query, sparse_scores
from sieve.model.engine import SearchEngine
from sieve.model.hyperparameters import IMAGE, TEXT

M, K = 64, 8


def save_sae(folder: Path, d: int, architecture: str = "jumprelu") -> Path:
    """Save random weights as SAELens does."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(3)
    decode = normalize(torch.randn(M, d, generator=generator), dim=1)
    tensors = {
        "W_enc": decode.T.contiguous(), "b_enc": torch.zeros(M), "W_dec": decode,
        "b_dec": 0.05 * torch.randn(d, generator=generator),
    }  # fmt: skip
    if architecture == "jumprelu":
        tensors["threshold"] = torch.full((M,), 0.1)
    save_file(tensors, folder / "sae_weights.safetensors")
    config = {
        "architecture": architecture, "d_in": d, "d_sae": M, "k": K,
        "normalize_activations": "constant_norm_rescale",
        "metadata": {"sae_lens_version": "6.20.0", "hook_name": "image_embeds"},
    }  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module", params=["jumprelu", "topk"])
def imported(
    request: pytest.FixtureRequest, tiny_collection: Collection, tiny_backbone_dir: Path,
    tmp_path_factory: pytest.TempPathFactory, word_cache: Path,
) -> Checkpoint:  # fmt: skip
    """The weights, imported with the tiny collection."""
    folder = tmp_path_factory.mktemp("imported")
    source = save_sae(folder / "sae", tiny_collection.backbone.width, request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIEVE_HOME", str(folder))
        (folder / "words").symlink_to(word_cache)
        trust(find_files(parse_name(f"local-dir:{tiny_backbone_dir}")))
        path = api.import_encoder(source, tiny_collection.path, out=folder / "imported")
    return Checkpoint.load(path)


def activations(checkpoint: Checkpoint, embeddings: Any, modality: str) -> torch.Tensor:
    found = checkpoint.encoder.encode(torch.from_numpy(embeddings), modality)
    return torch.zeros(len(embeddings), M).scatter(1, found.indices, found.values).detach()


def test_imported_encoder_opens_in_every_tab(
    imported: Checkpoint, tiny_collection: Collection, tmp_path: Path
) -> None:
    engine = SearchEngine.open(tiny_collection.path, imported.path, "cpu")
    search = SearchHandlers(engine, tmp_path)
    assert search.about()
    query = engine.encode("a red circle", "snow")
    outcome = engine.search(query)
    assert outcome.results
    assert len(engine.dimension_table()) == M
    for method in DENSE_METHODS.values():
        assert np.isfinite(dense_scores(engine, embed_query(engine, query), method)).any()
    assert np.isfinite(sparse_scores(engine, query)).all()
    assert engine.dimension(query.dimensions[0].dimension).statistics
    names = [name.name for name in imported.names.values()]
    assert names and len(names) == len(set(names))
    again = Checkpoint.load(imported.path)
    assert again.sha256 == imported.sha256


def test_texts_and_images_share_the_weights(
    imported: Checkpoint, tiny_collection: Collection
) -> None:
    embeddings = tiny_collection.image_embeddings[:20]
    one, other = (encode_codes(imported.encoder, embeddings, name) for name in (IMAGE, TEXT))
    assert np.array_equal(one.by_row.toarray(), other.by_row.toarray())
    # Stored codes are the activations divided by their norm.
    dense = activations(imported, np.asarray(embeddings, np.float32), IMAGE)
    np.testing.assert_allclose(one.by_row.toarray(), normalize(dense, dim=1).numpy(), atol=1e-6)


def test_saelens_round_trip(
    sieve: Sieve, imported: Checkpoint, tiny_collection: Collection, tmp_path: Path
) -> None:
    saved = tmp_path / "saelens"
    assert sieve("export", imported.path, "--format", "saelens", "-o", saved).code == 0
    command = ("import-encoder", saved, "--collection", tiny_collection.path)
    report = sieve(*command, "--out", tmp_path / "again", "--json").data
    assert (report["tool"], report["dimensions"]) == ("SAELens", M)
    assert report["named_by"] == "tiny"
    assert 0 < report["quality"]["dimensions"]["live"] <= 1
    again = Checkpoint.load(tmp_path / "again")
    embeddings = np.asarray(tiny_collection.image_embeddings, np.float32)
    one, other = (activations(each, embeddings, IMAGE) for each in (imported, again))
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert (one > 0).any()
    lens = pytest.importorskip("sae_lens")
    theirs = lens.SAE.load_from_disk(saved)
    given = torch.from_numpy(embeddings)
    torch.testing.assert_close(theirs.encode(given).detach(), one, rtol=1e-5, atol=1e-5)
    recovered = imported.encoder.decode(one) / imported.encoder.config.input_scale
    norms = given.norm(dim=1, keepdim=True)
    torch.testing.assert_close(theirs(given) / norms, recovered, rtol=1e-4, atol=1e-4)


def test_own_encoder_round_trip(
    sieve: Sieve, home: Path, tiny_collection: Collection, tiny_checkpoint: Checkpoint,
    tmp_path: Path,
) -> None:  # fmt: skip
    assert home
    export = ("export", tiny_checkpoint.path, "--format", "saelens", "-o", tmp_path / "sae")
    assert "encodes images and texts differently" in fault(sieve(*export))
    line = fault(sieve(*export, "--modality", "image"))
    assert "has no centring before the rescaling of the input; add --centred-input" in line
    assert not (tmp_path / "sae").exists()
    assert "text_power 2" in fault(sieve(*export, "--modality", "text", "--centred-input"))
    assert sieve(*export, "--modality", "image", "--centred-input").code == 0
    assert "exists already" in fault(sieve(*export, "--modality", "image", "--centred-input"))
    command = ("import-encoder", tmp_path / "sae", "--collection", tiny_collection.path)
    assert sieve(*command, "--out", tmp_path / "again").code == 0
    again = Checkpoint.load(tmp_path / "again")
    embeddings = np.asarray(tiny_collection.image_embeddings, np.float32)
    one, other = (activations(each, embeddings, IMAGE) for each in (tiny_checkpoint, again))
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    # As SAELens computes it
    mean = load_file(tmp_path / "sae" / "input_mean.safetensors")["mean"]
    state = load_file(tmp_path / "sae" / "sae_weights.safetensors")
    centred = torch.from_numpy(embeddings) - mean
    rescaled = centred * centred.shape[1] ** 0.5 / centred.norm(dim=1, keepdim=True)
    linear = (rescaled @ state["W_enc"] + state["b_enc"]).relu()
    top = linear.topk(tiny_checkpoint.encoder.config.k, dim=1)
    expected = torch.zeros_like(linear).scatter(1, top.indices, top.values)
    torch.testing.assert_close(one, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("own", [True, False])
def test_sentence_transformers(
    sieve: Sieve, imported: Checkpoint, tiny_collection: Collection, tiny_checkpoint: Checkpoint,
    tmp_path: Path, own: bool,
) -> None:  # fmt: skip
    checkpoint, out = tiny_checkpoint if own else imported, tmp_path / "st"
    modality = ("--modality", "image") if own else ()
    command = ("export", checkpoint.path, "--format", "sentence-transformers", "-o", out)
    if checkpoint.encoder.config.activation == "jumprelu":
        assert "has no activation jumprelu" in fault(sieve(*command))
        assert not out.exists()
        return
    assert sieve(*command, *modality).code == 0
    embeddings = normalize(torch.from_numpy(tiny_collection.image_embeddings.astype(np.float32)))
    expected = activations(checkpoint, embeddings.numpy(), IMAGE)
    library = pytest.importorskip("sentence_transformers")
    model = library.SparseEncoder(str(out), device="cpu").eval()
    with torch.inference_mode():
        found = model({"sentence_embedding": embeddings.clone()})["sentence_embedding"]
    torch.testing.assert_close(found.clone(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("home")
def test_python_functions(tiny_collection: Collection, tmp_path: Path) -> None:
    d = tiny_collection.backbone.width
    source = save_sae(tmp_path / "sae", d, "topk")
    made = api.import_encoder(source, tiny_collection.path, out=tmp_path / "imported")
    engine = api.Engine.open(tiny_collection.path, made)
    assert engine.encode(texts=["a circle"]).matrix.nnz == K
    out = api.export_encoder(made, tmp_path / "back", "saelens")
    tensors = {"encode": "W_enc", "bias": "b_enc", "decode": "W_dec"}
    weights = out / "sae_weights.safetensors"
    again = api.import_encoder(
        weights, tiny_collection.path, tensors=tensors, k=K, input_scale=d**0.5,
        out=tmp_path / "again",
    )  # fmt: skip
    embeddings = tiny_collection.image_embeddings[:10].astype(np.float32)
    one, other = (activations(Checkpoint.load(path), embeddings, IMAGE) for path in (made, again))
    # The first normalises the embeddings, which are rounded to float16.
    torch.testing.assert_close(one, other, rtol=2e-3, atol=2e-3)
    with pytest.raises(ValueError, match="leave out k="):
        api.import_encoder(source, tiny_collection.path, k=K + 1, out=tmp_path / "wrong")


def test_empty_codes_are_reported(
    sieve: Sieve, home: Path, tiny_collection: Collection, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    assert home
    source = save_sae(tmp_path / "sae", tiny_collection.backbone.width)
    tensors = load_file(source / "sae_weights.safetensors")
    save_file(tensors | {"threshold": torch.full((M,), 9.0)}, source / "sae_weights.safetensors")
    command = ("import-encoder", source, "--collection", tiny_collection.path)
    report = sieve(*command, "--out", tmp_path / "out", "--json").data
    assert report["quality"]["dimensions"]["live"] == 0
    assert "100% of the images have no active dimension" in caplog.text


def test_encoder_of_an_unavailable_backbone_opens_by_its_name(
    sieve: Sieve, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert home
    source, backbone = save_sae(tmp_path / "sae", 512), ("--backbone", "ViT-B-32/openai")
    imported = ("import-encoder", source, *backbone, "--out", tmp_path / "codes", "--json")
    assert sieve(*imported).data["named"] == 0
    assert "the dimensions have no names" in caplog.text
    files = tmp_path / "files"
    files.mkdir()
    np.save(files / "images.npy", np.random.default_rng(0).standard_normal((9, 512)))
    (files / "items.csv").write_text("image\n" + "".join(f"{n}.jpg\n" for n in range(9)))
    made = tmp_path / "made"
    assert sieve("prepare", "embeddings", files, *backbone, "--out", made).code == 0
    assert sieve("import-encoder", source, "--collection", made, "--out", tmp_path / "2").code == 0
    engine = api.Engine.open(made, tmp_path / "codes")
    assert len(engine.search(item=engine.items["id"][0])) == 8
    with pytest.raises(ValueError, match="127.0.0.1:9 cannot be reached: .*search by an item"):
        engine.search("a dog")


def test_mistakes_give_one_line(
    sieve: Sieve, home: Path, tiny_collection: Collection, tmp_path: Path
) -> None:
    assert home
    source = save_sae(tmp_path / "sae", 2 * tiny_collection.backbone.width)
    with_tiny = ("--collection", tiny_collection.path)
    for arguments, message in (
        ((source,), "the backbone is not stated; add --backbone NAME or --collection NAME"),
        ((source, *with_tiny), "give the --backbone that it was trained on"),
        ((source, *with_tiny, "--backbone", "sieve-lite"), "leave out --backbone, or give another"),
        ((tmp_path / "none", *with_tiny), "there is no file or folder"),
        ((source, *with_tiny, "--tensors", "w=x"), "--tensors must be PART=NAME with a part of"),
        ((source, *with_tiny, "--input-scale", "-1"), "the input scale must be positive"),
        ((source, *with_tiny, "--out", source), "exists already"),
    ):
        assert message in fault(sieve("import-encoder", *arguments))
    out = ("-o", tmp_path / "out")
    for arguments, message in (
        (("scenes", *out), "there is nothing to write; add results, codes, dimensions or items"),
        (("scenes", "codes", "--format", "saelens", *out), "give only CHECKPOINT"),
        (("scenes", "codes", "--modality", "text", *out), "require --format"),
        (("none", "--format", "saelens", *out), "there is no checkpoint 'none'"),
    ):
        assert message in fault(sieve("export", *arguments))
