"""Training and evaluation of the bundled backbone; run `pretrain.py`."""
