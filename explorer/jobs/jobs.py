"""Jobs of one kind and one collection: started, found, stopped and resumed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from sieve.explorer.jobs.folder import (
    DONE,
    FAILED,
    STARTING,
    STOPPED,
    UNDER_WAY,
    JobFolder,
    Progress,
    Request,
)
from sieve.explorer.jobs.lane import Lane
from sieve.model.collection import Collection

_KILLED = "its process was ended from outside; perhaps memory ran out"


class Jobs:
    """Starts, finds, stops and resumes jobs. Safe between threads.

    Parameters
    ----------
    collection : Collection
    device : str
        auto, cuda, mps or cpu.
    lane : Lane, optional
        Where they run, shared with the jobs of other kinds.
    text_encoder : str
        What reads texts in place of the collection's backbone; a function was allowed to run.
    """

    kind: ClassVar[str]
    """In one word."""
    module: ClassVar[str]
    """What its process runs, with the folder as argument."""

    def __init__(
        self,
        collection: Collection,
        device: str = "auto",
        lane: Lane | None = None,
        text_encoder: str = "",
    ) -> None:
        self.collection = collection
        self.device = device
        self.text_encoder = text_encoder
        self.lane = lane or Lane()

    def latest(self) -> JobFolder | None:
        """Find the newest job of this kind that is of this collection, or was asked for at it."""
        for path in sorted(self.lane.home.glob("*/request.json"), reverse=True):
            folder = JobFolder(path.parent)
            request = folder.request()
            if request is None or request.kind != self.kind:
                continue
            if self.collection.sha256 in (request.sha256, request.asked_at):
                return folder
        return None

    def progress(self, folder: JobFolder) -> Progress:
        """Tell how far a job is; one whose process is gone is stopped, or failed to start."""
        before = folder.read()
        if before.state not in UNDER_WAY or self.lane.under_way() == folder.path.name:
            return before
        now = folder.read()  # it may have ended between the two looks
        if now.state not in UNDER_WAY:
            return now
        if now.state == STARTING and not now.step:
            return replace(now, state=FAILED, fault=f"it did not begin: {folder.last_words()}")
        return replace(now, state=STOPPED, fault=_KILLED, seconds_left=None)

    def elsewhere(self, folder: JobFolder | None) -> str:
        """Tell which job other than this one is under way; empty where none is."""
        named = self.lane.under_way()
        return self.lane.told() if named and (folder is None or named != folder.path.name) else ""

    def begin(self, settings: Mapping[str, Any]) -> JobFolder:
        """Start a job.

        Raises
        ------
        ValueError
            If another one is under way, or this collection has not what it takes.
        """
        if reason := self.refusal():
            raise ValueError(reason)
        return self._run(self._request(self.collection, settings))

    def _request(self, collection: Collection, settings: Mapping[str, Any]) -> Request:
        path = os.path.abspath(collection.path)
        about = (self.kind, path, collection.name, collection.sha256, self.device)
        own = collection.sha256 == self.collection.sha256
        return Request(
            *about,
            settings,
            asked_at=self.collection.sha256,
            text_encoder=self.text_encoder if own else "",
        )

    def _run(self, request: Request) -> JobFolder:
        with self.lane.one, self.lane.locked() as lock:
            folder = JobFolder.create(self.lane.home, request)
            self.lane.run(folder, self.module, lock)
        return folder

    def resume(self) -> None:
        """Let the newest job go on where it stopped.

        Raises
        ------
        ValueError
            If there is none that can go on, or another one is under way.
        """
        folder = self._needed()
        with self.lane.one, self.lane.locked() as lock:
            if self.progress(folder).state == DONE:
                raise ValueError(f"this {self.kind} is done; start another one")
            folder.forget_stop()
            folder.write(replace(folder.read(), state=STARTING, fault=""))
            self.lane.run(folder, self.module, lock)

    def stop(self) -> None:
        """Ask the job of this collection to stop; ValueError where none is under way."""
        folder = self._needed()
        if self.lane.under_way() != folder.path.name:
            raise ValueError(f"no {self.kind} of this collection is under way")
        folder.ask_to_stop()

    def discard(self) -> None:
        """Forget the newest job and what it has done so far; what it finished stays."""
        folder = self._needed()
        with self.lane.one, self.lane.locked():
            shutil.rmtree(folder.path, ignore_errors=True)

    def refusal(self) -> str:
        """Tell why there can be no such job of this collection; empty where there can."""
        raise NotImplementedError

    def _needed(self) -> JobFolder:
        folder = self.latest()
        if folder is None:
            raise ValueError(f"there is no {self.kind} of this collection; start one")
        return folder
