"""Train sparse encoders: configuration, losses, the training loop and calibration."""

from __future__ import annotations

from sieve.model.hyperparameters import PAPER, PRESETS, TrainingConfig
from sieve.model.training.distributed import world_from_env
from sieve.model.training.trainer import train

__all__ = ["PAPER", "PRESETS", "TrainingConfig", "world_from_env", "train"]
