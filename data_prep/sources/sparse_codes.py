"""External sparse codes as a collection: from SpLiCE, VDR, a sparse autoencoder or any other tool.

Row i of the image codes belongs to the i-th item of the table; row j of the text codes belongs to
its j-th caption. No backbone runs. Images that are not available locally are shown as placeholders
with their captions. Files are not trusted: nothing is unpickled, sizes are checked before
unpacking, and every number is checked before SciPy reads it.
"""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from scipy.sparse import csr_array

from sieve.data_prep.captions import tidy
from sieve.data_prep.captions.caption_rows import (
    CAPTION_NAMES,
    IMAGE_NAMES,
    CaptionRow,
    column_of,
    image_column_of,
)
from sieve.data_prep.captions.caption_table import CaptionsByImage, CaptionTableBuilder
from sieve.data_prep.captions.cell import as_text, captions_in
from sieve.data_prep.precomputed import PrecomputedCodes
from sieve.data_prep.records import Record, Skipped
from sieve.data_prep.sources.base import BaseSource
from sieve.data_prep.sources.embedding_files import TABLES, embedding_arrays, read_npz, read_table
from sieve.data_prep.sources.local_images import find_images, open_or_draw
from sieve.model.codes import SparseCodes, csr_fault
from sieve.model.external_sae import external_sae_fault
from sieve.model.files import UNREADABLE, reason_of
from sieve.model.text_encoder import check_entry

log = logging.getLogger(__name__)

MAX_TEXT_BYTES = 1 << 26
MAX_NAME_CHARACTERS = 120
"""Longer names are cut: every chip shows one."""

_PARTS = {
    "csr": ("shape", "indptr", "indices", "data"),
    "csc": ("shape", "indptr", "indices", "data"),
    "coo": ("shape", "row", "col", "data"),
}
_ALIASES = {
    "crow_indices": "indptr", "col_indices": "indices", "values": "data", "rows": "row",
    "cols": "col", "columns": "col",
}  # fmt: skip
"""Names that PyTorch and other libraries give to the arrays of a sparse matrix."""
CODE_SUFFIXES = (".npz", ".npy", ".safetensors", ".pt", ".parquet")
_IMAGE_COLUMNS = (*IMAGE_NAMES, "path", "url")
_DIMENSION_COLUMNS = ("dimension", "index", "latent", "feature", "id")
_NAME_COLUMNS = ("name", "concept", "word", "token", "label", "explanation", "description")


def read_codes_file(path: Path, m: int | None = None) -> SparseCodes:
    """Read a matrix of codes, sparse or dense, its rows scaled to length 1.

    Parameters
    ----------
    path : Path
        CSR, CSC or COO as `scipy.sparse.save_npz` writes them, or in `.safetensors`; a dense array
        in `.npy`, `.npz`, `.pt`, `.safetensors`, or in a list column of `.parquet`.
    m : int, optional
        Required number of dimensions.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        In one line, if it is not a matrix of finite, non-negative numbers in canonical form.
    """
    parts, (rows, width) = _csr_parts(path, _read_parts(path))
    fault = csr_fault(parts["indptr"], parts["indices"], parts["data"], (rows, width))
    if fault:
        raise ValueError(f"{path} cannot be used: {fault}")
    if m is not None and width != m:
        raise ValueError(
            f"{path} has {width:,} dimensions, but the image codes have {m:,}; all codes must "
            "have the same dimensions"
        )
    arrays = (parts["data"], parts["indices"], parts["indptr"])
    return SparseCodes.from_rows(csr_array(arrays, shape=(rows, width)))


def read_names(path: Path, m: int) -> dict[int, str]:
    """Read the names of dimensions; some may have none.

    Parameters
    ----------
    path : Path
        `.txt`: a name on each line. `.json`: a list of names, or an object of names by dimension.
        `.csv`: a column of names, with a column of dimensions or in their order.
    m : int

    Raises
    ------
    FileNotFoundError, ValueError
        In one line; also if the number of names in a list is not `m`.
    """
    text = _read_text(path)
    suffix = path.suffix.lower()
    if suffix == ".json":
        named = _from_json(path, text)
    elif suffix == ".csv":
        named = _from_csv(path, text)
    else:
        named = text.splitlines()
    if isinstance(named, list):
        if len(named) != m:
            raise ValueError(
                f"{path} has {len(named):,} names, but the codes have {m:,} dimensions; expected "
                "one name per dimension, in order (empty for a dimension without a name)"
            )
        named = dict(enumerate(named))
    outside = next((j for j in named if not 0 <= j < m), None)
    if outside is not None:
        raise ValueError(f"{path} names dimension {outside}; the codes have 0 to {m - 1}")
    tidied = {j: tidy(name) for j, name in sorted(named.items())}
    return {j: _short(name) for j, name in tidied.items() if name}


def read_word_list(path: Path, n: int) -> list[str]:
    """Read the words of the rows of a word code matrix: one word or short text on each line.

    Raises
    ------
    FileNotFoundError, ValueError
        In one line.
    """
    words = [tidy(line) for line in _read_text(path).splitlines()]
    if len(words) != n:
        raise ValueError(
            f"{path} has {len(words):,} lines, but the word codes have {n:,} rows; expected one "
            "line per row"
        )
    return words


def _read_parts(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a file, by name."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; save it with scipy.sparse.save_npz")
    if path.suffix == ".parquet":
        return embedding_arrays(path)
    if path.suffix != ".npz":
        found = embedding_arrays(path)
        # Several arrays are called FILE[NAME].
        return {name.partition("[")[2].rstrip("]") or name: array for name, array in found.items()}
    try:
        return read_npz(path)
    except (*UNREADABLE, NotImplementedError) as error:
        reason = reason_of(error)
        if "pickle" in reason:  # NumPy would advise to allow pickle
            reason = "it holds Python objects"
    raise ValueError(
        f"{path} cannot be read: {reason}; save plain numbers with scipy.sparse.save_npz"
    )


def _csr_parts(
    path: Path, parts: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], tuple[int, int]]:
    """Convert a matrix to the arrays of CSR and its shape.

    Supported are SciPy's CSR, CSC and COO, their arrays under PyTorch's names, and a dense array.
    """
    named = {_ALIASES.get(name, name): array for name, array in parts.items()}
    if len(parts) == 1:
        (dense,) = parts.values()
        if dense.ndim == 2 and dense.dtype.kind in "fiub":
            rows, columns = np.nonzero(dense)
            return _from_coordinates(path, rows, columns, dense[rows, columns], dense.shape)
    kind = _format(named)
    missing = [part for part in _PARTS.get(kind, ()) if part not in named]
    if kind not in _PARTS or missing:
        what = f"it lacks {', '.join(missing)}" if missing else f"it is of format {kind[:20]!r}"
        if not missing and len(parts) == 1:
            what = f"its array has shape {next(iter(parts.values())).shape}"
        raise ValueError(
            f"{path} cannot be read: {what}; save it as CSR: "
            "scipy.sparse.save_npz(path, scipy.sparse.csr_matrix(codes))"
        )
    shape = named["shape"]
    if shape.shape != (2,) or shape.dtype.kind not in "iu" or (shape < 0).any():
        raise ValueError(f"{path} has no shape of two integers; save it again with SciPy")
    n, m = shape.tolist()
    if kind == "csr":
        return {part: named[part] for part in ("indptr", "indices", "data")}, (n, m)
    if kind == "coo":
        return _from_coordinates(path, named["row"], named["col"], named["data"], (n, m))
    indptr = named["indptr"]
    if indptr.ndim != 1 or indptr.dtype.kind not in "iu" or len(indptr) != m + 1 or (
        (np.diff(indptr.astype(np.int64)) < 0).any() or indptr[-1] != len(named["data"])
    ):  # fmt: skip
        raise ValueError(f"{path} cannot be used: its indptr does not match {m:,} columns")
    columns = np.repeat(np.arange(m), np.diff(indptr.astype(np.int64)))
    return _from_coordinates(path, named["indices"], columns, named["data"], (n, m))


def _format(named: Mapping[str, np.ndarray]) -> str:
    """Return the format that SciPy recorded, or that the names of the arrays imply."""
    if "format" in named:
        kind = named["format"]
        return bytes(kind.item()).decode(errors="replace") if kind.dtype.kind == "S" else "?"
    return "coo" if "row" in named else "csr"


def _from_coordinates(
    path: Path, rows: np.ndarray, columns: np.ndarray, values: np.ndarray, shape: tuple[int, ...]
) -> tuple[dict[str, np.ndarray], tuple[int, int]]:
    """Convert coordinates to the arrays of CSR, without zeros."""
    n, m = shape
    same = rows.shape == columns.shape == values.shape and rows.ndim == 1
    if not same or rows.dtype.kind not in "iu" or columns.dtype.kind not in "iu":
        raise ValueError(
            f"{path} cannot be used: its rows, columns and values have shapes {rows.shape}, "
            f"{columns.shape} and {values.shape}; expected as many integers as values"
        )
    if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < n:
        raise ValueError(
            f"{path} cannot be used: it has row {int(rows.max())}; rows are 0 to {n - 1}"
        )
    kept = values != 0
    rows, columns, values = rows[kept].astype(np.int64), columns[kept], values[kept]
    order = np.lexsort((columns, rows))
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n))])
    return {"indptr": indptr, "indices": columns[order], "data": values[order]}, (n, m)


def _read_text(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; check its name")
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise ValueError(f"{path} has over {MAX_TEXT_BYTES >> 20} MiB; expected a list of names")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error.reason}); save it as UTF-8") from None


def _from_json(path: Path, text: str) -> list[str] | dict[int, str]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {' '.join(str(error).split())[:120]}") from None
    if isinstance(value, list) and all(isinstance(name, str | None) for name in value):
        return [name or "" for name in value]
    if isinstance(value, dict) and all(isinstance(name, str) for name in value.values()):
        return _by_dimension(path, value.items())
    raise ValueError(f"{path} is not a list of names or an object of names by dimension")


def _from_csv(path: Path, text: str) -> list[str] | dict[int, str]:
    try:
        rows = [row for row in csv.reader(text.splitlines()) if row]
    except csv.Error as error:
        raise ValueError(f"{path} is not CSV: {error}") from None
    head = [cell.strip().lower() for cell in rows[0]] if rows else []
    name = next((head.index(each) for each in _NAME_COLUMNS if each in head), None)
    number = next((head.index(each) for each in _DIMENSION_COLUMNS if each in head), None)
    if name is None:
        raise ValueError(f"{path} has no column `name`; its first line is {head[:5]}")
    cells = [[*row, *[""] * (len(head) - len(row))] for row in rows[1:]]
    if number is None:
        return [row[name] for row in cells]
    return _by_dimension(path, ((row[number], row[name]) for row in cells))


def _by_dimension(path: Path, pairs: Iterable[tuple[Any, str]]) -> dict[int, str]:
    named: dict[int, str] = {}
    for dimension, name in pairs:
        text = str(dimension).strip()
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            raise ValueError(f"{path} names dimension {text[:40]!r}, which is not an integer")
        if int(text) in named:
            raise ValueError(f"{path} names dimension {int(text)} twice")
        named[int(text)] = name
    return named


def _short(name: str) -> str:
    return name if len(name) <= MAX_NAME_CHARACTERS else f"{name[: MAX_NAME_CHARACTERS - 1]}…"


@dataclass(frozen=True)
class CodeFiles:
    """Paths of the files of external codes."""

    images: Path
    table: Path
    names: Path | None = None
    texts: Path | None = None
    words: Path | None = None
    word_list: Path | None = None

    @classmethod
    def find(cls, folder: Path, **given: Path | None) -> CodeFiles:
        """Find the files of a folder under their default names.

        Parameters
        ----------
        folder : Path
        given : Path or None
            Other paths, by field; relative to the working directory, else to the folder.

        Raises
        ------
        FileNotFoundError
            If the folder, the image codes, the table or a given file is missing.
        """
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder}; give the folder of the codes")
        defaults = {
            "images": tuple(f"image_codes{suffix}" for suffix in CODE_SUFFIXES),
            "table": tuple(f"items{suffix}" for suffix in TABLES),
            "names": ("names.json", "names.csv", "names.txt"),
            "texts": tuple(f"text_codes{suffix}" for suffix in CODE_SUFFIXES),
            "words": tuple(f"word_codes{suffix}" for suffix in CODE_SUFFIXES),
            "word_list": ("words.txt",),
        }
        found: dict[str, Path | None] = {}
        for field, names in defaults.items():
            named = given.get(field)
            options = [named, folder / named] if named else [folder / name for name in names]
            found[field] = next((path for path in options if path.is_file()), None)
            if found[field] is None and (named or field in ("images", "table")):
                wanted = str(named or " or ".join(names))
                raise FileNotFoundError(
                    external_sae_fault(folder)
                    or f"there is no {wanted} in {folder}; data_prep/README.md describes the layout"
                )
        if (found["words"] is None) != (found["word_list"] is None):
            raise FileNotFoundError(
                f"{folder} holds only one of word_codes.npz and words.txt; give both or neither"
            )
        return cls(**found)  # type: ignore[arg-type]


class Codes(BaseSource):
    """Rows of codes, with the items and captions that they encode.

    Parameters
    ----------
    files : CodeFiles
    images : Path, optional
        Folder of the images, whose paths are matched to the end of the table's image names; by
        default that of the codes. Nothing outside it is read.
    text_encoder : str
        `package.module:function` that encodes texts; recorded, not loaded.
    name : str
        The collection's name.
    licence : str

    Raises
    ------
    FileNotFoundError, ValueError
        In one line, if a file is missing, is malformed, or does not match the others.
    """

    def __init__(
        self,
        files: CodeFiles,
        images: Path | None = None,
        *,
        text_encoder: str = "",
        name: str = "",
        licence: str = "not stated",
    ) -> None:
        if images is not None and not images.is_dir():
            raise FileNotFoundError(f"there is no folder {images}; check --images")
        if text_encoder:
            check_entry(text_encoder)
        self.files = files
        self.images = (images or files.images.parent).resolve()
        self.name = name or files.images.parent.resolve().name
        self.licence = licence
        self.text_encoder = text_encoder

    @property
    def root(self) -> Path:
        """Folder that image paths are relative to."""
        return self.images

    def __str__(self) -> str:
        return f"codes {self.files.images.resolve()}"

    def precomputed(self) -> PrecomputedCodes:
        """Read and validate all codes, names and words."""
        files, images = self.files, self._image_codes
        table = self._read()
        texts = None
        if files.texts is not None:
            codes = read_codes_file(files.texts, images.m)
            if codes.n != table.n_captions:
                raise ValueError(
                    f"{files.texts} has {codes.n:,} rows, but {files.table} has "
                    f"{table.n_captions:,} captions; expected one row per caption, in table order"
                )
            numbers = range(len(table.groups))
            lines = [line for number in numbers for line in table.groups.caption_lines(number)]
            texts = codes.take(np.array(lines, np.int64))
        words, word_codes = (), None
        if files.words is not None and files.word_list is not None:
            word_codes = read_codes_file(files.words, images.m)
            words = tuple(read_word_list(files.word_list, word_codes.n))
        names = read_names(files.names, images.m) if files.names else {}
        self._log_summary(images, names)
        return PrecomputedCodes(images, texts, names, words, word_codes, self.text_encoder)

    def open_image(self, record: Record, size: int) -> Image.Image:  # noqa: ARG002
        """Open the record's image if it is local and readable, else draw its caption."""
        return open_or_draw(self.images, record)

    @cached_property
    def _image_codes(self) -> SparseCodes:
        return read_codes_file(self.files.images)

    def _log_summary(self, images: SparseCodes, names: Mapping[int, str]) -> None:
        if not self.files.names:
            log.warning("no names: dimensions are shown by number (names.txt, .csv, .json)")
        elif len(names) < images.m:
            log.warning("%s of %s dimensions have no name", images.m - len(names), images.m)
        empty = int((np.diff(images.by_row.indptr) == 0).sum())
        if empty:
            log.warning("%s of %s items have no active dimension and never match a query",
                        f"{empty:,}", f"{images.n:,}")  # fmt: skip
        if not self.files.words and not self.text_encoder:
            log.warning(
                "no word codes (word_codes.npz, words.txt): only items can be used as queries"
            )

    def _iter_records(self, skipped: list[Skipped]) -> Iterator[Record]:
        table = self._read()
        skipped += table.groups.skipped
        n_local, n_items = 0, len(table.groups)
        paths = find_images(self.images, dict.fromkeys(table.images.values()))
        for number, key in enumerate(table.groups):
            described = table.groups.describe(number)
            image = table.images.get(key, key)
            path = paths.get(image)
            n_local += path is not None
            yield Record(
                key,
                str(path or image),
                tuple(described.captions),
                tuple(described.labels),
                described.split,
            )
        if n_local < n_items:
            log.warning(
                "%s of %s images are in %s; the others are shown as captions; give the folder "
                "of images with --images", f"{n_local:,}", f"{n_items:,}", self.images,
            )  # fmt: skip

    def _read(self) -> _Items:
        """Read the table, and group rows by item."""
        path = self.files.table
        builder = CaptionTableBuilder("caption")
        images: dict[str, str] = {}
        columns = None
        n_captions = number = 0
        for number, value in enumerate(read_table(path), 1):
            columns = columns or _columns(value)
            image = as_text(columns.image and value.get(columns.image)).strip()
            key = tidy(as_text(columns.key and value.get(columns.key))) or image or f"row:{number}"
            images.setdefault(key, image or key)
            captions = captions_in(value.get(columns.caption)) if columns.caption else []
            # Captions are numbered in table order, so that their codes can be looked up.
            for caption in captions or [""]:
                builder.add(CaptionRow.lenient(n_captions, key, caption, value))
                n_captions += bool(caption)
        groups = builder.build()
        if len(groups) != self._image_codes.n:
            raise ValueError(
                f"{self.files.images} has {self._image_codes.n:,} rows, but {path} names "
                f"{len(groups):,} items in {number:,} rows; expected one row of codes per item, in "
                "order of first occurrence"
            )
        return _Items(groups, images, n_captions)


class _Items(NamedTuple):
    """Items of the table, and their captions."""

    groups: CaptionsByImage
    images: dict[str, str]
    """Name of each item's image, by key."""
    n_captions: int
    """Includes skipped captions."""


class _Columns(NamedTuple):
    key: str | None
    image: str | None
    caption: str | None


def _columns(value: Mapping[str, Any]) -> _Columns:
    """Find the columns of a table by their common names."""
    names = list(value)
    captions = tuple(map(str.lower, CAPTION_NAMES))
    image = image_column_of(_IMAGE_COLUMNS, value)
    return _Columns(column_of(("id", "key"), names), image, column_of(captions, names))
