"""Words of captions and queries: tokens, hypernyms, nouns and word codes.

Nothing is imported here, so that each module can be loaded alone.
"""
