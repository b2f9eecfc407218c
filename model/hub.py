"""Artifacts on the Hugging Face Hub: `hf://ORG/NAME`, or `hf://ORG/NAME@REVISION`.

`huggingface_hub` downloads into its cache, so `HF_TOKEN`, `HF_HOME`, `HF_ENDPOINT` and
`HF_HUB_OFFLINE` have their usual effects. Only files that Sieve knows are downloaded. They are
validated like those of any other folder, and none is executed.
"""

from __future__ import annotations

import hashlib
import logging
import re
import threading
import time
from collections.abc import Iterable
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from sieve.model.files import disk_is_full, reason_of

if TYPE_CHECKING:
    from huggingface_hub.hf_api import CommitInfo

log = logging.getLogger(__name__)

SCHEME = "hf://"
PATIENCE = 12.0
"""Seconds to wait for the first response of the Hub."""
RepositoryKind = Literal["model", "dataset"]
_KINDS = {"model": "model", "dataset": "data-set"}
_REFERENCE = re.compile(
    r"(?:hf://)?(?:(?:datasets|models)/)?(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?",
    re.ASCII,
)
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_CLOCK_SECONDS = 2.0
"""Resolution of the modification times of some file systems."""


class HubReference(NamedTuple):
    """A repository of the Hub, optionally at a revision."""

    repository: str
    revision: str | None = None
    """A branch, a tag or a commit; None for the default branch."""

    @classmethod
    def parse(cls, text: str) -> HubReference:
        """Parse `hf://ORG/NAME@REVISION`; raise a ValueError if it has another form."""
        found = _REFERENCE.fullmatch(text.strip())
        if not found or ".." in text:
            raise ValueError(
                f"expected hf://ORG/NAME or hf://ORG/NAME@REVISION; got {text[:200]!r}"
            )
        return cls(found["repository"], found["revision"])

    def __str__(self) -> str:
        return f"{SCHEME}{self.repository}" + (f"@{self.revision}" if self.revision else "")


def is_reference(name: object) -> bool:
    """Return whether a name is that of a repository of the Hub."""
    return str(name).startswith(SCHEME)


def reference_of(folder: Path) -> str:
    """Return the reference, with the commit, of a folder in the cache; empty for other folders."""
    *_, repository, snapshots, commit = ("", "", *folder.parts)
    kind, _, rest = repository.partition("--")
    if snapshots != "snapshots" or kind not in ("models", "datasets") or not rest:
        return ""
    return f"{SCHEME}{rest.replace('--', '/', 1)}@{commit}"


def artifact_name(folder: Path) -> str:
    """Return the name of a checkpoint's or a collection's folder, or of its repository."""
    reference = reference_of(folder)
    return HubReference.parse(reference).repository.partition("/")[2] if reference else folder.name


def download(name: str, kind: RepositoryKind, patterns: Iterable[str], needs: str) -> Path:
    """Return the folder of a repository's files in the cache; missing ones are downloaded.

    Parameters
    ----------
    name : str
        As for `HubReference.parse`.
    patterns : iterable of str
        Names of the files to download, if they exist, with wildcards.
    needs : str
        A file that the repository must have.

    Raises
    ------
    FileNotFoundError
        If the repository or the revision does not exist, or has no such file.
    ValueError
        If the Hub cannot be reached, requires a login or consent, or sent damaged files.
    """
    from huggingface_hub import snapshot_download

    reference = HubReference.parse(name)
    repository, revision = reference
    started = time.time()
    try:
        folder = Path(
            snapshot_download(
                repository, repo_type=kind, revision=revision, allow_patterns=[*patterns]
            )
        )
        _verify(reference, folder, started - _CLOCK_SECONDS)
    except Exception as error:  # those of httpx, of its proxy and TLS libraries, and of the Hub
        raise hub_error(reference, kind, error) from error
    if not (folder / needs).is_file():
        raise FileNotFoundError(
            f"{reference} has no {needs}; it was not written by `sieve push`, or is no {kind} of it"
        )
    return folder


class _HubFault(ValueError):
    """A fault of a repository's contents; the message says what to do."""


def _verify(reference: HubReference, folder: Path, since: float) -> None:
    """Compare new files with the hashes of the Hub, and remove those that differ.

    The cache links each file to one that is named after its SHA-256, or as in git.
    """
    damaged = []
    for path in (one for one in folder.rglob("*") if one.is_symlink()):
        blob = path.parent / path.readlink()
        if blob.stat().st_mtime < since or not _HASH.fullmatch(blob.name):
            continue
        with blob.open("rb") as stream:
            digest = hashlib.sha256()
            if len(blob.name) != digest.digest_size * 2:
                digest = hashlib.sha1(b"blob %d\0" % blob.stat().st_size, usedforsecurity=False)
            while part := stream.read(1 << 20):
                digest.update(part)
        if digest.hexdigest() != blob.name:
            blob.unlink()
            path.unlink()
            damaged.append(path.name)
    if damaged:
        raise _HubFault(
            f"{', '.join(damaged[:3])} of {reference} arrived damaged (the hash is not that of the "
            "Hub) and was removed from the cache; run again to download it"
        )


def hub_error(reference: HubReference, kind: RepositoryKind, error: Exception) -> Exception:
    """Turn any error of huggingface_hub into one line with the reason and what to do."""
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{reference.repository}"
    login = "log in with `hf auth login`, or set HF_TOKEN"
    cause = error
    while isinstance(cause, errors.LocalEntryNotFoundError) and cause.__cause__:
        cause = cause.__cause__
    reason = reason_of(cause, 160)
    match cause:
        case _HubFault():
            return error
        case errors.GatedRepoError():
            return ValueError(f"{reference} is gated; accept its terms at {page}, and {login}")
        case errors.RepositoryNotFoundError():
            return FileNotFoundError(
                f"there is no {_KINDS[kind]} repository {reference.repository} at "
                f"{constants.ENDPOINT}, or it is private; check the name, or {login}"
            )
        case errors.RevisionNotFoundError():
            return FileNotFoundError(
                f"{reference} has no such revision; {page}/tree/main lists its branches and tags"
            )
        case errors.LocalEntryNotFoundError() | errors.OfflineModeIsEnabled():
            return FileNotFoundError(
                f"{reference} is not, or not completely, in the cache {constants.HF_HUB_CACHE}, "
                "and HF_HUB_OFFLINE forbids downloading; unset it, and run again"
            )
        case errors.HfHubHTTPError() if cause.response.status_code in (401, 403):
            return ValueError(
                f"{constants.ENDPOINT} refused access to {reference}; {login} ({reason})"
            )
        case ValueError() if not isinstance(cause, errors.HfHubHTTPError):
            return ValueError(f"{reference}: {reason}")
    if disk_is_full(cause, Path(constants.HF_HUB_CACHE)):
        return OSError(
            f"the disk that holds {constants.HF_HUB_CACHE} is full; free some space and run again"
        )
    if "Consistency check" in reason:
        reason = "a download was incomplete"
    return ValueError(
        f"{reference} could not be transferred ({reason}); check the connection to "
        f"{constants.ENDPOINT} and run again"
    )


def upload(
    name: str,
    kind: RepositoryKind,
    folder: Path,
    *,
    patterns: Iterable[str],
    needs: str,
    private: bool,
    message: str,
) -> CommitInfo:
    """Upload the files of a folder in one commit; those of a previous upload are replaced.

    `HfApi.upload_folder` may split an upload into several commits, and an interrupted one would
    leave a repository that cannot be opened. The repository and the branch are created if they do
    not exist.

    Parameters
    ----------
    name : str
        As for `HubReference.parse`, with a branch as revision.
    patterns, needs
        As for `download`: names of files that are removed if the folder lacks them, and the file
        by which a previous upload is recognised.

    Raises
    ------
    ValueError
        If the repository has other contents, or the Hub cannot be reached or refuses access.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    reference = HubReference.parse(name)
    repository, revision = reference
    files = {path.name: path for path in sorted(folder.iterdir())}
    api = HfApi()
    try:
        api.create_repo(repository, repo_type=kind, private=private or None, exist_ok=True)
        if revision:
            api.create_branch(repository, repo_type=kind, branch=revision, exist_ok=True)
        existing = set(api.list_repo_files(repository, repo_type=kind, revision=revision))
        foreign = sorted(existing - {".gitattributes", "README.md"})
        if foreign and needs not in existing:
            raise _HubFault(
                f"{reference} has other contents ({', '.join(foreign[:3])}); give another name"
            )
        added = [CommitOperationAdd(each, str(path)) for each, path in files.items()]
        stale = {each for each in foreign for one in patterns if fnmatch(each, one)} - files.keys()
        removed = [CommitOperationDelete(each) for each in sorted(stale)]
        return api.create_commit(
            repository,
            [*added, *removed],
            repo_type=kind,
            revision=revision,
            commit_message=message,
        )
    except Exception as error:
        raise hub_error(reference, kind, error) from error


def hub_file(repository: str, *names: str) -> Path:
    """Return the first available of some files of a repository of the Hugging Face Hub.

    `repository` is `ORG/NAME` or `ORG/NAME@REVISION`. Raises a ValueError or an OSError if none is
    cached and the Hub is unreachable or has none.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    place, revision = _split(repository)
    for name in names:
        try:
            return Path(hf_hub_download(place, name, revision=revision, local_files_only=True))
        except LocalEntryNotFoundError:
            continue
    _announce(repository)
    for name in names[:-1]:
        try:
            return Path(hf_hub_download(place, name, revision=revision))
        except EntryNotFoundError:
            continue
    return Path(hf_hub_download(place, names[-1], revision=revision))


def hub_folder(repository: str, names: tuple[str, ...], *needs: str) -> Path:
    """Return a folder with some files of a repository; raises as `hub_file` does.

    Nothing is downloaded if at least one of the files `needs` is cached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    wanted = list(names)
    place, revision = _split(repository)
    get = partial(snapshot_download, place, revision=revision, allow_patterns=wanted)
    try:
        folder = Path(get(local_files_only=True))
        if any((folder / name).is_file() for name in needs):
            return folder
    except LocalEntryNotFoundError:
        pass
    _announce(repository)
    return Path(get())


def _split(repository: str) -> tuple[str, str | None]:
    place, _, revision = repository.partition("@")
    return place, revision or None


def _announce(repository: str) -> None:
    """Log the download, and fail early if the Hub is unreachable."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:
        raise ValueError(
            f"{repository} is not in the cache, and HF_HUB_OFFLINE forbids downloading"
        )
    log.warning("downloading %s from %s; this happens once", repository, constants.ENDPOINT)
    faults: list[str] = []

    def ask() -> None:
        try:
            get_session().head(constants.ENDPOINT, timeout=PATIENCE - 2)
        except Exception as error:  # of httpx, or of its proxy and TLS libraries
            faults.append(reason_of(error))

    # The request timeout does not cover an unresponsive name server.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if thread.is_alive() or faults:
        reason = faults[0] if faults else f"no answer in {PATIENCE:g} s"
        raise ValueError(f"{constants.ENDPOINT} cannot be reached: {reason}")
