"""The training step: encoder, optimiser and schedules.

A step encodes a batch of pairs, keeps the top k activations (annealed from 4k) and sums the losses
of `sieve.model.training.losses`. Presence aligns dimensions with words, which exclusion needs;
contrast aligns the modalities; reconstruction preserves the embedding.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sieve.model.encoder import SparseEncoder
from sieve.model.hyperparameters import TrainingConfig
from sieve.model.training.data import Batch, PrefetchLoader, TrainingData
from sieve.model.training.distributed import ALONE, World
from sieve.model.training.objectives import OBJECTIVES, WIDE, Compact, TrainingModule

log = logging.getLogger(__name__)

_IDLE_STEPS = 50
"""Steps without activity after which a dimension counts as dead."""
_FINISH_ON = 2000
"""Items and captions that finalise a snapshot."""


class StepReport(NamedTuple):
    """Progress of a training run after a step."""

    step: int
    n_steps: int
    losses: dict[str, float]
    """Unweighted terms and their weighted `total`."""
    live: float
    """Share of dimensions that are not dead."""


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device has native bfloat16 matrix products; otherwise they would be slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.8 and newer
    return device.type == "cpu" and any(map(capabilities.get, ("amx_bf16", "avx512_bf16")))


class Trainer:
    """State of a training run: data, encoder, optimiser and step.

    The processes of `world`, by default a single one, share each batch. Raises a ValueError if it
    cannot be divided equally among them.
    """

    def __init__(
        self,
        data: TrainingData,
        config: TrainingConfig,
        device: torch.device,
        world: World = ALONE,
    ) -> None:
        self.data = data
        self.config = config
        self.device = device
        self.world = world
        generator = torch.Generator().manual_seed(config.seed)
        width = data.collection.backbone.width
        encoder = SparseEncoder(config.shape(width), generator)
        self.objective = OBJECTIVES[config.objective](data, config)
        self.objective.begin(encoder)
        self.module = TrainingModule(encoder, len(data.words.words)).to(device)
        scalars = [part for part in self.module.parameters() if part.ndim == 0]
        # The scalars scale all cosines and have farther to move than weights.
        groups = [
            {"params": list(self.module.encoder.parameters()), "lr_factor": 1.0},
            {"params": scalars, "lr_factor": 10.0, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
        self.idle = torch.zeros(config.m, dtype=torch.int64, device=device)
        self.bfloat16 = multiplies_bfloat16(device)
        self.n_steps = config.steps(data.steps_per_epoch)
        self.loader = PrefetchLoader(data, device, world, self.n_steps)
        self.step = 0
        self.whole = True
        """False while a step updates the weights; the state must not be saved then."""
        self._losses = self.objective.losses
        if device.type == "cuda" and isinstance(self.objective, Compact):
            # On a CPU compilation costs more than it saves; the baselines use numpy in a step.
            self.compile()

    def compile(self, backend: str | Callable = "inductor") -> None:
        """Compile the losses at the first step; fall back to eager mode if that fails."""
        self._losses = torch.compile(self.objective.losses, backend=backend)

    @property
    def is_compiled(self) -> bool:
        """Whether the losses are compiled; false after a fallback to eager mode."""
        return self._losses != self.objective.losses

    def k_now(self) -> int:
        """Return k at this step; it falls geometrically from 4k to k."""
        progress = self.step / max(self.config.anneal * self.n_steps, 1)
        wide = min(WIDE * self.config.k, self.config.m)
        return max(round(wide * (self.config.k / wide) ** min(progress, 1.0)), self.config.k)

    def learning_rate_now(self) -> float:
        """Return the learning rate: linear warm-up over 5% of the steps, then cosine decay to 0."""
        warm = max(round(0.05 * self.n_steps), 1)
        if self.step < warm:
            return self.config.learning_rate * (self.step + 1) / warm
        progress = (self.step - warm) / max(self.n_steps - warm, 1)
        return self.config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))

    def export(self) -> SparseEncoder:
        """Return the trained encoder, finalised and on the CPU."""
        encoder = self.module.encoder.cpu().eval()
        self.objective.finish(encoder)
        return encoder

    def snapshot(self) -> SparseEncoder:
        """Return a finalised copy of the encoder on the CPU, without affecting the training."""
        encoder = copy.deepcopy(self.module.encoder).cpu().eval()
        self.objective.finish(encoder, at_most=_FINISH_ON)
        return encoder

    def train_step(self) -> StepReport:
        """Train one step, together with all other ranks; a ValueError if the loss is not finite."""
        self.objective.before_step(self.module, self.step, self.n_steps, self.world)
        batch = self.loader.batch(self.step)
        names, values, fired = self._differentiate_or_fall_back(batch)
        gradients = [part.grad for part in self.module.parameters() if part.grad is not None]
        self.world.average([*gradients, values, fired])
        idle = torch.where(fired > 0, 0, self.idle + 1)
        live = (idle <= _IDLE_STEPS).float().mean()
        # The only GPU synchronisation of a step.
        *terms, total, live = torch.cat([values, live[None]]).tolist()
        if not math.isfinite(total):
            raise ValueError(
                f"the loss is not finite at step {self.step}; train with a smaller --learning-rate"
            )
        self.whole = False
        for group in self.optimizer.param_groups:
            group["lr"] = group["lr_factor"] * self.learning_rate_now()
        nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        self.optimizer.step()
        self.idle = idle
        self.step += 1
        self.whole = True
        losses = {**dict(zip(names, terms, strict=True)), "total": total}
        return StepReport(self.step, self.n_steps, losses, live)

    def _differentiate_or_fall_back(self, batch: Batch) -> tuple[list[str], Tensor, Tensor]:
        try:
            return self._differentiate(batch)
        except Exception as error:
            if not self.is_compiled:
                raise
            # The compiler may lack tools or kernels here. Any other error is raised again below.
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            log.warning("torch.compile failed (%s); continuing in eager mode", reason)
            self._losses = self.objective.losses
            return self._differentiate(batch)

    def _differentiate(self, batch: Batch) -> tuple[list[str], Tensor, Tensor]:
        """Compute gradients; return loss names, losses and total, and what fired."""
        self.optimizer.zero_grad(set_to_none=True)
        idle = self.idle > _IDLE_STEPS
        dead = idle if idle.any() else None
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            losses, fired = self._losses(self.module, batch, self.k_now(), dead, self.world)
        weights = self.objective.weights(self.step / self.n_steps)
        total = torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()
        total.backward()
        values = torch.stack([*losses.values(), total]).detach().float()
        return list(losses), values, fired.float()
