"""The small bundled backbone: what it learns from, how, and how well; see `data_prep.pretrain`.

Each module is used by that one alone, so nothing is imported here.
"""
