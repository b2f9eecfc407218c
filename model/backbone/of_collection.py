"""The backbone that a collection's embeddings are of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sieve.model.backbone.dual_encoder import Backbone, resolve_device
from sieve.model.backbone.unavailable import BackboneUnavailable

if TYPE_CHECKING:
    from sieve.model.collection import Collection


def backbone_of(collection: Collection, device: str = "auto") -> Backbone:
    """Load the backbone that made a collection, to embed more in the same space.

    Raises
    ------
    BackboneUnavailable
        If it cannot be loaded, or another one has its name by now.
    ValueError
        If the device is absent.
    """
    made_by = collection.backbone
    resolve_device(device)
    try:
        backbone = Backbone.load(made_by.name, device)
    except (ValueError, OSError) as error:
        raise BackboneUnavailable(str(error)) from error
    if not made_by.may_be(backbone.sha256, backbone.width):
        raise BackboneUnavailable(
            f"backbone {backbone.name} has weights {backbone.sha256[:12]}, but collection "
            f"{collection.name} was made with {made_by.sha256[:12]}; prepare the collection again"
        )
    return backbone
