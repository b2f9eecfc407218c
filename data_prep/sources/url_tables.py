"""Tables of URLs and captions, such as LAION's, whose images have to be downloaded first."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sieve.data_prep.captions.caption_rows import column_of

CAPTION_FIELDS = (
    "caption", "captions", "txt", "text", "title", "prompt", "sentences", "sentence", "raw",
    "description", "comment",
)  # fmt: skip
"""Names of columns and JSON fields that hold captions, in order of priority, in any case."""
URL_FIELDS = ("url", "image_url", "img_url", "image_link", "link")
"""Names of columns that hold URLs, in any case."""

_FORMATS = {".parquet": "parquet", ".tsv": "tsv", ".csv": "csv", ".jsonl": "jsonl"}


def url_table_advice(path: Path) -> str:
    """Explain how to download the images of a table of URLs; empty if there is no such table.

    Parameters
    ----------
    path : Path
        A table, or a folder of tables.
    """
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    for file in files:
        kind = _FORMATS.get(file.suffix.lower())
        if kind is None or not file.is_file():
            continue
        columns = _columns(file)
        url, caption = column_of(URL_FIELDS, columns), column_of(CAPTION_FIELDS, columns)
        if url is not None:
            return img2dataset_advice(file, path, kind, url, caption)
    return ""


def img2dataset_advice(file: Path, given: Path, kind: str, url: str, caption: str | None) -> str:
    """Return a message with the command that downloads the images of a table."""
    captions = f" --caption_col {caption}" if caption else ""
    return (
        f"{file} holds URLs (column {url}), not images: run img2dataset first: "
        f"`img2dataset --url_list {given} --input_format {kind} --url_col {url}{captions} "
        "--output_format webdataset --output_folder images`, then "
        "`sieve prepare conceptual-captions images`"
    )


def _columns(file: Path) -> list[str]:
    """Return the column names of a table; empty if it cannot be read."""
    try:
        if file.suffix.lower() == ".parquet":
            return list(pq.read_schema(file).names)
        with file.open(encoding="utf-8-sig") as stream:
            head = stream.readline(1 << 16)
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        return []
    if file.suffix.lower() == ".jsonl":
        return [name for name in URL_FIELDS + CAPTION_FIELDS if f'"{name}"' in head.lower()]
    separator = "\t" if "\t" in head else ","
    return [cell.strip().strip('"') for cell in head.rstrip("\r\n").split(separator)]
