"""What the Train tab is answered, and what strangers may send it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import gradio as gr
import pytest

from explorer.app import build_app, build_offer
from explorer.faults import answered
from explorer.jobs.folder import DONE, STOPPED, JobFolder, Progress, Request
from explorer.training.desk import TrainingDesk
from explorer.training.settings import TrainingSettings
from model.collection import Collection
from model.training import PRESETS

ASKS = ("start", "stop", "resume", "discard", "open")


@pytest.fixture
def desk(tiny_collection: Collection, home: Path) -> TrainingDesk:  # noqa: ARG001
    return TrainingDesk(tiny_collection, None, "cpu")


def leave(desk: TrainingDesk, home: Path, progress: Progress) -> JobFolder:
    """Leave a training as an earlier server did."""
    collection = desk.collection
    request = Request(
        "training",
        str(collection.path),
        collection.name,
        collection.sha256,
        "cpu",
        asdict(TrainingSettings()),
    )
    folder = JobFolder.create(home / "jobs", request)
    folder.write(progress)
    return folder


def test_settings_are_the_presets_unless_changed() -> None:
    for name, preset in PRESETS.items():
        assert TrainingSettings.from_payload({"preset": name}).config() == preset
    asked = TrainingSettings.from_payload({"preset": "compact", "m": 128, "k": 8.0, "epochs": 3})
    config = asked.config()
    assert (config.m, config.k, config.epochs) == (128, 8, 3)
    weighed = TrainingSettings.from_payload({"weights": {"presence": 0, "narrow": 2.5}}).config()
    assert (weighed.presence, weighed.narrow, weighed.contrast) == (0, 2.5, 1.0)


@pytest.mark.parametrize(
    "payload",
    [
        None, [], "compact", {"preset": "huge"}, {"preset": ["compact"]}, {"m": "64"}, {"m": 0},
        {"m": 10**9}, {"m": float("nan")}, {"m": 16, "k": 17}, {"k": 0}, {"k": True},
        {"weights": [1]}, {"weights": {"contrast": "1"}}, {"weights": {"contrast": -1}},
        {"weights": {"contrast": float("inf")}}, {"weights": {"contrast": float("nan")}},
        {"weights": {"magic": 1}}, {"weights": {"m": 4}}, {"weights": {"x" * 500: 1}},
        {"preset": "paper", "weights": {"presence": 1}}, {"weights": {"contrast": 10**400}},
        {"preset": "paper", "weights": {"contrast": 0, "reconstruct": 0}},
        {"epochs": -1}, {"epochs": 10**6}, {"epochs": 1.5}, {"seed": 1}, {"out": "/etc"},
    ],
)  # fmt: skip
def test_bad_settings_start_nothing(desk: TrainingDesk, home: Path, payload: object) -> None:
    line = answered(desk.training_start)(payload)["error"]
    assert line and "\n" not in line
    assert not (home / "jobs").exists()


def test_at_first_there_is_nothing(desk: TrainingDesk) -> None:
    told = desk.training_state({"anything": 1})
    assert (told["state"], told["offer"], told["opening"]) == ("none", True, False)
    assert told["refusal"] == "" and told["settings"] is None
    for ask in ASKS[1:]:
        assert answered(getattr(desk, f"training_{ask}"))(None)["error"]


def test_a_stopped_one_is_found_again(desk: TrainingDesk, home: Path) -> None:
    first = leave(desk, home, Progress(DONE, made=str(home / "removed")))
    assert desk.training_state(None)["state"] == "none"
    first.path.rename(first.path.with_name("20200101-000000-abcdef"))
    point = {"step": 5, "total": 2.0, "live": 1.0}
    leave(desk, home, Progress(STOPPED, step=5, n_steps=10, points=(point,)))
    told = desk.training_state(None)
    assert (told["state"], told["step"], told["points"]) == ("stopped", 5, (point,))
    assert told["settings"] == asdict(TrainingSettings())


def test_a_finished_one_is_opened_once(
    desk: TrainingDesk, home: Path, tiny_checkpoint, tiny_collection: Collection
) -> None:
    made = Path(tiny_checkpoint.path)
    leave(desk, home, Progress(DONE, made=str(made)))
    assert desk.wanted() == made and desk.training_state(None)["opening"]
    desk.not_opened(made, ValueError("its weights\nare damaged"))
    told = desk.training_state(None)
    assert desk.wanted() is None and "its weights are damaged" in told["unopened"]
    beside = TrainingDesk(tiny_collection, Path("another"), "cpu")
    assert beside.wanted() is None and not beside.training_state(None)["opening"]
    assert beside.training_open(None)["opening"] and beside.wanted() == made


def test_damaged_files_are_told_in_one_line(desk: TrainingDesk, home: Path) -> None:
    folder = leave(desk, home, Progress(STOPPED))
    (folder.path / "progress.jsonl").write_text("[1]\n{")
    told = desk.training_state(None)
    assert told["state"] == "failed" and "cannot be read" in told["fault"]
    (folder.path / "request.json").write_text("{}")
    assert desk.training_state(None)["state"] == "none"


def test_without_captions_the_page_says_why(tiny_collection: Collection, home: Path) -> None:  # noqa: ARG001
    bare = Collection(tiny_collection.path, tiny_collection.manifest, tiny_collection.sha256)
    bare.__dict__["items"] = tiny_collection.items.assign(split="test")
    desk = TrainingDesk(bare, None, "cpu")
    assert "needs images with captions" in desk.training_state(None)["refusal"]
    assert "needs images with captions" in answered(desk.training_start)({})["error"].lower()


def functions_of(app: gr.Blocks) -> set[str]:
    return {
        name
        for block in app.blocks.values()
        for name in vars(block)
        if name.startswith("sieve_training")
    }


def test_a_server_without_training_has_no_handler_of_it(tiny_engine, desk: TrainingDesk) -> None:
    assert not functions_of(build_app(tiny_engine))
    assert len(functions_of(build_app(tiny_engine, desk))) == len(ASKS) + 1
    assert len(functions_of(build_offer(desk))) == len(ASKS) + 1
