"""Backbones that the user has agreed to load, in `$SIEVE_HOME/trusted_backbones.json`.

A collection from another person names a backbone. The bundled one, and weights that open_clip lists
under a tag, are always loaded. A folder, a file or a Hub repository is loaded only if the user has
used it before or confirms it with `--trust-backbone`. Trust is given to contents, not locations:
changed files must be confirmed again, a moved folder need not.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

from sieve.model.backbone.checked_files import BackboneFiles, find_files
from sieve.model.backbone.names import BackboneName, parse_name
from sieve.model.files import atomic_file, sieve_home

log = logging.getLogger(__name__)

_ALWAYS_TRUSTED = ("bundled", "tag")
"""Kinds of names that need no trust: bundled with Sieve or listed by open_clip."""
_ADVICE = "if you trust its source, give --trust-backbone once"


class BackboneUnavailable(ValueError):
    """The backbone of a collection cannot be loaded: missing, offline, changed or not trusted.

    The message is one line with the reason and what to do. The collection still opens, but new
    texts and images cannot be encoded.
    """


def trusted_files(name: str) -> BackboneFiles:
    """Return the files of a backbone that a collection names, if it is trusted.

    Nothing is downloaded from a repository that is not trusted.

    Raises
    ------
    BackboneUnavailable
        If it is not trusted, or its files have changed since.
    FileNotFoundError, OSError, ValueError
        If it cannot be found.
    """
    parsed = parse_name(name)
    if parsed.kind in _ALWAYS_TRUSTED:
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
    """Check, without network access, that a backbone that a collection names is trusted.

    Raises
    ------
    BackboneUnavailable, FileNotFoundError, ValueError
        As for `trusted_files`, except for errors that need network access.
    """
    parsed = parse_name(name)
    if parsed.kind == "hub":
        _check_repository(parsed, _read())
    elif parsed.kind not in _ALWAYS_TRUSTED:
        trusted_files(name)


def trust(files: BackboneFiles) -> None:
    """Trust a backbone with these contents, permanently.

    Raises
    ------
    OSError
        If `$SIEVE_HOME` cannot be written to.
    """
    if files.name.kind in _ALWAYS_TRUSTED:
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
    """Trust a backbone that the user has named; log a warning if that cannot be saved."""
    try:
        if files is not None:
            trust(files)
    except OSError as error:
        log.warning("trust in backbone %s is not saved: %s", files and files.name.text, error)


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
    """Read the names of trusted backbones by hash; empty if the file is damaged."""
    path = _path()
    if not path.is_file():
        return {}
    try:
        names = json.loads(path.read_text(encoding="utf-8"))["backbones"]
        return {str(sha256): str(name) for sha256, name in names.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        log.warning("%s is damaged (%s); backbones must be confirmed again", path, error)
        return {}
