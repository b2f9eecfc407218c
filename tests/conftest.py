"""Fixtures for all tests: drawn images, a tiny backbone, a collection and a checkpoint."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import opened, sieve  # noqa: F401  (fixtures, for all)
from hub_cache import put_repository  # noqa: F401  (a fixture, for all)
from hub_server import hub  # noqa: F401  (a fixture, for all)
from hypothesis import settings
from page_api import fetched  # noqa: F401  (a fixture, for all)
from processes import (
    fork_server,
    forked_jobs,  # noqa: F401  (a fixture, for all)
)

# Two workers and their subprocesses share two cores.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# The time of an example depends on the machine.
settings.register_profile("sieve", deadline=None)
settings.load_profile("sieve")

# Order of the test stages by marker; None: unmarked, fast tests.
STAGES = ("house", None, "slow", "browser")
# The files of the last stage that take longest start first, so that all workers end together.
LONG_FILES = (
    "test_whole_page", "test_search", "test_threats", "test_notes", "test_dimension_map",
    "test_figure", "test_train", "test_dimensions", "test_hostile", "test_space",
)  # fmt: skip
N_PICTURES = 60
COLOURS = {"red": "#d03030", "blue": "#3050d0", "green": "#30a040"}
SHAPES = ("circle", "square", "triangle")
PLACES = {"snow": "#f4f6fa", "night": "#101830", "sand": "#e8d090"}
MODEL = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {
        "context_length": 24,
        "vocab_size": 49408,
        "width": 64,
        "heads": 2,
        "layers": 1,
    },
}
OWN_HOME = os.environ.get("SIEVE_HOME")
PREPROCESS = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic"}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order tests by stage, fast first, without splitting files."""

    def place(item: pytest.Item) -> tuple[int, int]:
        marked = (n for n, mark in enumerate(STAGES) if mark and item.get_closest_marker(mark))
        stage = next(marked, STAGES.index(None))
        is_long = stage == len(STAGES) - 1 and item.path.stem in LONG_FILES
        return stage, LONG_FILES.index(item.path.stem) if is_long else len(LONG_FILES)

    items.sort(key=place)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Fork the server of new processes once all modules are imported, before the first test."""
    if session.items and sys.platform == "linux":  # xdist's controller has no items
        fork_server()


@pytest.fixture(scope="session")
def word_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of word embeddings, which take seconds, for the $SIEVE_HOME of most tests."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "words"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session", autouse=True)
def no_home(tmp_path_factory: pytest.TempPathFactory, word_cache: Path) -> Iterator[None]:
    """Set a temporary $SIEVE_HOME for tests that set none."""
    before = os.environ.get("SIEVE_HOME")
    folder = tmp_path_factory.mktemp("empty-home")
    (folder / "words").symlink_to(word_cache)
    os.environ["SIEVE_HOME"] = str(folder)
    yield
    os.environ.pop("SIEVE_HOME") if before is None else os.environ.update(SIEVE_HOME=before)


@pytest.fixture
def home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_backbone_dir: Path, word_cache: Path
) -> Path:
    """A $SIEVE_HOME for this test, empty except for the trust in the tiny backbone.

    It shares the cache of word embeddings with other tests.
    """
    from sieve.model.backbone.checked_files import find_files, trust
    from sieve.model.backbone.names import parse_name

    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "words").symlink_to(word_cache)
    monkeypatch.setenv("SIEVE_HOME", str(folder))
    trust(find_files(parse_name(f"local-dir:{tiny_backbone_dir}")))
    return folder


@pytest.fixture(scope="session")
def scenes_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A $SIEVE_HOME with the bundled collection; the user's own if it is prepared there."""
    from sieve.data_prep.bundled import bundled_path, prepare_bundled_scenes

    with pytest.MonkeyPatch.context() as patch:
        if OWN_HOME:
            patch.setenv("SIEVE_HOME", OWN_HOME)
        else:
            patch.delenv("SIEVE_HOME", raising=False)
        prepared = bundled_path()
        if prepared.is_dir():
            return prepared.parents[1]
        folder = tmp_path_factory.mktemp("scenes-home")
        patch.setenv("SIEVE_HOME", str(folder))
        prepare_bundled_scenes(device="cpu", progress=False)
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of shared photographs; skip the test if it is missing."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no shared photographs at {folder}")
    return folder


@pytest.fixture(scope="session")
def tiny_backbone_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real open_clip model of 3 million random weights, as a folder for `local-dir:`."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("backbones") / "tiny"
    folder.mkdir()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = open_clip.CLIP(**MODEL)
    weights = {name: part.contiguous() for name, part in network.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    config = {"model_cfg": MODEL, "preprocess_cfg": PREPROCESS}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def tiny_backbone(tiny_backbone_dir: Path):
    """The loaded tiny backbone."""
    from sieve.model.backbone.clip import Backbone

    return Backbone.load(f"local-dir:{tiny_backbone_dir}", "cpu")


def describe(index: int) -> tuple[str, str, str]:
    """Return the colour, shape and place of a picture."""
    colour = list(COLOURS)[index % 3]
    shape = SHAPES[index // 3 % 3]
    return colour, shape, list(PLACES)[index // 9 % 3]


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder `images` of 60 drawn pictures, and `captions.csv`; read-only."""
    from PIL import Image, ImageDraw

    folder = tmp_path_factory.mktemp("pictures")
    (folder / "images").mkdir()
    rows = []
    for index in range(N_PICTURES):
        colour, shape, place = describe(index)
        image = Image.new("RGB", (48, 36), PLACES[place])
        box = (4 + index % 16, 4 + index % 8, 24 + index % 16, 24 + index % 8)
        draw = ImageDraw.Draw(image)
        {
            "circle": lambda box, fill, d=draw: d.ellipse(box, fill),
            "square": lambda box, fill, d=draw: d.rectangle(box, fill),
            "triangle": lambda b, fill, d=draw: d.polygon(
                [(b[0], b[3]), (b[2], b[3]), ((b[0] + b[2]) / 2, b[1])], fill
            ),
        }[shape](box, COLOURS[colour])
        image.save(folder / "images" / f"{index:03}.png")
        labels = ";".join((colour, shape, place))
        split = ("train", "train", "train", "select", "test")[index % 5]
        for caption in (f"a {colour} {shape} in the {place}", f"a {shape}, {place} behind it"):
            rows.append((f"{index:03}.png", caption, split, labels))
    with (folder / "captions.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("image", "caption", "split", "labels"), *rows])
    return folder


@pytest.fixture(scope="session")
def tiny_collection(pictures: Path, tiny_backbone, tmp_path_factory: pytest.TempPathFactory):
    """The pictures, prepared with the tiny backbone; read-only."""
    from sieve.data_prep.prepare import prepare
    from sieve.data_prep.sources.folder import Folder

    source = Folder(pictures / "images", pictures / "captions.csv", name="tiny")
    out = tmp_path_factory.mktemp("collections") / "tiny"
    return prepare(source, tiny_backbone, out, progress=False)


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_collection, tiny_backbone, tmp_path_factory: pytest.TempPathFactory):
    """A checkpoint trained briefly on the tiny collection."""
    from sieve.model.hyperparameters import TrainingConfig
    from sieve.model.training.trainer import train

    # Without `narrow` and `exclude` its codes overlap more, so that a query fills a result page.
    config = TrainingConfig(
        m=64, k=8, epochs=20, batch_size=32, n_words=8, learning_rate=5e-3, weight_decay=1e-4,
        narrow=0.0, assign=0.0, concentrate=0.0, exclude=0.0, balance=0.0,
    )  # fmt: skip
    out = tmp_path_factory.mktemp("checkpoints") / "tiny"
    return train(tiny_collection, out, config, device="cpu", backbone=tiny_backbone, progress=False)


@pytest.fixture(scope="session")
def tiny_engine(tiny_collection, tiny_checkpoint, tmp_path_factory: pytest.TempPathFactory):
    """An engine of both, opened with a separate $SIEVE_HOME."""
    from sieve.model.engine import SearchEngine

    before = os.environ.get("SIEVE_HOME")
    os.environ["SIEVE_HOME"] = str(tmp_path_factory.mktemp("home"))
    try:
        return SearchEngine.open(tiny_collection.path, tiny_checkpoint.path, "cpu")
    finally:
        os.environ.pop("SIEVE_HOME") if before is None else os.environ.update(SIEVE_HOME=before)
