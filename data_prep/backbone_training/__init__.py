"""The small bundled backbone: its training data, training and report.

See `sieve.data_prep.backbone_training.pretrain`.

Each module is used by that one alone, so nothing is imported here.
"""
