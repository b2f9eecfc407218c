"""Frozen dual encoders that embed images and texts in one space: open_clip models and BLIP."""

from __future__ import annotations

from sieve.model.backbone.checked_files import BackboneUnavailable
from sieve.model.backbone.clip import (
    Backbone,
    ImageTransform,
    backbone_of,
    resolve_device,
    trust_backbone_of,
)
from sieve.model.backbone.names import parse_name

__all__ = [
    "Backbone",
    "BackboneUnavailable",
    "ImageTransform",
    "backbone_of",
    "parse_name",
    "resolve_device",
    "trust_backbone_of",
]
