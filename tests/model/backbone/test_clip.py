from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.model import CustomTextCLIP
from PIL import Image
from safetensors.torch import save_file

from sieve.assets import ROOT
from sieve.model.backbone.clip import Backbone, resolve_device

pytestmark = pytest.mark.slow

FOLDER = ROOT / "backbones" / "sieve-lite"

TINY = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 8, "head_width": 32},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    "custom_text": True,
}


@pytest.fixture(scope="module")
def lite() -> Backbone:
    return Backbone.load("sieve-lite", device="cpu")


def tiny_folder(folder: Path, text_width: int | None = None) -> Path:
    """Write a randomly initialised local model."""
    torch.manual_seed(0)
    parts = {key: value for key, value in TINY.items() if key != "custom_text"}
    network = CustomTextCLIP(**json.loads(json.dumps(parts)))
    state = {key: value.contiguous() for key, value in network.state_dict().items()}
    if text_width:
        state["text.text_projection"] = torch.randn(32, text_width)
    folder.mkdir(exist_ok=True)
    save_file(state, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY}))
    return folder


def noise(seed: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_bundled_files_are_small_and_half_precision():
    weights = FOLDER / "open_clip_model.safetensors"
    assert weights.stat().st_size <= 50_000_000
    state = open_clip.factory.load_state_dict(str(weights))
    assert {value.dtype for value in state.values() if value.is_floating_point()} == {torch.float16}


def test_bundled_backbone_matches_the_bundled_checkpoints(lite: Backbone):
    for path in (ROOT / "checkpoints").glob("*/config.json"):
        assert json.loads(path.read_text())["backbone"]["sha256"] == lite.sha256


@pytest.fixture(scope="module")
def by_open_clip() -> Backbone:
    """The bundled backbone as open_clip builds it."""
    return Backbone.load(f"local-dir:{FOLDER}", device="cpu")


def test_bundled_backbone_embeds_as_open_clip_does(lite: Backbone, by_open_clip: Backbone):
    texts = [
        "a dog",
        "",
        "Two children’s kites at the beach " * 9,
        "snow &amp; ice",
        "🐶",
        "quokka",
    ]
    assert np.array_equal(lite.encode_texts(texts), by_open_clip.encode_texts(texts))
    images = [noise(0), noise(1)]
    assert np.array_equal(lite.encode_images(images), by_open_clip.encode_images(images))


def test_bundled_backbone_loads_through_local_dir(lite: Backbone):
    again = Backbone.load(f"local-dir:{FOLDER}", device="cpu")
    assert (lite.name, lite.width, lite.device.type) == ("sieve-lite", 512, "cpu")
    assert again.sha256 == lite.sha256
    assert again.name != lite.name


def test_loading_preserves_the_random_state():
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    Backbone.load("sieve-lite", device="cpu")
    assert torch.equal(torch.rand(1), expected)


def test_embeddings_are_unit_float32(lite: Backbone):
    for found in (lite.encode_images([noise(0), noise(1)]), lite.encode_texts(["a dog", ""])):
        assert found.shape == (2, 512)
        assert found.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_empty_input_gives_empty_output(lite: Backbone):
    assert lite.encode_images([]).shape == (0, 512)
    assert lite.encode_texts([]).shape == (0, 512)


def test_texts_do_not_depend_on_their_batch(lite: Backbone):
    texts = ["a dog", "", "two children play at the beach " * 30, "snow", "🐕‍🦺 שלום", "bicycle"]
    together = lite.encode_texts(texts)
    alone = np.concatenate([lite.encode_texts([text]) for text in texts])
    backwards = lite.encode_texts(texts[::-1], batch_size=4)[::-1]
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(together, backwards, atol=1e-5)


def test_unpadded_texts_have_the_same_embeddings(by_open_clip: Backbone):
    texts = ["a dog", "", "two children play at the beach " * 30, "snow", "a red ball in the park"]
    tokens = by_open_clip._tokenizer(texts)
    with torch.inference_mode():
        padded = by_open_clip._unit(by_open_clip._network.encode_text(tokens))
    np.testing.assert_allclose(by_open_clip.encode_texts(texts), padded, atol=1e-5)
    assert by_open_clip._network.text.attn_mask.shape == (40, 40), "the tower is left as it was"


def test_images_do_not_depend_on_their_batch(lite: Backbone):
    images = [noise(seed, size) for seed, size in enumerate([(64, 64), (300, 20), (20, 300)])]
    together = lite.encode_images(images)
    alone = np.concatenate([lite.encode_images([image]) for image in images])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    pixels = torch.stack([lite.transform(image) for image in images])
    np.testing.assert_allclose(together, lite.encode_pixels(pixels), atol=1e-5)


def test_tiny_and_very_long_images_are_embedded(lite: Backbone, tmp_path: Path):
    own = Backbone.load(f"local-dir:{tiny_folder(tmp_path / 'own')}", device="cpu")
    for backbone in (lite, own):
        images = [Image.new("RGB", size) for size in ((1, 1), (1, 10_000), (10_000, 1))]
        assert np.isfinite(backbone.encode_images(images)).all()


def test_preprocessing_is_pickled_without_the_weights(lite: Backbone):
    carried = pickle.dumps(lite.transform)
    assert len(carried) < 20_000
    assert torch.equal(pickle.loads(carried)(noise(2)), lite.transform(noise(2)))


@pytest.mark.parametrize(
    "text",
    ["", "dog " * 2500, "a" * 10_000, "\u200b" * 10_000, "🐕" * 5000, "كلب", "<b>\ud800\x00"],
)
def test_any_text_is_embedded_quickly(lite: Backbone, text: str):
    found = lite.encode_texts([text])
    assert np.isfinite(found).all()


def test_zero_width_characters_are_ignored(lite: Backbone):
    np.testing.assert_array_equal(*lite.encode_texts(["a d\u200bog", "a dog"]))


def test_unknown_words_are_reported(lite: Backbone):
    assert lite.unknown_words("A dog and 2 xylophones, the Xylophones!") == ["xylophones"]
    assert lite.unknown_words("two dogs’ running, beaches 17 not on with") == []
    assert lite.unknown_words("") == []
    assert lite.unknown_words("🐕 … 42nd") == []


def test_local_model_is_loaded(tmp_path: Path):
    folder = tiny_folder(tmp_path / "own")
    own = Backbone.load(f"local-dir:{folder}", device="cpu")
    assert own.width == 32
    assert own.encode_texts(["a dog", "a cat"]).shape == (2, 32)
    assert own.unknown_words("xylophone") == []
    again = Backbone.load(f"local-dir:{folder}", device="cpu")
    assert again.sha256 == own.sha256


def test_hash_covers_weights_and_preprocessing(tmp_path: Path):
    first, other = tiny_folder(tmp_path / "a"), tiny_folder(tmp_path / "b")
    config = {"model_cfg": TINY, "preprocess_cfg": {"resize_mode": "squash"}}
    (other / "open_clip_config.json").write_text(json.dumps(config))
    hashes = {Backbone.load(f"local-dir:{one}", "cpu").sha256 for one in (first, other)}
    state = open_clip.factory.load_state_dict(str(first / "open_clip_model.safetensors"))
    state["text.ln_final.bias"] = state["text.ln_final.bias"] + 1
    save_file(state, first / "open_clip_model.safetensors")
    hashes.add(Backbone.load(f"local-dir:{first}", "cpu").sha256)
    assert len(hashes) == 3


def test_missing_folder_and_files_are_reported(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no folder at .*nowhere; give a folder with"):
        Backbone.load(f"local-dir:{tmp_path / 'nowhere'}")
    with pytest.raises(FileNotFoundError, match=r"no open_clip_config.json at"):
        Backbone.load(f"local-dir:{tmp_path}")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY}))
    with pytest.raises(ValueError, match=r"cannot be opened: .*check open_clip_config.json"):
        Backbone.load(f"local-dir:{tmp_path}")


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"model_cfg": {"embed_dim": 3}}'])
def test_damaged_configuration_is_rejected(tmp_path: Path, content: str):
    folder = tiny_folder(tmp_path / "own")
    (folder / "open_clip_config.json").write_text(content)
    with pytest.raises(ValueError, match="cannot be opened") as caught:
        Backbone.load(f"local-dir:{folder}")
    assert "\n" not in str(caught.value)


def test_mismatched_weights_are_rejected(tmp_path: Path):
    folder = tiny_folder(tmp_path / "own", text_width=16)
    with pytest.raises(ValueError, match="cannot be opened") as caught:
        Backbone.load(f"local-dir:{folder}")
    assert "\n" not in str(caught.value)


def test_damaged_weights_are_rejected(tmp_path: Path):
    folder = tiny_folder(tmp_path / "own")
    state = open_clip.factory.load_state_dict(str(folder / "open_clip_model.safetensors"))
    state["text.ln_final.bias"][0] = torch.nan
    save_file(state, folder / "open_clip_model.safetensors")
    with pytest.raises(ValueError, match="NaN or infinite"):
        Backbone.load(f"local-dir:{folder}")


@pytest.mark.parametrize("name", ["", "sieve-heavy", "/etc", "hf-hub:", "ViT-Z/openai"])
def test_unknown_names_are_rejected(name: str):
    with pytest.raises(ValueError, match="unknown backbone .*expected one like sieve-lite"):
        Backbone.load(name)


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-B-32/", "ViT-B-32/nothing"])
def test_architecture_requires_weights(name: str):
    with pytest.raises(ValueError, match="names no weights.*openai"):
        Backbone.load(name)


def test_network_error_is_one_line(monkeypatch: pytest.MonkeyPatch, capfd, caplog):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match="cannot be reached: .*or use sieve-lite") as caught:
        Backbone.load("ViT-B-32/openai", device="cpu")
    assert "\n" not in str(caught.value)
    assert "downloading timm/vit_base_patch32_clip_224.openai from" in caplog.text
    assert capfd.readouterr().err == ""


def test_devices_are_resolved(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="'cuda' is not available to torch"):
        resolve_device("cuda")
    with pytest.raises(ValueError, match="must be auto, cuda, mps or cpu; got 'gpu'"):
        resolve_device("gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("cuda")


@pytest.mark.shared
def test_recall_on_held_out_photographs(lite: Backbone, shared_data: Path):
    photos = shared_data / "flickr8k"
    names = (photos / "dev_images.txt").read_text().split()[:100]
    written: dict[str, list[str]] = {name: [] for name in names}
    for line in (photos / "captions.csv").read_text(encoding="utf-8").splitlines()[1:]:
        name, _, caption = line.partition(",")
        if name in written:
            written[name].append(caption)
    images = lite.encode_images([Image.open(photos / "images" / name) for name in names])
    texts = lite.encode_texts([text for name in names for text in written[name]])
    owner = np.repeat(np.arange(len(names)), [len(written[name]) for name in names])
    scores = texts @ images.T
    rank = (scores >= scores[np.arange(len(texts)), owner][:, None]).sum(1)
    assert (rank <= 5).mean() >= 0.70
