"""Test the handlers of the Train tab, with untrusted input too."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import gradio as gr
import pytest
from corruption import mutated_json, reseal

from sieve.explorer.app import build_app, build_training_page
from sieve.explorer.errors import json_errors
from sieve.explorer.jobs.manager import (
    JobDirectory,
    JobRequest,
    JobState,
    Progress,
    TrainingSettings,
)
from sieve.explorer.tabs.train import TrainHandlers, form_settings
from sieve.model.collection import Collection
from sieve.model.hyperparameters import PRESETS, SET_BY_PRESET

DEFAULT = TrainingSettings.from_payload({})
ASKS = ("start", "stop", "resume", "discard", "open")


@pytest.fixture
def handlers(tiny_collection: Collection, home: Path) -> TrainHandlers:  # noqa: ARG001
    return TrainHandlers(tiny_collection, None, "cpu")


def write_job(handlers: TrainHandlers, home: Path, progress: Progress) -> JobDirectory:
    """Write a training job as an earlier server left it."""
    collection = handlers.collection
    request = JobRequest(
        "training",
        str(collection.path),
        collection.name,
        collection.sha256,
        "cpu",
        DEFAULT.as_json(),
    )
    folder = JobDirectory.create(home / "jobs", request)
    folder.write(progress)
    return folder


def test_settings_default_to_the_preset() -> None:
    for name, preset in PRESETS.items():
        assert TrainingSettings.from_payload({"preset": name}).config == preset
    requested = TrainingSettings.from_payload(
        {"preset": "compact", "m": 128, "k": 8.0, "epochs": 3}
    )
    config = requested.config
    assert (config.m, config.k, config.epochs) == (128, 8, 3)
    weighed = TrainingSettings.from_payload({"presence": 0, "assign": 2.5, "noise": 0.1}).config
    assert (weighed.presence, weighed.assign, weighed.contrast, weighed.noise) == (0, 2.5, 1.0, 0.1)
    assert TrainingSettings.from_payload(requested.as_json()) == requested


def test_form_offers_each_option_with_its_values_in_each_preset() -> None:
    form = form_settings()
    shown = {"contrast", "batch_size", "learning_rate", "seed"}
    assert shown < set(form["options"]) == set(PRESETS["compact"].__dict__) - SET_BY_PRESET
    for option in form["options"].values():
        assert option["description"] and option["type"] in ("integer", "number")
    for name, preset in PRESETS.items():
        values = form["presets"][name]
        assert values.pop("losses") == list(preset.weights())
        assert TrainingSettings.from_payload(values).config == preset


@pytest.mark.parametrize(
    "payload",
    [
        None, [], "compact", {"preset": "huge"}, {"preset": ["compact"]}, {"m": "many"}, {"m": 0},
        {"m": 10**9}, {"m": float("nan")}, {"m": 16, "k": 17}, {"k": 0}, {"k": None}, {"k": [8]},
        {"contrast": "high"}, {"contrast": -1}, {"contrast": float("inf")}, {"contrast": 10**400},
        {"contrast": float("nan")}, {"magic": 1}, {"x" * 500: 1}, {1: 2}, {"objective": "paper"},
        {"preset": "paper", "presence": 1}, {"preset": "paper", "contrast": 0, "reconstruct": 0},
        {"epochs": -1}, {"epochs": 10**6}, {"epochs": 1.5}, {"batch_size": 0}, {"out": "/etc"},
        {"m": 10**400}, {"weights": {"contrast": 1}}, {"\ud800": 1}, {"k_text": 2000}, {"floor": 1},
    ],
)  # fmt: skip
def test_invalid_settings_start_nothing(
    handlers: TrainHandlers, home: Path, payload: object
) -> None:
    line = json_errors(handlers.training_start)(payload)["error"]
    assert line and "\n" not in line and "internal error" not in line and len(line) < 200
    assert not (home / "jobs").exists()


def test_initial_state_has_no_training(handlers: TrainHandlers) -> None:
    state = handlers.training_state({"anything": 1})
    assert (state["state"], state["offer"], state["opening"]) == ("none", True, False)
    assert state["refusal"] == "" and state["settings"] is None
    for ask in ASKS[1:]:
        assert json_errors(getattr(handlers, f"training_{ask}"))(None)["error"]


def test_stopped_training_is_found_again(handlers: TrainHandlers, home: Path) -> None:
    first = write_job(handlers, home, Progress(JobState.DONE, made=str(home / "removed")))
    assert handlers.training_state(None)["state"] == "none"
    first.path.rename(first.path.with_name("20200101-000000-abcdef"))
    point = {"step": 5, "total": 2.0, "live": 1.0}
    write_job(handlers, home, Progress(JobState.STOPPED, step=5, n_steps=10, points=(point,)))
    state = handlers.training_state(None)
    assert (state["state"], state["step"], state["points"]) == ("stopped", 5, (point,))
    assert state["settings"] == DEFAULT.as_json()


def test_training_of_another_version_can_only_be_discarded(
    handlers: TrainHandlers, home: Path
) -> None:
    folder = write_job(handlers, home, Progress(JobState.STOPPED, step=5, n_steps=10))
    request = json.loads((folder.path / "request.json").read_text())
    request["settings"] = {"preset": "compact", "weights": {"presence": 2.0}}
    (folder.path / "request.json").write_text(json.dumps(request))
    state = handlers.training_state(None)
    assert (state["state"], state["settings"]) == (JobState.STOPPED, None)
    line = json_errors(handlers.training_resume)(None)["error"]
    assert "there is no training setting 'weights'" in line and "discard it" in line
    assert handlers.training_state(None)["state"] == JobState.STOPPED
    assert handlers.training_discard(None)["state"] == "none"


def test_finished_training_is_opened_once(
    handlers: TrainHandlers, home: Path, tiny_checkpoint, tiny_collection: Collection
) -> None:
    made = Path(tiny_checkpoint.path)
    write_job(handlers, home, Progress(JobState.DONE, made=str(made)))
    assert handlers.wanted() == made and handlers.training_state(None)["opening"]
    handlers.not_opened(made, ValueError("its weights\nare damaged"))
    state = handlers.training_state(None)
    assert handlers.wanted() is None and "its weights are damaged" in state["unopened"]
    beside = TrainHandlers(tiny_collection, Path("another"), "cpu")
    assert beside.wanted() is None and not beside.training_state(None)["opening"]
    assert beside.training_open(None)["opening"] and beside.wanted() == made


def test_damaged_files_are_reported_with_one_line(handlers: TrainHandlers, home: Path) -> None:
    folder = write_job(handlers, home, Progress(JobState.STOPPED))
    (folder.path / "progress.jsonl").write_text("[1]\n{")
    state = handlers.training_state(None)
    assert state["state"] == "failed" and "cannot be read" in state["fault"]
    (folder.path / "request.json").write_text("{}")
    assert handlers.training_state(None)["state"] == "none"


def test_mutated_job_files_are_reported_with_one_line(handlers: TrainHandlers, home: Path) -> None:
    point = {"step": 5, "total": 2.0, "live": 1.0}
    folder = write_job(
        handlers,
        home,
        Progress(JobState.STOPPED, 5, 10, seconds_left=1.0, losses=point, points=(point,)),
    )
    for name, kinds in (("progress.jsonl", (int, float)), ("request.json", ())):
        path = folder.path / name
        whole = path.read_text()
        first, *rest = whole.splitlines()
        lines = {0: first, 1: rest[0]} if rest else {0: first}
        for number, line in lines.items():
            for mutation, text in mutated_json(json.loads(line)):
                path.write_text(whole.replace(line, text))
                state = handlers.training_state(None)
                json.dumps(state, allow_nan=False)
                assert "\n" not in state["fault"] and len(state["fault"]) < 2100, mutation
                assert state["state"] in (JobState.STOPPED, "failed", "none"), (
                    name,
                    number,
                    mutation,
                )
                assert not kinds or isinstance(state["step"], kinds)
                assert all(isinstance(one, float) for p in state["points"] for one in p.values())
        path.write_text(whole)
        assert handlers.training_state(None)["state"] == JobState.STOPPED


def test_page_explains_missing_captions(tiny_collection: Collection, home: Path) -> None:  # noqa: ARG001
    bare = Collection(tiny_collection.path, tiny_collection.manifest, tiny_collection.sha256)
    bare.__dict__["items"] = tiny_collection.items.assign(split="test")
    handlers = TrainHandlers(bare, None, "cpu")
    assert "needs images with captions" in handlers.training_state(None)["refusal"]
    assert "needs images with captions" in json_errors(handlers.training_start)({})["error"].lower()


def functions_of(app: gr.Blocks) -> set[str]:
    return {
        name
        for block in app.blocks.values()
        for name in vars(block)
        if name.startswith("sieve_training")
    }


def test_server_without_training_has_no_training_handler(
    tiny_engine, handlers: TrainHandlers
) -> None:
    assert not functions_of(build_app(tiny_engine))
    assert len(functions_of(build_app(tiny_engine, handlers))) == len(ASKS) + 2
    assert len(functions_of(build_training_page(handlers))) == len(ASKS) + 2


@pytest.fixture
def other_collections(tiny_collection: Collection, home: Path) -> Path:
    """Three collections in $SIEVE_HOME: a copy of the tiny one, another backbone, a damaged one."""
    for name in ("same", "foreign", "broken", "bare"):
        shutil.copytree(
            tiny_collection.path,
            home / "collections" / name,
        )
        manifest = home / "collections" / name / "collection.json"
        data = json.loads(manifest.read_text())
        data["name"] = name
        if name == "foreign":
            data["backbone"] |= {"name": "ViT-X", "sha256": "f" * 64}
        if name == "bare":
            data["counts"]["captions"] = 0
        manifest.write_text(json.dumps(data) if name != "broken" else "{")
        reseal(manifest.parent)
    return home / "collections"


def test_any_available_collection_can_be_chosen(
    handlers: TrainHandlers, other_collections: Path
) -> None:  # noqa: ARG001
    answer = {one["word"]: one for one in handlers.training_collections(None)["collections"]}
    own, *rest = answer
    assert own == str(handlers.collection.path.resolve()) and answer[own]["fits"]
    assert set(rest) == {"scenes", "same", "foreign", "broken", "bare"}
    assert (answer["same"]["fits"], answer["same"]["refusal"]) == (True, "")
    assert (answer["foreign"]["fits"], answer["foreign"]["backbone"]) == (False, "ViT-X")
    assert (
        "is damaged" in answer["broken"]["refusal"] and "no captions" in answer["bare"]["refusal"]
    )
    assert answer["scenes"]["captions"] is None and answer["scenes"]["backbone"] == "sieve-lite"
    for word in ("broken", "nowhere", "../..", "/etc", 7, ["same"]):
        line = json_errors(handlers.training_start)({"collection": word})["error"]
        assert line and "\n" not in line
    assert not (other_collections.parent / "jobs").exists()


def test_checkpoint_of_another_backbone_is_opened_by_a_command(
    handlers: TrainHandlers, other_collections: Path, tiny_checkpoint
) -> None:
    made = other_collections.parent / "checkpoints" / "foreign"
    shutil.copytree(tiny_checkpoint.path, made)
    config = json.loads((made / "config.json").read_text())
    config["backbone"]["sha256"] = "f" * 64
    (made / "config.json").write_text(json.dumps(config))
    reseal(made)
    foreign = Collection.open(other_collections / "foreign")
    request = JobRequest(
        "training",
        str(foreign.path),
        foreign.name,
        foreign.sha256,
        "cpu",
        DEFAULT.as_json(),
        requested_by_sha256=handlers.collection.sha256,
    )
    JobDirectory.create(other_collections.parent / "jobs", request).write(
        Progress(JobState.DONE, made=str(made))
    )
    state = handlers.training_state(None)
    assert (state["state"], state["of"], state["fits"]) == (JobState.DONE, "foreign", False)
    assert state["command"] == "sieve explore foreign --checkpoint foreign"
    assert handlers.wanted() is None and not state["opening"]
    refused = json_errors(handlers.training_open)(None)["error"]
    assert "another backbone" in refused and state["command"] in refused
    at_home = TrainHandlers(foreign, None, "cpu")
    assert at_home.training_state(None)["fits"] and at_home.wanted() == made
