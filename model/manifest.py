"""What the manifest of a collection must tell, whoever wrote it."""

from __future__ import annotations

from typing import Any


def check_facts(manifest: dict[str, Any]) -> None:
    """Look at the facts that are told of every collection.

    Raises
    ------
    KeyError, TypeError
        Where one is missing or of another kind.
    """
    for name in ("name", "source", "licence"):
        if not isinstance(manifest[name], str):
            raise TypeError(f"{name} is no text")
    for name in ("items", "captions"):
        if not isinstance(manifest["counts"][name], int) or manifest["counts"][name] < 0:
            raise TypeError(f"{name} is no count")
    roots = manifest.get("roots", [])
    if not isinstance(roots, list) or not all(isinstance(root, str) for root in roots):
        raise TypeError("roots is no list of folders")
