"""Test archives, tables and embeddings with one fault each: never paired wrongly unreported.

Every picture shows its number and every caption states it, so that a wrong pair is detected. A
seeded generator renames, moves, duplicates, drops or shuffles one entry in each layout.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from published import add_member

from sieve.data_prep.sources import BaseSource
from sieve.data_prep.sources.conceptual_captions import conceptual_captions
from sieve.data_prep.sources.embeddings import Embeddings
from sieve.data_prep.sources.img2dataset import Img2Dataset

N, WIDTH = 12, 24
MUTATIONS = ("nothing", "rename", "move", "double", "drop", "shuffle")


def picture(number: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), (number * 10, 200, 7)).save(stream, "PNG")
    return stream.getvalue()


def shown(image: Image.Image) -> int:
    return round(image.getpixel((1, 1))[0] / 10)  # type: ignore[index]


def caption(number: int, again: int = 0) -> str:
    return f"picture {number} seen {again}"


def embeddings(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(N, WIDTH)).astype(np.float32)


@dataclass
class Mutation:
    """One fault, applied to the first list of entries that it gets."""

    kind: str
    generator: np.random.Generator

    def apply(self, entries: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        """Mutate one named entry: a member, a file or a line."""
        at = int(self.generator.integers(len(entries)))
        name, data = entries[at]
        other = int(self.generator.integers(len(entries)))
        changed = list(entries)
        if self.kind == "rename":
            stem, dot, suffix = name.partition(".")
            changed[at] = (f"{stem}x{dot}{suffix}", data)
        elif self.kind == "move":
            changed[at] = (f"elsewhere/{name.rpartition('/')[2]}", data)
        elif self.kind == "double":
            changed.insert(other, (name, data))
        elif self.kind == "drop":
            del changed[at]
        elif self.kind == "shuffle":
            changed = [changed[i] for i in self.generator.permutation(len(changed))]
        return changed


Layout = Callable[[Path, Mutation], BaseSource]


def tar_of(*parts: Callable[[int], tuple[str, bytes]]) -> Layout:
    """Return the layout of a tar shard with the given members for each picture."""

    def write(folder: Path, mutation: Mutation) -> BaseSource:
        members = mutation.apply([part(number) for number in range(N) for part in parts])
        with tarfile.open(folder / "00000.tar", "w") as tar:
            for name, data in members:
                add_member(tar, name, data)
        return Img2Dataset(folder)

    return write


def image_named(pattern: str) -> Callable[[int], tuple[str, bytes]]:
    return lambda number: (pattern.format(number), picture(number))


def text_named(pattern: str, again: int = 0) -> Callable[[int], tuple[str, bytes]]:
    return lambda number: (pattern.format(number), caption(number, again).encode())


def json_named(pattern: str, field: str) -> Callable[[int], tuple[str, bytes]]:
    def write(number: int) -> tuple[str, bytes]:
        text = [caption(number), caption(number, 1)]
        return pattern.format(number), json.dumps({field: text, "id": 99 - number}).encode()

    return write


def beside_it(pattern: str) -> Callable[[int], tuple[str, bytes]]:
    return lambda number: (pattern.format(number), picture(25))


def table_layout(naming: Callable[[int, str], str], header: str = "") -> Layout:
    """Write a table of captions and URLs with mutated lines, next to images."""

    def write(folder: Path, mutation: Mutation) -> BaseSource:
        urls = [f"http://x.org/{number}.png?v=1" for number in range(N)]
        lines = [(f"{caption(n)}\t{url}", b"") for n, url in enumerate(urls)]
        # A line has no name to mutate: it is truncated or gets a field instead.
        if mutation.kind in ("rename", "move"):
            at = int(mutation.generator.integers(N))
            stated, url = lines[at][0].split("\t")
            lines[at] = (stated if mutation.kind == "rename" else f"{stated}\t\t{url}", b"")
        elif mutation.kind != "shuffle":  # rows in another order refer to other images
            lines = mutation.apply(lines)
        text = "".join(f"{line}\n" for line, _ in lines)
        (folder / "table.tsv").write_text(header + text)
        (folder / "images").mkdir()
        for number, url in enumerate(urls):
            (folder / "images" / naming(number, url)).write_bytes(picture(number))
        return conceptual_captions(
            folder / "table.tsv", folder / "images", name="cc", licence="none"
        )

    return write


def renamed_files(naming: Callable[[int, str], str]) -> Layout:
    """Write the same with mutated files."""

    def write(folder: Path, mutation: Mutation) -> BaseSource:
        urls = [f"http://x.org/{number}.png?v=1" for number in range(N)]
        (folder / "table.tsv").write_text(
            "".join(f"{caption(n)}\t{url}\n" for n, url in enumerate(urls))
        )
        files = [(naming(n, url), picture(n)) for n, url in enumerate(urls)]
        for name, data in mutation.apply(files):
            path = folder / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return conceptual_captions(
            folder / "table.tsv", folder / "images", name="cc", licence="none"
        )

    return write


def parquet_layout(nested: bool, listed: bool) -> Layout:
    def write(folder: Path, mutation: Mutation) -> BaseSource:
        # A row contains its picture and its captions, so only their order can change.
        order = list(range(N))
        if mutation.kind in ("double", "shuffle"):
            order = [int(name) for name, _ in mutation.apply([(f"{n}", b"") for n in range(N)])]
        images = [{"bytes": picture(n), "path": f"{n}.png"} if nested else picture(n)
                  for n in order]  # fmt: skip
        text = [[caption(n), caption(n, 1)] if listed else caption(n) for n in order]
        pq.write_table(pa.table({"image": images, "Caption": text}), folder / "0.parquet")
        return Img2Dataset(folder)

    return write


def embedding_layout(save: Callable[[Path, np.ndarray, np.ndarray, pd.DataFrame], None]) -> Layout:
    """Return the layout of arrays with a table, with one row mutated or one row removed."""

    def write(folder: Path, mutation: Mutation) -> BaseSource:
        rows = [(f"{n}.png", caption(n).encode()) for n in range(N)]
        images, texts = embeddings(), embeddings(1)
        at = int(mutation.generator.integers(N))
        if mutation.kind == "shuffle":  # rows of a table have no other key: shorten the arrays
            images, texts = np.delete(images, at, axis=0), texts
        else:
            rows = mutation.apply(rows)
        table = pd.DataFrame(
            {"image_path": [name for name, _ in rows], "caption": [s.decode() for _, s in rows]}
        )
        save(folder, images, texts, table)
        return Embeddings(folder)

    return write


def save_npy(folder: Path, images: np.ndarray, texts: np.ndarray, table: pd.DataFrame) -> None:
    np.save(folder / "images.npy", images)
    np.save(folder / "texts.npy", texts)
    table.to_csv(folder / "items.csv", index=False)


def save_npz(folder: Path, images: np.ndarray, texts: np.ndarray, table: pd.DataFrame) -> None:
    np.savez(folder / "emb.npz", image=images, text=texts)
    table.to_csv(folder / "items.csv", index=False, sep=";")


def save_pt(folder: Path, images: np.ndarray, texts: np.ndarray, table: pd.DataFrame) -> None:
    tensors = {"image_features": images, "text_features": texts}
    torch.save({k: torch.from_numpy(v) for k, v in tensors.items()}, folder / "emb.pt")
    table.to_parquet(folder / "items.parquet")


def save_blocks(folder: Path, images: np.ndarray, texts: np.ndarray, table: pd.DataFrame) -> None:
    """Save two captions per image: texts (n, 2, d), one list of captions per row."""
    np.save(folder / "images.npy", images)
    np.save(folder / "texts.npy", np.stack([texts, texts], axis=1))
    stated = [[text, text.replace("seen 0", "seen 1")] for text in table["caption"]]
    table.assign(caption=stated).to_parquet(folder / "items.parquet")


def save_repeated(folder: Path, images: np.ndarray, texts: np.ndarray, table: pd.DataFrame) -> None:
    """Save two table rows per image, with texts (2n, d)."""
    np.save(folder / "images.npy", images)
    np.save(folder / "texts.npy", np.repeat(texts, 2, axis=0))
    table.loc[table.index.repeat(2)].to_csv(folder / "items.csv", index=False)


def save_indexed(folder: Path, images: np.ndarray, texts: np.ndarray, table: pd.DataFrame) -> None:
    """Save a file with the image index of each text."""
    owners = np.repeat(np.arange(N), 2)
    np.save(folder / "text_embeddings.npy", np.repeat(texts, 2, axis=0))
    np.save(folder / "image_embeddings.npy", images)
    np.save(folder / "caption_item.npy", owners)
    table.loc[table.index.repeat(2)].to_csv(folder / "items.csv", index=False)


def crc(_: int, url: str) -> str:
    return f"{zlib.crc32(url.encode())}.png"


LAYOUTS: dict[str, Layout] = {
    "tar": tar_of(image_named("{:05}.png"), text_named("{:05}.txt")),
    "tar, texts first": tar_of(text_named("{:05}.txt"), image_named("{:05}.png")),
    "tar, roles": tar_of(image_named("s{}.input.png"), text_named("s{}.outputs.txt")),
    "tar, dots": tar_of(image_named("img.v1.{:04}.png"), text_named("img.v1.{:04}.txt")),
    "tar, decimals": tar_of(image_named("{}.25.png"), text_named("{}.25.txt")),
    "tar, depth": tar_of(beside_it("{}.depth.png"), image_named("{}.png"), text_named("{}.txt")),
    "tar, dots and depth": tar_of(
        beside_it("a.{:03}.depth.png"), image_named("a.{:03}.png"), text_named("a.{:03}.txt")
    ),
    "tar, languages": tar_of(
        image_named("{}.png"), text_named("{}.en.txt"), text_named("{}.de.txt", 1)
    ),
    "tar, json": tar_of(image_named("{}.png"), json_named("{}.json", "captions")),
    "tar, folders": tar_of(image_named("d/{}.png"), text_named("d/{}.caption")),
    "tsv by hash": table_layout(crc),
    "tsv with a header": table_layout(crc, "TITLE\tURL\n"),
    "tsv from 0": table_layout(lambda number, _: f"{number:06}.png"),
    "tsv from 1": table_layout(lambda number, _: f"{number + 1}.png"),
    "files by hash": renamed_files(crc),
    "files from 0": renamed_files(lambda number, _: f"{number:06}.png"),
    "files from 1": renamed_files(lambda number, _: f"{number + 1}.png"),
    "parquet": parquet_layout(nested=False, listed=False),
    "parquet, nested": parquet_layout(nested=True, listed=True),
    "npy": embedding_layout(save_npy),
    "npz": embedding_layout(save_npz),
    "pt": embedding_layout(save_pt),
    "texts in blocks": embedding_layout(save_blocks),
    "a row a caption": embedding_layout(save_repeated),
    "an index": embedding_layout(save_indexed),
}


def wrong_pairs(source: BaseSource) -> Iterator[str]:
    """Describe every caption that is paired with another picture or embedding."""
    records = list(source.records())
    for record in records:
        stated = {int(re.findall(r"\d+", text)[0]) for text in record.captions}
        if not isinstance(source, Embeddings):
            number = shown(source.open_image(record, 320))
            if stated - {number}:
                yield f"{record.image} shows {number}, its captions say {stated}"
    if isinstance(source, Embeddings):
        known = source.precomputed()
        place = 0
        for row, record in enumerate(records):
            number = nearest(embeddings(), known.images[row : row + 1])
            for text in record.captions:
                own = int(re.findall(r"\d+", text)[0])
                assert known.texts is not None
                embedded = nearest(embeddings(1), known.texts[place : place + 1])
                place += 1
                if {own, embedded} != {number}:
                    yield f"{record.key}: image {number}, text {embedded}, caption {own}"


def nearest(rows: np.ndarray, one: np.ndarray) -> int:
    return int(np.linalg.norm(rows - one, axis=1).argmin())


@pytest.mark.parametrize("kind", MUTATIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_mutated_layouts_are_never_paired_wrongly_without_a_report(
    tmp_path: Path, layout: str, kind: str
) -> None:
    for seed in range(3):
        folder = tmp_path / str(seed)
        folder.mkdir()
        try:
            source = LAYOUTS[layout](folder, Mutation(kind, np.random.default_rng(seed)))
            found = list(wrong_pairs(source))
            n_captioned = sum(bool(record.captions) for record in source.records())
        except ValueError as error:
            assert kind != "nothing" and "\n" not in str(error), error
            continue
        assert not found, (seed, found)
        if n_captioned < N:
            assert source.skipped_rows(), f"seed {seed}: {N - n_captioned} are left out silently"
        if kind == "nothing":
            assert n_captioned == N
