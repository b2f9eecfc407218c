"""The frozen dual encoders that put images and texts into one space: open_clip's, and BLIP."""

from __future__ import annotations

from sieve.model.backbone.dual_encoder import Backbone, resolve_device
from sieve.model.backbone.image_transform import ImageTransform
from sieve.model.backbone.names import parse_name
from sieve.model.backbone.of_collection import backbone_of, trust_backbone_of
from sieve.model.backbone.unavailable import BackboneUnavailable

__all__ = [
    "Backbone",
    "BackboneUnavailable",
    "ImageTransform",
    "backbone_of",
    "parse_name",
    "resolve_device",
    "trust_backbone_of",
]
