"""Backdrops of scenes, one module a kind of place."""
