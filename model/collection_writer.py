"""Writer of a collection's manifest: see `sieve.model.collection` for the format."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sieve.model.collection import (
    CAPTION_ITEM,
    DUPLICATES,
    IMAGE_EMBEDDINGS,
    ITEMS,
    MANIFEST,
    SCHEMA_VERSION,
    SKIPPED,
    TEXT_EMBEDDINGS,
    file_sha256,
)
from sieve.model.external_codes import code_file_names
from sieve.model.files import write_checksums
from sieve.model.identity import BackboneIdentity, CodesIdentity

_CHECKPOINT = ("config.json", "names.json")


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
        Number and kind of the shard, if the folder is a part of a larger collection.
    codes : CodesIdentity, optional
        The codes that it holds.
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
        "backbone": backbone
        and {"name": backbone.name, "sha256": backbone.sha256, "d": backbone.width},
        **({} if codes is None else {"codes": asdict(codes)}),
        "counts": dict(counts),
        "source": source,
        "licence": licence,
        **({"roots": list(roots)} if roots else {}),
        **({"follow_links": True} if follow_links else {}),
        "files": {
            part: {
                "bytes": (folder / part).stat().st_size,
                "sha256": file_sha256(folder / part),
            }
            for part in parts
        },
        **({} if shard is None else {"shard": dict(shard)}),
    }
    text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    # External codes are their own checkpoint, which is opened without the manifest.
    write_checksums(folder, [MANIFEST, *(_CHECKPOINT if backbone is None else ())])
