"""Sparse codes that are known before a collection is prepared, and take the place of embeddings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sieve.data_prep.known import KnownEmbeddings
from sieve.model.checkpoint_writing import write_codes_checkpoint
from sieve.model.codes import SparseCodes
from sieve.model.dimension_name import GIVEN, DimensionName
from sieve.model.given_codes import IMAGE_CODES, TEXT_CODES, WORD_CODES, WORDS
from sieve.model.identity import CodesIdentity


@dataclass(frozen=True)
class KnownCodes:
    """Codes of a source's records, in the source's own order, with all that makes sense of them."""

    images: SparseCodes
    """A row for each of the r records that `Source.records` yields."""
    texts: SparseCodes | None
    """A row for each caption: those of the first record, then of the second, and so on."""
    names: Mapping[int, str]
    """Of dimensions."""
    words: tuple[str, ...] = ()
    word_codes: SparseCodes | None = None
    """A row a word."""
    text_encoder: str = ""
    """`package.module:function` that makes codes of texts, or nothing."""

    def embeddings(self, n_captions: int) -> KnownEmbeddings:
        """Embeddings of no width, so that nothing has to be embedded."""
        empty = np.empty((self.images.n, 0), np.float16), np.empty((n_captions, 0), np.float16)
        return KnownEmbeddings(*empty)

    def check(self, n_records: int, n_captions: int, source: str) -> None:
        """Refuse codes that cannot belong to a source's records.

        Raises
        ------
        ValueError
            If there are more or fewer rows than records or captions.
        """
        for what, codes, count in (
            ("images", self.images, n_records),
            ("captions", self.texts, n_captions),
        ):
            if codes is not None and codes.n != count:
                raise ValueError(
                    f"there are codes of {codes.n:,} {what}, but {source} has {count:,}"
                )

    def sha256(self) -> str:
        """Hash all of it."""
        codes = (self.images, self.texts, self.word_codes)
        told = [None if part is None else CodesIdentity.of(part).sha256 for part in codes]
        facts = [told, sorted(self.names.items()), self.words, self.text_encoder]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def write(
        self, folder: Path, name: str, images: np.ndarray, captions: np.ndarray
    ) -> CodesIdentity:
        """Write the codes of some records, and the checkpoint that names their dimensions.

        Parameters
        ----------
        folder : Path
            Of a collection that is being made.
        name : str
            The collection's.
        images, captions : (n,), (c,) int64
            Places of the records and captions that the collection holds.
        """
        kept = self.images.take(images)
        kept.save(folder, IMAGE_CODES)
        if self.texts is not None:
            self.texts.take(captions).save(folder, TEXT_CODES)
        if self.word_codes is not None:
            self.word_codes.save(folder, WORD_CODES)
            text = json.dumps(list(self.words), ensure_ascii=False, indent=0) + "\n"
            (folder / WORDS).write_text(text, encoding="utf-8")
        identity = CodesIdentity.of(kept)
        named = {j: DimensionName(name, 0.0, "", source=GIVEN) for j, name in self.names.items()}
        write_codes_checkpoint(folder, identity, name, named, self.text_encoder)
        return identity
