"""Writing the facts of a collection: see `sieve.model.collection` for what it holds."""

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
    """Write `collection.json` with sizes and hashes of the other files, and then its own checksum.

    Parameters
    ----------
    folder : Path
        Holds all other files already.
    backbone : BackboneIdentity or None
        None where it holds codes instead of embeddings.
    counts : mapping of str to int
        At least `items` and `captions`.
    roots : sequence of str
        Folders that the items' files are named relative to.
    shard : mapping, optional
        Where the folder is one part of a larger collection: which one, and of what.
    codes : CodesIdentity, optional
        The codes that it holds.
    follow_links : bool
        Whether links out of the source's folder were followed, and may be later.
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
    # Codes from elsewhere are their own checkpoint, whose files are opened without the manifest.
    write_checksums(folder, [MANIFEST, *(_CHECKPOINT if backbone is None else ())])
