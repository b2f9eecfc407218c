"""Test what the Python API makes: collections, checkpoints, figures and a running explorer."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest
from command_line import Sieve
from processes import FIRST_PORT

import sieve
from sieve.model.engine import SearchEngine


@pytest.mark.usefixtures("home")
def test_folder_is_prepared_trained_on_and_opened_by_name(
    pictures: Path, tiny_backbone_dir: Path
) -> None:
    collection = sieve.prepare_folder(
        pictures / "images", pictures / "captions.csv",
        backbone=f"local-dir:{tiny_backbone_dir}", device="cpu", progress=False, licence="CC0",
    )  # fmt: skip
    assert collection.name == "images"
    checkpoint = sieve.train(
        "images", m=64, k=8, epochs=2, batch_size=32, n_words=8, seed=1, device="cpu",
        progress=False,
    )  # fmt: skip
    facts = json.loads((checkpoint / "config.json").read_text())
    assert (facts["training"]["m"], facts["training"]["seed"]) == (64, 1)
    engine = sieve.Engine.open("images", device="cpu")
    assert engine.checkpoint == checkpoint and len(engine.items) == 60
    assert engine.search("a circle", top=3).to_pandas()["captions"].map(len).tolist() == [2, 2, 2]
    with pytest.raises(FileExistsError, match="exists already"):
        sieve.prepare_folder(pictures / "images", out=collection)
    with pytest.raises(FileExistsError, match="exists already"):
        sieve.train("images", checkpoint)
    with pytest.raises(ValueError, match="log must be one of tensorboard, wandb; got 'csv'"):
        sieve.train("images", log="csv")  # type: ignore[arg-type]


@pytest.mark.usefixtures("home")
def test_collections_of_code_and_of_the_command_line_are_equal(
    sieve_command: Sieve, pictures: Path, tiny_backbone_dir: Path, tmp_path: Path
) -> None:
    backbone = f"local-dir:{tiny_backbone_dir}"
    options = {"backbone": backbone, "device": "cpu", "progress": False}
    made = sieve.prepare_folder(
        pictures / "images", pictures / "captions.csv", out=tmp_path / "a" / "same", **options
    )
    done = sieve_command(
        "prepare", "folder", pictures / "images", "--captions", pictures / "captions.csv",
        "--backbone", backbone, "--device", "cpu", "--out", tmp_path / "b" / "same",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert (made / "collection.json").read_bytes() == (
        tmp_path / "b" / "same" / "collection.json"
    ).read_bytes()


@pytest.fixture
def sieve_command(request: pytest.FixtureRequest) -> Sieve:
    return request.getfixturevalue("sieve")


def test_figure_is_the_same_as_of_the_command(
    tiny_engine: SearchEngine, sieve_command: Sieve, tmp_path: Path
) -> None:
    rows = [{"query": "a circle"}, {"query": "a circle", "without": "the snow"}, {"dimension": 3}]
    recipe = {"rows": rows, "columns": 4, "collection": "tiny"}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    collection, checkpoint = tiny_engine.collection.path, tiny_engine.checkpoint.path
    done = sieve_command(
        "figure", tmp_path / "recipe.json", "-o", tmp_path / "command.png", "--device", "cpu",
        "--collection", collection, "--checkpoint", checkpoint,
    )  # fmt: skip
    assert done.code == 0, done.err
    expected = (tmp_path / "command.png").read_bytes()
    engine = sieve.Engine(tiny_engine)
    drawn = engine.figure(rows=["a circle", rows[1], 3], columns=4)
    assert bytes(drawn) == expected and drawn.kind == "png"
    assert bytes(engine.figure(tmp_path / "recipe.json", kind="png")) == expected
    assert bytes(engine.figure(drawn.recipe)) == expected
    whole = sieve.figure(
        tmp_path / "recipe.json", out=tmp_path / "code.png",
        collection=collection, checkpoint=checkpoint,
    )  # fmt: skip
    assert bytes(whole) == (tmp_path / "code.png").read_bytes() == expected
    assert r"\includegraphics" in whole.latex and "code.png" in whole.latex


def test_figure_is_saved_in_its_own_format(tiny_engine: SearchEngine, tmp_path: Path) -> None:
    figure = sieve.Engine(tiny_engine).figure(rows=["a circle"], columns=2, kind="svg")
    path = figure.save(tmp_path / "figure.svg")
    assert path.read_bytes() == bytes(figure)
    bundle, _ = figure._repr_mimebundle_()
    assert bundle["image/svg+xml"].lstrip().startswith("<?xml")
    with pytest.raises(ValueError, match="the figure is a .svg file"):
        figure.save(tmp_path / "figure.pdf")
    with pytest.raises(FileNotFoundError, match="create it first"):
        figure.save(tmp_path / "no" / "figure.svg")


def test_launched_explorer_serves_until_it_is_closed(tiny_engine: SearchEngine) -> None:
    with sieve.launch(sieve.Engine(tiny_engine), port=FIRST_PORT) as explorer:
        with urllib.request.urlopen(explorer.url, timeout=30) as answer:
            assert "Sieve" in answer.read().decode()
        assert explorer.url in explorer._repr_html_() and explorer.is_running
    assert not explorer.is_running and "closed" in repr(explorer)
    with pytest.raises(OSError):
        urllib.request.urlopen(explorer.url, timeout=5)
    explorer.close()
