"""Trainings that are asked for at one collection: of itself, or of another one."""

from __future__ import annotations

from dataclasses import asdict

from sieve.explorer.jobs.folder import JobFolder, Request
from sieve.explorer.jobs.jobs import Jobs
from sieve.explorer.training.choices import Choice
from sieve.explorer.training.settings import TrainingSettings
from sieve.model.collection import Collection


class Trainings(Jobs):
    """Starts, finds, stops and resumes the trainings that one page asks for."""

    kind = "training"
    module = "sieve.explorer.training.child"

    def start(self, settings: TrainingSettings, choice: Choice | None = None) -> JobFolder:
        """Start a training, by default of the page's own collection; see `Jobs.begin`."""
        given = asdict(settings)
        if choice is None or choice.collection is self.collection:
            return self.begin(given)
        if choice.collection is None:
            about = (self.kind, choice.word, choice.word, "", self.device)
            return self._run(Request(*about, given, asked_at=self.collection.sha256))
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
