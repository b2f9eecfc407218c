"""Words of captions and queries: which carry meaning, which a backbone knows, what they name.

Each module is light by itself, so nothing is imported here.
"""
