"""One training's steps: the encoder, its optimiser and its schedules.

One step: encode a batch of pairs, keep the top k (annealed from 4k), and add up the losses of
`model.losses`. Presence teaches what "has w" means, which is what exclusion needs; contrast ties
the modalities to one code; reconstruction keeps the code true to the embedding.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import NamedTuple

import torch
from torch import nn

from model.encoder import SparseEncoder
from model.learner import WIDE, Learner
from model.objectives import make_objective
from model.training_config import TrainingConfig
from model.training_data import Batch, TrainingData

_IDLE_STEPS = 50
"""A dimension that did not fire for so many steps counts as dead."""


class StepReport(NamedTuple):
    """Where a training stands."""

    step: int
    n_steps: int
    losses: dict[str, float]
    """Unweighted terms and their weighted `total`."""
    live: float
    """Share of the dimensions that fired lately."""


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 by itself; elsewhere it would only be slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    known = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.8 and newer
    return device.type == "cpu" and bool(known.get("amx_bf16") or known.get("avx512_bf16"))


class Trainer:
    """One training, from its data to a checkpoint.

    Parameters
    ----------
    data : TrainingData
    config : TrainingConfig
    device : torch.device
    """

    def __init__(self, data: TrainingData, config: TrainingConfig, device: torch.device) -> None:
        self.data = data
        self.config = config
        self.device = device
        generator = torch.Generator().manual_seed(config.seed)
        width = data.collection.backbone.width
        encoder = SparseEncoder(config.shape(width), generator)
        self.objective = make_objective(config.objective, data, config.m, config.weighted())
        self.objective.begin(encoder)
        self.learner = Learner(encoder).to(device)
        scalars = [part for part in self.learner.parameters() if part.ndim == 0]
        # Three scalars set the scale of all cosines; they have farther to go than a weight.
        groups = [
            {"params": list(self.learner.encoder.parameters()), "pace": 1.0},
            {"params": scalars, "pace": 10.0, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
        self.idle = torch.zeros(config.m, dtype=torch.int64, device=device)
        self.bfloat16 = multiplies_bfloat16(device)
        self.n_steps = config.epochs * data.steps_per_epoch
        self.step = 0

    def k_now(self) -> int:
        """Active dimensions at this step: falls geometrically from 4k to k."""
        progress = self.step / max(self.config.anneal * self.n_steps, 1)
        wide = min(WIDE * self.config.k, self.config.m)
        return max(round(wide * (self.config.k / wide) ** min(progress, 1.0)), self.config.k)

    def learning_rate_now(self) -> float:
        """Linear warm-up over 5 % of the steps, then a cosine to 0."""
        warm = max(round(0.05 * self.n_steps), 1)
        if self.step < warm:
            return self.config.learning_rate * (self.step + 1) / warm
        progress = (self.step - warm) / max(self.n_steps - warm, 1)
        return self.config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))

    def finished(self) -> SparseEncoder:
        """Take the trained encoder out, on the CPU and ready to encode."""
        encoder = self.learner.encoder.cpu().eval()
        self.objective.finish(encoder)
        return encoder

    def train_step(self) -> StepReport:
        """Take one step.

        Raises
        ------
        ValueError
            If the loss is no longer finite.
        """
        batch = Batch(*(part.to(self.device) for part in self.data.batch(self.step)))
        for group in self.optimizer.param_groups:
            group["lr"] = group["pace"] * self.learning_rate_now()
        dead = self.idle > _IDLE_STEPS
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            losses, fired = self.objective.losses(self.learner, batch, self.k_now(), dead)
        weights = asdict(self.config)
        total = torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()
        if not torch.isfinite(total):
            raise ValueError(
                f"the loss is not finite at step {self.step}; train with a smaller --learning-rate"
            )
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(self.learner.parameters(), 1.0)
        self.optimizer.step()
        self.idle = torch.where(fired, 0, self.idle + 1)
        self.step += 1
        values = {name: float(loss.detach()) for name, loss in losses.items()}
        values["total"] = float(total.detach())
        live = float((self.idle <= _IDLE_STEPS).float().mean())
        return StepReport(self.step, self.n_steps, values, live)
