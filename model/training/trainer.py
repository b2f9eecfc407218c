"""One training's steps: the encoder, its optimiser and its schedules.

One step: encode a batch of pairs, keep the top k (annealed from 4k), and add up the losses of
`sieve.model.training.losses`. Presence teaches what "has w" means, which is what exclusion needs;
contrast ties the modalities to one code; reconstruction keeps the code true to the embedding.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable
from dataclasses import asdict
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sieve.model.collection import Collection
from sieve.model.encoder import SparseEncoder
from sieve.model.training.config import TrainingConfig
from sieve.model.training.data import Batch, PrefetchLoader, TrainingData
from sieve.model.training.distributed import ALONE, World
from sieve.model.training.objectives import WIDE, Compact, TrainingModule, make_objective

log = logging.getLogger(__name__)

_IDLE_STEPS = 50
"""A dimension that did not fire for so many steps counts as dead."""
_FINISH_ON = 2000
"""Items and captions that a look in between is finished by."""


class StepReport(NamedTuple):
    """Where a training stands."""

    step: int
    n_steps: int
    losses: dict[str, float]
    """Unweighted terms and their weighted `total`."""
    live: float
    """Share of the dimensions that fired lately."""


def training_data(
    collection: Collection,
    config: TrainingConfig,
    encode_texts: Callable[[list[str]], np.ndarray],
) -> TrainingData:
    """Make what a configuration trains on, from a collection and its backbone's text encoder."""
    return TrainingData(
        collection,
        encode_texts,
        batch_size=config.batch_size,
        n_words=config.n_words,
        n_exclusions=config.n_exclusions if config.exclude else 0,
        noise=config.noise,
        seed=config.seed,
        kinds=config.kinds,
    )


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
    world : World
        The processes that share each batch; by default this one is alone.

    Raises
    ------
    ValueError
        If the processes cannot share a batch equally.
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
        self.objective = make_objective(config.objective, data, config.m, config.weighted())
        self.objective.begin(encoder)
        self.learner = TrainingModule(encoder).to(device)
        scalars = [part for part in self.learner.parameters() if part.ndim == 0]
        # These scalars set the scale of all cosines; they have farther to go than a weight.
        groups = [
            {"params": list(self.learner.encoder.parameters()), "pace": 1.0},
            {"params": scalars, "pace": 10.0, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
        self.idle = torch.zeros(config.m, dtype=torch.int64, device=device)
        self.bfloat16 = multiplies_bfloat16(device)
        self.n_steps = config.steps(data.steps_per_epoch)
        self.feed = PrefetchLoader(data, device, world, self.n_steps)
        self.step = 0
        self.whole = True
        """False while a step changes the weights: what is saved then would be half a step."""
        self._losses = self.objective.losses
        if device.type == "cuda" and isinstance(self.objective, Compact):
            # Elsewhere compiling takes longer than it saves; the peers draw on numpy in a step.
            self.compile()

    def compile(self, backend: str | Callable = "inductor") -> None:
        """Have the losses compiled at the first step; where that fails, go on without."""
        self._losses = torch.compile(self.objective.losses, backend=backend)

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

    def as_it_is(self) -> SparseEncoder:
        """Copy the encoder as it is now, ready to encode on the CPU; training goes on unchanged."""
        encoder = copy.deepcopy(self.learner.encoder).cpu().eval()
        self.objective.finish(encoder, at_most=_FINISH_ON)
        return encoder

    def train_step(self) -> StepReport:
        """Take one step, with all other ranks.

        Raises
        ------
        ValueError
            If the loss is no longer finite.
        """
        batch = self.feed.batch(self.step)
        names, values, fired = self._differentiate_or_fall_back(batch)
        self._exchange(values, fired)
        idle = torch.where(fired > 0, 0, self.idle + 1)
        live = (idle <= _IDLE_STEPS).float().mean()
        # A GPU is waited for once a step, here.
        *terms, total, live = torch.cat([values, live[None]]).tolist()
        if not math.isfinite(total):
            raise ValueError(
                f"the loss is not finite at step {self.step}; train with a smaller --learning-rate"
            )
        self.whole = False
        for group in self.optimizer.param_groups:
            group["lr"] = group["pace"] * self.learning_rate_now()
        nn.utils.clip_grad_norm_(self.learner.parameters(), 1.0)
        self.optimizer.step()
        self.idle = idle
        self.step += 1
        self.whole = True
        losses = {**dict(zip(names, terms, strict=True)), "total": total}
        return StepReport(self.step, self.n_steps, losses, live)

    def _differentiate_or_fall_back(self, batch: Batch) -> tuple[list[str], Tensor, Tensor]:
        if self._losses == self.objective.losses:
            return self._differentiate(batch)
        try:
            return self._differentiate(batch)
        except Exception as error:
            # Compilers miss tools or know no kernel on one machine or another. A fault that is not
            # theirs comes again below.
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            log.warning("the compiled step failed (%s); going on without torch.compile", reason)
            self._losses = self.objective.losses
            return self._differentiate(batch)

    def _differentiate(self, batch: Batch) -> tuple[list[str], Tensor, Tensor]:
        """Compute gradients; returns the losses' names, them and their total, and what fired."""
        self.optimizer.zero_grad(set_to_none=True)
        idle = self.idle > _IDLE_STEPS
        dead = idle if idle.any() else None
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            losses, fired = self._losses(self.learner, batch, self.k_now(), dead, self.world)
        weights = asdict(self.config)
        total = torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()
        total.backward()
        values = torch.stack([*losses.values(), total]).detach().float()
        return list(losses), values, fired.float()

    def _exchange(self, values: Tensor, fired: Tensor) -> None:
        """Average gradients, losses and what fired over the ranks, in place."""
        gradients = [part.grad for part in self.learner.parameters() if part.grad is not None]
        self.world.average([*gradients, values, fired])
