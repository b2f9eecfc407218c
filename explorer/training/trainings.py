"""Trainings of one collection."""

from __future__ import annotations

from dataclasses import asdict

from explorer.jobs.folder import JobFolder
from explorer.jobs.jobs import Jobs
from explorer.training.settings import TrainingSettings


class Trainings(Jobs):
    """Starts, finds, stops and resumes the trainings of one collection."""

    kind = "training"
    module = "explorer.training.child"

    def start(self, settings: TrainingSettings) -> JobFolder:
        """Start a training; see `Jobs.begin`."""
        return self.begin(asdict(settings))

    def refusal(self) -> str:
        """Tell why this collection cannot be trained on; empty where it can."""
        try:
            self.collection.backbone  # noqa: B018  # codes from elsewhere have none
            rows = self.collection.rows_of_split(["train"])
            if len(self.collection.captions_of_rows(rows)):
                return ""
        except ValueError as error:
            return str(error)
        return (
            "training needs images with captions, and the train split of this collection has "
            "none; prepare it with a caption file"
        )
