"""Backbones that the user has agreed to load, kept in `$SIEVE_HOME/trusted_backbones.json`.

A collection that somebody else made names a backbone. The bundled one, and weights that open_clip
lists under a tag, are loaded. A folder, a file or a repository of the Hub is loaded only if the
person has used it before or confirms it with `--trust-backbone`. Consent is for contents, not for a
place: files that have changed since are asked for again, and a moved folder is not.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

from sieve.model.backbone.checked_files import BackboneFiles, find_files
from sieve.model.backbone.names import BackboneName, parse_name
from sieve.model.backbone.unavailable import BackboneUnavailable
from sieve.model.files import atomic_file, sieve_home

log = logging.getLogger(__name__)

_FREE = ("bundled", "tag")
"""Kinds of names that lead to nothing but what ships with Sieve or stands in open_clip's list."""
_ADVICE = "if you trust where it is from, give --trust-backbone once"


def trusted_files(name: str) -> BackboneFiles:
    """Find the files of a backbone that a collection names, if it may be loaded.

    Nothing is downloaded from a repository that the person has not agreed to.

    Raises
    ------
    BackboneUnavailable
        If the person has not agreed to load it, or its files have changed since.
    FileNotFoundError, OSError, ValueError
        If it cannot be found.
    """
    parsed = parse_name(name)
    if parsed.kind in _FREE:
        return find_files(parsed)
    trusted = _read()
    if parsed.kind == "hub":
        _check_repository(parsed, trusted)
    files = find_files(parsed)
    if files.sha256 not in trusted:
        changed = parsed.text in trusted.values()
        why = "has changed since you used it" if changed else "is not one that you have used"
        raise _not_trusted(parsed, why)
    return files


def check_consent(name: str) -> None:
    """Check, without the network, that a backbone that a collection names may be loaded.

    Raises
    ------
    BackboneUnavailable, FileNotFoundError, ValueError
        As for `trusted_files`; not if only the Hub would have to be asked.
    """
    parsed = parse_name(name)
    if parsed.kind == "hub":
        _check_repository(parsed, _read())
    elif parsed.kind not in _FREE:
        trusted_files(name)


def trust(files: BackboneFiles) -> None:
    """Remember that the person agrees to load a backbone with these contents.

    Raises
    ------
    OSError
        If `$SIEVE_HOME` cannot be written to.
    """
    if files.name.kind in _FREE:
        return
    trusted = _read()
    if trusted.get(files.sha256) == files.name.text:
        return
    trusted[files.sha256] = files.name.text
    path = _path()
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"version": 1, "backbones": trusted}, indent=1, ensure_ascii=False)
    with atomic_file(path) as draft:
        draft.write_text(text + "\n", encoding="utf-8")


def trust_if_possible(files: BackboneFiles | None) -> None:
    """Remember a backbone that the person has just used by name; a full disk is only logged."""
    try:
        if files is not None:
            trust(files)
    except OSError as error:
        log.warning("backbone %s is not remembered as yours: %s", files and files.name.text, error)


def _check_repository(name: BackboneName, trusted: dict[str, str]) -> None:
    if name.text not in trusted.values():
        raise _not_trusted(name, "is not one that you have used")


def _not_trusted(name: BackboneName, why: str) -> BackboneUnavailable:
    place = {"hub": "of the Hub", "file": "in a file", "folder": "in a folder"}[name.kind]
    return BackboneUnavailable(
        f"this collection names backbone {name.text!r} {place}, which {why}; {_ADVICE}"
    )


def _path() -> Path:
    return sieve_home() / "trusted_backbones.json"


def _read() -> dict[str, str]:
    """Read the names of trusted backbones by their hashes; a damaged file trusts nothing."""
    path = _path()
    if not path.is_file():
        return {}
    try:
        said = json.loads(path.read_text(encoding="utf-8"))["backbones"]
        return {str(sha256): str(name) for sha256, name in said.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        log.warning("%s is damaged (%s); backbones are asked for again", path, error)
        return {}
