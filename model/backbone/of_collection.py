"""The backbone that a collection's embeddings are of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sieve.model.backbone.dual_encoder import Backbone, resolve_device
from sieve.model.backbone.files import find_files
from sieve.model.backbone.names import parse_name
from sieve.model.backbone.trust import trust, trusted_files
from sieve.model.backbone.unavailable import BackboneUnavailable

if TYPE_CHECKING:
    from sieve.model.collection import Collection


def backbone_of(collection: Collection, device: str = "auto") -> Backbone:
    """Load the backbone that made a collection, to embed more in the same space.

    Raises
    ------
    BackboneUnavailable
        If the person has not agreed to load it, it cannot be loaded, or another one has its name by
        now.
    ValueError
        If the device is absent.
    """
    made_by = collection.backbone
    resolve_device(device)
    try:
        backbone = Backbone.of_files(trusted_files(made_by.name), device)
    except BackboneUnavailable:
        raise
    except (ValueError, OSError) as error:
        raise BackboneUnavailable(str(error)) from error
    if not made_by.may_be(backbone.sha256, backbone.width):
        raise BackboneUnavailable(
            f"backbone {backbone.name} has weights {backbone.sha256[:12]}, but collection "
            f"{collection.name} was made with {made_by.sha256[:12]}; prepare the collection again"
        )
    return backbone


def trust_backbone_of(collection: Collection) -> None:
    """Remember that the person agrees to load the backbone that a collection names.

    Raises
    ------
    ValueError, OSError
        If it cannot be found, or `$SIEVE_HOME` cannot be written to.
    """
    if collection.codes is None:
        trust(find_files(parse_name(collection.backbone.name)))
