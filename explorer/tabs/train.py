"""What the Train tab asks, answered as JSON.

What a person may choose of a training, read as a stranger's input.

The collections to train on: the open one, those in `$SIEVE_HOME`, the bundled ones.

A person chooses by a word of this list; what a page sends never becomes part of a path.

Trainings that are asked for at one collection: of itself, or of another one.

The Train tab: a new checkpoint for this collection or another, trained in the background.
"""

from __future__ import annotations

import shlex
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from sieve.data_prep.bundled import (
    BACKBONE,
    BUNDLED,
    bundled_path,
    collection_reference,
    list_collections,
    locate_collection,
)
from sieve.explorer.components import piece
from sieve.explorer.errors import json_errors, one_line
from sieve.explorer.jobs.directory import ACTIVE_STATES, DONE, JobDirectory, JobRequest, Progress
from sieve.explorer.jobs.manager import JobManager
from sieve.explorer.jobs.training_worker import TrainingSettings
from sieve.explorer.json_validation import (
    read_object,
)
from sieve.model.checkpoint import Checkpoint, list_fitting
from sieve.model.collection import MANIFEST, Collection
from sieve.model.training import PRESETS
from sieve.model.training.validation import validation_refusal


class Choice(NamedTuple):
    """A collection to train on."""

    word: str
    """What opens it on the command line: a name, or the path of the open one."""
    collection: Collection | None
    """None for a bundled one that is first drawn, or one that cannot be opened."""
    fault: str = ""
    """Why it cannot be opened, in one line."""

    def as_json(self, open_one: Collection) -> dict[str, Any]:
        """Tell it to the page; `fits`: its checkpoint reads the embeddings of the open one too."""
        found = self.collection
        if found is None:
            bare = {"name": self.word, "captions": None, "backbone": "", "fits": False}
            return {"word": self.word, **bare, "refusal": self.fault} | self._drawn(open_one)
        given = found.codes or open_one.codes
        same = not given and found.backbone.sha256 == open_one.backbone.sha256
        return {
            "word": self.word,
            "name": found.name,
            "captions": found.n_captions,
            "backbone": "" if found.codes else Path(found.backbone.name).name,
            "fits": same,
            "refusal": quick_refusal(found),
        }

    def _drawn(self, open_one: Collection) -> dict[str, Any]:
        """Tell what is known of a bundled one before it is there."""
        if self.fault:
            return {}
        named = "" if open_one.codes else Path(open_one.backbone.name).name
        return {"backbone": BACKBONE, "fits": named == BACKBONE}


def choices(open_one: Collection) -> list[Choice]:
    """List the collections to choose from, the open one first."""
    own = collection_reference(open_one.path)
    words = dict.fromkeys([*BUNDLED, *list_collections()])
    others = (_choice(word) for word in words if word != own)
    return [Choice(own, open_one), *others]


def find_choice(open_one: Collection, word: Any) -> Choice:
    """Find a collection by its word; an empty one means the open one.

    Raises
    ------
    ValueError
        If there is none of that word, or it cannot be opened.
    """
    found = choices(open_one)
    if word in ("", None):
        return found[0]
    for choice in found:
        if choice.word == word:
            if choice.fault:
                raise ValueError(choice.fault)
            return choice
    known = ", ".join(choice.word for choice in found)
    raise ValueError(f"there is no collection {str(word)[:60]!r} to train on; there are: {known}")


def quick_refusal(collection: Collection) -> str:
    """Tell why a collection cannot be trained on, as far as its manifest says."""
    if collection.codes:
        return f"{collection.name} holds codes that were made elsewhere: there is nothing to train"
    return "" if collection.n_captions else f"{collection.name} has no captions to learn from"


def _choice(word: str) -> Choice:
    if word in BUNDLED and not (bundled_path() / MANIFEST).is_file():
        return Choice(word, None)
    try:
        return Choice(word, Collection.open(locate_collection(word)))
    except (ValueError, OSError) as error:
        return Choice(word, None, one_line(error))


class Trainings(JobManager):
    """Starts, finds, stops and resumes the trainings that one page asks for."""

    kind = "training"
    module = "sieve.explorer.jobs.training_worker"

    def start(self, settings: TrainingSettings, choice: Choice | None = None) -> JobDirectory:
        """Start a training, by default of the page's own collection; see `JobManager.begin`."""
        given = asdict(settings)
        if choice is None or choice.collection is self.collection:
            return self.begin(given)
        if choice.collection is None:
            about = (self.kind, choice.word, choice.word, "", self.device)
            return self._run(JobRequest(*about, given, requested_by_sha256=self.collection.sha256))
        if reason := training_refusal(choice.collection):
            raise ValueError(f"{choice.collection.name}: {reason}")
        return self._run(self._request(choice.collection, given))

    def refusal(self) -> str:
        """Tell why this collection cannot be trained on; empty where it can."""
        return training_refusal(self.collection)


def training_refusal(collection: Collection) -> str:
    """Tell why a collection cannot be trained on; empty where it can."""
    try:
        collection.backbone  # noqa: B018  # codes from elsewhere have none
        rows = collection.rows_of_split(["train"])
        if len(collection.captions_of_rows(rows)):
            return ""
    except ValueError as error:
        return str(error)
    return (
        "training needs images with captions, and the train split of this collection has "
        "none; prepare it with a caption file"
    )


def train_tab(desk: TrainHandlers) -> None:
    """Lay out the tab; call inside a `gr.Tab`, or alone on a page."""
    ends = (desk.training_stop, desk.training_discard, desk.training_open)
    reads = (desk.training_state, desk.training_collections)
    asks = (*reads, desk.training_start, desk.training_resume, *ends)
    piece("train", *map(json_errors, asks))


NONE = "none"


class TrainHandlers:
    """Answers the page's questions about trainings that are asked for at one collection.

    A finished checkpoint is opened by whoever serves the page: `wanted` says which one.

    Parameters
    ----------
    collection : Collection
    checkpoint : Path, optional
        The one that is open; none where the page only offers to train one.
    device : str
        Where to train.
    text_encoder : str
        What reads texts in place of the collection's backbone, where a person named it.
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
        self.trainings = Trainings(collection, device, text_encoder=text_encoder)
        self._refusal = self.trainings.refusal()
        self._unprobed = "" if self._refusal else validation_refusal(collection)
        self._reads = lru_cache(maxsize=8)(self._can_read)  # a checkpoint never changes
        self._asked: Path | None = None
        self._unopened: tuple[Path, str] | None = None

    def wanted(self) -> Path | None:
        """Tell which checkpoint is to be opened: the one asked for, or the first there is."""
        if self.checkpoint is None and self._asked is None:
            progress = self._progress(self.trainings.latest())
            if progress.state == DONE and self._reads(Path(progress.made)):
                self._asked = Path(progress.made)
        failed = self._unopened[0] if self._unopened else None
        return self._asked if self._asked != failed else None

    def not_opened(self, checkpoint: Path, error: Exception) -> None:
        """Note that a checkpoint could not be opened."""
        self._unopened = (checkpoint, f"{checkpoint.name} could not be opened: {one_line(error)}")

    def training_state(self, _: Any) -> dict[str, Any]:
        """Tell about the newest training of this collection, and whether another is under way."""
        folder = self.trainings.latest()
        progress = self._progress(folder)
        made = Path(progress.made)
        request = folder.request() if folder else None
        told = asdict(progress)
        del told["made"]
        return {
            **told,
            "about": self._about(),
            "settings": _settings(request),
            "of": self._word(request),
            "fits": progress.state != DONE or self._reads(made),
            "stopping": progress.state in ACTIVE_STATES and folder.should_stop()
            if folder
            else False,
            "elsewhere": self.trainings.other_job(folder),
            "refusal": self._refusal,
            "probe": self._unprobed,
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
        choice = find_choice(self.collection, given.pop("collection", ""))
        self.trainings.start(TrainingSettings.from_payload(given), choice)
        return self.training_state(None)

    def training_collections(self, _: Any) -> dict[str, Any]:
        """List the collections that can be chosen, the open one first."""
        told = [choice.as_json(self.collection) for choice in choices(self.collection)]
        told[0]["refusal"] = self._refusal
        return {"collections": told}

    def training_stop(self, _: Any) -> dict[str, Any]:
        """Ask the training to stop after its step."""
        self.trainings.stop()
        return self.training_state(None)

    def training_resume(self, _: Any) -> dict[str, Any]:
        """Go on where it stopped."""
        self.trainings.resume()
        return self.training_state(None)

    def training_discard(self, _: Any) -> dict[str, Any]:
        """Forget a training that stopped or failed."""
        self.trainings.discard()
        return self.training_state(None)

    def training_open(self, _: Any) -> dict[str, Any]:
        """Ask for the finished checkpoint to be opened in all tabs.

        Raises
        ------
        ValueError
            If there is no finished one, or it reads the embeddings of another backbone.
        """
        progress = self._progress(self.trainings.latest())
        if progress.state != DONE:
            raise ValueError("the newest training has no finished checkpoint; wait, or start one")
        made = Path(progress.made)
        if not self._reads(made):
            raise ValueError(
                f"{made.name} reads the embeddings of another backbone than "
                f"{self.collection.name}; open it with `{self.training_state(None)['command']}`"
            )
        self._unopened, self._asked = None, made
        return self.training_state(None)

    def checkpoint_open(self, name: Any) -> dict[str, Any]:
        """Ask for another checkpoint of this collection to be opened in all tabs.

        Raises
        ------
        ValueError
            If no checkpoint of that name reads this collection.
        """
        fitting = {one.path.name: one.path for one in reversed(list_fitting(self.collection))}
        if not isinstance(name, str) or name not in fitting:
            raise ValueError(
                f"no checkpoint {str(name)[:60]!r} reads this collection; there are: "
                f"{', '.join(fitting) or 'none'}"
            )
        self._unopened, self._asked = None, fitting[name]
        return {"opening": True}

    def _progress(self, folder: JobDirectory | None) -> Progress:
        """Tell how far a training is; none, also where its checkpoint has been removed."""
        progress = self.trainings.progress(folder) if folder else Progress(NONE)
        if progress.state == DONE and not Path(progress.made).is_dir():
            return Progress(NONE)
        return progress

    def _can_read(self, checkpoint: Path) -> bool:
        """Whether a checkpoint is for the open collection; of a damaged one, opening it tells."""
        if self.collection.codes:
            return False
        try:
            backbone = Checkpoint.load(checkpoint).backbone
        except (ValueError, OSError):
            return True
        return backbone.sha256 == self.collection.backbone.sha256

    def _word(self, request: JobRequest | None) -> str:
        """Tell what opens the collection that a training is of."""
        if request is None or request.sha256 == self.collection.sha256:
            return collection_reference(self.collection.path)
        return (
            collection_reference(Path(request.collection)) if request.sha256 else request.collection
        )

    def _about(self) -> dict[str, Any]:
        collection = self.collection
        return {
            "collection": collection.name,
            "items": collection.n_items,
            "captions": collection.n_captions,
            "backbone": "" if collection.codes else Path(collection.backbone.name).name,
            "checkpoint": self.checkpoint.name if self.checkpoint else "",
            "presets": {
                name: {"m": one.m, "k": one.k, "weights": one.weights()}
                for name, one in PRESETS.items()
            },
        }


def _settings(request: JobRequest | None) -> dict[str, Any] | None:
    """Tell what a training was started with; None where that cannot be read."""
    if request is None:
        return None
    try:
        return asdict(TrainingSettings.from_payload(request.settings))
    except ValueError:
        return None
