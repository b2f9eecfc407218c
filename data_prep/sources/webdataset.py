"""Samples in tar files, as webdataset and img2dataset write them, read in place.

A sample is all members whose names differ only in their extension (`000000012.jpg`,
`000000012.txt`, `000000012.json`). The headers give the offset of each image, from which any
process can read it. Names of members are never used as paths.
"""

from __future__ import annotations

import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from sieve.data_prep.images import load_image_bytes, readable_extensions
from sieve.data_prep.records import SkippedRows
from sieve.model.files import reason_of

MAX_MEMBER_BYTES = 200 << 20
"""Larger members are refused: an image within the pixel limit is smaller."""
MAX_TEXT_BYTES = 1 << 20
"""Larger captions and descriptions are refused."""

_LOCATION = re.compile(r"(?P<tar>.+?\.tar)::.*@(?P<start>\d+)\+(?P<size>\d+)", re.S)
_TEXTS = (".txt", ".caption", ".text", ".json")
_IMAGE_FORMATS = (".jpg", ".jpeg", ".png", ".webp")
"""If a sample has one image in several formats, the first of these is used."""
_AUXILIARY = frozenset(
    ("alpha", "canny", "condition", "conditioning", "control", "depth", "disparity", "edge",
     "edges", "flow", "hed", "instance", "label", "labels", "lineart", "mask", "masks", "matte",
     "midas", "normal", "normals", "openpose", "pose", "scribble", "seg", "segmentation",
     "semantic", "sketch", "thumb", "thumbnail")
)  # fmt: skip
"""Words in the name of a member that is not the photograph itself."""
_WORD = re.compile(r"[a-z]+(?:[_.-][a-z]+)*")
_COMPRESSIONS = {
    b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd",
}  # fmt: skip


class Sample(NamedTuple):
    """One image with the texts that describe it."""

    key: str
    image: str
    """Path of its image, or its location in a tar file, `TAR::MEMBER@START+SIZE`, in bytes."""
    texts: list[tuple[str, bytes]]
    """Each with its extension in lower case: `txt`, `json`, `en.txt`; ordered, `txt` first."""


class _Member(NamedTuple):
    """A member of a tar file, as part of a sample."""

    name: str
    start: int
    size: int
    key: str = ""
    qualifier: str = ""
    """The part between the key and the last dot, in lower case: `depth` of `0.depth.png`."""

    @property
    def file(self) -> str:
        return self.name.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        return f".{self.file.rpartition('.')[2].lower()}"

    @property
    def is_text(self) -> bool:
        return self.suffix in _TEXTS

    @property
    def is_auxiliary(self) -> bool:
        """Whether its qualifier says that it is something other than the photograph."""
        return not _AUXILIARY.isdisjoint(re.split(r"[^a-z]+", self.qualifier))

    def keyed(self, stem: str, qualifier: str) -> _Member:
        key = self.name.removesuffix(self.file) + stem
        return self._replace(key=key, qualifier=qualifier.lower())


class _Group(NamedTuple):
    """The members of one sample, by role."""

    key: str
    images: Sequence[_Member] = ()
    """The first one is used."""
    texts: Sequence[_Member] = ()
    fault: str = ""


def open_member(location: str) -> Image.Image | None:
    """Open an image inside a tar file; None if a text is not the location of one."""
    found = _LOCATION.fullmatch(location)
    if not found:
        return None
    size = int(found["size"])
    if size > MAX_MEMBER_BYTES:
        raise ValueError(f"too large: {size:,} bytes, over {MAX_MEMBER_BYTES:,}")
    with Path(found["tar"]).open("rb") as stream:
        stream.seek(int(found["start"]))
        data = stream.read(size)
    if len(data) < size:
        raise ValueError("truncated: its tar file ends before it does")
    return load_image_bytes(data)


def read_samples(path: Path, name: str, skipped: SkippedRows) -> Iterator[Sample]:
    """Read the samples of a tar file without reading their images.

    The key of a sample is the path of its members up to the first dot of the file name, as in
    WebDataset. If that puts different pictures into one sample, because names contain dots
    (`img.v1.0003.jpg`), the key is the path up to the last dot. Raise ValueError if neither rule
    pairs images and texts. `skipped` receives the members that are not used, under the file's
    `name`.
    """
    with path.open("rb") as stream:
        head = stream.read(8)
        for magic, kind in _COMPRESSIONS.items():
            if head.startswith(magic):
                advice = f"rename it and decompress it first ({kind} -d)"
                skipped.add_malformed(name, str(path), f"compressed tar not read: {kind}; {advice}")
                skipped.n_rows += 1
                return
        members = _members(path, name, skipped)
        groups = _by_first_dot(members)
        groups = _by_last_dot(members) if groups is None else groups
        if groups is None:
            raise ValueError(_ambiguous(path, members))
        skipped.n_rows += len(groups)
        for group in groups:
            if group.fault:
                skipped.add_malformed(f"{name}::{group.key[:200]}", str(path), group.fault)
            if not group.images:
                continue
            image, *unused = group.images
            for member in unused:
                reason = f"second image in a sample: {image.name[:200]} is used"
                skipped.add(f"{name}::{member.name[:200]}", str(path), reason)
            texts = []
            for text in group.texts:
                stream.seek(text.start)
                extension = f"{text.qualifier}{text.suffix}".removeprefix(".")
                texts.append((extension, stream.read(text.size)))
            yield Sample(group.key, f"{path}::{image.name}@{image.start}+{image.size}", texts)


def _members(path: Path, name: str, skipped: SkippedRows) -> list[_Member]:
    """Read the headers of a tar file; add unusable members to `skipped`."""
    members: list[_Member] = []
    others: Counter[str] = Counter()
    size = path.stat().st_size
    try:
        with tarfile.open(path, "r:") as tar, path.open("rb") as stream:
            before = -1
            for entry in tar:
                # tarfile would store every header.
                tar.members = []  # pyright: ignore[reportAttributeAccessIssue]
                if entry.offset <= before or entry.size < 0:
                    raise tarfile.ReadError("header offsets do not increase")
                before = entry.offset
                member = _Member(entry.name.removeprefix("./"), entry.offset_data, entry.size)
                if entry.isdir():
                    continue
                if fault := _fault(entry, member, size):
                    skipped.add_malformed(f"{name}::{entry.name[:200]}", str(path), fault)
                elif member.file.startswith("."):
                    others["hidden file"] += 1
                elif member.is_text or member.suffix in readable_extensions():
                    members.append(member)
                else:
                    ending = f"{member.suffix[:20]} member"
                    others[ending if "." in member.file else "member without an extension"] += 1
            stream.seek(tar.offset)
            if any(stream.read(tarfile.BLOCKSIZE)):  # tarfile takes any other block for the end
                raise tarfile.ReadError(f"no header at byte {tar.offset}")
    except (tarfile.TarError, OSError, ValueError, OverflowError, RecursionError) as error:
        reason = f"damaged tar file, read up to the damage: {reason_of(error)}"
        skipped.add_malformed(name, str(path), reason)
        skipped.n_rows += 1
    for kind, count in sorted(others.items()):
        skipped.add(name, str(path), f"{kind} not read: {count:,} of them")
    return members


def _fault(entry: tarfile.TarInfo, member: _Member, size: int) -> str:
    """Return the reason why a member cannot be used; empty if it can."""
    if not entry.isreg() or entry.issparse():
        return "a link or a device in a tar file: only regular files are read"
    limit = MAX_TEXT_BYTES if member.is_text else MAX_MEMBER_BYTES
    if member.size > limit:
        return f"too large: {member.size:,} bytes, over {limit:,}"
    if member.start + member.size > size:
        return "truncated: its tar file ends before it does"
    return ""


def _by_first_dot(members: Sequence[_Member]) -> list[_Group] | None:
    """Group members by their name up to the first dot; None if keys contain dots."""
    keyed = []
    for member in members:
        stem, _, rest = member.file.partition(".")
        keyed.append(member.keyed(stem, rest.rpartition(".")[0]))
    n_keys = Counter(qualifier for _, qualifier in {(m.key, m.qualifier) for m in keyed})
    for qualifier, n in n_keys.items():
        # `input` and `depth` describe a member; `v1.0003` and `25` are parts of a name.
        if qualifier and n < 2 and not _WORD.fullmatch(qualifier):
            return None
    groups = _samples(keyed)
    return groups if len(groups) == len({member.key for member in keyed}) else None


def _by_last_dot(members: Sequence[_Member]) -> list[_Group] | None:
    """Group members by their name up to the last dot; None if most texts then have no image."""
    keyed = []
    for member in members:
        whole = member.file.rpartition(".")[0]
        stem, _, last = whole.rpartition(".")
        marked = member.keyed(stem, last)
        keyed.append(marked if stem and marked.is_auxiliary else member.keyed(whole, ""))
    groups = _samples(keyed)
    n_texts = sum(member.is_text for member in members)
    n_alone = sum(not group.images for group in groups)
    bare = any(group.images and not group.texts for group in groups)
    return None if n_texts and bare and 2 * n_alone >= n_texts else groups


def _samples(members: Sequence[_Member]) -> list[_Group]:
    """Group members by key; leave out groups with several images."""
    by_key: dict[str, list[_Member]] = {}
    for member in members:
        by_key.setdefault(member.key, []).append(member)
    return list(filter(None, (_assign_roles(key, own) for key, own in by_key.items())))


def _assign_roles(key: str, members: Sequence[_Member]) -> _Group | None:
    """Find the image and the texts of one sample; None if there are several images."""
    images = sorted((member for member in members if not member.is_text), key=_image_order)
    texts = sorted(
        (member for member in members if member.is_text),
        key=lambda text: (_TEXTS.index(text.suffix), text.qualifier),
    )
    name, count = Counter(member.name for member in members).most_common(1)[0]
    if count > 1:
        return _Group(key, fault=f"member twice in a tar file: {name[:200]}")
    if not images:
        return _Group(key, fault="no image in this sample")
    if images[0].is_auxiliary:
        names = ", ".join(member.file[:60] for member in images[:3])
        return _Group(key, fault=f"no photograph in this sample: only {names}")
    first = images[0].qualifier
    rivals = {member.qualifier for member in images[1:] if not member.is_auxiliary}
    if first and rivals - {first}:
        return None
    described = {text.qualifier for text in texts} - {""}
    if first in described and len(described) > 1:
        return None  # `a.v1.jpg`, `a.v1.txt`, `a.v2.txt`: the third describes another image
    if not first and described & rivals:
        return None  # `a.jpg`, `a.left.jpg`, `a.left.txt`: two images with their texts
    return _Group(key, images, texts)


def _image_order(member: _Member) -> tuple[bool, bool, int, str]:
    """Sort photographs before depth maps, plain names before others, JPEG before PNG."""
    place = (*_IMAGE_FORMATS, member.suffix).index(member.suffix)
    return member.is_auxiliary, bool(member.qualifier), place, member.name


def _ambiguous(path: Path, members: Sequence[_Member]) -> str:
    """Describe the two possible groupings of the members."""
    images = [member.file for member in members if not member.is_text]
    example = max(images, key=lambda file: file.count("."), default="")
    return (
        f"{path}: it is not clear which members belong together. With keys up to the first dot, "
        f"{example[:80]} is in sample {example.partition('.')[0]!r}, which has several images or "
        f"texts; with keys up to the last dot, in {example.rpartition('.')[0]!r}, and texts have "
        "no image. Rename members to KEY.jpg and KEY.txt, without other dots"
    )
