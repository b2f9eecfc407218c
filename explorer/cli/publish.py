"""`sieve push`: publish a checkpoint or a collection on the Hugging Face Hub, with a card."""

from __future__ import annotations

import csv
import html
import logging
import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tqdm import tqdm
from tyro.conf import Positional, arg

from sieve.explorer.cli.options import Json
from sieve.explorer.cli.output import print_facts, print_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sieve.model.checkpoint import Checkpoint
    from sieve.model.collection import BackboneIdentity, Collection

log = logging.getLogger(__name__)

NOT_STATED = "not stated"
_LICENCES = {
    "apache-2.0", "mit", "bsd-3-clause", "cc0-1.0", "cc-by-2.0", "cc-by-3.0", "cc-by-4.0",
    "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "odc-by",
    "unlicense",
}  # fmt: skip
"""Licences that the Hub knows by an identifier; others are named."""
_TAGS = ["sieve", "clip", "sparse-autoencoder", "interpretability", "image-text-retrieval"]
_LOCAL_PATH = re.compile(r"(?:^|\s)(?:[A-Za-z]:[\\/]|[\\/~])")
_INSTALL = "pip install sieve-explorer"


@dataclass(frozen=True)
class Push:
    """Publish a checkpoint or a collection on the Hugging Face Hub, with a card.

    Log in with `hf auth login`, or set HF_TOKEN. A checkpoint becomes a model repository, a
    collection a data-set repository; both open anywhere as hf://ORG/NAME. A collection is uploaded
    with its captions, labels and embeddings, but without local paths. Thumbnails are uploaded only
    with --thumbnails: check that the licence of the images permits it. All files are uploaded in
    one commit, which replaces the previous card.

    Example: sieve push my-codes ORG/my-codes --private
    """

    artifact: Annotated[Positional[str], arg(metavar="CHECKPOINT|COLLECTION")]
    """Path or name of a checkpoint or of a collection."""
    repository: Annotated[Positional[str], arg(metavar="ORG/NAME")]
    """Repository; created if it does not exist."""
    kind: Annotated[
        Literal["checkpoint", "collection"] | None, arg(metavar="checkpoint|collection")
    ] = None
    """Kind of artifact, needed if a checkpoint and a collection have the same name."""
    revision: str = ""
    """Branch; created if it does not exist; by default main."""
    private: bool = False
    """Make a new repository private."""
    thumbnails: bool = False
    """For collections: also upload thumbnails of the images, at most 320 pixels."""
    licence: str = ""
    """Licence to state on the card; by default that of the collection."""
    json: Json = False

    def run(self) -> None:
        """Write the card, upload all files, and report the commit."""
        from sieve.model import checkpoint, collection, hub

        reference = hub.HubReference.parse(self.repository)
        if reference.revision and self.revision:
            raise ValueError("give the branch once, after @ or with --revision")
        reference = reference._replace(revision=self.revision or reference.revision)
        opened = self._open()
        with TemporaryDirectory(prefix="sieve-push-") as made:
            folder = Path(made)
            if isinstance(opened, collection.Collection):
                copy_collection(
                    opened, folder, thumbnails=self.thumbnails, licence=self._licence(opened)
                )
                copied = collection.Collection.open(folder)
                card = collection_card(copied, reference, self.thumbnails)
                kind, patterns, needs = "dataset", collection.PUBLISHED, collection.MANIFEST
                backbone = opened.manifest.backbone
            else:
                copy_checkpoint(opened, folder)
                card = checkpoint_card(opened, reference, self.licence or NOT_STATED)
                kind, patterns, needs = "model", checkpoint.FILES, checkpoint.NAMES
                backbone = opened.config.backbone
            _warn_of_local(backbone)
            (folder / "README.md").write_text(card, encoding="utf-8")
            n_bytes = sum(path.stat().st_size for path in folder.iterdir())
            message = f"Publish {_line(opened.name)} with sieve push"
            commit = hub.upload(
                str(reference), kind, folder, patterns=patterns, needs=needs,
                private=self.private, message=message,
            )  # fmt: skip
        report = {
            "published": f"{hub.SCHEME}{reference.repository}@{commit.oid}",
            "page": commit.commit_url,
            "bytes": n_bytes,
        }
        print_json(report) if self.json else print_facts(report)

    def _licence(self, collection: Collection) -> str:
        licence = self.licence or collection.manifest.licence
        if self.thumbnails and licence == NOT_STATED and not self.private:
            raise ValueError(
                f"the licence of the images of {collection.name} is not stated; give --licence "
                "LICENCE, --private, or no --thumbnails"
            )
        if not self.thumbnails:
            log.warning(
                "images are not published, and captions are shown instead; --thumbnails adds them, "
                "if their licence permits"
            )
        return licence

    def _open(self) -> Checkpoint | Collection:
        """Find and open the artifact of this name; raise an error if there are two, or none."""
        from sieve.data_prep.bundled import locate_collection
        from sieve.model.checkpoint import Checkpoint
        from sieve.model.checkpoint_choice import checkpoint_path
        from sieve.model.collection import Collection

        if (self.kind or self._find_kind()) == "checkpoint":
            return Checkpoint.load(checkpoint_path(self.artifact))
        return Collection.open(locate_collection(self.artifact))

    def _find_kind(self) -> str:
        from sieve.data_prep.bundled import BUNDLED, list_collections
        from sieve.model.checkpoint_choice import checkpoint_folders
        from sieve.model.collection import MANIFEST
        from sieve.model.hub import is_reference

        if is_reference(self.artifact):
            raise ValueError(
                f"{self.artifact[:200]} may be either kind; add --kind checkpoint or --kind "
                "collection"
            )
        path = Path(self.artifact).expanduser()
        if path.exists():
            return "collection" if (path / MANIFEST).is_file() else "checkpoint"
        named = {
            "checkpoint": {folder.name for folder in checkpoint_folders()},
            "collection": {*BUNDLED, *list_collections()},
        }
        kinds = [kind for kind, names in named.items() if self.artifact in names]
        if len(kinds) == 1:
            return kinds[0]
        is_both = f"{self.artifact} is a checkpoint and a collection"
        is_none = f"there is no checkpoint or collection {self.artifact[:200]!r}"
        raise ValueError(
            f"{is_both}; add --kind checkpoint or --kind collection"
            if kinds
            else f"{is_none}; give the path of one, or the name of an installed one"
        )


def copy_checkpoint(checkpoint: Checkpoint, folder: Path) -> None:
    """Link the files of a checkpoint into an empty folder, with the newest measurements."""
    from sieve.model.checkpoint import FILES, MEASUREMENTS
    from sieve.model.dimensions.code_cache import read_measurements
    from sieve.model.files import link_or_copy

    for name in FILES:
        if name != MEASUREMENTS and (checkpoint.path / name).is_file():
            link_or_copy(checkpoint.path / name, folder / name)
    measured = read_measurements(checkpoint)
    if measured.notna().any(axis=None):
        measured.to_csv(folder / MEASUREMENTS, index_label="dimension")


def copy_collection(
    collection: Collection, folder: Path, *, thumbnails: bool, licence: str
) -> None:
    """Copy a collection into an empty folder, without anything specific to this machine.

    Items are named as in their source, and skipped records are left out. Arrays are linked. Without
    thumbnails, captions are drawn in their place.

    Raises
    ------
    ValueError
        If it is one shard of a collection, or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from sieve.data_prep.records import write_skipped
    from sieve.model.collection import DUPLICATES, ITEMS, MANIFEST, SKIPPED, write_manifest
    from sieve.model.files import CHECKSUMS, link_or_copy

    manifest = collection.manifest
    if manifest.shard is not None:
        raise ValueError(f"{collection.path} is one shard; merge all with `sieve merge` first")
    for name in manifest.files:
        if name not in (ITEMS, SKIPPED, DUPLICATES, MANIFEST, CHECKSUMS):
            link_or_copy(collection.checked(name) / name, folder / name)
    names = list(_published_names(collection))
    table = pq.read_table(collection.checked(ITEMS) / ITEMS)
    column = table.column_names.index("image")
    table = table.set_column(column, "image", pa.array(names, pa.string()))
    pq.write_table(table, folder / ITEMS, compression="zstd", row_group_size=1 << 16)
    write_skipped(folder / SKIPPED, ())
    if DUPLICATES in manifest.files:
        _copy_duplicates(collection, folder / DUPLICATES, names)
    _pack_thumbnails(collection, folder, thumbnails)
    write_manifest(
        folder,
        name=collection.name,
        backbone=manifest.backbone,
        source=_LOCAL_PATH.split(manifest.source)[0].strip() or "local files",
        licence=licence,
        counts=manifest.counts.model_dump() | {"skipped": 0},
        codes=manifest.codes,
    )


def _published_names(collection: Collection) -> Iterator[str]:
    for row, image in enumerate(collection.items["image"].tolist()):
        is_scene = str(image).startswith("scene:")
        yield str(image) if is_scene else collection.file_names[row]


def _copy_duplicates(collection: Collection, target: Path, names: Sequence[str]) -> None:
    from sieve.model.collection import DUPLICATES
    from sieve.model.files import safe_cell

    source = collection.checked(DUPLICATES) / DUPLICATES
    with (
        source.open(encoding="utf-8", newline="") as old,
        target.open("w", encoding="utf-8", newline="") as new,
    ):
        rows = csv.DictReader(old)
        writer = csv.DictWriter(new, rows.fieldnames or (), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            for item, image in (("id", "image"), ("duplicate_of", "duplicate_of_image")):
                at = collection.row_of_id.get(row[item])
                row[image] = "" if at is None else safe_cell(names[at])
            writer.writerow(row)


def _pack_thumbnails(collection: Collection, folder: Path, thumbnails: bool) -> None:
    """Write all thumbnails to one file: the Hub limits the number of files and requests."""
    from sieve.data_prep.images import encode_thumbnail, read_thumbnail
    from sieve.data_prep.sources.local_images import draw_placeholder
    from sieve.model.collection import THUMBNAIL_ARCHIVE

    items = zip(collection.items["id"], collection.items["captions"], strict=True)
    with zipfile.ZipFile(folder / THUMBNAIL_ARCHIVE, "w", zipfile.ZIP_STORED) as archive:
        for item_id, captions in tqdm(items, "thumbnails", collection.n_items, disable=None):
            if thumbnails:
                try:
                    data = read_thumbnail(collection.path, item_id)
                except ValueError as error:
                    raise ValueError(f"thumbnail {item_id} of {collection.path} {error}") from None
            else:
                data = encode_thumbnail(draw_placeholder(captions[0] if len(captions) else ""))
            archive.writestr(zipfile.ZipInfo(f"{item_id}.webp"), data)  # without a date


def _warn_of_local(backbone: BackboneIdentity | None) -> None:
    from sieve.model.backbone.names import is_local_name

    if backbone is not None and is_local_name(backbone.name):
        log.warning(
            "the files refer to backbone %s, a path on this machine; to open them elsewhere, "
            "give the path of the same weights with --text-encoder", backbone.name,
        )  # fmt: skip


@dataclass
class Card:
    """A card: YAML for the Hub, then Markdown, in which all texts of an artifact are escaped."""

    data: dict[str, Any]
    parts: list[str] = field(default_factory=list)

    def title(self, text: str) -> None:
        """Add the title."""
        self.parts.append(f"# {_cell(text)}")

    def table(self, *rows: Sequence[object], header: Sequence[str] = ("", "")) -> None:
        """Add a table."""
        lines = [header, ["---"] * len(header), *rows]
        self.parts.append("\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines))

    def __str__(self) -> str:
        from huggingface_hub.repocard_data import CardData

        return f"---\n{CardData(**self.data)}\n---\n\n" + "\n\n".join(self.parts) + "\n"


def _cell(value: object) -> str:
    text = html.escape(_line(str(value)), quote=False)
    return re.sub(r"([\\|`*_\[\]])", r"\\\1", text) if text != "---" else text


def _line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:300]


def card_facts(licence: str, backbone: BackboneIdentity | None, **more: Any) -> dict[str, Any]:
    """Return the YAML of a card."""
    facts: dict[str, Any] = {**more}
    if licence.lower() in _LICENCES:
        facts["license"] = licence.lower()
    elif licence != NOT_STATED:
        identifier = re.sub(r"[^a-z0-9.]+", "-", licence.lower())[:60].strip("-")
        facts |= {"license": "other", "license_name": identifier or "other"}
    if backbone is not None and backbone.name.startswith("hf-hub:"):
        facts["base_model"] = backbone.name.removeprefix("hf-hub:").partition("@")[0]
    return facts


def checkpoint_card(checkpoint: Checkpoint, reference: object, licence: str) -> str:
    """Return the model card of a checkpoint."""
    config, backbone = checkpoint.config, checkpoint.config.backbone
    card = Card(card_facts(licence, backbone, library_name="sieve", tags=_TAGS))
    certain = sum(name.confident for name in checkpoint.names.values())
    shape = config.encoder
    card.title(checkpoint.name)
    card.parts += [
        f"A sparse encoder for Sieve: codes of {checkpoint.m:,} non-negative dimensions, shared by "
        "images and texts. Each dimension has a name, and can be switched off: “a dog, without a "
        "beach”.",
    ]
    card.table(
        ("backbone", f"{backbone.name} (SHA-256 {backbone.sha256[:12]})" if backbone else "none"),
        ("dimensions", f"{checkpoint.m:,}"),
        ("active dimensions of a code", f"at most {shape.k}" if shape and shape.k else "any"),
        ("names that passed their test", f"{certain:,}"),
        ("trained on", f"{checkpoint.trained_on}, {len(checkpoint.trained_items):,} items"),
        ("licence", licence),
    )
    card.parts.append("## Metrics")
    card.parts += _metrics(card, checkpoint)
    card.parts += _opening(f'COLLECTION --checkpoint "{reference}"', f'"COLLECTION", "{reference}"')
    card.parts.append(
        "COLLECTION is any collection of this backbone: "
        f"`sieve prepare folder photos/ --backbone {_line(backbone.name) if backbone else 'NAME'}`."
    )
    return str(card)


def _metrics(card: Card, checkpoint: Checkpoint) -> list[str]:
    quality = checkpoint.quality
    rows = [
        (f"text-to-image {name}", f"{value:.3f}", f"{quality.backbone[name]:.3f}")
        for name, value in quality.codes.items()
        if name in quality.backbone
    ]
    if rows:
        card.table(*rows, header=("validation items of the training", "codes", "backbone"))
    evaluated = [
        (
            f"{track.track}, {track.pairs:,} pairs of {evaluation.summary.collection.name}",
            _interval(method.ap, method.ci),
            _interval(method.violation, method.violation_ci),
        )
        for evaluation in _evaluations(checkpoint)
        for track in evaluation.tracks
        for method in track.methods
        if method.method == "Sieve"
    ]
    if evaluated:
        header = ("“A without B”, with 95% intervals", "AP@10", "violation@10 (lower is better)")
        card.table(*evaluated, header=header)
    return [] if rows or evaluated else ["None was recorded; `sieve evaluate` measures them."]


def _interval(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"


def _evaluations(checkpoint: Checkpoint) -> Iterator[Any]:
    """Yield the newest stored evaluation of a checkpoint on each installed collection."""
    from sieve.data_prep.bundled import bundled_path, list_collections, locate_collection
    from sieve.model.benchmark.results import list_evaluations, read_evaluation
    from sieve.model.collection import Collection

    for path in (bundled_path(), *map(locate_collection, list_collections())):
        try:
            found = list_evaluations(Collection.open(path).sha256)[0]
        except (OSError, ValueError):
            continue  # the card is complete without this collection
        own = (
            one for one in found if one.checkpoint and one.checkpoint.sha256 == checkpoint.sha256
        )
        if newest := next(own, None):
            yield read_evaluation(newest.path)


def collection_card(collection: Collection, reference: object, thumbnails: bool) -> str:
    """Return the data-set card of a collection that `copy_collection` wrote."""
    from sieve.model.collection import ITEMS

    manifest, backbone = collection.manifest, collection.manifest.backbone
    configs = [{"config_name": "default", "data_files": ITEMS}]
    card = Card(card_facts(manifest.licence, None, tags=_TAGS, configs=configs))
    splits = collection.items["split"].value_counts().to_dict()
    holds = f"embeddings of {backbone}" if backbone else str(manifest.codes)
    card.title(collection.name)
    card.parts += [
        f"Captions, labels and {'embeddings' if backbone else 'codes'} of {collection.n_items:,} "
        "images, a collection for Sieve to search.",
    ]
    card.table(
        ("items", f"{collection.n_items:,}"),
        ("captions", f"{collection.n_captions:,}"),
        ("splits", ", ".join(f"{name} {count:,}" for name, count in splits.items())),
        ("holds", holds),
        ("images", "thumbnails, at most 320 pixels" if thumbnails else "none; captions are shown"),
        ("source", manifest.source),
        ("licence of the images", manifest.licence),
    )
    card.parts += _opening(f'"{reference}"', f'"{reference}"')
    return str(card)


def _opening(command: str, arguments: str) -> list[str]:
    return [
        "## Open",
        f"```sh\n{_INSTALL}\nsieve explore {command}\n```",
        f"```python\nimport sieve\n\nengine = sieve.Engine.open({arguments})\n"
        'engine.search("a dog", without="a beach")\n```',
    ]
