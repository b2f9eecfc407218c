"""Reading "a dog but not on a beach" as A and B, only where the words are clear."""

from __future__ import annotations

import re

MAX_QUERY_CHARACTERS = 1000

_EXCLUSION = re.compile(
    r"^(?P<query>.+?),?\s+"
    r"(?:without|but not|but no|but without|excluding|except(?: for)?|with no|and no|and not)\s+"
    r"(?P<without>.+)$",
    re.IGNORECASE,
)
_LEADING = re.compile(
    r"^(?:(?:on|in|at|near|by|with|any|beside|under|inside|next to)\s+)+(?=\S)", re.IGNORECASE
)


def read_question(text: str, without: str) -> tuple[str, str, list[str]]:
    """Tidy A and B; where B is empty and A says "A without B" in clear words, split it.

    Returns
    -------
    text, without : str
    notes : list of str
        What the person should know of it.
    """
    notes: list[str] = []
    text, without = _tidy(text, notes), _tidy(without, notes)
    split = split_exclusion(text) if text and not without else None
    if split is not None:
        text, without = split
        notes.append(f"Read as “{text}” without “{without}”.")
    return text, without, notes


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


def _tidy(text: str, notes: list[str]) -> str:
    text = " ".join(text.split())
    if len(text) > MAX_QUERY_CHARACTERS:
        notes.append(f"Only the first {MAX_QUERY_CHARACTERS} characters of the text were read.")
    return text[:MAX_QUERY_CHARACTERS]
