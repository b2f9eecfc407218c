"""Test that backbones with code are refused with one line and that their code never runs.

Every test writes a Python file or a pickle that leaves a trace when it is executed. Consent is not
tested here: the user names these backbones.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import transformers
from corruption import PicklePayload
from hub_cache import PutRepository
from tiny_blip import tiny_blip

from sieve.model.backbone.clip import Backbone

CONFIG = "open_clip_config.json"
MAPPED = {
    "AutoTokenizer": ["evil.Evil", None],
    "AutoConfig": "evil.EvilConfig",
    "AutoModel": "evil.Evil",
    "AutoProcessor": "evil.Evil",
    "AutoImageProcessor": "evil.Evil",
    "AutoModelForImageTextRetrieval": "evil.Evil",
}
MODULE = """
open({trace!r}, "w").close()
import transformers
class Evil(transformers.PreTrainedTokenizer):
    vocab_size = 0
    def get_vocab(self): return {{}}
class EvilConfig(transformers.PretrainedConfig):
    model_type = "evil"
"""


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Path of the trace of executed code; prompts to run code are answered with yes."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    monkeypatch.setattr(
        "transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules")
    )
    return tmp_path / "trace"


@pytest.fixture
def folder(tiny_backbone_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_backbone_dir, tmp_path / "backbone"))


@pytest.fixture
def blip(tmp_path: Path) -> Path:
    return tiny_blip(tmp_path / "blip")


def configure(folder: Path, part: str, **settings: Any) -> None:
    """Change a part of open_clip's configuration."""
    path = folder / CONFIG
    config = json.loads(path.read_text())
    config["model_cfg"][part] |= settings
    path.write_text(json.dumps(config))


def map_code(folder: Path, trace: Path, *files: str) -> None:
    """Write a Python module to a folder and refer to it in its configurations."""
    (folder / "evil.py").write_text(MODULE.format(trace=str(trace)))
    for file in files:
        path = folder / file
        settings = json.loads(path.read_text()) if path.is_file() else {}
        if file == "tokenizer_config.json":
            settings |= {"tokenizer_class": "Evil"}
        path.write_text(json.dumps(settings | {"auto_map": MAPPED}))


def refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Backbone.load(name, "cpu")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def tokenizer_with_code(folder: Path, trace: Path, **options: Any) -> None:
    configure(folder, "text_cfg", hf_tokenizer_name="any/name", tokenizer_kwargs=options)
    map_code(folder, trace, "tokenizer_config.json")


def test_open_clip_itself_runs_code_of_a_tokenizer(folder: Path, trace: Path) -> None:
    """The other tests are meaningful only if the attack works."""
    tokenizer_with_code(folder, trace, trust_remote_code=True)
    open_clip.get_tokenizer(f"local-dir:{folder}")
    assert trace.exists()


def test_transformers_itself_runs_code_of_a_processor(blip: Path, trace: Path) -> None:
    map_code(blip, trace, "tokenizer_config.json")
    transformers.AutoTokenizer.from_pretrained(blip, trust_remote_code=True)
    assert trace.exists()


def test_tokenizer_with_trust_remote_code_is_refused(folder: Path, trace: Path) -> None:
    tokenizer_with_code(folder, trace, trust_remote_code=True)
    refused(f"local-dir:{folder}", "requests code execution .trust_remote_code")
    assert not trace.exists()


def test_tokenizer_with_auto_map_is_refused(folder: Path, trace: Path) -> None:
    tokenizer_with_code(folder, trace)
    refused(f"local-dir:{folder}", "tokenizer_config.json requests code execution .auto_map")
    assert not trace.exists()


def test_auto_map_in_the_config_of_a_tokenizer_is_refused(folder: Path, trace: Path) -> None:
    configure(folder, "text_cfg", hf_tokenizer_name="any/name")
    (folder / "tokenizer_config.json").write_text("{}")
    map_code(folder, trace, "config.json")
    refused(f"local-dir:{folder}", "config.json requests code execution .auto_map")
    assert not trace.exists()


@pytest.mark.parametrize(
    "options", [{"bpe_path": "/dev/zero"}, {"subfolder": ".."}, {"use_fast": False}], ids=str
)
def test_other_tokenizer_options_are_refused(folder: Path, options: dict[str, Any]) -> None:
    configure(folder, "text_cfg", tokenizer_kwargs=options)
    refused(f"local-dir:{folder}", "tokenizer_kwargs")


@pytest.mark.parametrize("is_relative", [False, True])
def test_text_tower_in_a_folder_is_refused(
    folder: Path, trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_relative: bool
) -> None:
    tower = tmp_path / "tower"
    tower.mkdir()
    map_code(tower, trace, "config.json", "tokenizer_config.json")
    monkeypatch.chdir(tmp_path)
    name = "tower" if is_relative else str(tower)
    configure(folder, "text_cfg", hf_model_name=name, hf_tokenizer_name=name)
    refused(f"local-dir:{folder}", "hf_model_name .*expected a Hub repository")
    assert not trace.exists()


@pytest.mark.parametrize("place", ["/nowhere/tower", "../tower", "~/tower", "a/b/c", "a//b"])
@pytest.mark.parametrize("key", ["hf_model_name", "hf_tokenizer_name"])
def test_text_tower_at_a_path_is_refused(folder: Path, place: str, key: str) -> None:
    configure(folder, "text_cfg", **{key: place})
    refused(f"local-dir:{folder}", f"{key} to '{place}'; expected a Hub repository")


@pytest.mark.parametrize("kind", ["local-dir", "hf-hub"])
def test_hub_text_tower_runs_no_code(
    folder: Path, trace: Path, tmp_path: Path, put_repository: PutRepository, kind: str
) -> None:
    tower = tmp_path / "tower"
    tower.mkdir()
    map_code(tower, trace, "config.json")
    put_repository("evil/tower", tower)
    configure(folder, "text_cfg", hf_model_name="evil/tower", hf_model_pretrained=True)
    put_repository("some/model", folder)
    place = f"local-dir:{folder}" if kind == "local-dir" else "hf-hub:some/model"
    refused(place, "config.json requests code execution .auto_map")
    assert not trace.exists()


def test_hub_tokenizer_runs_no_code(
    folder: Path, trace: Path, tmp_path: Path, put_repository: PutRepository
) -> None:
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    (tokenizer / "vocab.txt").write_text("a\n")
    map_code(tokenizer, trace, "tokenizer_config.json")
    put_repository("evil/tokenizer", tokenizer)
    configure(folder, "text_cfg", hf_tokenizer_name="evil/tokenizer")
    put_repository("some/model", folder)
    refused("hf-hub:some/model", "tokenizer_config.json requests code execution .auto_map")
    assert not trace.exists()


@pytest.mark.parametrize("tower", ["hf-hub:evil/tower", "local-dir:{}", "{}", "evil/tower"])
def test_external_image_tower_is_refused(folder: Path, tmp_path: Path, tower: str) -> None:
    name = tower.format(tmp_path / "tower")
    configure(folder, "vision_cfg", timm_model_name=name, timm_model_pretrained=True)
    refused(f"local-dir:{folder}", "as image tower; expected a timm architecture")


def test_pickled_vocabulary_is_not_read(folder: Path, trace: Path) -> None:
    configure(folder, "text_cfg", hf_tokenizer_name="any/name")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "TransfoXLTokenizer"}')
    for name in ("vocab.pkl", "vocab.bin", "vocab.txt", "tokenizer.json"):
        torch.save(PicklePayload(trace), folder / name)
    refused(f"local-dir:{folder}", "cannot be opened")
    assert not trace.exists()


@pytest.mark.parametrize("name", ["open_clip_pytorch_model.bin", "open_clip_pytorch_model.pth"])
def test_pickled_weights_are_refused(folder: Path, trace: Path, name: str) -> None:
    (folder / "open_clip_model.safetensors").unlink()
    torch.save({"state_dict": PicklePayload(trace)}, folder / name)
    refused(f"local-dir:{folder}", "cannot be opened")
    assert not trace.exists()


def test_pickled_hub_weights_are_refused(
    folder: Path, trace: Path, put_repository: PutRepository
) -> None:
    (folder / "open_clip_model.safetensors").unlink()
    torch.save(PicklePayload(trace), folder / "open_clip_pytorch_model.bin")
    put_repository("some/model", folder)
    refused("hf-hub:some/model", "cannot be opened")
    assert not trace.exists()


def test_pickled_weights_file_is_refused(tmp_path: Path, trace: Path) -> None:
    torch.save(PicklePayload(trace), tmp_path / "weights.pt")
    refused(str(tmp_path / "weights.pt"), "which Sieve does not load")
    refused(f"ViT-B-32/{tmp_path / 'weights.pt'}", "cannot be opened")
    assert not trace.exists()


def test_torchscript_program_is_refused(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "weights.pt")
    refused(str(tmp_path / "weights.pt"), "TorchScript program, which Sieve does not run")
    refused(f"ViT-B-32/{tmp_path / 'weights.pt'}", "TorchScript program, which Sieve does not run")


@pytest.mark.parametrize(
    "file",
    ["config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json"],
)
def test_blip_auto_map_is_refused(blip: Path, trace: Path, file: str) -> None:
    map_code(blip, trace, file)
    refused(f"blip:{blip}", f"{file} requests code execution .auto_map")
    assert not trace.exists()


def test_hub_blip_runs_no_code(blip: Path, trace: Path, put_repository: PutRepository) -> None:
    map_code(blip, trace, "config.json", "tokenizer_config.json")
    put_repository("evil/blip", blip)
    refused("blip:evil/blip", "requests code execution .auto_map")
    assert not trace.exists()


def test_pickled_blip_weights_are_refused(blip: Path, trace: Path) -> None:
    (blip / "model.safetensors").unlink()
    torch.save(PicklePayload(trace), blip / "pytorch_model.bin")
    refused(f"blip:{blip}", "cannot be opened")
    assert not trace.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"attn_implementation": "evil/kernel"},
        {"_attn_implementation": "evil/kernel:Evil"},
        {"text_config": {"auto_map": MAPPED}},
        {"quantization_config": {"quant_method": "evil"}},
        {"custom_generate": "evil/repository"},
        {"trust_remote_code": True},
        {"code_revision": "main"},
        {"use_kernels": True},
        {"towers": [{"auto_map": MAPPED}]},
    ],
    ids=str,
)
def test_other_settings_that_run_code_are_refused(blip: Path, change: dict[str, Any]) -> None:
    settings = json.loads((blip / "config.json").read_text())
    (blip / "config.json").write_text(json.dumps(settings | change))
    refused(f"blip:{blip}", "config.json requests code execution")


def swap_once_read(patch: pytest.MonkeyPatch, path: Path, settings: dict[str, Any]) -> None:
    """Replace a configuration after it is read for the first time."""
    read = Path.read_text

    def read_text(self: Path, *given: Any, **options: Any) -> str:
        text = read(self, *given, **options)
        if self == path:
            path.write_text(json.dumps(settings))
        return text

    patch.setattr(Path, "read_text", read_text)


def test_model_config_changed_after_validation_is_not_used(
    folder: Path, trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    map_code(tokenizer, trace, "tokenizer_config.json")
    settings = json.loads((folder / CONFIG).read_text())
    settings["model_cfg"]["text_cfg"] |= {
        "hf_tokenizer_name": str(tokenizer),
        "tokenizer_kwargs": {"trust_remote_code": True},
    }
    swap_once_read(monkeypatch, folder / CONFIG, settings)
    assert Backbone.load(f"local-dir:{folder}", "cpu").width == 32
    assert json.loads((folder / CONFIG).read_bytes()) == settings and not trace.exists()


def test_tokenizer_config_changed_after_validation_is_not_used(
    folder: Path,
    blip: Path,
    trace: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    put_repository: PutRepository,
) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "evil.py").write_text(MODULE.format(trace=str(trace)))
    put_repository("evil/code", code)
    configure(folder, "text_cfg", hf_tokenizer_name="any/name")
    for path in blip.glob("*token*"):
        shutil.copy(path, folder)
    mapped = {
        "tokenizer_class": "Evil",
        "auto_map": {"AutoTokenizer": ["evil/code--evil.Evil"] * 2},
    }
    path = folder / "tokenizer_config.json"
    swap_once_read(monkeypatch, path, mapped)
    assert Backbone.load(f"local-dir:{folder}", "cpu").width == 32
    assert json.loads(path.read_bytes()) == mapped and not trace.exists()


def test_paths_in_a_tokenizer_config_do_not_reach_the_libraries(
    folder: Path, blip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(folder, "text_cfg", hf_tokenizer_name="any/name")
    for path in blip.glob("*token*"):
        shutil.copy(path, folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    places = dict.fromkeys(("tokenizer_file", "vocab_file", "name_or_path"), "/etc/passwd")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | places))
    seen: list[str] = []
    get: Callable[..., Any] = open_clip.get_tokenizer

    def watched(name: str) -> Any:
        seen.append((Path(name.removeprefix("local-dir:")) / "tokenizer_config.json").read_text())
        return get(name)

    monkeypatch.setattr(open_clip, "get_tokenizer", watched)
    Backbone.load(f"local-dir:{folder}", "cpu")
    assert json.loads(seen[0]) == settings


def test_only_allowed_files_reach_the_libraries(
    folder: Path, monkeypatch: pytest.MonkeyPatch, trace: Path
) -> None:
    map_code(folder, trace)
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "evil/base"}')
    seen: list[str] = []
    create: Callable[..., Any] = open_clip.create_model

    def watched(name: str, *given: Any, **options: Any) -> Any:
        seen.extend(path.name for path in Path(name.removeprefix("local-dir:")).iterdir())
        return create(name, *given, **options)

    monkeypatch.setattr(open_clip, "create_model", watched)
    assert Backbone.load(f"local-dir:{folder}", "cpu").width == 32
    assert seen == [CONFIG]
