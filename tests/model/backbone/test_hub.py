"""Test backbones of the Hub: cache, offline mode and quick errors."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_cache import PutRepository
from hub_server import HubServer

from sieve.model.backbone.clip import Backbone


def test_cache_is_used_without_network(
    tiny_backbone_dir: Path, tiny_backbone: Backbone, put_repository: PutRepository
) -> None:
    put_repository("some/model", tiny_backbone_dir)
    assert Backbone.load("hf-hub:some/model", "cpu").sha256 == tiny_backbone.sha256


def test_backbone_is_downloaded_at_a_revision(
    tiny_backbone_dir: Path, tiny_backbone: Backbone, hub: HubServer
) -> None:
    files = {path.name: path.read_bytes() for path in tiny_backbone_dir.iterdir()}
    first = hub.commit("model", "some/model", files)
    hub.commit("model", "some/model", {"README.md": b"removed"})
    assert Backbone.load(f"hf://some/model@{first}", "cpu").sha256 == tiny_backbone.sha256


def test_hub_tokenizer_and_text_tower_are_loaded(
    tiny_backbone_dir: Path, put_repository: PutRepository, tmp_path: Path
) -> None:
    import open_clip
    import transformers
    from safetensors.torch import save_file

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "cat"]
    tower = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=16,
    )  # fmt: skip
    tower.save_pretrained(tmp_path / "tower")
    vocabulary = {word: number for number, word in enumerate(words)}
    transformers.BertTokenizerFast(vocab=vocabulary).save_pretrained(tmp_path / "tower")
    put_repository("some/tower", tmp_path / "tower")
    config = json.loads((tiny_backbone_dir / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"] = {
        "hf_model_name": "some/tower", "hf_tokenizer_name": "some/tower", "hf_proj_type": "linear",
        "hf_pooler_type": "mean_pooler", "context_length": 16,
        "tokenizer_kwargs": {"clean": "lower"},
    }  # fmt: skip
    made = tmp_path / "made"
    made.mkdir()
    (made / "open_clip_config.json").write_text(json.dumps(config))
    own = json.loads(json.dumps(config["model_cfg"]))
    own["text_cfg"] |= {"hf_model_name": str(tmp_path / "tower"), "hf_model_pretrained": False}
    network = open_clip.CustomTextCLIP(**own)
    weights = {key: value.contiguous() for key, value in network.state_dict().items()}
    save_file(weights, made / "open_clip_model.safetensors")
    put_repository("some/model", made)
    backbone = Backbone.load("hf-hub:some/model", "cpu")
    dog, cat, large = backbone.encode_texts(["a dog", "a cat", "A DOG"])
    assert dog @ large == pytest.approx(1) and dog @ cat < 0.999


def test_offline_mode_error_is_immediate(put_repository: PutRepository) -> None:  # noqa: ARG001
    for name in ("ViT-B-32/openai", "hf-hub:some/model", "blip:some/model"):
        with pytest.raises(ValueError, match="is not in the cache, and HF_HUB_OFFLINE forbids"):
            Backbone.load(name, "cpu")


@pytest.fixture
def silent() -> Iterator[str]:
    """Address of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_unresponsive_network_error_comes_within_seconds(
    silent: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", silent)
    monkeypatch.setattr("sieve.model.hub.PATIENCE", 3.0)
    began = time.monotonic()
    with pytest.raises(
        ValueError, match="cannot be reached: .*; weights are downloaded on first use"
    ):
        Backbone.load("hf-hub:some/model", "cpu")
    assert time.monotonic() - began < 10
    assert f"downloading some/model from {silent}" in caplog.text
