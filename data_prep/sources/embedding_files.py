"""Files of embeddings, with tables that describe their rows.

Supported are clip-retrieval's output, numbered shards in three folders (`img_emb/img_emb_0.npy`,
`text_emb/text_emb_0.npy`, `metadata/metadata_0.parquet`); an array of images, optionally one of
texts, and a table; and Parquet files or LanceDB tables with embeddings in a list column. Arrays in
`.npy` are memory-mapped; a file that changes while it is in use is an error.
"""

from __future__ import annotations

import csv
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sieve.data_prep.captions.caption_text import IMAGE_SUFFIX
from sieve.data_prep.captions.formats import DELIMITERS, json_lines, parquet_values
from sieve.data_prep.sources import require_folder
from sieve.model.files import MappedArray, reason_of

IMAGES, TEXTS, METADATA = "img_emb", "text_emb", "metadata"
"""clip-retrieval's folders, and prefixes of its files."""

LANCE = ".lance"
"""Extension of LanceDB's tables, which are folders."""
TABLES = (".parquet", ".csv", ".tsv", ".jsonl", LANCE)
_LISTS = (".txt",)
"""Text files with a name or a caption on each line."""
_ARRAYS = (".npy", ".npz", ".pt", ".pth", ".safetensors", ".h5", ".hdf5")
_NUMBER = re.compile(r"_(\d+)$")
_OF_TEXTS = re.compile(r"(?i)te?xt|caption|sentence|prompt")
_OF_INDEX = re.compile(r"(?i)index|item|owner|mapping|_to_|2im")
_VECTORS = re.compile(r"(?i)(vectors?|tensors?|embeddings?)\.tsv")
_MAX_LINE = 1 << 20
_LARGE, _BOMB_RATIO = 1 << 30, 200


class EmbeddingShard(NamedTuple):
    """Arrays and a table with corresponding rows."""

    images: np.ndarray
    """(n, d) float"""
    texts: np.ndarray | None
    """(c, d) float, or (n, k, d) for k captions of each image"""
    table: Path
    name: str
    """Name of the array of images, for messages."""
    n_rows: int
    """Number of rows of the table."""
    owners: np.ndarray | None = None
    """(c,) int: the image row that each text belongs to, if a file says so"""

    @property
    def n_texts(self) -> int:
        """Number of embeddings of texts."""
        return 0 if self.texts is None else int(np.prod(self.texts.shape[:-1]))

    @property
    def texts_per_row(self) -> int:
        """Number of texts of each row of the table; 0 if texts belong to counted captions."""
        if self.texts is None or self.n_texts == self.n_rows:
            return 1
        return self.texts.shape[1] if self.texts.ndim == 3 else 0

    def check(self) -> None:
        """Raise ValueError if the rows of the table and of the arrays cannot correspond."""
        owners, n = self.owners, len(self.images)
        if owners is not None and (
            len(owners) != self.n_texts or owners.min() < 0 or owners.max() >= n
        ):
            raise ValueError(
                f"the index beside {self.name} has {len(owners):,} entries up to "
                f"{owners.max():,}; expected {self.n_texts:,}, each a row of {n:,} images"
            )
        several = self.n_rows > n and (self.texts is None or self.n_texts == self.n_rows)
        if n != self.n_rows and not several:
            raise self.disagreement(
                f"{self.n_rows:,} rows, but its array of images has {n:,}; expected one row of "
                "the array for each row of the table"
            )

    def disagreement(self, what: str) -> ValueError:
        """Return the error that the rows of the table and of the array of images disagree."""
        if self.images.shape[1] == self.n_rows:
            return ValueError(
                f"{self.name} has shape {self.images.shape}, but {self.table.name} "
                f"{self.n_rows:,} rows: it seems to be transposed; save array.T, one row per image"
            )
        return ValueError(f"{self.table} has {what}")


def _check_array(name: str, array: np.ndarray, dimensions: tuple[int, ...]) -> None:
    if array.ndim not in dimensions or not array.size:
        raise ValueError(
            f"{name} has shape {array.shape}; expected (rows, width), both above 0 "
            "(numpy.squeeze removes a dimension of 1)"
        )
    if array.dtype.kind != "f":
        raise ValueError(f"{name} holds {array.dtype}; expected floating-point numbers")


def open_shards(folder: Path) -> list[EmbeddingShard]:
    """Open and validate the files of a folder.

    Raise FileNotFoundError if there is no such folder, and ValueError in one line if files are
    missing, are not two-dimensional arrays of numbers, or do not match.
    """
    require_folder(folder, "give the folder of the embeddings")
    if folder.suffix == LANCE and _has_vectors(folder):
        shards = [_shard(folder, [folder])]
    else:
        shards = _clip_retrieval(folder) if (folder / IMAGES).is_dir() else _unsharded(folder)
    first = shards[0]
    for shard in shards:
        shard.check()
        if shard.images.shape[1] != first.images.shape[1]:
            raise ValueError(
                f"{shard.name} is {shard.images.shape[1]} wide, but {first.name} is "
                f"{first.images.shape[1]} wide; all shards must be from one backbone"
            )
    return shards


def _clip_retrieval(folder: Path) -> list[EmbeddingShard]:
    """Open clip-retrieval's shards, sorted by number."""
    found: dict[str, dict[int, Path]] = {IMAGES: {}, TEXTS: {}, METADATA: {}}
    for part, by_number in found.items():
        for path in sorted(folder.glob(f"{part}/*{'.parquet' if part == METADATA else '.npy'}")):
            if number := _NUMBER.search(path.stem):
                by_number[int(number[1])] = path
    images, texts, tables = found.values()
    if not images:
        raise ValueError(f"{folder / IMAGES} holds no .npy files; run clip-retrieval inference")
    for part in (TEXTS, METADATA):
        differing = images.keys() ^ found[part].keys()
        if differing and (found[part] or part == METADATA):
            missing = (images | found[part])[min(differing)]
            raise ValueError(
                f"{folder} holds {len(images)} shards in {IMAGES} and {len(found[part])} in "
                f"{part}: {missing.name} has no counterpart; copy all of them"
            )
    shards = []
    for number in sorted(images):
        files = [part[number] for part in (images, texts) if number in part]
        shards.append(shard := _shard(tables[number], files))
        if shard.texts is not None and shard.texts.shape != shard.images.shape:
            raise ValueError(
                f"{texts[number]} has shape {shard.texts.shape}, but {shard.name} "
                f"{shard.images.shape}; expected one row per caption, from the same backbone"
            )
    return shards


def _unsharded(folder: Path) -> list[EmbeddingShard]:
    """Open arrays of images and optionally texts with one table, or Parquet files with vectors."""
    vectors, tables, _ = _classified(folder)
    if not vectors and tables and all(map(_has_vectors, tables)):
        return [_shard(path, [path]) for path in tables]
    if not vectors or len(tables) != 1:
        found = ", ".join(path.name for path in [*vectors, *tables][:8]) or "none of these"
        raise ValueError(
            f"{folder} holds {found}; expected clip-retrieval's folders {IMAGES}, {TEXTS} and "
            f"{METADATA}, or one array of images ({', '.join(_ARRAYS[:5])}), optionally one "
            "named text…, and one table (.csv, .tsv, .jsonl, .parquet, or .txt with a name or a "
            "caption on each line) with a row for each image"
        )
    return [_shard(tables[0], vectors)]


def unused_files(folder: Path) -> list[Path]:
    """Return the files of a folder that are neither arrays, tables nor images."""
    vectors, tables, rest = _classified(folder)
    rest += [*vectors, *tables] if (folder / IMAGES).is_dir() else []
    return sorted(path for path in rest if not IMAGE_SUFFIX.search(path.name))


def _classified(folder: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """Return the arrays, the tables and the other files of a folder."""
    files = sorted(
        path
        for path in folder.iterdir()
        if path.name[0] != "." and (path.is_file() or path.suffix == LANCE)
    )
    vectors = [path for path in files if path.suffix in _ARRAYS or _VECTORS.fullmatch(path.name)]
    rest = [path for path in files if path not in vectors]
    tables = [path for path in rest if path.suffix in TABLES]
    tables = tables or [path for path in rest if path.suffix in _LISTS]
    return vectors, tables, [path for path in rest if path not in tables]


def _shard(table: Path, files: Sequence[Path]) -> EmbeddingShard:
    """Identify the arrays of images, texts and caption owners by name and shape."""
    arrays = {
        f"{path.name}[{name}]" if name else path.name: array
        for path in files
        for name, array in read_arrays(path).items()
    }
    integers = {name: a for name, a in arrays.items() if a.ndim == 1 and a.dtype.kind in "iu"}
    owners = [array for name, array in integers.items() if _OF_INDEX.search(name)]
    # Ids and labels beside embeddings are not needed.
    rest = {name: array for name, array in arrays.items() if array.ndim > 1 or len(arrays) == 1}
    texts = [name for name in rest if _OF_TEXTS.search(name)]
    images = [name for name in rest if name not in texts]
    if len(images) != 1 or len(texts) > 1 or len(owners) > 1:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in list(arrays.items())[:8])
        raise ValueError(
            f"{table.parent} holds the arrays {shapes or 'none'}; expected one of images, and "
            "optionally one with text or caption in its name: rename or remove others"
        )
    name, of_images, of_texts = images[0], rest[images[0]], None
    _check_array(name, of_images, (2,))
    for text in texts:
        of_texts = rest[text]
        _check_array(text, of_texts, (2, 3))
        if of_texts.shape[-1] != of_images.shape[1]:
            raise ValueError(
                f"{text} has shape {of_texts.shape}, but {name} {of_images.shape}; embeddings of "
                "one backbone have the same width"
            )
    return EmbeddingShard(of_images, of_texts, table, name, _count_rows(table), *owners)


def _count_rows(path: Path) -> int:
    if path.suffix == ".parquet":
        with suppress(pa.ArrowException, OSError):  # read_table reports what is wrong
            return pq.read_metadata(path).num_rows
    if path.suffix == LANCE:
        return _lance(path).count_rows()
    return sum(1 for _ in read_table(path))


def read_table(path: Path) -> Iterator[Mapping[str, Any]]:
    """Read all rows of a table, to which arrays refer; raise ValueError if one cannot be read."""
    try:
        if path.suffix == ".parquet":
            with pq.ParquetFile(path) as table:
                wanted = [field.name for field in table.schema_arrow if not _is_vector(field.type)]
                yield from parquet_values(table, wanted)
        elif path.suffix == LANCE:
            table = _lance(path)
            wanted = [field.name for field in table.schema if not _is_vector(field.type)]
            for batch in table.to_batches(columns=wanted):
                yield from batch.to_pylist()
        elif path.suffix == ".jsonl":
            for number, value in json_lines(path, _reject):
                if not isinstance(value, dict):
                    _reject(number)
                yield value
        else:
            yield from _delimited(path)
    except (pa.ArrowException, OSError, ValueError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as a table: {reason_of(error)}") from None


def _reject(line: int, *_: str) -> None:
    raise ValueError(f"line {line} is not a JSON object")


def _delimited(path: Path) -> Iterator[Mapping[str, Any]]:
    """Read delimited text; a file with one column and no delimiter is a list."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        first = stream.readline(_MAX_LINE)
        if not first.strip():
            raise ValueError("its first line is empty; expected column names")
        # Of several delimiters in the header, the most frequent one separates columns.
        delimiter = max(DELIMITERS, key=first.count)
        if path.suffix in _LISTS or (path.suffix == ".tsv" and delimiter not in first):
            texts = [line.rstrip("\r\n") for line in (first, *stream)]
            named = sum(bool(IMAGE_SUFFIX.search(text)) for text in texts)
            if named not in (0, len(texts)):
                found = f"{named} of its {len(texts)} lines are names of images"
                raise ValueError(f"{found}; expected names or captions")
            yield from ({"image" if named else "caption": text} for text in texts)
            return
        stream.seek(0)
        rows = csv.reader(stream, delimiter=delimiter, strict=True)
        header = [name.strip() for name in next(rows, [])]
        if len(set(header)) < len(header):
            raise ValueError(f"repeated column: {', '.join(header)[:80]}")
        for row in filter(None, rows):
            if len(row) != len(header):
                raise ValueError(
                    f"line {rows.line_num} has {len(row)} fields, but the header has {len(header)}"
                )
            yield dict(zip(header, row, strict=True))


def read_arrays(
    path: Path, advice: str = "save plain arrays with numpy.save"
) -> dict[str, np.ndarray]:
    """Read all arrays of a file by name, without unpickling; raise ValueError if it fails."""
    suffix = path.suffix.lower()
    try:
        if suffix == ".npy":
            return {"": MappedArray.open(path)}
        if suffix == ".tsv":
            return {"": np.loadtxt(path, np.float32, delimiter="\t", ndmin=2)}
        return _READERS.get(suffix, _torch)(path)
    except ModuleNotFoundError:
        raise ValueError(
            f'{path} is HDF5, which requires h5py; convert it once: python -c "import h5py, numpy; '
            f"numpy.save('{path.stem}.npy', h5py.File('{path.name}')['KEY'][:])\" with the name of "
            "its data set instead of KEY, after `pip install h5py`"
        ) from None
    except Exception as error:  # each library has its own errors
        reason = reason_of(error)
        if re.search("(?i)pickle|weights|Python objects|magic string", reason):
            # NumPy and torch would advise to allow pickle.
            reason = "it holds Python objects or is not an array"
        raise ValueError(f"{path} cannot be read: {reason}; {advice}") from None


def _safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors.torch import load_file

    return {name: _numpy(tensor) for name, tensor in load_file(path).items()}


def _hdf5(path: Path) -> dict[str, np.ndarray]:
    import h5py  # type: ignore[import-not-found]  # not a dependency

    found: dict[str, Any] = {}

    def visit(name: str, part: Any) -> None:  # links are not visited
        if not isinstance(part, h5py.Dataset) or part.dtype.kind not in "fiu":
            return
        if part.external or part.is_virtual:
            raise ValueError(f"{name} refers to another file")
        found[name] = part

    with h5py.File(path) as file:
        file.visititems(visit)
        _check_size(sum(part.nbytes for part in found.values()), path)
        return {name: part[()] for name, part in found.items()}


def _npz(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    _check_size(unpacked, path)
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _check_size(unpacked: int, path: Path) -> None:
    if unpacked > _LARGE and unpacked > _BOMB_RATIO * path.stat().st_size:
        raise ValueError(f"it would unpack to {unpacked / 2**30:.0f} GiB, an implausible size")


def _torch(path: Path) -> dict[str, np.ndarray]:
    import torch

    value = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(value, list | tuple) and all(isinstance(one, torch.Tensor) for one in value):
        value = torch.stack([one.squeeze() for one in value])
    named = value if isinstance(value, dict) else {"": value}
    tensors = {str(k): _numpy(v) for k, v in named.items() if isinstance(v, torch.Tensor)}
    if tensors:
        return tensors
    raise ValueError(f"it holds {type(value).__name__}, not a tensor or a dictionary of tensors")


def _numpy(tensor: Any) -> np.ndarray:
    import torch

    tensor = tensor.detach()  # NumPy has no bfloat16
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _is_vector(kind: pa.DataType) -> bool:
    lists = (pa.ListType, pa.LargeListType, pa.FixedSizeListType)
    return isinstance(kind, lists) and pa.types.is_floating(kind.value_type)


def _lance(path: Path) -> Any:
    """Open a table of LanceDB."""
    try:
        lance = import_module("lance")
    except ImportError:
        raise ValueError(
            f"{path} is a table of LanceDB, which requires pylance; install it with "
            "`pip install pylance`"
        ) from None
    try:
        return lance.dataset(str(path))
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} cannot be read as a table: {reason_of(error)}") from None


def _schema(path: Path) -> pa.Schema:
    return _lance(path).schema if path.suffix == LANCE else pq.read_schema(path)


def _has_vectors(path: Path) -> bool:
    with suppress(pa.ArrowException, OSError):
        return path.suffix in (".parquet", LANCE) and any(map(_is_vector, _schema(path).types))
    return False


def _columns_of_vectors(path: Path) -> dict[str, np.ndarray]:
    """Read the list columns of a Parquet file or a table of LanceDB."""
    arrays = {}
    for field in _schema(path):
        if not _is_vector(field.type):
            continue
        read = _lance(path).to_table if path.suffix == LANCE else partial(pq.read_table, path)
        column = read(columns=[field.name]).column(0).combine_chunks()
        lengths = pc.list_value_length(column).to_pylist()  # pyright: ignore[reportAttributeAccessIssue]
        width = lengths[0]
        for row, length in enumerate(lengths):
            if length != width or not width:
                raise ValueError(
                    f"column {field.name}: row {row} has {length or 'no'} numbers, row 0 has "
                    f"{width}; expected one embedding per row"
                )
        arrays[field.name] = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    return arrays


_READERS = {
    ".npz": _npz, ".safetensors": _safetensors, ".h5": _hdf5, ".hdf5": _hdf5,
    ".parquet": _columns_of_vectors, LANCE: _columns_of_vectors,
}  # fmt: skip
"""Functions that read all arrays of a file, by extension; PyTorch's otherwise."""
