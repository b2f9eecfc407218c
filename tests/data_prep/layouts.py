"""Randomly mutated layouts of data sets with known pairs of images and captions.

A `World` is a set of picture files and a set of rows that describe them. Each picture shows its own
number as a colour, and each caption states the number of its picture, so that a wrong pair is
detected for any names. A `Layout` writes a world in a common format and opens it as a source; a
mutation renames, moves, duplicates or removes files or rows. To test another source, add a `Layout`
to a list and call `check` as `test_layouts.py` does.
"""

from __future__ import annotations

import os
import random
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol
from urllib.parse import quote

from PIL import Image

from sieve.data_prep.captions.caption_text import tidy
from sieve.data_prep.records import Record, SkippedRows

_NUMBER = re.compile(r"\bp(\d{4}) view (\d)\b")


class Row(NamedTuple):
    """One caption, and the name of its picture in the table."""

    name: str
    picture: int
    view: int

    @property
    def caption(self) -> str:
        """Return a caption with the number of its picture and characters that break tables."""
        extra = ("", ", near a tree", ' and a "sign"', " | a bar; a dog")[self.picture % 4]
        return f"p{self.picture:04} view {self.view}{extra}"


@dataclass
class World:
    """Files and rows; before any mutation, names equal paths."""

    files: dict[str, int] = field(default_factory=dict)
    """Number of the picture in each file, by path."""
    rows: list[Row] = field(default_factory=list)
    splits: dict[int, str] = field(default_factory=dict)
    next_picture: int = 0

    @classmethod
    def made(cls, n_each: int = 12) -> World:
        """Make two folders whose files have the same names, and a few awkward names."""
        world = cls()
        for folder in ("cam1", "cam2"):
            names = [f"{number:04}.png" for number in range(1, n_each + 1)]
            for name in [*names, "café.png", "a, b.png", "hash#1.png", "100%25.png", " lead.png"]:
                path = f"{folder}/{name}" if name[0].isdigit() else f"{folder}/{folder} {name}"
                picture = world.add(path)
                world.rows += [Row(path, picture, view) for view in range(2)]
                world.splits[picture] = ("train", "val", "test")[picture % 3]
        return world

    def add(self, path: str) -> int:
        """Add a file with a new picture; return its number."""
        self.files[path] = self.next_picture
        self.next_picture += 1
        return self.files[path]

    def write_files(self, folder: Path) -> None:
        """Write all pictures."""
        for path, picture in self.files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            colour = (picture % 256, 255 - picture % 256, picture * 37 % 256)
            Image.new("RGB", (4, 4), colour).save(target, target.suffix[1:].upper())

    def by_name(self) -> dict[str, list[Row]]:
        """Rows of each name, in their order."""
        names: dict[str, list[Row]] = {}
        for row in self.rows:
            names.setdefault(row.name, []).append(row)
        return names


class Source(Protocol):
    """Interface of a source that `check` uses."""

    def records(self) -> Iterator[Record]: ...
    def open_image(self, record: Record, size: int) -> Image.Image: ...
    def skipped_rows(self) -> SkippedRows: ...


class Layout(NamedTuple):
    """A common format of pictures and captions."""

    name: str
    write: Callable[[Path, World], Path]
    """Write a world into an empty folder; return the table, for mutations of its text."""
    open: Callable[[Path, Path], Source]
    """Open the folder and its table as a source."""


# Mutations of files and rows


def _some(values: list[str], draw: random.Random, n: int = 4) -> list[str]:
    return draw.sample(sorted(values), min(n, len(values)))


def _moved(world: World, paths: list[str], to: Callable[[str], str]) -> None:
    for path in paths:
        target = to(path)
        if target not in world.files:
            world.files[target] = world.files.pop(path)


def nothing(_world: World, _: random.Random) -> None: ...


def delete_files(world: World, draw: random.Random) -> None:
    for path in _some(list(world.files), draw):
        del world.files[path]


def delete_folder(world: World, draw: random.Random) -> None:
    folder = draw.choice(["cam1/", "cam2/"])
    world.files = {p: n for p, n in world.files.items() if not p.startswith(folder)}


def delete_rows(world: World, draw: random.Random) -> None:
    gone = set(_some([row.name for row in world.rows], draw))
    world.rows = [row for row in world.rows if row.name not in gone]


def double_rows(world: World, draw: random.Random) -> None:
    world.rows += draw.sample(world.rows, 4)


def shuffle_rows(world: World, draw: random.Random) -> None:
    draw.shuffle(world.rows)


def rename_files(world: World, draw: random.Random) -> None:
    _moved(world, _some(list(world.files), draw), lambda p: f"{p[:-4]} (1).png")


def unpad_numbers(world: World, draw: random.Random) -> None:
    _moved(world, _some(list(world.files), draw, 99), lambda p: re.sub(r"/0+(\d)", r"/\1", p))


def move_files(world: World, draw: random.Random) -> None:
    _moved(world, _some(list(world.files), draw), lambda p: f"moved/{PurePosixPath(p).name}")


def move_all_down(world: World, _: random.Random) -> None:
    _moved(world, list(world.files), lambda p: f"data/{p}")


def flatten(world: World, _: random.Random) -> None:
    """Move all files into one folder, except the second of two with the same name."""
    _moved(world, list(world.files), lambda p: PurePosixPath(p).name)


def exchange_some(world: World, draw: random.Random) -> None:
    """Remove the files of one folder and the rows of the other, so that a name remains in both."""
    for path in _some([path for path in world.files if path.startswith("cam1/0")], draw):
        del world.files[path]
        other = path.replace("cam1", "cam2")
        world.rows = [row for row in world.rows if row.name != other]


def same_name_elsewhere(world: World, draw: random.Random) -> None:
    for path in _some(list(world.files), draw):
        world.add(f"thumbs/{PurePosixPath(path).name}")


def same_name_other_extension(world: World, draw: random.Random) -> None:
    for path in _some(list(world.files), draw):
        world.add(f"{path[:-4]}.bmp")


def change_extensions(world: World, _: random.Random) -> None:
    _moved(world, list(world.files), lambda p: f"{p[:-4]}.bmp")


def capitalise_files(world: World, _: random.Random) -> None:
    _moved(world, list(world.files), str.upper)


def decompose_accents(world: World, _: random.Random) -> None:
    _moved(world, list(world.files), lambda p: unicodedata.normalize("NFD", p))


def _renamed(world: World, to: Callable[[str], str]) -> None:
    world.rows = [row._replace(name=to(row.name)) for row in world.rows]


def names_without_folder(world: World, _: random.Random) -> None:
    _renamed(world, lambda name: name.rpartition("/")[2])


def names_with_leading_folder(world: World, _: random.Random) -> None:
    _renamed(world, lambda name: f"/data/set/{name}")


def names_percent_encoded(world: World, _: random.Random) -> None:
    _renamed(world, quote)


def names_with_blanks(world: World, _: random.Random) -> None:
    _renamed(world, lambda name: f" {name} ")


def names_of_windows(world: World, _: random.Random) -> None:
    _renamed(world, lambda name: name.replace("/", "\\"))


def names_capitalised(world: World, _: random.Random) -> None:
    _renamed(world, str.upper)


def names_without_extension(world: World, _: random.Random) -> None:
    _renamed(world, lambda name: name.removesuffix(".png"))


MUTATIONS: list[Callable[[World, random.Random], None]] = [
    nothing, delete_files, delete_folder, delete_rows, double_rows, shuffle_rows, rename_files,
    unpad_numbers, move_files, move_all_down, flatten, exchange_some, same_name_elsewhere,
    same_name_other_extension, change_extensions, capitalise_files, decompose_accents,
    names_without_folder, names_with_leading_folder, names_percent_encoded, names_with_blanks,
    names_of_windows, names_capitalised, names_without_extension,
]  # fmt: skip


# Mutations of the text of a table


def _lines(data: bytes) -> list[bytes]:
    return data.split(b"\n")


def cut_lines(data: bytes, draw: random.Random) -> bytes:
    lines = _lines(data)
    for number in draw.sample(range(1, len(lines)), min(2, len(lines) - 1)):
        lines[number] = lines[number][: draw.randrange(len(lines[number]) + 1)]
    return b"\n".join(lines)


def cut_file(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(len(data) // 2, len(data))]


def join_lines(data: bytes, draw: random.Random) -> bytes:
    lines = _lines(data)
    number = draw.randrange(1, max(len(lines) - 2, 2))
    return b"\n".join([*lines[:number], b"".join(lines[number : number + 2]), *lines[number + 2 :]])


def open_quote(data: bytes, draw: random.Random) -> bytes:
    """Open a quotation mark before a caption that is never closed."""
    at = [found.start() for found in re.finditer(rb"(?<![\w ])p\d{4} view", data)]
    place = draw.choice(at) if at else 0
    return data[:place] + b'"' + data[place:]


TEXT_MUTATIONS: list[Callable[[bytes, random.Random], bytes]] = [
    cut_lines, cut_file, join_lines, open_quote,
]  # fmt: skip


class Checked(NamedTuple):
    """Outcome of preparing a mutated layout."""

    n_pairs: int
    refusal: str
    wrong: list[tuple[str, str]]
    """Captions that are paired with another picture: the record's key, the caption."""
    unreported: list[str]
    """Names whose captions are lost without a report."""


def check(source: Callable[[], Source], world: World, log: Callable[[], str]) -> Checked:
    """Read a source, as `--keep-going` does, and compare its pairs with the truth.

    Parameters
    ----------
    source : callable
        Opens the source; a ValueError or OSError is a refusal.
    world : World
        What was written, without mutations of text.
    log : callable
        Returns all warnings until now.
    """
    wrong: list[tuple[str, str]] = []
    paired: set[tuple[int, int]] = set()
    reported: set[str] = set()
    try:
        opened = source()
        records = list(opened.records())
        skipped = opened.skipped_rows()
    except (ValueError, OSError) as error:
        return Checked(0, str(error), [], [])
    for record in records:
        try:
            picture = opened.open_image(record, 32).getpixel((0, 0))[0]  # type: ignore[index]
        except ValueError:
            reported |= {record.key, record.image}
            continue
        for caption in record.captions:
            found = _NUMBER.search(caption)
            if found is None:
                continue  # cut before its number
            if int(found[1]) % 256 != picture:
                wrong.append((record.key, caption))
            paired.add((int(found[1]), int(found[2])))
    for entry in skipped:
        reported |= {entry.image, entry.key, os.path.splitext(entry.key)[0]}
    reported = set(map(tidy, reported))
    whole = "\n".join([*(f"{e.key} {e.image} {e.reason}" for e in skipped), log()])
    unreported = [
        row.name
        for row in world.rows
        if (row.picture, row.view) not in paired
        and not {tidy(row.name), tidy(os.path.splitext(row.name)[0])} & reported
        and tidy(row.name) not in whole
    ]
    return Checked(len(paired), "", wrong, unreported)
