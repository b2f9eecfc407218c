"""Sources of records: folders of images, published data sets, external embeddings and codes.

Here are the base classes. No source is imported here, so that each command imports only its own.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from sieve.data_prep.captions.caption_table import CaptionsByImage
from sieve.data_prep.captions.caption_text import caption_fault
from sieve.data_prep.records import Record, SkippedRows
from sieve.data_prep.sources.local_images import find_images, open_inside, open_or_draw

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class BaseSource(ABC):
    """A source that collects skipped rows while it yields its records.

    Records are not stored: a file may have millions of rows.
    """

    root: Path
    """Folder that image paths are relative to."""
    name: str = ""
    """The collection's name."""
    licence: str = "not stated"
    follow_links: bool | None = None
    """Whether to read also the targets of links out of the folder; None: not an option."""

    @abstractmethod
    def _iter_records(self, skipped: SkippedRows) -> Iterator[Record]:
        """Yield all records, in an order that depends only on the source."""

    def records(self) -> Iterator[Record]:
        """Yield all records, in an order that depends only on the source."""
        skipped = SkippedRows()
        vars(self)["_skipped"] = skipped  # the dataclass is frozen
        yield from self._iter_records(skipped)

    def skipped_rows(self) -> SkippedRows:
        """Return the skipped rows and files."""
        if "_skipped" not in vars(self):
            deque(self.records(), maxlen=0)
        return vars(self)["_skipped"]

    def open_image(self, record: Record, size: int) -> Image.Image:  # noqa: ARG002
        """Open the record's image inside `root`; see `sieve.data_prep.images.load_image`."""
        return open_inside(self.root, Path(record.image), self.follow_links)

    def __getstate__(self) -> dict[str, Any]:
        """Exclude cached values: decoder processes only open images."""
        return {key: value for key, value in self.__dict__.items() if not key.startswith("_")}


class ExternalSource(BaseSource):
    """A source of embeddings or codes, whose images need not be available locally."""

    def open_image(self, record: Record, size: int) -> Image.Image:  # noqa: ARG002
        """Open the record's image if it is local and readable, else draw its caption."""
        return open_or_draw(self.root, record, self.follow_links)

    def _records_of(self, items: CaptionsByImage, images: Mapping[str, str]) -> Iterator[Record]:
        """Yield items as records; `images` names the image of an item whose key does not."""
        names = dict.fromkeys(images.values()) or items
        paths = find_images(self.root, names, self.follow_links)
        n_local = 0
        for number, key in enumerate(items):
            name = images.get(key, key)
            n_local += name in paths
            yield items.describe(number).record(key, str(paths.get(name, name)))
        if n_local < len(items):
            count = f"{n_local:,} of {len(items):,} images are in {self.root}"
            advice = "give the folder of images with --images"
            log.warning("%s; the others are shown as captions; %s", count, advice)


def usable_captions(
    captions: Iterable[str], key: str, image: str, skipped: SkippedRows
) -> tuple[str, ...]:
    """Return the distinct captions that can be used; skip the others with a reason."""
    kept: dict[str, None] = {}
    for caption in captions:
        if fault := "duplicate caption" if caption in kept else caption_fault(caption):
            skipped.add(key, image, fault)
        else:
            kept[caption] = None
    return tuple(kept)


def require_folder(path: Path, hint: str) -> None:
    """Raise FileNotFoundError unless a folder exists."""
    if not path.is_dir():
        raise FileNotFoundError(f"there is no folder {path}; {hint}")


def require_file(path: Path, hint: str) -> None:
    """Raise an error unless a file exists."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, not a file; {hint}")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; {hint}")
