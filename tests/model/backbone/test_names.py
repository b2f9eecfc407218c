"""Test that backbone names are resolved or answered with the correct name."""

from __future__ import annotations

from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from sieve.model.backbone.clip import Backbone
from sieve.model.backbone.names import parse_name


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("sieve-lite", "sieve-lite"),
        ("ViT-B-32/openai", "ViT-B-32/openai"),
        ("ViT-B-32-quickgelu/openai", "ViT-B-32-quickgelu/openai"),
        ("ViT-B/32", "ViT-B-32/openai"),
        ("ViT-B/16", "ViT-B-16/openai"),
        ("ViT-L/14", "ViT-L-14/openai"),
        ("ViT-L/14@336px", "ViT-L-14-336/openai"),
        ("RN50", "RN50/openai"),
        ("RN50x64", "RN50x64/openai"),
        ("open_clip:ViT-B-32/laion2b_s34b_b79k", "ViT-B-32/laion2b_s34b_b79k"),
        (" ViT-B-32/openai ", "ViT-B-32/openai"),
        ("hf-hub:some/model", "hf-hub:some/model"),
        ("hf://some/model@v1.0", "hf-hub:some/model@v1.0"),
        ("blip:Salesforce/blip-itm-base-coco", "blip:Salesforce/blip-itm-base-coco"),
    ],
)
def test_supported_names_are_parsed(name: str, canonical: str) -> None:
    assert parse_name(name).text == canonical
    assert parse_name(canonical).text == canonical


@pytest.mark.parametrize(
    ("name", "use"),
    [
        ("openai/clip-vit-base-patch32", "ViT-B-32/openai"),
        ("openai/clip-vit-base-patch16", "ViT-B-16/openai"),
        ("openai/clip-vit-large-patch14", "ViT-L-14/openai"),
        ("openai/clip-vit-large-patch14-336", "ViT-L-14-336/openai"),
        ("hf-hub:openai/clip-vit-base-patch32", "ViT-B-32/openai"),
        ("OpenAI/CLIP-ViT-base-patch32", "ViT-B-32/openai"),
        ("clip-ViT-B-32", "ViT-B-32/openai"),
        ("sentence-transformers/clip-ViT-L-14", "ViT-L-14/openai"),
        ("google/siglip-base-patch16-224", "ViT-B-16-SigLIP/webli"),
        ("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "ViT-B-32/laion2b_s34b_b79k"),
        ("timm/vit_base_patch32_clip_224.openai", "ViT-B-32/openai"),
        ("Salesforce/blip-itm-base-coco", "blip:Salesforce/blip-itm-base-coco"),
        ("vit-b-32/openai", "ViT-B-32/openai"),
        ("ViT-H/14", "ViT-H-14/"),
        ("ViT-B32/openai", "ViT-B-32/"),
        ("some/model", "hf-hub:some/model"),
    ],
)
def test_other_names_suggest_the_supported_name(name: str, use: str) -> None:
    with pytest.raises(ValueError, match=f"backbone '{name}'") as caught:
        parse_name(name)
    assert use in str(caught.value) and "\n" not in str(caught.value)


def test_every_suggested_name_exists() -> None:
    from sieve.model.backbone.names import TRANSFORMERS

    for name in TRANSFORMERS.values():
        assert parse_name(name).kind == "tag"


def state_of(architecture: str) -> dict[str, torch.Tensor]:
    """Return a state dict with all shapes, whose tensors take no memory."""
    with torch.device("meta"):
        shapes = open_clip.CLIP(**open_clip.get_model_config(architecture)).state_dict()
    return {key: torch.zeros(()).expand(value.shape) for key, value in shapes.items()}


@pytest.mark.parametrize("architecture", ["ViT-S-32-alt", "ViT-M-32-alt"])
def test_weights_file_of_a_unique_architecture_is_accepted(
    tmp_path: Path, architecture: str
) -> None:
    path = tmp_path / "epoch_9.pt"
    wrapped = {f"module.{key}": value for key, value in state_of(architecture).items()}
    torch.save({"epoch": 9, "state_dict": wrapped}, path)
    assert parse_name(str(path)).text == f"{architecture}/{path}"


def test_weights_file_gives_the_embeddings_of_the_model(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = open_clip.CLIP(**open_clip.get_model_config("ViT-S-32-alt")).eval()
    state = {key: value.half().contiguous() for key, value in network.state_dict().items()}
    save_file(state, tmp_path / "weights.safetensors")
    loaded = Backbone.load(str(tmp_path / "weights.safetensors"), "cpu")
    tokens = open_clip.get_tokenizer("ViT-S-32-alt")(["a dog"])
    with torch.inference_mode():
        expected = network.encode_text(tokens, normalize=True).numpy()[0]
    assert loaded.encode_texts(["a dog"])[0] @ expected > 0.999


@pytest.mark.parametrize(
    ("architecture", "names"),
    [("ViT-B-32", ["ViT-B-32", "ViT-B-32-quickgelu"]), ("RN50", ["RN50", "RN50-quickgelu"])],
)
def test_ambiguous_weights_file_error_lists_the_architectures(
    tmp_path: Path, architecture: str, names: list[str]
) -> None:
    path = tmp_path / "weights.pt"
    torch.save(state_of(architecture), path)
    with pytest.raises(ValueError, match="matches several architectures") as caught:
        parse_name(str(path))
    for name in names:
        assert f"{name}/{path}" in str(caught.value)
        assert parse_name(f"{name}/{path}").architecture == name


def test_other_files_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"vision_model.embeddings.class_embedding": torch.zeros(768)}, path)
    with pytest.raises(ValueError, match="in the transformers format; use the open_clip name"):
        parse_name(str(path))
    save_file({"layer.weight": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match=f"give it as ARCHITECTURE/{path}"):
        parse_name(str(path))
    path.write_bytes(b"no weights")
    with pytest.raises(ValueError, match="cannot be read as weights"):
        parse_name(str(path))
    for missing in (str(tmp_path / "none.pt"), "none.pt", f"ViT-B-32/{tmp_path / 'none.pt'}"):
        with pytest.raises(ValueError, match="there is no file .*none.pt; check the path"):
            parse_name(missing)


def test_folder_path_is_accepted(tiny_backbone_dir: Path) -> None:
    assert parse_name(str(tiny_backbone_dir)).text == f"local-dir:{tiny_backbone_dir}"
