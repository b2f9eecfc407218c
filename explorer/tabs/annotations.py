"""Annotations shared by all tabs: names, notes, tags and stars of dimensions, and saved searches.

A public server does not register the handlers that change something.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from sieve.explorer.annotations import import_export
from sieve.explorer.annotations.store import (
    Annotation,
    Field,
    attach_annotations,
    field_json,
    search_link,
)
from sieve.explorer.components import component
from sieve.explorer.json_validation import (
    check_choice,
    check_text,
    read_dimension,
    read_object,
    read_whole,
)
from sieve.explorer.view_state import MAX_LINK_CHARACTERS
from sieve.model.engine import SearchEngine

log = logging.getLogger(__name__)

Handler = Callable[[Any], dict[str, Any]]
T = TypeVar("T")


def annotations_component(handlers: AnnotationHandlers) -> None:
    """Add the component that all tabs share; call before the tabs."""
    component("annotations", *handlers.all())


class AnnotationHandlers:
    """Request handlers of annotations. Thread-safe; dimensions of `engine` get the users' names.

    Without `editing` the server is public: names, tags and stars are shown, but private notes and
    saved searches are not, and nothing can be changed.
    """

    def __init__(self, engine: SearchEngine, editing: bool = True) -> None:
        self.annotations = attach_annotations(engine)
        self._editing = editing
        self._suggested = engine.checkpoint.name_of
        self._origin = import_export.Origin.of(engine.collection, engine.checkpoint)

    def all(self) -> tuple[Handler, ...]:
        """Return the handlers; those that change something only if editing is allowed."""
        reading = self.notes_state, self.notes_of, self.notes_export
        searches = (self.search_save, self.search_rename, self.search_delete)
        changing = (self.notes_write, self.notes_import, *searches)
        return (*reading, *(changing if self._editing else ()))

    def notes_state(self, _: Any) -> dict[str, Any]:
        """Return all annotations except the texts of notes, which may be long."""
        annotations = self._shown(self.annotations.all)
        return {
            "editing": self._editing,
            "fault": self.annotations.fault() if self._editing else "",
            "marks": {str(j): mark for j, one in annotations.items() if (mark := _mark(one))},
            **self._searches(),
        }

    def notes_of(self, payload: Any) -> dict[str, Any]:
        """Return the annotations of one dimension, and its suggested name."""
        dimension = read_dimension(read_object(payload, "a dimension").get("dimension"))
        self.annotations.check(dimension)
        shown = self._shown(lambda: {dimension: self.annotations.of(dimension)})
        fields = shown.get(dimension, {})
        return {
            "suggested": self._suggested(dimension),
            "fields": {name: _field(name, field) for name, field in fields.items()},
        }

    def for_page(self, dimension: int) -> dict[str, Any]:
        """Return the same for the page of a dimension, with the fault if notes cannot be read."""
        try:
            return self.notes_of({"dimension": dimension})
        except ValueError as error:
            return {"suggested": self._suggested(dimension), "fields": {}, "fault": str(error)}

    def notes_export(self, payload: Any) -> dict[str, Any]:
        """Export all visible annotations as the text of a file."""
        given = read_object(payload, "an export")
        kind = check_choice("kind", given.get("kind"), import_export.KINDS)
        stored = (self.annotations, self._origin, kind)
        text = self._read(lambda: import_export.export_text(*stored, private=self._editing))
        return {"name": f"{self._origin.collection}-notes.{kind}", "text": text}

    def notes_write(self, payload: Any) -> dict[str, Any]:
        """Change a field unless another page has changed it; return its current value."""
        given = read_object(payload, "a note")
        dimension, field = read_dimension(given.get("dimension")), given.get("field", "")
        version = read_whole("version", given.get("version"))
        written = self.annotations.write(dimension, field, given.get("value"), version)
        fields = self.annotations.of(dimension)
        return {
            **_field(field, written.field),
            "saved": written.saved,
            "mark": _mark(fields),
            "shown": fields.get("name", Field()).value or self._suggested(dimension),
        }

    def notes_import(self, payload: Any) -> dict[str, Any]:
        """Preview the changes of an import; with `apply`, carry them out."""
        given = read_object(payload, "a file")
        name = check_text("name", given.get("name"))
        text = check_text("text", given.get("text"), import_export.MAX_BYTES)
        data, kind = text.encode("utf-8", "replace"), Path(name).suffix.lower().removeprefix(".")
        read = import_export.read_annotation_file(data, kind, self.annotations.m)
        replace = given.get("replace") is True
        plan = import_export.plan_import(read, self.annotations, self._origin, replace=replace)
        if given.get("apply") is not True:
            return plan.as_json()
        failures = import_export.apply_plan(plan, self.annotations)
        return {"done": list(failures), **self.notes_state(None)}

    def search_save(self, payload: Any) -> dict[str, Any]:
        """Save a search by its link."""
        given = read_object(payload, "a search")
        link = check_text("link", given.get("link"), MAX_LINK_CHARACTERS)
        names = self._origin.collection, self._origin.checkpoint
        link = search_link(link, *names, self.annotations.m)
        saved = self.annotations.searches.save(check_text("name", given.get("name")), link)
        return {"id": saved.id, "name": saved.name, **self._searches()}

    def search_rename(self, payload: Any) -> dict[str, Any]:
        """Rename a saved search unless another page has renamed it."""
        given = read_object(payload, "a search")
        name = check_text("name", given.get("name"))
        number, version = (read_whole(key, given.get(key)) for key in ("id", "version"))
        search, saved = self.annotations.searches.rename(number, name, version)
        return {"saved": saved, "name": search.name, **self._searches()}

    def search_delete(self, payload: Any) -> dict[str, Any]:
        """Delete a saved search; with `undo`, restore it."""
        given = read_object(payload, "a search")
        undo = given.get("undo") is True
        self.annotations.searches.delete(read_whole("id", given.get("id")), undo=undo)
        return self._searches()

    def _shown(self, read: Callable[[], Mapping[int, Annotation]]) -> Mapping[int, Annotation]:
        annotations = self._read(read)
        return annotations if self._editing else import_export.without_notes(annotations)

    def _searches(self) -> dict[str, Any]:
        searches = self._read(self.annotations.searches.all) if self._editing else []
        return {"searches": [search._asdict() for search in searches]}

    def _read(self, read: Callable[[], T]) -> T:
        """Read annotations; on a public server, errors do not reveal local paths."""
        try:
            return read()
        except ValueError as error:
            if self._editing:
                raise
            log.debug("%s", error)  # a warning was logged when the names were read
            raise ValueError("notes cannot be read here") from None


def _field(name: str, field: Field) -> dict[str, Any]:
    return {"value": field_json(name, field.value), "version": field.version}


def _mark(annotation: Annotation) -> dict[str, Any]:
    """Summarise the annotations of a dimension; empty if there are none."""
    mark = {name: field_json(name, one.value) for name, one in annotation.items() if one.value}
    return {**mark, "noted": True} if mark.pop("note", "") else mark
