"""Collections: items, captions, labels and frozen embeddings in one folder.

Instead of embeddings, a collection may hold external sparse codes, which are their own checkpoint:
it then also has the `names.json` and `config.json` of a checkpoint, but no weights and no backbone.

A collection is immutable. `collection.json` holds the size and hash of every other file, so its own
hash identifies the whole. Derived data is stored elsewhere under that hash. Embeddings are
memory-mapped, so opening a million items reads almost nothing. A file's hash is compared when the
file is first used, and its size and time at each use, so a changed file raises an error.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field

from sieve.model.codes import CODE_FILES, SparseCodes, code_file_names
from sieve.model.files import (
    CHECKSUMS,
    UNREADABLE,
    Count,
    Hash,
    Line,
    MappedArray,
    OpenedFiles,
    Schema,
    Size,
    check_files,
    read_head,
    reason_of,
    write_checksums,
)
from sieve.model.item_table import FileNames, Texts, items_fault
from sieve.model.sae_detection import external_sae_fault, tool_of_config

SCHEMA_VERSION = 1
MANIFEST = "collection.json"
ITEMS = "items.parquet"
IMAGE_EMBEDDINGS = "image_embeddings.npy"
TEXT_EMBEDDINGS = "text_embeddings.npy"
CAPTION_ITEM = "caption_item.npy"
SKIPPED = "skipped.csv"
DUPLICATES = "duplicates.csv"
THUMBNAILS = "thumbnails"
THUMBNAIL_ARCHIVE = "thumbnails.zip"
"""All thumbnails in one file, `ID.webp` without compression, as an alternative to the folder."""
_CHECKPOINT = ("config.json", "names.json")
PUBLISHED = (
    MANIFEST, CHECKSUMS, ITEMS, IMAGE_EMBEDDINGS, TEXT_EMBEDDINGS, CAPTION_ITEM, SKIPPED,
    DUPLICATES, THUMBNAIL_ARCHIVE, *CODE_FILES, *_CHECKPOINT,
)  # fmt: skip
"""All files of a collection on the Hub, with embeddings or codes."""
_AGAIN = "prepare the collection again"
_KINDS = {"f": "floating-point numbers", "i": "whole numbers"}
_UNKNOWN = "unknown-"


@dataclass(frozen=True)
class BackboneIdentity:
    """Identity of the frozen backbone that made a collection's embeddings."""

    name: Line
    sha256: Hash
    width: Annotated[Size, Field(alias="d")]

    def __post_init__(self) -> None:
        # Windows would send the user's credentials to any machine that a collection names.
        if re.search(r"(^|[:/])[\\/]{2}", self.name):
            raise ValueError(
                f"backbone {self.name[:80]!r} is on another machine; copy it to this one"
            )

    @classmethod
    def unknown(cls, name: str, width: int) -> BackboneIdentity:
        """Identify a backbone that cannot be opened by the hash of its name."""
        return cls(name, _UNKNOWN + hashlib.sha256(name.encode()).hexdigest()[:32], width)

    @property
    def is_known(self) -> bool:
        """Whether the weights' hash is known."""
        return not self.sha256.startswith(_UNKNOWN)

    def may_be(self, sha256: str, width: int) -> bool:
        """Return whether an opened backbone may be this one; if its hash is unknown, by width."""
        return width == self.width and (sha256 == self.sha256 or not self.is_known)

    def as_json(self) -> dict[str, Any]:
        """Return the identity as it is stored with artifacts."""
        return {"name": self.name, "sha256": self.sha256, "d": self.width}

    def __str__(self) -> str:
        known = self.sha256[:12] if self.is_known else "weights unknown"
        return f"backbone {self.name} ({known})"


@dataclass(frozen=True)
class CodesIdentity:
    """Identity of the codes that a collection holds."""

    m: Size
    """Number of dimensions."""
    sha256: Hash
    """Hash of the images' codes."""

    @classmethod
    def of(cls, codes: SparseCodes) -> CodesIdentity:
        """Identify codes by a hash of their arrays."""
        digest = hashlib.sha256()
        for part in (codes.by_row.indptr, codes.by_row.indices, codes.by_row.data):
            digest.update(np.ascontiguousarray(part).data)
            digest.update(b"end")
        return cls(codes.m, digest.hexdigest())

    def __str__(self) -> str:
        return f"codes of {self.m} dimensions ({self.sha256[:12]})"


class ItemCounts(Schema):
    """Numbers of items and captions, and of images that were left out or repeat others."""

    items: Count
    captions: Count
    skipped: Count = 0
    duplicates: Count = 0


class FileFacts(Schema):
    """Size and hash of a file."""

    bytes: Annotated[int, Field(ge=0)]
    sha256: Hash = ""


class ShardFacts(Schema):
    """Number of a shard, such as 2/3, and the preparation that it is a part of."""

    part: Line
    origin: dict[str, Any]


class Manifest(Schema):
    """Content of `collection.json`."""

    name: Line
    source: Line
    licence: Line
    backbone: BackboneIdentity | None
    codes: CodesIdentity | None = None
    counts: ItemCounts
    files: dict[str, FileFacts]
    follow_links: bool = False
    roots: list[str] = []
    shard: ShardFacts | None = None
    """None unless the folder is a part of a larger collection."""


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hex digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def thumbnail_path(item_id: str) -> str:
    """Return the path of an item's thumbnail inside the collection, with forward slashes."""
    return f"{THUMBNAILS}/{item_id[:2]}/{item_id}.webp"


def _is_text(kind: pa.DataType) -> bool:
    return any(of(kind) for of in (pa.types.is_list, pa.types.is_string, pa.types.is_large_string))


class Collection:
    """An opened collection.

    Attributes
    ----------
    codes : CodesIdentity or None
        External codes that it holds instead of embeddings.
    sha256 : str
        Hash of `collection.json`, which covers the whole folder.
    """

    def __init__(self, path: Path, manifest: Manifest, sha256: str) -> None:
        self.path = path
        self.manifest = manifest
        self.sha256 = sha256
        self.name = manifest.name
        self.n_items = manifest.counts.items
        self.n_captions = manifest.counts.captions
        self.codes = manifest.codes if manifest.backbone is None else None
        self._checked: set[str] = set()
        self._manifest_file = OpenedFiles(path / MANIFEST)
        self._mapped: dict[str, MappedArray] = {}

    @property
    def backbone(self) -> BackboneIdentity:
        """Backbone that made its embeddings; raises a ValueError if it holds codes instead."""
        if self.manifest.backbone is None:
            raise ValueError(
                f"collection {self.name} holds external sparse codes and has no backbone: it can "
                "be explored and searched, but not trained on, evaluated or added to; for that "
                "prepare its images with `sieve prepare folder`"
            )
        return self.manifest.backbone

    @classmethod
    def open(cls, path: str | Path) -> Collection:
        """Open a collection; raise a FileNotFoundError if there is none, or a file is missing.

        A ValueError that names the file is raised if it has another version, is truncated or
        damaged.
        """
        path = Path(path)
        manifest_path = path / MANIFEST
        if not manifest_path.is_file():
            if tool_of_config(path):
                raise ValueError(external_sae_fault(path))
            raise FileNotFoundError(
                f"{path} is not a collection (no {MANIFEST}); "
                "make one with `sieve prepare folder DIR --captions CSV --out COLLECTION`"
            )
        manifest = read_head(manifest_path, Manifest, _AGAIN, SCHEMA_VERSION)
        if manifest.backbone is None and manifest.codes is None:
            raise ValueError(f"{manifest_path} is damaged (no backbone and no codes); {_AGAIN}")
        check_files(path, _AGAIN, needs=[MANIFEST])
        for name, facts in manifest.files.items():
            part = path / name
            if Path(name).name != name or not part.is_file():
                raise FileNotFoundError(f"{part} is missing; {_AGAIN}")
            if (size := part.stat().st_size) != facts.bytes:
                raise ValueError(f"{part} has {size} bytes, expected {facts.bytes}; {_AGAIN}")
        return cls(path, manifest, file_sha256(manifest_path))

    def checked(self, *names: str) -> Path:
        """Compare files with the hashes in the manifest, each once, and return the folder.

        Raises a ValueError if a file has changed since it was written, or the manifest has no hash.
        """
        for name in names:
            if name in self._checked or not (self.path / name).exists():
                continue
            facts = self.manifest.files.get(name)
            if facts is None or not facts.sha256:
                raise self._fault(name, f"has no sha256 in {MANIFEST}")
            if file_sha256(self.path / name) != facts.sha256:
                raise self._fault(name, "is damaged: its bytes have changed")
            self._checked.add(name)
        return self.path

    def _fault(self, name: str, fault: str) -> ValueError:
        return ValueError(f"{self.path / name} {fault}; {_AGAIN}")

    @cached_property
    def items(self) -> pd.DataFrame:
        """Table with one row per item: id, image, captions, labels, split, width, height."""
        table = self._read_items()
        # As Python objects, the texts of three million items would take gigabytes.
        items = table.to_pandas(
            types_mapper=lambda kind: pd.ArrowDtype(kind) if _is_text(kind) else None,
            split_blocks=True,
            self_destruct=True,
        )
        del table
        pa.default_memory_pool().release_unused()  # reading took as much memory again as the table
        n_captions = int(self._captions_per_item(items).sum())
        if n_captions != self.n_captions:
            expected = f"but {MANIFEST} says {self.n_captions}"
            raise self._fault(ITEMS, f"has {n_captions} captions, {expected}")
        return items

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
            expected = f"expected {self.n_items} items"
            raise self._fault(ITEMS, f"cannot be used ({fault[:200]}); {expected}")
        return table

    @staticmethod
    def _captions_per_item(items: pd.DataFrame) -> np.ndarray:
        lengths = pc.call_function("list_value_length", [pa.array(items["captions"])])
        return lengths.to_numpy(zero_copy_only=False).astype(np.int64)

    @cached_property
    def file_names(self) -> FileNames:
        """Name of each item's original file in its source, by row."""
        return FileNames(pd.Series(self.items["image"]), self.manifest.roots)

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
        captions_per_item = self._captions_per_item(self.items)
        if not np.array_equal(items, np.repeat(np.arange(self.n_items), captions_per_item)):
            raise self._fault(CAPTION_ITEM, f"is damaged: it does not fit the captions in {ITEMS}")
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

    def existing_row(self, item_id: str) -> int:
        """Return the row of an item id; raise a ValueError if there is none."""
        row = self.row_of(item_id)
        if row is None:
            raise ValueError(
                f"collection {self.name} has no item {item_id[:40]!r}; "
                "item ids are the 16 hex digits shown with each result"
            )
        return row

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
        """Return the position in item rows, (r,) int64, of each caption's item: (c,) int64."""
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
            raise self._fault(name, f"cannot be read ({reason_of(error)})") from None
        if array.shape != shape or array.dtype.kind != kind:
            expected = f"expected {shape} of {_KINDS[kind]}"
            raise self._fault(name, f"has shape {array.shape} of {array.dtype}, {expected}")
        return array


def write_manifest(
    folder: Path,
    *,
    name: str,
    backbone: BackboneIdentity | None,
    source: str,
    licence: str,
    counts: Mapping[str, int],
    roots: Sequence[str] = (),
    shard: Mapping[str, Any] | None = None,
    codes: CodesIdentity | None = None,
    follow_links: bool = False,
) -> None:
    """Write `collection.json` with the sizes and hashes of the other files, and its checksum.

    Parameters
    ----------
    folder : Path
        Folder that already holds all other files.
    backbone : BackboneIdentity or None
        None if it holds codes instead of embeddings.
    counts : mapping of str to int
        At least `items` and `captions`.
    roots : sequence of str
        Source folders, to which the names of the items' files are relative.
    shard : mapping, optional
        See `ShardFacts`.
    follow_links : bool
        Whether links that leave the source folder were followed, and may be followed later.
    """
    parts = [ITEMS, IMAGE_EMBEDDINGS, TEXT_EMBEDDINGS, CAPTION_ITEM, SKIPPED]
    if backbone is None:
        parts = [ITEMS, CAPTION_ITEM, SKIPPED, *code_file_names(folder), *_CHECKPOINT]
    parts += [DUPLICATES] if (folder / DUPLICATES).is_file() else []
    manifest = {
        "name": name,
        "schema_version": SCHEMA_VERSION,
        "backbone": backbone and backbone.as_json(),
        **({} if codes is None else {"codes": asdict(codes)}),
        "counts": dict(counts),
        "source": source,
        "licence": licence,
        **({"roots": list(roots)} if roots else {}),
        **({"follow_links": True} if follow_links else {}),
        "files": {
            part: {"bytes": (folder / part).stat().st_size, "sha256": file_sha256(folder / part)}
            for part in parts
        },
        **({} if shard is None else {"shard": dict(shard)}),
    }
    text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    # External codes are their own checkpoint, which is opened without the manifest.
    write_checksums(folder, [MANIFEST, *(_CHECKPOINT if backbone is None else ())])
