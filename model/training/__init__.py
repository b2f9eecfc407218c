"""Training a sparse encoder: what a step asks, the run around it, and what is tuned after it."""

from __future__ import annotations

from model.training.config import PAPER, PRESETS, TrainingConfig
from model.training.distributed import launched
from model.training.run import train

__all__ = ["PAPER", "PRESETS", "TrainingConfig", "launched", "train"]
