"""Find files of the Hugging Face Hub in its cache, or download them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

log = logging.getLogger(__name__)

PATIENCE = 12.0
"""Seconds to wait for the first response of the Hub."""


class Offline(ValueError):
    """The Hub is unreachable, or `HF_HUB_OFFLINE` is set."""


def hub_file(repository: str, *names: str) -> Path:
    """Return the first available of some files of a repository.

    Raises
    ------
    Offline
        If none is cached and the Hub is unreachable; one line.
    OSError, ValueError
        If the repository has none of them.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    for name in names:
        try:
            return Path(hf_hub_download(repository, name, local_files_only=True))
        except LocalEntryNotFoundError:
            continue
    _announce(repository)
    for name in names[:-1]:
        try:
            return Path(hf_hub_download(repository, name))
        except EntryNotFoundError:
            continue
    return Path(hf_hub_download(repository, names[-1]))


def hub_folder(repository: str, patterns: Sequence[str], needs: Sequence[str]) -> Path:
    """Return a folder with the files of a repository that match some patterns.

    Parameters
    ----------
    repository : str
    patterns : sequence of str
        File names to download.
    needs : sequence of str
        The cache is used if it has at least one of these files.

    Raises
    ------
    Offline, OSError, ValueError
        As for `hub_file`.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    wanted = list(patterns)
    try:
        folder = Path(snapshot_download(repository, allow_patterns=wanted, local_files_only=True))
        if any((folder / name).is_file() for name in needs):
            return folder
    except LocalEntryNotFoundError:
        pass
    _announce(repository)
    return Path(snapshot_download(repository, allow_patterns=wanted))


def _announce(repository: str) -> None:
    """Log the download, and fail early if the Hub is unreachable."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise Offline(f"{repository} is not in the cache, and HF_HUB_OFFLINE forbids downloading")
    log.warning("downloading %s from %s; this happens once", repository, constants.ENDPOINT)
    errors: list[Exception] = []
    # The request timeout does not cover an unresponsive name server.
    probe = threading.Thread(target=_probe, args=(constants.ENDPOINT, errors), daemon=True)
    probe.start()
    probe.join(PATIENCE)
    if probe.is_alive() or errors:
        reason = (
            " ".join(str(errors[0]).split())[:100] if errors else f"no answer in {PATIENCE:g} s"
        )
        raise Offline(f"{constants.ENDPOINT} cannot be reached ({reason})")


def _probe(address: str, errors: list[Exception]) -> None:
    from huggingface_hub.utils import get_session

    try:
        get_session().head(address, timeout=PATIENCE - 2)
    except Exception as error:  # of httpx, or of its proxy and TLS libraries
        errors.append(error)
