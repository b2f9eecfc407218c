"""The error for a backbone that cannot, or must not, be loaded."""

from __future__ import annotations


class BackboneUnavailable(ValueError):
    """A collection's backbone is not at hand: not found, offline, changed, or not yet trusted.

    The message is one line: the reason, and what to do. The collection still opens without it; only
    texts and new images cannot be encoded.
    """
