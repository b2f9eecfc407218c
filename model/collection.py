"""Collections: items, captions, labels and frozen embeddings in one folder.

Instead of embeddings, a collection may hold external sparse codes: see
`sieve.model.external_codes`.

A collection is immutable. `collection.json` holds the size and hash of every other file, so its own
hash identifies the whole. Derived data is stored elsewhere under that hash. Embeddings are
memory-mapped, so opening a million items reads almost nothing. A file's hash is compared when the
file is first used, and its size and time at each use, so a changed file raises an error.

The table of items is validated completely when it is read (`items_fault`), because ids become file
names and parts of URLs; no other module repeats these checks. Texts stay in Arrow columns, as
millions of Python strings would take gigabytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from operator import index
from pathlib import Path
from typing import Any, SupportsIndex, overload

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sieve.model.external_codes import NO_BACKBONE
from sieve.model.file_names import FileNames
from sieve.model.files import UNREADABLE, MappedArray, OpenedFiles, check_files, reason_of
from sieve.model.identity import BackboneIdentity, CodesIdentity
from sieve.model.schemas import MAX_HEAD_BYTES, Manifest, check_json, read_limited


class Texts(Sequence[str]):
    """Sequence of the strings in a column of lists of strings, stored in Arrow.

    Parameters
    ----------
    lists : iterable of lists of str
        A pandas column, preferably of an Arrow type.
    """

    def __init__(self, lists: object) -> None:
        array = pa.array(lists, pa.list_(pa.string()))
        chunks = array.chunks if isinstance(array, pa.ChunkedArray) else [array]
        self._texts = pa.chunked_array([chunk.flatten() for chunk in chunks], pa.string())

    def __len__(self) -> int:
        return len(self._texts)

    @overload
    def __getitem__(self, key: SupportsIndex) -> str: ...
    @overload
    def __getitem__(self, key: slice) -> list[str]: ...
    def __getitem__(self, key: SupportsIndex | slice) -> str | list[str]:
        """Return one text, or a list of texts."""
        if isinstance(key, slice):
            return self._texts[key].to_pylist()
        return self._texts[index(key)].as_py()


ITEM_ID = r"^[0-9a-f]{16}$"


def items_fault(table: pa.Table) -> str:
    """Return why a table of items is invalid, in a few words; empty if it is valid.

    Parameters
    ----------
    table : pyarrow.Table
        Missing columns are not checked.
    """
    doubled = {name for name in table.column_names if table.column_names.count(name) > 1}
    if doubled:
        return f"it has column {min(doubled)} twice"
    for names, is_right, kind in (
        (("id",), _is_text_column, "texts without a gap"),
        (("image", "split"), lambda column: _is_text_column(column, gaps=True), "texts"),
        (("captions", "labels"), _is_text_list_column, "lists of texts without a gap"),
        (("width", "height"), _is_size, "whole numbers of at least 0"),
    ):
        for name in set(names) & set(table.column_names):
            if not is_right(table[name]):
                return f"column {name} must hold {kind}; it holds {table[name].type}"
    if "id" in table.column_names:
        good = pc.call_function(
            "match_substring_regex", [table["id"]], pc.MatchSubstringOptions(ITEM_ID)
        )
        if not pc.call_function("all", [good]).as_py() and len(table):
            return "an id is not 16 hex digits"
        if pc.call_function("count_distinct", [table["id"]]).as_py() < len(table):
            return "two items have the same id"
    return ""


def _is_text_column(column: pa.ChunkedArray, *, gaps: bool = False) -> bool:
    kind = column.type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return (is_text or (gaps and pa.types.is_null(kind))) and (gaps or not column.null_count)


def _is_text_list_column(column: pa.ChunkedArray) -> bool:
    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or column.null_count:
        return False
    inner = pa.chunked_array([chunk.flatten() for chunk in column.chunks], kind.value_type)
    # If no item has a label, the lists have no text type.
    return _is_text_column(inner) or (pa.types.is_null(inner.type) and not len(inner))


def _is_size(column: pa.ChunkedArray) -> bool:
    if not pa.types.is_integer(column.type) or column.null_count:
        return False
    return not len(column) or pc.call_function("min", [column]).as_py() >= 0


SCHEMA_VERSION = 1
MANIFEST = "collection.json"
ITEMS = "items.parquet"
IMAGE_EMBEDDINGS = "image_embeddings.npy"
TEXT_EMBEDDINGS = "text_embeddings.npy"
CAPTION_ITEM = "caption_item.npy"
SKIPPED = "skipped.csv"
DUPLICATES = "duplicates.csv"
THUMBNAILS = "thumbnails"
_AGAIN = "prepare the collection again"
_KINDS = {"f": "floating-point numbers", "i": "whole numbers"}
_DAMAGE = (KeyError, TypeError, AttributeError, UnicodeDecodeError, json.JSONDecodeError)
ITEM_COLUMNS = ("id", "image", "captions", "labels", "split", "width", "height")


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hex digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def thumbnail_path(item_id: str) -> str:
    """Return the path of an item's thumbnail inside the collection, with forward slashes."""
    return f"{THUMBNAILS}/{item_id[:2]}/{item_id}.webp"


def _is_text_type(kind: pa.DataType) -> bool:
    return any(of(kind) for of in (pa.types.is_list, pa.types.is_string, pa.types.is_large_string))


class Collection:
    """An opened collection.

    Attributes
    ----------
    path : Path
    manifest : dict
        Content of `collection.json`.
    codes : CodesIdentity or None
        External codes that it holds instead of embeddings.
    sha256 : str
        Hash of `collection.json`, which covers the whole folder.
    """

    def __init__(self, path: Path, manifest: dict[str, Any], sha256: str) -> None:
        self.path = path
        self.manifest = manifest
        self.sha256 = sha256
        self._checked: set[str] = set()
        self._manifest_file = OpenedFiles(path / MANIFEST)
        self._mapped: dict[str, MappedArray] = {}
        named = manifest["backbone"]
        self._backbone: BackboneIdentity | None = None
        self.codes: CodesIdentity | None = None
        if named is None:
            self.codes = CodesIdentity(**manifest["codes"])
        else:
            self._backbone = BackboneIdentity(named["name"], named["sha256"], int(named["d"]))

    @property
    def backbone(self) -> BackboneIdentity:
        """Backbone that made its embeddings; raises a ValueError if it holds codes instead."""
        if self._backbone is None:
            raise ValueError(f"collection {self.name} {NO_BACKBONE}")
        return self._backbone

    @classmethod
    def open(cls, path: str | Path) -> Collection:
        """Open a collection and check that it is complete.

        Parameters
        ----------
        path : str or Path

        Raises
        ------
        FileNotFoundError
            If there is no collection, or one of its files is missing.
        ValueError
            If it has another version, is truncated or damaged; the message names the file.
        """
        path = Path(path)
        manifest_path = path / MANIFEST
        if not manifest_path.is_file():
            raise FileNotFoundError(
                f"{path} is not a collection (no {MANIFEST}); "
                "make one with `sieve prepare folder DIR --captions CSV --out COLLECTION`"
            )
        data = read_limited(manifest_path, MAX_HEAD_BYTES)
        try:
            manifest = json.loads(data)
            cls._check(path, manifest, data)
            return cls(path, manifest, hashlib.sha256(data).hexdigest())
        except (*_DAMAGE, RecursionError, OverflowError) as error:
            raise ValueError(f"{manifest_path} is damaged ({reason_of(error)}); {_AGAIN}") from None

    @staticmethod
    def _check(path: Path, manifest: dict[str, Any], data: bytes) -> None:
        version = manifest["schema_version"]
        if version is True or version != SCHEMA_VERSION:
            raise ValueError(
                f"{path / MANIFEST} has schema_version {repr(version)[:40]}, this Sieve reads "
                f"{SCHEMA_VERSION}; {_AGAIN}"
            )
        try:
            check_json(Manifest, data)
        except ValueError as error:
            raise ValueError(f"{path / MANIFEST} is damaged ({error}); {_AGAIN}") from None
        check_files(path, _AGAIN, needs=[MANIFEST])
        for name, facts in manifest["files"].items():
            part = path / name
            if Path(name).name != name or not part.is_file():
                raise FileNotFoundError(f"{part} is missing; prepare the collection again")
            if part.stat().st_size != facts["bytes"]:
                raise ValueError(
                    f"{part} has {part.stat().st_size} bytes, expected {facts['bytes']}; {_AGAIN}"
                )

    def checked(self, *names: str) -> Path:
        """Compare files with the hashes in the manifest, each once, and return the folder.

        Raises
        ------
        ValueError
            If a file has changed since it was written, or the manifest has no hash of it.
        """
        for name in names:
            if name in self._checked or not (self.path / name).exists():
                continue
            expected = self.manifest["files"].get(name, {}).get("sha256")
            if not expected:
                raise ValueError(f"{self.path / name} has no sha256 in {MANIFEST}; {_AGAIN}")
            if file_sha256(self.path / name) != expected:
                raise ValueError(f"{self.path / name} is damaged: its bytes have changed; {_AGAIN}")
            self._checked.add(name)
        return self.path

    @property
    def name(self) -> str:
        """Name of the collection."""
        return str(self.manifest["name"])

    @property
    def n_items(self) -> int:
        """Number of items."""
        return int(self.manifest["counts"]["items"])

    @property
    def n_captions(self) -> int:
        """Number of captions."""
        return int(self.manifest["counts"]["captions"])

    @cached_property
    def items(self) -> pd.DataFrame:
        """Table with one row per item: id, image, captions, labels, split, width, height."""
        table = self._read_items()
        # As Python objects, the texts of three million items would take gigabytes.
        items = table.to_pandas(
            types_mapper=lambda kind: pd.ArrowDtype(kind) if _is_text_type(kind) else None,
            split_blocks=True,
            self_destruct=True,
        )
        del table
        pa.default_memory_pool().release_unused()  # reading took as much memory again as the table
        missing = [column for column in ITEM_COLUMNS if column not in items.columns]
        if missing or len(items) != self.n_items:
            raise ValueError(
                f"{self.path / ITEMS} has {len(items)} rows and lacks {missing or 'no column'}; "
                f"expected {self.n_items} rows; {_AGAIN}"
            )
        n_captions = int(self._captions_per_item(items).sum())
        if n_captions != self.n_captions:
            raise ValueError(
                f"{self.path / ITEMS} has {n_captions} captions, but {MANIFEST} says "
                f"{self.n_captions}; {_AGAIN}"
            )
        return items

    @staticmethod
    def _captions_per_item(items: pd.DataFrame) -> np.ndarray:
        lengths = pc.call_function("list_value_length", [pa.array(items["captions"])])
        return lengths.to_numpy(zero_copy_only=False).astype(np.int64)

    @cached_property
    def file_names(self) -> FileNames:
        """Name of each item's original file in its source, by row."""
        return FileNames(pd.Series(self.items["image"]), self.manifest.get("roots", ()))

    def _read_items(self) -> pa.Table:
        try:
            with pq.ParquetFile(self.checked(ITEMS) / ITEMS) as file:
                # A small damaged file may declare more rows than fit into memory.
                n = file.metadata.num_rows
                table = file.read() if n == self.n_items else None
            fault = f"it has {n} rows" if table is None else items_fault(table)
        except (pa.ArrowException, OSError) as error:
            fault, table = " ".join(str(error).split()), None
        if fault or table is None:
            raise ValueError(
                f"{self.path / ITEMS} cannot be used ({fault[:200]}); expected {self.n_items} "
                "items; prepare the collection again"
            )
        return table

    def check_unchanged(self) -> None:
        """Raise a ValueError if the collection has been replaced since it was opened.

        Only the manifest is checked, as every change by Sieve also changes the manifest.
        """
        self._manifest_file.check()

    @property
    def image_embeddings(self) -> np.ndarray:
        """(n, d) float16, L2-normalised, memory-mapped."""
        return self._embeddings(IMAGE_EMBEDDINGS, self.n_items)

    @property
    def text_embeddings(self) -> np.ndarray:
        """(c, d) float16, L2-normalised, memory-mapped."""
        return self._embeddings(TEXT_EMBEDDINGS, self.n_captions)

    @cached_property
    def caption_item(self) -> np.ndarray:
        """(c,) int32: the item row that each caption belongs to, ascending."""
        items = np.array(self._array(CAPTION_ITEM, (self.n_captions,), "i"))
        # They are used as row numbers, so none may exceed the number of items.
        falls = (items[1:] < items[:-1]).any()
        if len(items) and (items[0] < 0 or items[-1] >= self.n_items or falls):
            raise ValueError(
                f"{self.path / CAPTION_ITEM} is damaged: its rows do not ascend from 0 to "
                f"{self.n_items - 1}; {_AGAIN}"
            )
        of_items = self._captions_per_item(self.items)
        if not np.array_equal(np.bincount(items, minlength=self.n_items), of_items):
            raise ValueError(
                f"{self.path / CAPTION_ITEM} gives items other numbers of captions than {ITEMS}; "
                f"{_AGAIN}"
            )
        return items

    @cached_property
    def caption_texts(self) -> Texts:
        """All captions, in the order of `caption_item`."""
        return Texts(self.items["captions"])

    def row_of(self, item_id: str) -> int | None:
        """Return the row of one item id by a scan of the column, or None."""
        if not item_id.isascii():
            return None
        ids = pa.array(self.items["id"])
        row = pc.call_function(
            "index", [ids], pc.IndexOptions(pa.scalar(item_id, ids.type))
        ).as_py()
        return None if row < 0 else row

    @cached_property
    def row_of_id(self) -> dict[str, int]:
        """Row of every item id, for many lookups."""
        return {item_id: row for row, item_id in enumerate(self.items["id"])}

    @property
    def has_labels(self) -> bool:
        """Whether any item has a label."""
        return any(len(labels) for labels in self.items["labels"])

    def rows_of_split(self, splits: Sequence[str]) -> np.ndarray:
        """Return the rows of the items in some splits: (r,) int64, ascending."""
        return np.flatnonzero(self.items["split"].isin(list(splits)).to_numpy())

    def captions_of_rows(self, rows: np.ndarray) -> np.ndarray:
        """Return all captions of some item rows: (c,) int64, ascending."""
        wanted = np.zeros(self.n_items, bool)
        wanted[rows] = True
        return np.flatnonzero(wanted[np.asarray(self.caption_item)])

    def item_positions(self, rows: np.ndarray, captions: np.ndarray) -> np.ndarray:
        """Return the position in `rows` of each caption's item: (c,) int64.

        Parameters
        ----------
        rows : (r,) int64
            Item rows.
        captions : (c,) int64
            Captions of these items.
        """
        position = np.zeros(self.n_items, np.int64)
        position[rows] = np.arange(len(rows))
        return position[np.asarray(self.caption_item)[captions]]

    def _embeddings(self, name: str, n: int) -> np.ndarray:
        if name not in self._mapped:
            self._mapped[name] = self._array(name, (n, self.backbone.width))
        self._mapped[name].check()
        return self._mapped[name]

    def _array(self, name: str, shape: tuple[int, ...], kind: str = "f") -> MappedArray:
        path = self.checked(name) / name
        try:
            array = MappedArray.open(path)
        except UNREADABLE as error:
            raise ValueError(f"{path} cannot be read ({reason_of(error)}); {_AGAIN}") from None
        if array.shape != shape or array.dtype.kind != kind:
            raise ValueError(
                f"{path} has shape {array.shape} of {array.dtype}, expected {shape} of "
                f"{_KINDS[kind]}; {_AGAIN}"
            )
        return array
