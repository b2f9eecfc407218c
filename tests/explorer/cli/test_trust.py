"""Test that every command loads a collection's backbone only with the user's consent."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandResult, Sieve, fault
from corruption import reseal
from hub_cache import PutRepository
from processes import FIRST_PORT, ForkedPython
from tiny_blip import tiny_blip

from sieve.model.collection import Collection

pytestmark = pytest.mark.slow

ASK = "is not one that you have used; if you trust its source, give --trust-backbone once"
MODULE = """
open({trace!r}, "w").close()
import transformers
class Evil(transformers.PreTrainedTokenizer):
    vocab_size = 0
    def get_vocab(self): return {{}}
"""


def with_backbone_name(collection: Collection, folder: Path, name: str) -> Path:
    """Copy a collection and replace the name of its backbone, as its author could."""
    shutil.copytree(collection.path, folder)
    manifest = json.loads((folder / "collection.json").read_text())
    manifest["backbone"]["name"] = name
    (folder / "collection.json").write_text(json.dumps(manifest))
    reseal(folder)
    return folder


@pytest.fixture
def local_backbone(tiny_backbone_dir: Path, tmp_path: Path) -> Path:
    """The tiny backbone with an additional file, so that its contents are not yet trusted."""
    folder = Path(shutil.copytree(tiny_backbone_dir, tmp_path / "strange"))
    (folder / "known_words.txt").write_text("circle\nsquare\nsnow\n")
    return folder


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "trace"


@pytest.fixture
def hostile(
    tiny_collection: Collection, local_backbone: Path, trace: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A collection with a local backbone whose tokenizer contains Python code."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    config = json.loads((local_backbone / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"] |= {
        "hf_tokenizer_name": "any/name",
        "tokenizer_kwargs": {"trust_remote_code": True},
    }
    (local_backbone / "open_clip_config.json").write_text(json.dumps(config))
    (local_backbone / "evil.py").write_text(MODULE.format(trace=str(trace)))
    mapped = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}}
    (local_backbone / "tokenizer_config.json").write_text(json.dumps(mapped))
    return with_backbone_name(
        tiny_collection, local_backbone.parent / "hostile", f"local-dir:{local_backbone}"
    )


def test_malicious_collection_runs_no_code_in_any_command(
    sieve: Sieve, hostile: Path, trace: Path, opened: tuple, tmp_path: Path, pictures: Path
) -> None:
    with_codes = (hostile, *opened[1:])
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({"collection": str(hostile), "rows": [{"query": "a circle"}]}))
    found = sieve("search", *with_codes, "a circle", "--json")
    assert ASK in found.data["notes"][0], found
    commands: list[tuple[Any, ...]] = [
        ("search", *with_codes, "--image", pictures / "images" / "000.png"),
        ("info", *with_codes),
        ("dimensions", *with_codes),
        ("export", *with_codes, "results", "--query", "a circle", "-o", tmp_path / "r.json"),
        ("figure", recipe, "-o", tmp_path / "f.png", *opened[1:]),
        ("evaluate", *with_codes, "--quick", "--trials", "1", "--resamples", "5"),
        ("add", hostile, pictures / "images", "--out", tmp_path / "more"),
        ("train", hostile, "--out", tmp_path / "codes", "--m", "32", "--k", "4", "--epochs", "1"),
    ]
    text = {command[0]: sieve(*command) for command in commands}
    assert not trace.exists()
    assert {name: answer.code for name, answer in text.items() if answer.code} == {
        "search": 1,
        "add": 1,
        "evaluate": 1,
    }
    for name in ("search", "add", "evaluate"):
        assert ASK in fault(text[name])


VARIANTS = (
    "relative", "text tower", "text tower of the Hub", "tokenizer of the Hub", "Hub", "BLIP",
    "BLIP of the Hub",
)  # fmt: skip


@pytest.fixture(params=VARIANTS)
def variant(
    request: pytest.FixtureRequest,
    local_backbone: Path,
    hostile: Path,
    trace: Path,
    tmp_path: Path,
    put_repository: PutRepository,
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """A variant of the attack: another backbone name, or other files at the same name."""
    assert hostile.is_dir()  # the code is already next to the backbone
    elsewhere = tiny_blip(tmp_path / "elsewhere")
    shutil.copy(local_backbone / "evil.py", elsewhere)
    mapped = {name: "evil.Evil" for name in ("AutoConfig", "AutoModel", "AutoProcessor")}
    mapped |= {"AutoTokenizer": ["evil.Evil", None]}
    for name in ("config.json", "tokenizer_config.json", "processor_config.json"):
        settings = json.loads((elsewhere / name).read_text())
        (elsewhere / name).write_text(json.dumps(settings | {"auto_map": mapped}))
    put_repository("evil/elsewhere", elsewhere)
    path = local_backbone / "open_clip_config.json"
    config = json.loads(path.read_text())
    text = config["model_cfg"]["text_cfg"]
    kind = str(request.param)
    if kind.startswith("text tower"):
        of_hub = kind.endswith("Hub")
        text |= {"hf_model_name": "evil/elsewhere" if of_hub else str(elsewhere)}
    if kind.startswith("tokenizer"):
        (local_backbone / "tokenizer_config.json").unlink()
        text |= {"hf_tokenizer_name": "evil/elsewhere"}
    if kind.endswith("of the Hub"):
        text.pop("tokenizer_kwargs")  # the repository itself contains the code
    path.write_text(json.dumps(config))
    put_repository("evil/model", local_backbone)
    monkeypatch.chdir(local_backbone.parent)
    assert not trace.exists()
    return {
        "relative": f"local-dir:{local_backbone.name}",
        "Hub": "hf-hub:evil/model",
        "BLIP": f"blip:{elsewhere}",
        "BLIP of the Hub": "blip:evil/elsewhere",
    }.get(kind, f"local-dir:{local_backbone}")


def test_no_variant_of_the_attack_runs_code(
    sieve: Sieve,
    tiny_collection: Collection,
    variant: str,
    trace: Path,
    opened: tuple,
    pictures: Path,
    tmp_path: Path,
) -> None:
    folder = with_backbone_name(tiny_collection, tmp_path / "variant", variant)
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({"collection": str(folder), "rows": [{"query": "a circle"}]}))
    assert ASK in notes(search(sieve, folder, opened))
    assert sieve("figure", recipe, "-o", tmp_path / "f.png", *opened[1:]).code == 0
    message = (
        notes(search(sieve, folder, opened, "--trust-backbone")),
        fault(sieve("add", folder, pictures / "images", "--out", tmp_path / "a")),
        fault(sieve("search", *opened, "a circle", "--text-encoder", variant)),
    )
    for line in message:
        assert "requests code execution" in line and "Sieve does not run code of a model" in line
    assert not trace.exists()


def test_consent_does_not_allow_code(
    sieve: Sieve, hostile: Path, trace: Path, opened: tuple
) -> None:
    found = sieve("search", hostile, "a circle", *opened[1:], "--trust-backbone", "--json")
    assert "requests code execution (trust_remote_code)" in found.data["notes"][0]
    assert not trace.exists()


def test_public_page_of_a_malicious_collection_runs_no_code(
    hostile: Path, trace: Path, opened: tuple, home: Path
) -> None:
    port = FIRST_PORT + 90
    command = [sys.executable, "-m", "sieve", "explore", hostile, "--public-safe", "--port", port]
    running = ForkedPython(
        [*command, *opened[1:]],
        env=os.environ | {"SIEVE_HOME": str(home)},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        deadline = time.monotonic() + 120
        while True:
            assert running.poll() is None and time.monotonic() < deadline
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/?q=a+circle") as page:
                    assert page.status == 200
                break
            except OSError:
                time.sleep(0.2)
    finally:
        running.kill()
    assert not trace.exists()


def search(sieve: Sieve, folder: Path, opened: tuple, *more: str) -> CommandResult:
    answer = sieve("search", folder, "a circle", *opened[1:], *more, "--json")
    assert answer.code == 0, answer
    return answer


def notes(answer: CommandResult) -> str:
    return " ".join(answer.data["notes"])


def test_consent_is_stored_by_content_hash(
    sieve: Sieve, tiny_collection: Collection, local_backbone: Path, opened: tuple, tmp_path: Path
) -> None:
    folder = with_backbone_name(tiny_collection, tmp_path / "c", f"local-dir:{local_backbone}")
    assert f"strange' in a folder, which {ASK}" in notes(search(sieve, folder, opened))
    assert not notes(search(sieve, folder, opened, "--trust-backbone"))
    assert not notes(search(sieve, folder, opened)), "remembered"
    moved = local_backbone.rename(tmp_path / "moved")
    elsewhere = with_backbone_name(tiny_collection, tmp_path / "d", f"local-dir:{moved}")
    assert not notes(search(sieve, elsewhere, opened)), "the same contents elsewhere"
    (moved / "known_words.txt").write_text("circle\nevil\n")
    shutil.copytree(moved, local_backbone)
    text = notes(search(sieve, folder, opened))
    assert "which has changed since you used it; if you trust its source" in text


@pytest.mark.parametrize("damage", ["", "[]", '{"backbones": [1]}', "{" * 10_000])
def test_damaged_consent_file_trusts_nothing(
    sieve: Sieve,
    tiny_collection: Collection,
    opened: tuple,
    home: Path,
    damage: str,
) -> None:
    assert not notes(search(sieve, tiny_collection.path, opened))
    (home / "trusted_backbones.json").write_text(damage)
    assert ASK in notes(search(sieve, tiny_collection.path, opened))


def test_preparing_with_a_backbone_implies_consent(
    sieve: Sieve, local_backbone: Path, opened: tuple, pictures: Path, tmp_path: Path
) -> None:
    made = sieve(
        "prepare", "folder", pictures / "images", "--captions", pictures / "captions.csv",
        "--backbone", f"local-dir:{local_backbone}", "--out", tmp_path / "made", "--workers", "0",
    )  # fmt: skip
    assert made.code == 0, made
    assert not notes(search(sieve, tmp_path / "made", opened))


def test_repository_is_not_contacted_without_consent(
    sieve: Sieve,
    tiny_collection: Collection,
    local_backbone: Path,
    opened: tuple,
    tmp_path: Path,
    put_repository: PutRepository,
) -> None:
    repository = put_repository("some/model", local_backbone)
    folder = with_backbone_name(tiny_collection, tmp_path / "c", "hf-hub:some/model")
    assert f"'hf-hub:some/model' of the Hub, which {ASK}" in notes(search(sieve, folder, opened))
    assert not notes(search(sieve, folder, opened, "--trust-backbone"))
    assert not notes(search(sieve, folder, opened))
    config = json.loads((repository / "open_clip_config.json").read_text())
    config["preprocess_cfg"]["mean"] = [0.1, 0.1, 0.1]
    (repository / "open_clip_config.json").write_text(json.dumps(config))
    found = search(sieve, folder, opened)
    assert "has changed since you used it" in notes(found)


def test_file_under_an_architecture_name_requires_consent(
    sieve: Sieve, tiny_collection: Collection, local_backbone: Path, opened: tuple, tmp_path: Path
) -> None:
    weights = local_backbone / "open_clip_model.safetensors"
    folder = with_backbone_name(tiny_collection, tmp_path / "c", f"ViT-B-32/{weights}")
    assert f"{weights.name}' in a file, which {ASK}" in notes(search(sieve, folder, opened))
