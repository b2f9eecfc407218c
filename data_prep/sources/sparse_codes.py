"""External sparse codes as a collection: from SpLiCE, VDR, a sparse autoencoder or any other tool.

Row i of the image codes belongs to the i-th item of the table; row j of the text codes belongs to
its j-th caption. No backbone runs. Files are not trusted: nothing is unpickled, sizes are checked
before unpacking, and every number is checked before SciPy reads it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError
from scipy.sparse import csr_array

from sieve.data_prep.captions.caption_table import CaptionsByImage, CaptionTableBuilder
from sieve.data_prep.captions.caption_text import (
    CAPTION_NAMES,
    IMAGE_NAMES,
    CaptionRow,
    as_text,
    captions_in,
    column_of,
    image_column_of,
    tidy,
)
from sieve.data_prep.precomputed import PrecomputedCodes
from sieve.data_prep.records import Record, SkippedRows
from sieve.data_prep.sources import ExternalSource, require_file, require_folder
from sieve.data_prep.sources.embedding_files import TABLES, read_arrays, read_table
from sieve.model.codes import SparseCodes, csr_fault
from sieve.model.sae_detection import external_sae_fault
from sieve.model.text_encoder import check_entry

log = logging.getLogger(__name__)

MAX_NAME_CHARACTERS = 120
"""Longer names are cut: every chip shows one."""

_CSR = ("indptr", "indices", "data")
_PARTS = {"csr": _CSR, "csc": _CSR, "coo": ("row", "col", "data")}
_ALIASES = {
    "crow_indices": "indptr", "col_indices": "indices", "values": "data", "rows": "row",
    "cols": "col", "columns": "col",
}  # fmt: skip
"""Names that PyTorch and other libraries give to the arrays of a sparse matrix."""
_Csr = tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, int]]
"""Values, columns, starts of the rows and shape of a sparse matrix that is not yet validated."""
CODE_SUFFIXES = (".npz", ".npy", ".safetensors", ".pt", ".parquet")
_DIMENSION_COLUMNS = ("dimension", "index", "latent", "feature", "id")
_NAME_COLUMNS = ("name", "concept", "word", "token", "label", "explanation", "description")
_DEFAULT_FILES = {
    "images": [f"image_codes{suffix}" for suffix in CODE_SUFFIXES],
    "table": [f"items{suffix}" for suffix in TABLES],
    "names": ["names.json", "names.csv", "names.txt"],
    "texts": [f"text_codes{suffix}" for suffix in CODE_SUFFIXES],
    "words": [f"word_codes{suffix}" for suffix in CODE_SUFFIXES],
    "word_list": ["words.txt"],
}
_NAMES = TypeAdapter(list[str | None] | dict[str, str])


def read_codes_file(path: Path, m: int | None = None) -> SparseCodes:
    """Read a matrix of codes, sparse or dense, its rows scaled to length 1.

    Raise FileNotFoundError if there is no such file, and ValueError in one line if it is not a
    matrix of finite, non-negative numbers in canonical form.

    Parameters
    ----------
    path : Path
        CSR, CSC or COO as `scipy.sparse.save_npz` writes them, or in `.safetensors`; a dense array
        in `.npy`, `.npz`, `.pt`, `.safetensors`, or in a list column of `.parquet`.
    m : int, optional
        Required number of dimensions.
    """
    require_file(path, "save it with scipy.sparse.save_npz")
    arrays = read_arrays(path, "save plain numbers with scipy.sparse.save_npz")
    data, indices, indptr, shape = _as_csr(path, arrays)
    if fault := csr_fault(indptr, indices, data, shape):
        raise ValueError(f"{path} cannot be used: {fault}")
    if m is not None and shape[1] != m:
        raise ValueError(
            f"{path} has {shape[1]:,} dimensions, but the image codes have {m:,}; all codes must "
            "have the same dimensions"
        )
    return SparseCodes.from_rows(csr_array((data, indices, indptr), shape=shape))


def _as_csr(path: Path, arrays: Mapping[str, np.ndarray]) -> _Csr:
    """Convert SciPy's CSR, CSC or COO, perhaps under PyTorch's names, or a dense array to CSR."""
    if len(arrays) == 1:
        (dense,) = arrays.values()
        if dense.ndim == 2 and dense.dtype.kind in "fiub":
            rows, columns = np.nonzero(dense)
            return _from_coordinates(path, rows, columns, dense[rows, columns], dense.shape)
    named = {_ALIASES.get(name, name): array for name, array in arrays.items()}
    kind = "coo" if "row" in named else "csr"
    if "format" in named:  # as SciPy records it
        stated = named["format"]
        kind = bytes(stated.item()).decode(errors="replace") if stated.dtype.kind == "S" else "?"
    missing = [part for part in ("shape", *_PARTS.get(kind, ())) if part not in named]
    if kind not in _PARTS or missing:
        what = f"it lacks {', '.join(missing)}" if missing else f"it is of format {kind[:20]!r}"
        if len(arrays) == 1:
            what = f"its array has shape {next(iter(arrays.values())).shape}"
        raise ValueError(
            f"{path} cannot be read: {what}; save it as CSR: "
            "scipy.sparse.save_npz(path, scipy.sparse.csr_matrix(codes))"
        )
    shape = named["shape"]
    if shape.shape != (2,) or shape.dtype.kind not in "iu" or (shape < 0).any():
        raise ValueError(f"{path} has no shape of two integers; save it again with SciPy")
    n, m = shape.tolist()
    first, second, data = (named[part] for part in _PARTS[kind])
    if kind == "csr":
        return data, second, first, (n, m)
    if kind == "coo":
        return _from_coordinates(path, first, second, data, (n, m))
    is_indptr = first.ndim == 1 and first.dtype.kind in "iu" and len(first) == m + 1
    counts = np.diff(first.astype(np.int64)) if is_indptr else np.array([-1])
    if counts.min(initial=0) < 0 or first[-1] != len(data):
        raise ValueError(f"{path} cannot be used: its indptr does not match {m:,} columns")
    return _from_coordinates(path, second, np.repeat(np.arange(m), counts), data, (n, m))


def _from_coordinates(
    path: Path, rows: np.ndarray, columns: np.ndarray, values: np.ndarray, shape: tuple[int, ...]
) -> _Csr:
    """Convert coordinates to CSR, without zeros; `csr_fault` reports repeated ones."""
    n, m = shape
    same = rows.shape == columns.shape == values.shape and rows.ndim == 1
    if not same or rows.dtype.kind not in "iu" or columns.dtype.kind not in "iu":
        raise ValueError(
            f"{path} cannot be used: its rows, columns and values have shapes {rows.shape}, "
            f"{columns.shape} and {values.shape}; expected as many integers as values"
        )
    if len(rows) and not 0 <= rows.min() <= rows.max() < n:
        raise ValueError(f"{path} cannot be used: it has row {rows.max()}; rows are 0 to {n - 1}")
    kept = values != 0
    rows, columns, values = rows[kept].astype(np.int64), columns[kept], values[kept]
    order = np.lexsort((columns, rows))
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n))])
    return values[order], columns[order], indptr, (n, m)


def read_names(path: Path, m: int) -> dict[int, str]:
    """Read the names of m dimensions; some may have none.

    A `.txt` file has a name on each line; `.json` is a list of names, or an object of names by
    dimension; `.csv` has a column of names, with a column of dimensions or in their order. Raise
    FileNotFoundError or ValueError in one line, also if the number of names in a list is not m.
    """
    names, dimensions = _names_and_dimensions(path, _read_text(path))
    if dimensions is None and len(names) != m:
        raise ValueError(
            f"{path} has {len(names):,} names, but the codes have {m:,} dimensions; expected "
            "one name per dimension, in order (empty for a dimension without a name)"
        )
    named: dict[int, str] = {}
    for given, name in zip(range(m) if dimensions is None else dimensions, names, strict=True):
        text = str(given).strip()
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            raise ValueError(f"{path} names dimension {text[:40]!r}, which is not an integer")
        dimension = int(text)
        if dimension in named:
            raise ValueError(f"{path} names dimension {dimension} twice")
        if dimension >= m:
            raise ValueError(f"{path} names dimension {dimension}; the codes have 0 to {m - 1}")
        whole = tidy(name or "")
        too_long = len(whole) > MAX_NAME_CHARACTERS
        named[dimension] = f"{whole[: MAX_NAME_CHARACTERS - 1]}…" if too_long else whole
    return {dimension: name for dimension, name in sorted(named.items()) if name}


def _names_and_dimensions(
    path: Path, text: str
) -> tuple[Sequence[str | None], Sequence[str] | None]:
    """Return the names in a file, and the dimension of each; None if they are in order."""
    if path.suffix.lower() == ".json":
        try:
            value = _NAMES.validate_json(text)
        except ValidationError as error:
            is_json = error.errors()[0]["type"] != "json_invalid"
            what = "a list of names or an object of names by dimension" if is_json else "JSON"
            raise ValueError(f"{path} is not {what}") from None
        return (value, None) if isinstance(value, list) else (list(value.values()), list(value))
    if path.suffix.lower() == ".csv":
        rows = list(read_table(path)) if text.strip() else []
        columns = list(rows[0]) if rows else []
        name, dimension = (column_of(of, columns) for of in (_NAME_COLUMNS, _DIMENSION_COLUMNS))
        if name is None:
            raise ValueError(f"{path} has no column `name`; its columns are {columns[:5]}")
        dimensions = None if dimension is None else [row[dimension] for row in rows]
        return [row[name] for row in rows], dimensions
    return text.splitlines(), None


def read_word_list(path: Path, n: int) -> list[str]:
    """Read the words of the n rows of a word code matrix: one word or short text on each line."""
    words = [tidy(line) for line in _read_text(path).splitlines()]
    if len(words) != n:
        both = f"{len(words):,} lines, but the word codes have {n:,} rows"
        raise ValueError(f"{path} has {both}; expected one line per row")
    return words


def _read_text(path: Path) -> str:
    require_file(path, "check its name")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error.reason}); save it as UTF-8") from None


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
        """Find the files of a folder under their default names, or under the names `given`.

        Paths are relative to the working directory, else to the folder. Raise FileNotFoundError if
        the folder, the image codes, the table or a given file is missing.
        """
        require_folder(folder, "give the folder of the codes")
        found: dict[str, Path | None] = {}
        for part, names in _DEFAULT_FILES.items():
            named = given.get(part)
            options = [named, folder / named] if named else [folder / name for name in names]
            found[part] = next((path for path in options if path.is_file()), None)
            if found[part] is None and (named or part in ("images", "table")):
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


@dataclass(frozen=True)
class Codes(ExternalSource):
    """Rows of codes, with the items and captions that they encode.

    Raise FileNotFoundError or ValueError in one line if a file is missing, is malformed, or does
    not match the others.
    """

    files: CodeFiles
    images: Path | None = None
    """Folder of the images, whose paths are matched to the end of the table's image names; by
    default that of the codes. Nothing outside it is read, unless `follow_links`."""
    _: KW_ONLY
    text_encoder: str = ""
    """`package.module:function` that encodes texts; recorded, not loaded."""
    follow_links: bool | None = False
    root: Path = field(init=False)

    def __post_init__(self) -> None:
        if self.text_encoder:
            check_entry(self.text_encoder)
        folder = self.files.images.parent.resolve()
        if self.images is not None:
            require_folder(self.images, "check --images")
        vars(self).update(root=(self.images or folder).resolve(), name=self.name or folder.name)

    def __str__(self) -> str:
        return f"codes {self.files.images.resolve()}"

    def precomputed(self) -> PrecomputedCodes:
        """Read and validate all codes, names and words."""
        files, images = self.files, self._image_codes
        items, _, n_captions = self._read()
        texts = None
        if files.texts is not None:
            codes = read_codes_file(files.texts, images.m)
            if codes.n != n_captions:
                raise ValueError(
                    f"{files.texts} has {codes.n:,} rows, but {files.table} has {n_captions:,} "
                    "captions; expected one row per caption, in table order"
                )
            lines = [line for number in range(len(items)) for line in items.caption_lines(number)]
            texts = codes.take(np.array(lines, np.int64))
        words, word_codes = (), None
        if files.words is not None and files.word_list is not None:
            word_codes = read_codes_file(files.words, images.m)
            words = tuple(read_word_list(files.word_list, word_codes.n))
        names = read_names(files.names, images.m) if files.names else {}
        self._log_gaps(images, names)
        return PrecomputedCodes(images, texts, names, words, word_codes, self.text_encoder)

    @cached_property
    def _image_codes(self) -> SparseCodes:
        return read_codes_file(self.files.images)

    def _log_gaps(self, images: SparseCodes, names: Mapping[int, str]) -> None:
        if not self.files.names:
            log.warning("no names: dimensions are shown by number (names.txt, .csv, .json)")
        elif len(names) < images.m:
            log.warning("%s of %s dimensions have no name", images.m - len(names), images.m)
        if empty := int((np.diff(images.by_row.indptr) == 0).sum()):
            counts = f"{empty:,} of {images.n:,}"
            log.warning("%s items have no active dimension and never match a query", counts)
        if not self.files.words and not self.text_encoder:
            missing = "no word codes (word_codes.npz, words.txt)"
            log.warning("%s: only items can be used as queries", missing)

    def _iter_records(self, skipped: SkippedRows) -> Iterator[Record]:
        items, images, _ = self._read()
        skipped += items.skipped
        yield from self._records_of(items, images)

    def _read(self) -> tuple[CaptionsByImage, dict[str, str], int]:
        """Return the items, the names of their images by key, and the number of captions."""
        path = self.files.table
        builder = CaptionTableBuilder("caption")
        images: dict[str, str] = {}
        image_column = key_column = caption_column = None
        n_captions = number = 0
        for number, value in enumerate(read_table(path), 1):
            if number == 1:  # every row has the same columns
                image_column = image_column_of((*IMAGE_NAMES, "url"), value)
                key_column = column_of(("id", "key"), list(value))
                caption_column = column_of(CAPTION_NAMES, list(value))
            image = as_text(image_column and value.get(image_column)).strip()
            key = tidy(as_text(key_column and value.get(key_column))) or image or f"row:{number}"
            images.setdefault(key, image or key)
            captions = captions_in(value.get(caption_column)) if caption_column else []
            # Captions are numbered in table order, so that their codes can be looked up.
            for caption in captions or [""]:
                builder.add(CaptionRow.lenient(n_captions, key, caption, value))
                n_captions += bool(caption)
        items = builder.build()
        if len(items) != self._image_codes.n:
            raise ValueError(
                f"{self.files.images} has {self._image_codes.n:,} rows, but {path} names "
                f"{len(items):,} items in {number:,} rows; expected one row of codes per item, in "
                "order of first occurrence"
            )
        return items, images, n_captions
