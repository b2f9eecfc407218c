"""The Train tab: train a checkpoint in the background, for the open collection or another one.

The collections to choose from are the open one, those in `$SIEVE_HOME` and the bundled ones. A page
selects one by its name in this list; input from the page never becomes part of a path.
"""

from __future__ import annotations

import shlex
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from sieve.data_prep import bundled
from sieve.explorer.components import component
from sieve.explorer.errors import one_line
from sieve.explorer.jobs.manager import (
    MAX_HYPERPARAMETER,
    JobDirectory,
    JobManager,
    JobRequest,
    JobState,
    Progress,
    TrainingSettings,
)
from sieve.explorer.json_validation import check_choice, read_object
from sieve.explorer.serialize import backbone_name
from sieve.model.checkpoint import Checkpoint
from sieve.model.checkpoint_choice import list_fitting
from sieve.model.collection import MANIFEST, Collection
from sieve.model.hyperparameters import OPTIONS, PRESETS, TrainingConfig
from sieve.model.training.validation import validation_refusal


def train_tab(handlers: TrainHandlers) -> None:
    """Add the tab's component; call inside a `gr.Tab`, or alone on a page."""
    ends = (handlers.training_stop, handlers.training_discard, handlers.training_open)
    reads = (handlers.training_state, handlers.training_collections)
    component("train", *reads, handlers.training_start, handlers.training_resume, *ends)


def form_settings() -> dict[str, Any]:
    """Return the options as JSON Schema, their maximum, and their values in each preset."""
    schemas = TypeAdapter(TrainingConfig).json_schema()["properties"]
    presets = {
        name: TrainingSettings(name, config).as_json() | {"losses": list(config.weights())}
        for name, config in PRESETS.items()
    }
    options = {name: schemas[name] for name in OPTIONS}
    return {"options": options, "maximum": MAX_HYPERPARAMETER, "presets": presets}


class CollectionChoice(NamedTuple):
    """A collection to train on."""

    word: str
    """Name or path that opens it on the command line."""
    collection: Collection | None
    """None if it is bundled and not generated yet, or cannot be opened."""
    fault: str = ""
    """Single-line reason why it cannot be opened."""

    def as_json(self, open_collection: Collection) -> dict[str, Any]:
        """Serialise for the page; `fits` tells whether its checkpoints suit the open collection."""
        found = self.collection
        if found is None:
            backbone = "" if self.fault else bundled.BACKBONE
            fits = backbone != "" and backbone_name(open_collection) == backbone
            known = {"name": self.word, "captions": None, "refusal": self.fault}
            return {"word": self.word, **known, "backbone": backbone, "fits": fits}
        external = found.codes or open_collection.codes
        refusal = "" if found.n_captions else f"{found.name} has no captions to learn from"
        if found.codes:
            refusal = f"{found.name} has external codes, so there is nothing to train"
        return {
            "word": self.word,
            "name": found.name,
            "captions": found.n_captions,
            "backbone": backbone_name(found),
            "fits": not external and found.backbone.sha256 == open_collection.backbone.sha256,
            "refusal": refusal,
        }


def list_choices(open_collection: Collection) -> list[CollectionChoice]:
    """Return the collections to choose from, the open one first."""
    own = bundled.collection_reference(open_collection.path)
    choices = {own: CollectionChoice(own, open_collection)}
    for word in (*bundled.BUNDLED, *bundled.list_collections()):
        if word not in choices:
            choices[word] = _choice(word)
    return list(choices.values())


def _choice(word: str) -> CollectionChoice:
    if word in bundled.BUNDLED and not (bundled.bundled_path() / MANIFEST).is_file():
        return CollectionChoice(word, None)
    try:
        return CollectionChoice(word, Collection.open(bundled.locate_collection(word)))
    except (ValueError, OSError) as error:
        return CollectionChoice(word, None, one_line(error))


def find_collection(open_collection: Collection, word: Any) -> CollectionChoice:
    """Find a collection by its name; an empty name means the open one.

    Raises a ValueError if there is no such collection, or it cannot be opened.
    """
    choices = list_choices(open_collection)
    by_word = {choice.word: choice for choice in choices}
    choice = by_word[check_choice("collection", word or choices[0].word, tuple(by_word))]
    if choice.fault:
        raise ValueError(choice.fault)
    return choice


class TrainingManager(JobManager):
    """Starts, finds, stops and resumes the trainings requested by one page."""

    kind = "training"

    def start(
        self, settings: TrainingSettings, choice: CollectionChoice | None = None
    ) -> JobDirectory:
        """Start a training, by default on the open collection; see `JobManager.begin`."""
        given = settings.as_json()
        if choice is None or choice.collection is self.collection:
            return self.begin(given)
        if choice.collection is None:
            about = (self.kind, choice.word, choice.word, "", self.device)
            return self._run(JobRequest(*about, given, requested_by_sha256=self.collection.sha256))
        if reason := self.refusal(choice.collection):
            raise ValueError(f"{choice.collection.name}: {reason}")
        return self._run(self._request(choice.collection, given))

    def resume(self) -> None:
        """Resume the newest training; see `JobManager.resume`.

        Raises a ValueError if its settings are invalid, such as those of another version of Sieve.
        """
        request = self._require_latest().request()
        try:
            TrainingSettings.from_payload(request and request.settings)
        except ValueError as error:
            raise ValueError(
                f"this training cannot be resumed ({error}); discard it and start a new one"
            ) from None
        super().resume()

    def refusal(self, collection: Collection | None = None) -> str:
        """Return why a collection, by default the open one, cannot be trained on, or ""."""
        collection = collection or self.collection
        try:
            collection.backbone  # noqa: B018  # raises for external codes
            if len(collection.captions_of_rows(collection.rows_of_split(["train"]))):
                return ""
        except ValueError as error:
            return str(error)
        return (
            "training needs images with captions, and the train split of this collection has "
            "none; prepare it with a caption file"
        )


class TrainHandlers:
    """Request handlers of the Train tab.

    The server of the page opens finished checkpoints: `wanted` returns the one to open.
    `checkpoint` is the open one; None if the page only offers to train one. `text_encoder` replaces
    the backbone of the collection, if the user named one.
    """

    def __init__(
        self,
        collection: Collection,
        checkpoint: Path | None = None,
        device: str = "auto",
        text_encoder: str = "",
    ) -> None:
        self.collection = collection
        self.checkpoint = checkpoint
        self.trainings = TrainingManager(collection, device, text_encoder=text_encoder)
        self._refusal = self.trainings.refusal()
        self._validation_refusal = "" if self._refusal else validation_refusal(collection)
        # Checkpoints are immutable.
        self._is_compatible = lru_cache(maxsize=8)(self._check_compatible)
        self._asked: Path | None = None
        self._unopened: tuple[Path, str] | None = None

    def wanted(self) -> Path | None:
        """Return the checkpoint to open: the requested one, or the first that is finished."""
        if self.checkpoint is None and self._asked is None:
            progress = self._progress(self.trainings.latest())
            if progress.state == JobState.DONE and self._is_compatible(Path(progress.made)):
                self._asked = Path(progress.made)
        failed = self._unopened[0] if self._unopened else None
        return self._asked if self._asked != failed else None

    def not_opened(self, checkpoint: Path, error: Exception) -> None:
        """Record that a checkpoint could not be opened."""
        self._unopened = (checkpoint, f"{checkpoint.name} could not be opened: {one_line(error)}")

    def training_state(self, _: Any) -> dict[str, Any]:
        """Return the state of the latest training, and whether another job is running."""
        folder = self.trainings.latest()
        progress = self._progress(folder)
        made = Path(progress.made)
        request = folder.request() if folder else None
        state = asdict(progress)
        del state["made"]
        return {
            **state,
            "about": {
                "collection": self.collection.name,
                "items": self.collection.n_items,
                "captions": self.collection.n_captions,
                "backbone": backbone_name(self.collection),
                "checkpoint": self.checkpoint.name if self.checkpoint else "",
            },
            "settings": _settings(request),
            "of": self._word(request),
            "fits": progress.state != JobState.DONE or self._is_compatible(made),
            "stopping": bool(folder and progress.state.is_active and folder.should_stop()),
            "elsewhere": self.trainings.other_job(folder),
            "refusal": self._refusal,
            "probe": self._validation_refusal,
            "offer": self.checkpoint is None,
            "opening": self.wanted() is not None,
            "unopened": self._unopened[1] if self._unopened else "",
            "checkpoint": made.name,
            "open": self.checkpoint is not None and made == self.checkpoint,
            "command": f"sieve explore {shlex.quote(self._word(request))} --checkpoint {made.name}",
        }

    def training_start(self, payload: Any) -> dict[str, Any]:
        """Start a training with the settings of the form, `collection` among them."""
        given = dict(read_object(payload, "training settings"))
        choice = find_collection(self.collection, given.pop("collection", ""))
        self.trainings.start(TrainingSettings.from_payload(given), choice)
        return self.training_state(None)

    def training_collections(self, _: Any) -> dict[str, Any]:
        """Return the collections to choose from, the open one first."""
        collections = [choice.as_json(self.collection) for choice in list_choices(self.collection)]
        collections[0]["refusal"] = self._refusal
        return {"collections": collections}

    def training_stop(self, _: Any) -> dict[str, Any]:
        """Request the training to stop after the current step."""
        self.trainings.stop()
        return self.training_state(None)

    def training_resume(self, _: Any) -> dict[str, Any]:
        """Resume the training from its last saved step."""
        self.trainings.resume()
        return self.training_state(None)

    def training_discard(self, _: Any) -> dict[str, Any]:
        """Delete a training that stopped or failed."""
        self.trainings.discard()
        return self.training_state(None)

    def training_open(self, _: Any) -> dict[str, Any]:
        """Request the finished checkpoint to be opened in all tabs."""
        progress = self._progress(self.trainings.latest())
        if progress.state != JobState.DONE:
            raise ValueError("the latest training has not finished; wait for it, or start one")
        made = Path(progress.made)
        state = self.training_state(None)
        if not state["fits"]:
            command = state["command"]
            raise ValueError(f"{made.name} uses another backbone; open it with `{command}`")
        self._unopened, self._asked = None, made
        return {**state, "opening": True, "unopened": ""}

    def checkpoint_open(self, name: Any) -> dict[str, Any]:
        """Request another checkpoint of this collection to be opened in all tabs."""
        fitting = {one.path.name: one.path for one in reversed(list_fitting(self.collection))}
        found = fitting[check_choice("checkpoint", name, tuple(fitting))]
        self._unopened, self._asked = None, found
        return {"opening": True}

    def _progress(self, folder: JobDirectory | None) -> Progress:
        """Return the progress of a training; there is none if its checkpoint has been removed."""
        progress = self.trainings.progress(folder) if folder else Progress(JobState.NONE)
        if progress.state == JobState.DONE and not Path(progress.made).is_dir():
            return Progress(JobState.NONE)
        return progress

    def _check_compatible(self, checkpoint: Path) -> bool:
        """Return whether a checkpoint fits the open collection; damaged ones fail when opened."""
        if self.collection.codes:
            return False
        try:
            backbone = Checkpoint.load(checkpoint).backbone
        except (ValueError, OSError):
            return True
        return backbone.sha256 == self.collection.backbone.sha256

    def _word(self, request: JobRequest | None) -> str:
        """Return the name or path that opens the collection of a training."""
        if request is None or request.sha256 == self.collection.sha256:
            return bundled.collection_reference(self.collection.path)
        given = request.collection
        return bundled.collection_reference(Path(given)) if request.sha256 else given


def _settings(request: JobRequest | None) -> dict[str, Any] | None:
    """Return the settings of a training; None if they cannot be read."""
    if request is None:
        return None
    try:
        return TrainingSettings.from_payload(request.settings).as_json()
    except ValueError:
        return None
