"""Captions: text, files in any format, and tables grouped by image."""
