"""The backbone that a collection's embeddings are of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sieve.model.backbone.dual_encoder import Backbone

if TYPE_CHECKING:
    from sieve.model.collection import Collection


def backbone_of(collection: Collection, device: str = "auto") -> Backbone:
    """Open the backbone that made a collection, to embed more in the same space.

    Raises
    ------
    FileNotFoundError, ValueError
        If it cannot be opened, or what has its name by now is another one.
    """
    made_by = collection.backbone
    backbone = Backbone.load(made_by.name, device)
    if not made_by.may_be(backbone.sha256, backbone.width):
        raise ValueError(
            f"backbone {backbone.name} has weights {backbone.sha256[:12]}, but collection "
            f"{collection.name} was made with {made_by.sha256[:12]}; prepare the collection again"
        )
    return backbone
