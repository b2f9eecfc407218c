"""Words of captions and queries: tokens, base forms, hypernyms, and the benchmark's nouns."""
