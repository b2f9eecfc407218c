"""Other right names for Scenes' labels, as its captions use them."""

from __future__ import annotations

from sieve.data_prep.scenes.captions import CATEGORY_WORDS
from sieve.data_prep.scenes.objects import catalogue

_FURTHER = {
    "beach": ("seaside",),
    "clothing": ("clothes",),
    "desert": ("dune", "dry desert"),
    "dish": ("kitchenware",),
    "farm": ("farmyard",),
    "field": ("meadow", "grassy field"),
    "forest": ("woods",),
    "garden": ("yard", "back yard", "flower garden"),
    "night": ("dark night",),
    "restaurant": ("cafe",),
    "sea": ("ocean", "open sea", "blue ocean"),
    "snow": ("snowy landscape",),
    "sports gear": ("sports equipment",),
    "stadium": ("sports stadium",),
    "street": ("city street",),
}
"""What `captions` and `places` say in the label's stead: places, and categories without number."""


def label_synonyms() -> dict[str, tuple[str, ...]]:
    """List the names of each label that has any: of objects, categories and places."""
    found = dict(_FURTHER)
    for category, forms in CATEGORY_WORDS.items():
        found[category] = (*found.get(category, ()), *forms)
    for label, what in catalogue().items():
        names = [form for name in what.synonyms for form in (name.singular, name.plural)]
        found[label] = (*found.get(label, ()), what.name.plural, *names)
    return found
