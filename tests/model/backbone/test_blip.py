from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_blip import SIZE, WIDTH, tiny_blip

from sieve.model.backbone.clip import Backbone


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_blip(tmp_path_factory.mktemp("blip") / "tiny")


@pytest.fixture(scope="module")
def blip(folder: Path) -> Backbone:
    return Backbone.load(f"blip:{folder}", "cpu")


@pytest.fixture
def writable_folder(tmp_path: Path) -> Path:
    """A folder that a test can damage."""
    return tiny_blip(tmp_path / "own")


def picture(seed: int, size: tuple[int, int] = (SIZE, SIZE)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


TEXTS = ["a dog", "", "the red circle in the snow " * 20, "🐕 שלום", "x", "a [PAD] b [SEP] c"]


def test_embeddings_are_unit_float32_and_distinct(blip: Backbone) -> None:
    pictures = [picture(seed, size) for seed, size in enumerate([(32, 32), (90, 40), (1, 1)])]
    assert blip.width == WIDTH
    for found in (blip.encode_images(pictures), blip.encode_texts(TEXTS[:4])):
        assert found.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
        assert (found @ found.T - np.eye(len(found))).max() < 0.9999


def test_cosines_equal_those_of_the_model(blip: Backbone, folder: Path) -> None:
    model = transformers.BlipForImageTextRetrieval.from_pretrained(folder).eval()
    processor = transformers.BlipProcessor.from_pretrained(folder)
    pictures, texts = [picture(seed) for seed in range(3)], ["a dog", "the cat in the snow"]
    given = processor(images=pictures, text=texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        expected = model(**given, use_itm_head=False).itm_score.numpy()
    found = blip.encode_images(pictures) @ blip.encode_texts(texts).T
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(expected) > 0.01


def test_preprocessing_equals_that_of_the_processor(blip: Backbone, folder: Path) -> None:
    processor = transformers.BlipProcessor.from_pretrained(folder).image_processor
    smooth = picture(0, (6, 4)).resize((90, 61), Image.Resampling.BICUBIC)
    expected = processor(smooth, return_tensors="pt")["pixel_values"][0]
    carried = pickle.loads(pickle.dumps(blip.transform))
    assert len(pickle.dumps(blip.transform)) < 20_000
    # Both round to 8 bits after resizing, not always the same way: two steps of 255 at most.
    torch.testing.assert_close(carried(smooth), expected, rtol=0, atol=2 / 255 / 0.26)


def test_embeddings_do_not_depend_on_the_batch(blip: Backbone) -> None:
    together = blip.encode_texts(TEXTS)
    alone = np.concatenate([blip.encode_texts([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(together, blip.encode_texts(TEXTS[::-1], 4)[::-1], atol=1e-5)
    pictures = [picture(seed, size) for seed, size in enumerate([(64, 64), (300, 20), (20, 300)])]
    alone = np.concatenate([blip.encode_images([image]) for image in pictures])
    np.testing.assert_allclose(blip.encode_images(pictures), alone, atol=1e-5)


def test_hash_covers_weights_and_settings(
    blip: Backbone, folder: Path, writable_folder: Path
) -> None:
    assert Backbone.load(f"blip:{folder}", "cpu").sha256 == blip.sha256
    hashes = {blip.sha256, Backbone.load(f"blip:{writable_folder}", "cpu").sha256}
    assert len(hashes) == 1, "a copy elsewhere is the same backbone"
    settings = writable_folder / "processor_config.json"
    text = json.loads(settings.read_text())
    text["image_processor"]["image_mean"] = [0.5, 0.5, 0.5]
    settings.write_text(json.dumps(text))
    hashes.add(Backbone.load(f"blip:{writable_folder}", "cpu").sha256)
    words = (writable_folder / "tokenizer.json").read_text()
    (writable_folder / "tokenizer.json").write_text(words.replace('"dog"', '"cow"'))
    hashes.add(Backbone.load(f"blip:{writable_folder}", "cpu").sha256)
    weights = load_file(writable_folder / "model.safetensors")
    weights["text_proj.bias"] += 1
    save_file(weights, writable_folder / "model.safetensors", {"format": "pt"})
    hashes.add(Backbone.load(f"blip:{writable_folder}", "cpu").sha256)
    assert len(hashes) == 4


def test_loading_is_silent_and_preserves_the_random_state(folder: Path, capfd) -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    Backbone.load(f"blip:{folder}", "cpu")
    assert torch.equal(torch.rand(1), expected)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("config.json", "no config.json"),
        ("model.safetensors", "no model.safetensors"),
        ("tokenizer.json", "no tokenizer.json"),
    ],
)
def test_missing_files_are_reported(writable_folder: Path, file: str, message: str) -> None:
    (writable_folder / file).unlink()
    with pytest.raises(FileNotFoundError, match=f"{message} at .*; give a folder"):
        Backbone.load(f"blip:{writable_folder}", "cpu")


def test_missing_folder_is_reported(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder at .*nowhere; give a folder"):
        Backbone.load(f"blip:{tmp_path / 'nowhere'}", "cpu")


def refused(folder: Path, message: str) -> None:
    with pytest.raises(ValueError, match=f"cannot be opened: .*{message}.*; check") as caught:
        Backbone.load(f"blip:{folder}", "cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json"])
def test_damaged_files_are_rejected(writable_folder: Path, file: str) -> None:
    whole = (writable_folder / file).read_bytes()
    (writable_folder / file).write_bytes(whole[: len(whole) // 2])
    refused(writable_folder, "")


def test_other_model_types_are_rejected(tmp_path: Path, writable_folder: Path) -> None:
    refused(
        tiny_blip(tmp_path / "captions", kind="BlipForConditionalGeneration"), "weights are missing"
    )
    (writable_folder / "config.json").write_text('{"model_type": "bert"}')
    refused(writable_folder, "of type 'bert', not 'blip'")


def test_mismatched_weights_and_processors_are_rejected(
    tmp_path: Path, writable_folder: Path
) -> None:
    refused(tiny_blip(tmp_path / "large", processor_size=48), "48 x 48 pixels")
    weights = load_file(writable_folder / "model.safetensors")
    weights["text_proj.weight"] = torch.zeros(WIDTH, 8)
    save_file(weights, writable_folder / "model.safetensors", {"format": "pt"})
    refused(writable_folder, "")


def test_non_finite_weights_are_rejected(writable_folder: Path) -> None:
    weights = load_file(writable_folder / "model.safetensors")
    weights["text_proj.bias"][0] = torch.nan
    save_file(weights, writable_folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="NaN or infinite"):
        Backbone.load(f"blip:{writable_folder}", "cpu")


def test_missing_library_error_shows_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r'pip install "sieve-explorer\[blip\]"'):
        Backbone.load("blip:Salesforce/blip-itm-base-coco", "cpu")


def test_network_error_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match="127.0.0.1:9 cannot be reached: .*are downloaded") as e:
        Backbone.load("blip:some/blip", "cpu")
    assert "\n" not in str(e.value)


def test_name_without_a_model_is_rejected() -> None:
    with pytest.raises(ValueError, match="unknown backbone 'blip:'.*blip:Salesforce"):
        Backbone.load("blip:", "cpu")
