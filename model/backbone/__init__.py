"""Frozen dual encoders that embed images and texts in one space: open_clip models and BLIP."""
