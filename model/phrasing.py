"""Reading "a dog but not on a beach" as A and B, only where the words are clear."""

from __future__ import annotations

import re

_EXCLUSION = re.compile(
    r"^(?P<query>.+?),?\s+"
    r"(?:without|but not|but no|but without|excluding|except(?: for)?|with no|and no|and not)\s+"
    r"(?P<without>.+)$",
    re.IGNORECASE,
)
_LEADING = re.compile(
    r"^(?:(?:on|in|at|near|by|with|any|beside|under|inside|next to)\s+)+(?=\S)", re.IGNORECASE
)


def split_exclusion(text: str) -> tuple[str, str] | None:
    """Split a question into what is wanted and what is not.

    Parameters
    ----------
    text : str

    Returns
    -------
    tuple of (str, str) or None
        A and B, or None where the text does not say clearly that something is excluded.

    Examples
    --------
    >>> split_exclusion("a dog but not on a beach")
    ('a dog', 'a beach')
    """
    match = _EXCLUSION.match(text.strip())
    if match is None:
        return None
    without = _LEADING.sub("", match["without"].strip(" .!?"))
    return (match["query"].strip(), without) if without else None
