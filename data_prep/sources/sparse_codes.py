"""Sparse codes that were made elsewhere, as a collection: SpLiCE's, VDR's, a sparse autoencoder's.

Row i of the images' codes is of the item that the table names i-th; row j of the texts' codes is of
its j-th caption. No backbone runs. Images are shown where they are on this machine; where not, a
tile shows the caption.

Files of sparse codes that were made elsewhere: matrices, names of dimensions, lists of words.

All of it may be hostile: nothing is unpickled, sizes are looked at before anything is unpacked, and
every number is checked before SciPy sees it.
"""

from __future__ import annotations

import csv
import json
import logging
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from scipy.sparse import csr_array

from sieve.data_prep.captions import split_named, tidy
from sieve.data_prep.captions.caption_rows import (
    CAPTION_NAMES,
    IMAGE_NAMES,
    LABEL_SEPARATOR,
    CaptionRow,
    column_of,
    image_column_of,
)
from sieve.data_prep.captions.caption_table import CaptionsByImage, CaptionTableBuilder
from sieve.data_prep.captions.cell import as_text, captions_in
from sieve.data_prep.precomputed import PrecomputedCodes
from sieve.data_prep.records import Record, Skipped
from sieve.data_prep.sources.base import BaseSource
from sieve.data_prep.sources.embedding_files import TABLES, embedding_arrays, read_table
from sieve.data_prep.sources.local_images import find_images, open_or_draw
from sieve.model.codes import SparseCodes, csr_fault
from sieve.model.external_sae import external_sae_fault
from sieve.model.files import UNREADABLE, reason_of
from sieve.model.text_encoder import check_entry

MAX_TEXT_BYTES = 1 << 26
MAX_NAME_CHARACTERS = 120
"""Longer names are cut: they stand on every chip."""

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
_LARGE, _BOMB_RATIO = 1 << 30, 200
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
        How many dimensions it must have.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        In one line, if it is no matrix of finite numbers of 0 or more, in canonical form.
    """
    parts, (rows, width) = _csr_parts(path, _read_parts(path))
    fault = csr_fault(parts["indptr"], parts["indices"], parts["data"], (rows, width))
    if fault:
        raise ValueError(f"{path} cannot be used: {fault}")
    if m is not None and width != m:
        raise ValueError(
            f"{path} has {width:,} dimensions, but the images' codes have {m:,}; all must be of "
            "one space"
        )
    arrays = (parts["data"], parts["indices"], parts["indptr"])
    return SparseCodes.from_rows(csr_array(arrays, shape=(rows, width)))


def read_names(path: Path, m: int) -> dict[int, str]:
    """Read a name for each dimension, or for some; those without stay unnamed.

    Parameters
    ----------
    path : Path
        `.txt`: a name a line. `.json`: a list of names, or an object of names by dimension. `.csv`:
        a column of names, beside one of dimensions or in their order.
    m : int

    Raises
    ------
    FileNotFoundError, ValueError
        In one line; also where there are more or fewer names than dimensions.
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
                f"{path} has {len(named):,} names, but the codes have {m:,} dimensions; one a "
                "dimension is expected, in their order (an empty one where there is none)"
            )
        named = dict(enumerate(named))
    outside = next((j for j in named if not 0 <= j < m), None)
    if outside is not None:
        raise ValueError(f"{path} names dimension {outside}; the codes have 0 to {m - 1}")
    tidied = {j: tidy(name) for j, name in sorted(named.items())}
    return {j: _short(name) for j, name in tidied.items() if name}


def read_word_list(path: Path, n: int) -> list[str]:
    """Read the words that a table of word codes has a row for, a word or short text a line.

    Raises
    ------
    FileNotFoundError, ValueError
        In one line.
    """
    words = [tidy(line) for line in _read_text(path).splitlines()]
    if len(words) != n:
        raise ValueError(
            f"{path} has {len(words):,} lines, but the codes of words have {n:,} rows; one line a "
            "row is expected"
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
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > _LARGE and unpacked > _BOMB_RATIO * path.stat().st_size:
            raise ValueError(f"it would unpack to {unpacked / 2**30:.0f} GiB, no plausible codes")
        with np.load(path, allow_pickle=False) as archive:
            return {part: np.asarray(archive[part]) for part in archive.files}
    except (*UNREADABLE, NotImplementedError) as error:
        reason = reason_of(error)
        if "pickle" in reason:  # NumPy's advice is to allow what must not be allowed
            reason = "it holds Python objects"
    raise ValueError(
        f"{path} cannot be read: {reason}; save plain numbers with scipy.sparse.save_npz"
    )


def _csr_parts(
    path: Path, parts: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], tuple[int, int]]:
    """Convert a matrix in any usual format to the arrays of CSR and its shape.

    Read are SciPy's CSR, CSC and COO, their arrays under PyTorch's names, and one dense array.
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
        raise ValueError(f"{path} has no shape of two whole numbers; save it with scipy again")
    n, m = shape.tolist()
    if kind == "csr":
        return {part: named[part] for part in ("indptr", "indices", "data")}, (n, m)
    if kind == "coo":
        return _from_coordinates(path, named["row"], named["col"], named["data"], (n, m))
    indptr = named["indptr"]
    if indptr.ndim != 1 or indptr.dtype.kind not in "iu" or len(indptr) != m + 1 or (
        (np.diff(indptr.astype(np.int64)) < 0).any() or indptr[-1] != len(named["data"])
    ):  # fmt: skip
        raise ValueError(f"{path} cannot be used: its indptr does not fit {m:,} columns")
    columns = np.repeat(np.arange(m), np.diff(indptr.astype(np.int64)))
    return _from_coordinates(path, named["indices"], columns, named["data"], (n, m))


def _format(named: Mapping[str, np.ndarray]) -> str:
    """Return the format that SciPy notes, or that the names of the arrays imply."""
    if "format" in named:
        kind = named["format"]
        return bytes(kind.item()).decode(errors="replace") if kind.dtype.kind == "S" else "?"
    return "coo" if "row" in named else "csr"


def _from_coordinates(
    path: Path, rows: np.ndarray, columns: np.ndarray, values: np.ndarray, shape: tuple[int, ...]
) -> tuple[dict[str, np.ndarray], tuple[int, int]]:
    """Sort coordinates into the arrays of CSR, without zeros."""
    n, m = shape
    same = rows.shape == columns.shape == values.shape and rows.ndim == 1
    if not same or rows.dtype.kind not in "iu" or columns.dtype.kind not in "iu":
        raise ValueError(
            f"{path} cannot be used: its rows, columns and values have shapes {rows.shape}, "
            f"{columns.shape} and {values.shape}; expected as many whole numbers as values"
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
        raise ValueError(f"{path} has over {MAX_TEXT_BYTES >> 20} MiB, which is no list of names")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error.reason}); save it as UTF-8") from None


def _from_json(path: Path, text: str) -> list[str] | dict[int, str]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON: {' '.join(str(error).split())[:120]}") from None
    if isinstance(value, list) and all(isinstance(name, str | None) for name in value):
        return [name or "" for name in value]
    if isinstance(value, dict) and all(isinstance(name, str) for name in value.values()):
        return _by_dimension(path, value.items())
    raise ValueError(f"{path} is neither a list of names nor an object of names by dimension")


def _from_csv(path: Path, text: str) -> list[str] | dict[int, str]:
    try:
        rows = [row for row in csv.reader(text.splitlines()) if row]
    except csv.Error as error:
        raise ValueError(f"{path} is no CSV: {error}") from None
    head = [cell.strip().lower() for cell in rows[0]] if rows else []
    name = next((head.index(each) for each in _NAME_COLUMNS if each in head), None)
    number = next((head.index(each) for each in _DIMENSION_COLUMNS if each in head), None)
    if name is None:
        raise ValueError(f"{path} has no column `name`; its first line says {head[:5]}")
    cells = [[*row, *[""] * (len(head) - len(row))] for row in rows[1:]]
    if number is None:
        return [row[name] for row in cells]
    return _by_dimension(path, ((row[number], row[name]) for row in cells))


def _by_dimension(path: Path, pairs: Iterable[tuple[Any, str]]) -> dict[int, str]:
    named: dict[int, str] = {}
    for dimension, name in pairs:
        text = str(dimension).strip()
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            raise ValueError(f"{path} names dimension {text[:40]!r}, which is no whole number")
        if int(text) in named:
            raise ValueError(f"{path} names dimension {int(text)} twice")
        named[int(text)] = name
    return named


def _short(name: str) -> str:
    return name if len(name) <= MAX_NAME_CHARACTERS else f"{name[: MAX_NAME_CHARACTERS - 1]}…"


log = logging.getLogger(__name__)

_NAMES = (*IMAGE_NAMES, "path", "url")


@dataclass(frozen=True)
class CodeFiles:
    """Where things are, by default under their usual names in one folder."""

    images: Path
    table: Path
    names: Path | None = None
    texts: Path | None = None
    words: Path | None = None
    word_list: Path | None = None

    @classmethod
    def find(cls, folder: Path, **given: Path | None) -> CodeFiles:
        """Look for what is not given.

        Parameters
        ----------
        folder : Path
        given : Path or None
            Fields; a relative path is sought in the folder where it is not found from here.

        Raises
        ------
        FileNotFoundError
            If there is no folder, no codes of images, or no table.
        """
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder}; give the folder of the codes")
        usual = {
            "images": tuple(f"image_codes{suffix}" for suffix in CODE_SUFFIXES),
            "table": tuple(f"items{suffix}" for suffix in TABLES),
            "names": ("names.json", "names.csv", "names.txt"),
            "texts": tuple(f"text_codes{suffix}" for suffix in CODE_SUFFIXES),
            "words": tuple(f"word_codes{suffix}" for suffix in CODE_SUFFIXES),
            "word_list": ("words.txt",),
        }
        found: dict[str, Path | None] = {}
        for field, names in usual.items():
            named = given.get(field)
            options = [named, folder / named] if named else [folder / name for name in names]
            found[field] = next((path for path in options if path.is_file()), None)
            if found[field] is None and (named or field in ("images", "table")):
                wanted = str(named or " or ".join(names))
                raise FileNotFoundError(
                    external_sae_fault(folder)
                    or f"there is no {wanted} in {folder}; data_prep/README.md tells the layout"
                )
        if (found["words"] is None) != (found["word_list"] is None):
            raise FileNotFoundError(
                f"{folder} holds {'words' if found['words'] is None else 'codes of words'} alone; "
                "word_codes.npz and words.txt belong together"
            )
        return cls(**found)  # type: ignore[arg-type]


class Codes(BaseSource):
    """Rows of codes, with the items and captions that they are of.

    Parameters
    ----------
    files : CodeFiles
    images : Path, optional
        Folder in which the table's image names are sought, by as much of their end as fits; by
        default that of the codes. Nothing outside it is read.
    text_encoder : str
        `package.module:function` that makes codes of texts: kept, not loaded.
    name : str
        The collection's.
    licence : str

    Raises
    ------
    FileNotFoundError, ValueError
        In one line, where a file is missing, is not what it should be, or does not fit the others.
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
        """Folder that the images' files are named relative to."""
        return self.images

    def __str__(self) -> str:
        return f"codes {self.files.images.resolve()}"

    def precomputed(self) -> PrecomputedCodes:
        """Read and check all codes, names and words."""
        files, images = self.files, self._image_codes
        table = self._read()
        texts = None
        if files.texts is not None:
            codes = read_codes_file(files.texts, images.m)
            if codes.n != table.n_captions:
                raise ValueError(
                    f"{files.texts} has {codes.n:,} rows, but {files.table} {table.n_captions:,} "
                    "captions; one row a caption is expected, in the table's order"
                )
            numbers = range(len(table.groups))
            lines = [line for number in numbers for line in table.groups.caption_lines(number)]
            texts = codes.take(np.array(lines, np.int64))
        words, word_codes = (), None
        if files.words is not None and files.word_list is not None:
            word_codes = read_codes_file(files.words, images.m)
            words = tuple(read_word_list(files.word_list, word_codes.n))
        names = read_names(files.names, images.m) if files.names else {}
        self._tell(images, names)
        return PrecomputedCodes(images, texts, names, words, word_codes, self.text_encoder)

    def open_image(self, record: Record, size: int) -> Image.Image:  # noqa: ARG002
        """Open the record's image where it is here and whole, else draw its caption."""
        return open_or_draw(self.images, record)

    @cached_property
    def _image_codes(self) -> SparseCodes:
        return read_codes_file(self.files.images)

    def _tell(self, images: SparseCodes, names: Mapping[int, str]) -> None:
        if not self.files.names:
            log.warning("no names: dimensions are called by their number (names.txt, .csv, .json)")
        elif len(names) < images.m:
            log.warning("%s of %s dimensions have no name", images.m - len(names), images.m)
        empty = int((np.diff(images.by_row.indptr) == 0).sum())
        if empty:
            log.warning("%s of %s items have no dimension at all and are never found",
                        f"{empty:,}", f"{images.n:,}")  # fmt: skip
        if not self.files.words and not self.text_encoder:
            log.warning(
                "no codes of words (word_codes.npz, words.txt): it can be searched by items alone"
            )

    def _iter_records(self, skipped: list[Skipped]) -> Iterator[Record]:
        table = self._read()
        skipped += table.groups.skipped
        n_here, n_items = 0, len(table.groups)
        found = find_images(self.images, dict.fromkeys(table.images.values()))
        for number, key in enumerate(table.groups):
            said = table.groups.describe(number)
            image = table.images.get(key, key)
            path = found.get(image)
            n_here += path is not None
            shown = str(path or image)
            yield Record(key, shown, tuple(said.captions), tuple(said.labels), said.split)
        if n_here < n_items:
            log.warning(
                "%s of %s images are in %s; the others are shown by their captions (--images says "
                "where they are)", f"{n_here:,}", f"{n_items:,}", self.images,
            )  # fmt: skip

    def _read(self) -> _Items:
        """Go over the table, and put rows of one item together."""
        path = self.files.table
        reading = CaptionTableBuilder("caption")
        images: dict[str, str] = {}
        columns = None
        n_captions = number = 0
        for number, value in enumerate(read_table(path), 1):
            columns = columns or _columns(value)
            image = as_text(columns.image and value.get(columns.image)).strip()
            key = tidy(as_text(columns.key and value.get(columns.key))) or image or f"row:{number}"
            images.setdefault(key, image or key)
            captions = captions_in(value.get(columns.caption)) if columns.caption else []
            # Captions are numbered as they come, so that codes of texts can be looked up.
            for caption in captions or [""]:
                reading.add(_row(n_captions, key, caption, value))
                n_captions += bool(caption)
        groups = reading.build()
        if len(groups) != self._image_codes.n:
            raise ValueError(
                f"{self.files.images} has {self._image_codes.n:,} rows, but {path} names "
                f"{len(groups):,} items in {number:,} rows; one row of codes an item is expected, "
                "in the order in which they are first named"
            )
        return _Items(groups, images, n_captions)


class _Items(NamedTuple):
    """What the table says."""

    groups: CaptionsByImage
    images: dict[str, str]
    """Name of each item's image, by key."""
    n_captions: int
    """All that are there, those that are left out too."""


class _Columns(NamedTuple):
    key: str | None
    image: str | None
    caption: str | None


def _columns(value: Mapping[str, Any]) -> _Columns:
    """Choose the columns of a table by their usual names."""
    found = list(value)
    captions = tuple(map(str.lower, CAPTION_NAMES))
    image = image_column_of(_NAMES, value)
    return _Columns(column_of(("id", "key"), found), image, column_of(captions, found))


def _row(line: int, key: str, caption: str, value: Mapping[str, Any]) -> CaptionRow:
    labels = value.get("labels")
    named = labels if isinstance(labels, list) else as_text(labels).split(LABEL_SEPARATOR)
    split = as_text(value.get("split"))  # other people's words for other things are passed over
    return CaptionRow(
        line, key, caption, split if split_named(split) else "", list(map(as_text, named))
    )
