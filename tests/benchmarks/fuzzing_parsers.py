"""Fuzzing targets: every parser of external files and texts."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import strategies as st

from sieve import assets
from sieve.explorer.annotations.import_export import read_annotation_file
from sieve.explorer.figures import parse_recipe
from sieve.explorer.jobs.manager import TrainingSettings
from sieve.explorer.view_state import ViewState, read_link
from sieve.model.checkpoint import CONFIG, NAMES, TRAINING, WEIGHTS, Checkpoint
from sieve.model.collection import MANIFEST, Collection
from sieve.model.files import write_checksums
from sieve.model.index.qdrant import IndexAddress
from tests.benchmarks.fuzzing import Target, file_outcome, outcome
from tests.benchmarks.fuzzing_api import SEEDS
from tests.benchmarks.fuzzing_sources import caption_targets, source_targets
from tests.benchmarks.random_inputs import WORDS, changed, damaged, json_or_bytes


@contextmanager
def parser_targets() -> Iterator[list[Target]]:
    """Write valid files to a temporary folder and yield one target per parser."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        yield [
            *caption_targets(folder / "captions"),
            *source_targets(folder),
            *_artifact_targets(folder),
            *_text_targets(),
        ]


def _artifact_targets(folder: Path) -> Iterator[Target]:
    """Yield targets with recomputed checksums, as an attacker would write them."""
    from sieve.data_prep.bundled import prepare_bundled_scenes

    shipped = prepare_bundled_scenes(device="cpu", progress=False)
    manifest = json.loads((shipped / MANIFEST).read_text())
    collection = folder / "collection"
    collection.mkdir()
    for name in manifest["files"]:
        (collection / name).symlink_to(shipped / name)

    def described(path: Path) -> None:
        write_checksums(path.parent, [MANIFEST])
        _described(Collection.open(path.parent))

    ask = file_outcome(collection / MANIFEST, described)
    yield Target("collection.json", json_or_bytes(manifest), ask)
    from_checkpoint = assets.ROOT / "checkpoints" / "scenes"
    checkpoint = folder / "checkpoint"
    whole = shutil.copytree(from_checkpoint, checkpoint)
    names = json.loads((whole / "names.json").read_text())[:5]
    (checkpoint / "names.json").write_text(json.dumps(names))
    for name, seeds in (
        ("config.json", json_or_bytes(json.loads((whole / "config.json").read_text()))),
        ("names.json", json_or_bytes(names)),
        ("training.json", json_or_bytes({"items": ["0123456789abcdef"], "seed": 0})),
        ("weights.safetensors", damaged(((whole / "weights.safetensors").read_bytes(),))),
    ):
        data = (checkpoint / name).read_bytes()

        def read(path: Path, data: bytes = data) -> None:
            try:
                write_checksums(path.parent, (CONFIG, WEIGHTS, TRAINING, NAMES))
                opened = Checkpoint.load(path.parent)
                opened.trained_items, opened.sha256, opened.name_of(3)  # noqa: B018
            finally:
                path.write_bytes(data)

        yield Target(f"checkpoint {name}", seeds, file_outcome(checkpoint / name, read))


def _described(opened: Collection) -> None:
    shown = (opened.name, opened.n_items, opened.n_captions, opened.codes or opened.backbone)
    assert shown and len(opened.items) == opened.n_items
    assert len(opened.caption_item) == opened.n_captions
    if opened.codes is None:
        assert len(opened.image_embeddings) == opened.n_items


def _text_targets() -> Iterator[Target]:
    recipe = SEEDS["preview"][0]
    as_text = json_or_bytes(recipe).map(lambda data: data.decode("utf-8", "replace"))
    yield Target("figure recipe", as_text, outcome(parse_recipe))
    notes = {
        "sieve_annotations": 1, "collection": "ab" * 32, "checkpoint": "cd" * 32,
        "dimensions": [{"dimension": 3, "name": "dog", "tags": ["a"], "note": "x"}],
        "searches": [{"name": "dogs", "link": "?q=a+dog", "saved": "2026-01-01T00:00:00Z"}],
    }  # fmt: skip
    yield Target(
        "annotations .json",
        json_or_bytes(notes),
        outcome(lambda d: read_annotation_file(d, "json", 64)),
    )
    table = b"dimension,name,note,tags,starred\n3,dog,'=x,a,1\n4,cat,,,\n"
    yield Target(
        "annotations .csv", damaged((table,)), outcome(lambda d: read_annotation_file(d, "csv", 64))
    )
    link = b"?q=a+dog&without=beach&off=17,203&strictness=never&item=0123456789abcdef&tab=figure"
    texts = st.one_of(
        damaged((link,)).map(lambda data: data.decode("utf-8", "surrogateescape")),
        st.sampled_from(WORDS),
    )
    yield Target("link", texts, outcome(lambda text: read_link(text, "scenes", "scenes", 64)))
    yield Target("question", changed(SEEDS["ask"]), outcome(ViewState.from_payload))
    yield Target(
        "training form", changed(SEEDS["training_start"]), outcome(TrainingSettings.from_payload)
    )
    address = damaged((b"qdrant://host:6333/photos", b"qdrant:///tmp/a/b")).map(_as_text)
    yield Target("index address", address, outcome(_addressed))


def _as_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _addressed(text: str) -> None:
    address = IndexAddress.parse(text)
    assert IndexAddress.parse(str(address)) == address, (text, str(address))
