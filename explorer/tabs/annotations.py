"""What the page asks about names, notes and saved searches, answered as JSON.

All that changes anything is among `editing_handlers`: a server for strangers registers none.

Names, notes and saved searches: what the pieces of other tabs keep them by.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sieve.explorer.annotations.fields import Annotation, Field, split_tags
from sieve.explorer.annotations.import_export import (
    KINDS,
    Origin,
    apply_plan,
    export_text,
    plan_import,
    read_annotation_file,
    without_notes,
)
from sieve.explorer.annotations.store import attach_annotations, search_link
from sieve.explorer.components import piece
from sieve.explorer.errors import json_errors
from sieve.explorer.json_validation import check_choice, read_object, read_whole, short_repr

if TYPE_CHECKING:
    from sieve.model.engine import Engine


def notes_piece(desk: AnnotationHandlers) -> None:
    """Add what all tabs share; call above them."""
    piece("annotations", *map(json_errors, (*desk.reading_handlers(), *desk.editing_handlers())))


log = logging.getLogger(__name__)

Handler = Callable[[Any], dict[str, Any]]
T = TypeVar("T")


class AnnotationHandlers:
    """Answers the page's questions about what people keep. Safe to share between threads.

    Parameters
    ----------
    engine : Engine
        Tells people's names from now on.
    editing : bool
        Whether anything may be changed. Where it may not, strangers ask: names, tags and stars are
        shown to them, but what was written for oneself is not: notes and saved searches.
    """

    def __init__(self, engine: Engine, editing: bool = True) -> None:
        self.annotations = attach_annotations(engine)
        self._editing = editing
        self._suggested = engine.checkpoint.name_of
        self._origin = Origin.of(engine.collection, engine.checkpoint)

    def reading_handlers(self) -> tuple[Handler, ...]:
        """Give those that only tell."""
        return self.notes_state, self.notes_of, self.notes_export

    def editing_handlers(self) -> tuple[Handler, ...]:
        """Give those that change something; none where that is not allowed."""
        if not self._editing:
            return ()
        searches = (self.search_save, self.search_rename, self.search_delete)
        return self.notes_write, self.notes_import, *searches

    def notes_state(self, _: Any) -> dict[str, Any]:
        """Tell everything but the notes' own texts, which may be long."""
        kept = self._read(lambda: self._shown(self.annotations.all()))
        return {
            "editing": self._editing,
            "fault": self.annotations.fault() if self._editing else "",
            "marks": {str(j): mark for j, of in kept.items() if (mark := _mark(of))},
            **self._searches(),
        }

    def notes_of(self, payload: Any) -> dict[str, Any]:
        """Tell what is kept of one dimension, and the name that is suggested for it."""
        dimension = _dimension(payload)
        self.annotations.check(dimension)
        kept = self._read(lambda: self._shown({dimension: self.annotations.of(dimension)}))
        fields = kept.get(dimension, {})
        return {
            "suggested": self._suggested(dimension),
            "fields": {name: _field(name, field) for name, field in fields.items()},
        }

    def kept(self, dimension: int) -> dict[str, Any]:
        """Tell the same for a page, which is shown also where notes cannot be read."""
        try:
            return self.notes_of({"dimension": dimension})
        except ValueError as error:
            return {"suggested": self._suggested(dimension), "fields": {}, "fault": str(error)}

    def notes_export(self, payload: Any) -> dict[str, Any]:
        """Write everything that is shown as the text of a file."""
        kind = check_choice("kind", read_object(payload, "a question").get("kind"), KINDS)
        name = f"{self._origin.collection}-notes.{kind}"
        write = partial(export_text, self.annotations, self._origin, kind, private=self._editing)
        return {"name": name, "text": self._read(write)}

    def notes_write(self, payload: Any) -> dict[str, Any]:
        """Change a field, if nobody else has meanwhile; tells what is kept now."""
        given = read_object(payload, "a note")
        dimension, version = _dimension(given), read_whole("version", given.get("version"))
        field, value = str(given.get("field")), given.get("value")
        written = self.annotations.write(dimension, field, value, version)
        kept = self.annotations.of(dimension)
        return {
            **_field(field, written.field),
            "saved": written.saved,
            "mark": _mark(kept),
            "shown": kept["name"].value if _says(kept, "name") else self._suggested(dimension),
        }

    def notes_import(self, payload: Any) -> dict[str, Any]:
        """Tell what taking in a file would change; with `apply`, do it."""
        given = read_object(payload, "a file")
        text, name = given.get("text"), given.get("name")
        if not isinstance(text, str) or not isinstance(name, str):
            raise ValueError(f"expected a file's name and text; got {short_repr(name)}")
        kind = Path(name).suffix.lower().removeprefix(".")
        read = read_annotation_file(text.encode("utf-8", "replace"), kind, self.annotations.m)
        replace = given.get("replace") is True
        plan = plan_import(read, self.annotations, self._origin, replace=replace)
        if given.get("apply") is not True:
            return plan.as_json()
        return {"done": list(apply_plan(plan, self.annotations)), **self.notes_state(None)}

    def search_save(self, payload: Any) -> dict[str, Any]:
        """Save a search by its link."""
        given = read_object(payload, "a search")
        names = self._origin.collection, self._origin.checkpoint
        link = search_link(_text(given, "link"), *names, self.annotations.m)
        saved = self.annotations.searches.save(_text(given, "name"), link)
        return {"id": saved.id, "name": saved.name, **self._searches()}

    def search_rename(self, payload: Any) -> dict[str, Any]:
        """Rename a saved search, if nobody else has meanwhile."""
        given = read_object(payload, "a search")
        number, version = read_whole("id", given.get("id")), read_whole("v", given.get("version"))
        found = self.annotations.searches.rename(number, _text(given, "name"), version)
        return {"saved": found.saved, "name": found.search.name, **self._searches()}

    def search_delete(self, payload: Any) -> dict[str, Any]:
        """Delete a saved search; with `undo`, bring it back."""
        given = read_object(payload, "a search")
        undo = given.get("undo") is True
        self.annotations.searches.delete(read_whole("id", given.get("id")), undo=undo)
        return self._searches()

    def _shown(self, kept: Mapping[int, Annotation]) -> Mapping[int, Annotation]:
        return kept if self._editing else without_notes(kept)

    def _searches(self) -> dict[str, Any]:
        searches = self._read(self.annotations.searches.all) if self._editing else []
        return {"searches": [search._asdict() for search in searches]}

    def _read(self, read: Callable[[], T]) -> T:
        """Read what is kept; strangers are not told where it is that it cannot be read."""
        try:
            return read()
        except ValueError as error:
            if self._editing:
                raise
            log.debug("%s", error)  # the names have warned once
            raise ValueError("notes cannot be read here") from None


def _field(name: str, field: Field) -> dict[str, Any]:
    value: Any = field.value
    if name == "tags":
        value = split_tags(field.value)
    elif name == "starred":
        value = bool(field.value)
    return {"value": value, "version": field.version}


def _says(kept: Annotation, name: str) -> bool:
    return name in kept and bool(kept[name].value)


def _mark(kept: Annotation) -> dict[str, Any]:
    """Tell shortly what there is of a dimension; nothing where there is nothing."""
    mark: dict[str, Any] = {}
    if _says(kept, "name"):
        mark["name"] = kept["name"].value
    if _says(kept, "note"):
        mark["noted"] = True
    if _says(kept, "starred"):
        mark["starred"] = True
    if _says(kept, "tags"):
        mark["tags"] = split_tags(kept["tags"].value)
    return mark


def _dimension(payload: Any) -> int:
    given: Mapping[str, Any] = read_object(payload, "a question")
    return read_whole("dimension", given.get("dimension"))


def _text(given: Mapping[str, Any], name: str) -> str:
    value = given.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text; got {short_repr(value)}")
    return value
