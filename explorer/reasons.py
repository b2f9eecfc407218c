"""Reasons in plain words: where an item stands, and what puts one before another."""

from __future__ import annotations

from collections.abc import Callable

from sieve.model.explaining import ItemComparison, Part, Standing

Name = Callable[[int], str]


def tell_standing(standing: Standing, itself: int | None = None) -> str:
    """Say where an item stands: `number 3 with .62`."""
    if standing.row == itself:
        return "is what you search with, so no result"
    if standing.removed:
        kept = standing.rank_if_kept
        return "removed by “never”" + (f"; it would be number {kept:,}" if kept else "")
    if standing.rank is None:
        return "no result: it shares nothing with the query"
    return f"number {standing.rank:,} with {decimal(standing.score)}"


def tell_reasons(found: ItemComparison, name_of: Name) -> str:
    """Say in a sentence what mainly puts one item before the other.

    Parameters
    ----------
    found : ItemComparison
    name_of : callable
        Gives a dimension's name.
    """
    if found.left.row == found.right.row:
        return "Left and right are the same item: choose another for one of them."
    removed = _removal(found, name_of)
    if not found.reasons:
        return removed or "Both have the same score: no dimension tells them apart."
    told = "; ".join(_reason(part, name_of(part.dimension)) for part in found.reasons)
    gap = abs(found.left.score - found.right.score)
    ahead = "left" if found.left.score >= found.right.score else "right"
    return f"{removed}The {ahead} is {decimal(gap)} ahead: {told}{_rest(found.reasons, gap)}."


def _rest(reasons: tuple[Part, ...], gap: float) -> str:
    """Say how much of the gap the reasons make up, where it is not all."""
    total = sum(abs(part.difference) for part in reasons)
    if abs(total - gap) < max(0.005, gap / 10):
        return ""
    together = f", together {decimal(total)}" if len(reasons) > 1 else ""
    if total < gap:
        return f"{together}; smaller differences make up the rest"
    return f"{together}; others take some of it back"


def _removal(found: ItemComparison, name_of: Name) -> str:
    told = []
    for side, standing in (("left", found.left), ("right", found.right)):
        if not standing.removed:
            continue
        had = [(part, getattr(part, side)) for part in found.parts if part.off]
        had = sorted((pair for pair in had if pair[1]), key=lambda pair: pair[1])
        names = " and ".join(_named(part.dimension, name_of(part.dimension)) for part, _ in had[:2])
        told.append(f"“Never” removes the {side}, as it has {names}. ")
    return "".join(told)


def _reason(part: Part, name: str) -> str:
    """Tell a dimension's part: `#4 “snow” counts .21 for the left, nothing for the right`."""
    named = _named(part.dimension, name)
    more, less = ("left", "right") if abs(part.left) >= abs(part.right) else ("right", "left")
    much, little = decimal(abs(getattr(part, more))), decimal(abs(getattr(part, less)))
    if part.off:
        rest = (
            f"only {little} from the {less}" if getattr(part, less) else f"nothing from the {less}"
        )
        return f"{named} is off and takes {much} from the {more}, {rest}"
    rest = f"only {little} for the {less}" if getattr(part, less) else f"nothing for the {less}"
    return f"{named} counts {much} for the {more}, {rest}"


def _named(dimension: int, name: str) -> str:
    return f"#{dimension} “{name.split(' · ')[0]}”"


def decimal(value: float) -> str:
    """Write a number as the screen does: `.21`, `−.04`, `.004`."""
    size = abs(value)
    digits = 3 if 0 < size < 0.0095 else 2
    text = f"{size:.{digits}f}"
    return ("−" if value < 0 else "") + (text[1:] if text.startswith("0") else text)
