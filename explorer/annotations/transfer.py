"""Files of notes, given out and taken in: changes are told first, and what is newer here stays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sieve.explorer.annotations.exchange import Exchanged, write_csv, write_json
from sieve.explorer.annotations.fields import Annotation, Field
from sieve.explorer.annotations.searches import search_link, search_name
from sieve.explorer.annotations.store import Annotations, Change

if TYPE_CHECKING:
    from sieve.model.checkpoint import Checkpoint
    from sieve.model.collection import Collection


class Origin(NamedTuple):
    """What the notes here are of."""

    collection: str
    """Name of the collection."""
    checkpoint: str
    collection_sha256: str
    checkpoint_sha256: str

    @classmethod
    def of(cls, collection: Collection, checkpoint: Checkpoint) -> Origin:
        """Tell what is open, by name and by hash."""
        name = Path(checkpoint.path).name
        return cls(collection.name, name, collection.sha256, checkpoint.sha256)


def export_text(
    annotations: Annotations, origin: Origin, kind: str, *, private: bool = True
) -> str:
    """Write what is kept, as the text of a JSON or CSV file.

    Parameters
    ----------
    annotations : Annotations
    origin : Origin
    kind : str
        json or csv.
    private : bool
        Also what was written for oneself: notes and saved searches.
    """
    kept = annotations.all() if private else without_notes(annotations.all())
    if kind == "csv":
        return write_csv(kept)
    hashes = {"collection": origin.collection_sha256, "checkpoint": origin.checkpoint_sha256}
    return write_json(kept, annotations.searches.all() if private else [], hashes)


def without_notes(kept: Mapping[int, Annotation]) -> dict[int, Annotation]:
    """Leave out notes, and dimensions of which nothing else was said."""
    rest = {j: {name: of[name] for name in of if name != "note"} for j, of in kept.items()}
    return {j: of for j, of in rest.items() if of}


class Plan(NamedTuple):
    """What taking in a file would do."""

    changes: tuple[Change, ...]
    kept: tuple[Change, ...]
    """What the file says otherwise, but what stays as it is here, being as new or newer."""
    same: int
    """How many fields are so already."""
    searches: tuple[tuple[str, str, str], ...]
    """Name, link and time of each saved search that is not here yet."""
    notes: tuple[str, ...]
    """What a person should know, a line each."""

    def summary(self) -> str:
        """Tell it in one line."""
        fields = Counter(change.field for change in self.changes)
        words = {"name": "name", "note": "note", "tags": "set of tags", "starred": "star"}
        parts = [_count(fields[field], word) for field, word in words.items() if fields[field]]
        if self.searches:
            parts.append(_count(len(self.searches), "saved search", "saved searches"))
        told = ", ".join(parts) or "nothing"
        stays = f"; {_count(len(self.kept), 'newer value')} here stay" if self.kept else ""
        return f"{told} to take in, {self.same} the same{stays}"

    def lines(self) -> list[str]:
        """Tell each change in a line, at most a hundred characters of each value."""
        told = [(change, "→") for change in self.changes] + [
            (one, "stays, not") for one in self.kept
        ]
        return [
            f"{change.dimension} {change.field}: {_short(change.before.value)} {arrow} "
            f"{_short(change.value)}"
            for change, arrow in sorted(told)
        ]

    def as_json(self) -> dict[str, Any]:
        """Write it for a page or a script."""
        return {
            "summary": self.summary(),
            "lines": self.lines(),
            "changes": len(self.changes) + len(self.searches),
            "kept": len(self.kept),
            "notes": list(self.notes),
        }


def plan_import(
    given: Exchanged, annotations: Annotations, origin: Origin, *, replace: bool = False
) -> Plan:
    """Tell what taking in a file would change.

    What the file leaves empty says nothing. Where both say something, the newer is taken; a file
    that does not tell when counts as older.

    Parameters
    ----------
    given : Exchanged
    annotations : Annotations
    origin : Origin
    replace : bool
        Take what the file says also where what is here is newer.

    Raises
    ------
    ValueError
        In one line, if the file is of another checkpoint: its dimensions mean nothing here.
    """
    if given.checkpoint and given.checkpoint != origin.checkpoint_sha256:
        raise ValueError(
            f"the file is of checkpoint {given.checkpoint[:12]!r}, but {origin.checkpoint} is "
            f"{origin.checkpoint_sha256[:12]}: its dimensions mean nothing here; choose another "
            "checkpoint"
        )
    kept, now = annotations.all(), annotations.now()
    changes, stays, same = [], [], 0
    for said in given.said:
        before = kept.get(said.dimension, {}).get(said.field, Field())
        if said.value == before.value:
            same += 1
            continue
        # A time to come would win over all that people write until then.
        when = min(said.changed, now)
        change = Change(said.dimension, said.field, said.value, before, when)
        # What was never said is older than anything.
        taken = replace or not before.version or when > before.changed
        (changes if taken else stays).append(change)
    searches, notes = _new_searches(given, annotations, origin)
    return Plan(tuple(changes), tuple(stays), same, searches, notes)


def carry_out(plan: Plan, annotations: Annotations) -> tuple[str, ...]:
    """Take in what a plan says; tells what could not be, a line each."""
    made = annotations.apply(plan.changes) if plan.changes else 0
    for name, link, saved in plan.searches:
        annotations.searches.save(name, link, saved)
    left = len(plan.changes) - made
    changed = "changed here meanwhile and left as they are; import again to see them"
    return (f"{_count(left, 'value')} {changed}",) if left else ()


def _new_searches(
    given: Exchanged, annotations: Annotations, origin: Origin
) -> tuple[tuple[tuple[str, str, str], ...], tuple[str, ...]]:
    if not given.searches:
        return (), ()
    if given.collection and given.collection != origin.collection_sha256:
        return (), ("Saved searches are left out: they are of another collection.",)
    there = {search.link for search in annotations.searches.all()}
    found, notes = [], []
    for name, link, saved in given.searches:
        try:
            clean = search_link(link, origin.collection, origin.checkpoint, annotations.m)
            line = search_name(name)
        except ValueError as error:
            notes.append(f"A saved search, {_short(name)}, is left out: {error}.")
            continue
        if clean not in there:
            there.add(clean)
            found.append((line, clean, saved))
    return tuple(found), tuple(notes)


def _count(n: int, one: str, many: str = "") -> str:
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def _short(value: str) -> str:
    line = " ".join(value.split())
    return f"“{line if len(line) <= 60 else line[:59] + '…'}”" if line else "nothing"
