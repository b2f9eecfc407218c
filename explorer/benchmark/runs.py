"""Quick evaluations of one collection, run from the page."""

from __future__ import annotations

import shutil
from pathlib import Path

from sieve.explorer.jobs.folder import JobFolder
from sieve.explorer.jobs.jobs import Jobs
from sieve.model.benchmark import tracks_of
from sieve.model.duplicates import evaluation_rows
from sieve.model.text_encoder import ATTACH, backbone_fault


class Runs(Jobs):
    """Starts, finds and stops quick evaluations."""

    kind = "evaluation"
    module = "sieve.explorer.benchmark.child"

    def start(self, checkpoint: Path) -> JobFolder:
        """Measure a checkpoint; see `Jobs.begin`. Of an earlier run only the result is kept."""
        before = self.latest()
        folder = self.begin({"checkpoint": str(checkpoint)})
        if before is not None:
            shutil.rmtree(before.path, ignore_errors=True)
        return folder

    def refusal(self) -> str:
        """Tell why this collection cannot be evaluated; empty where it can be tried."""
        try:
            self.collection.backbone  # noqa: B018  # codes from elsewhere have none
            tracks_of(self.collection)
            fault = "" if self.text_encoder else backbone_fault(self.collection)
            if fault:
                return (
                    "the benchmark embeds queries of its own, but this collection's backbone is "
                    f"unavailable ({fault}); {ATTACH}"
                )
        except ValueError as error:
            return str(error)
        for split in ("select", "test"):
            if not len(self.collection.rows_of_split([split])):
                return f"no item of this collection is in its {split} split, which is needed"
            if not len(evaluation_rows(self.collection, split)):
                return f"every {split} item is a near duplicate of an item of an earlier split"
        return ""
