"""What the Train tab asks, answered as JSON."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data_prep.bundled import collection_word
from explorer.faults import one_line
from explorer.jobs.folder import DONE, JobFolder, Progress, Request
from explorer.training.settings import TrainingSettings
from explorer.training.trainings import Trainings
from model.collection import Collection
from model.training import PRESETS
from model.training.probe import probe_refusal

NONE = "none"


class TrainingDesk:
    """Answers the page's questions about trainings of one collection.

    A finished checkpoint is opened by whoever serves the page: `wanted` says which one.

    Parameters
    ----------
    collection : Collection
    checkpoint : Path, optional
        The one that is open; none where the page only offers to train one.
    device : str
        Where to train.
    """

    def __init__(
        self, collection: Collection, checkpoint: Path | None = None, device: str = "auto"
    ) -> None:
        self.collection = collection
        self.checkpoint = checkpoint
        self.trainings = Trainings(collection, device)
        self._refusal = self.trainings.refusal()
        self._unprobed = "" if self._refusal else probe_refusal(collection)
        self._asked: Path | None = None
        self._unopened: tuple[Path, str] | None = None

    def wanted(self) -> Path | None:
        """Tell which checkpoint is to be opened: the one asked for, or the first there is."""
        if self.checkpoint is None and self._asked is None:
            progress = self._progress(self.trainings.latest())
            if progress.state == DONE:
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
        where = shlex.quote(collection_word(self.collection.path))
        told = asdict(progress)
        del told["made"]
        return {
            **told,
            "about": self._about(),
            "settings": _settings(folder.request() if folder else None),
            "elsewhere": self.trainings.elsewhere(folder),
            "refusal": self._refusal,
            "probe": self._unprobed,
            "offer": self.checkpoint is None,
            "opening": self.wanted() is not None,
            "unopened": self._unopened[1] if self._unopened else "",
            "checkpoint": made.name,
            "open": self.checkpoint is not None and made == self.checkpoint,
            "command": f"sieve explore {where} --checkpoint {made.name}",
        }

    def training_start(self, payload: Any) -> dict[str, Any]:
        """Start a training with the settings of the form."""
        self.trainings.start(TrainingSettings.from_payload(payload))
        return self.training_state(None)

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
            If there is no finished one.
        """
        progress = self._progress(self.trainings.latest())
        if progress.state != DONE:
            raise ValueError("the newest training has no finished checkpoint; wait, or start one")
        self._unopened, self._asked = None, Path(progress.made)
        return self.training_state(None)

    def _progress(self, folder: JobFolder | None) -> Progress:
        """Tell how far a training is; none, also where its checkpoint has been removed."""
        progress = self.trainings.progress(folder) if folder else Progress(NONE)
        if progress.state == DONE and not Path(progress.made).is_dir():
            return Progress(NONE)
        return progress

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


def _settings(request: Request | None) -> dict[str, Any] | None:
    """Tell what a training was started with; None where that cannot be read."""
    if request is None:
        return None
    try:
        return asdict(TrainingSettings.from_payload(request.settings))
    except ValueError:
        return None
