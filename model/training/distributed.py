"""Data-parallel training under `torchrun`.

Every rank samples the same batch and encodes its share of the rows. A loss that is a mean over rows
becomes a mean over the share; its average over the ranks is the loss of the whole batch. Losses
that need the whole batch, such as contrast against all other pairs, gather the codes of all ranks
with gradients. The averaged gradients therefore equal those of single-process training, up to
rounding.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

_PATIENCE = timedelta(hours=2)
"""Time that other ranks wait while the main rank evaluates and names the encoder."""


@dataclass(frozen=True)
class World:
    """Rank and world size of this process; by default a single process."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the rank that writes files, shows progress and logs."""
        return self.rank == 0

    def share(self, n: int) -> slice:
        """Return the rows of a batch of n that belong to this rank.

        Raises a ValueError if n is not divisible by the world size: the shares have equal weights.
        """
        if n % self.size:
            most = n - n % self.size
            advice = f"--batch-size {most}" if most else f"at most {n} processes"
            raise ValueError(
                f"a batch of {n} pairs cannot be divided equally among {self.size} processes; "
                f"use {advice}"
            )
        each = n // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def mine(self, whole: Tensor) -> Tensor:
        """Return the rows of a batch that belong to this rank: (B, …) → (B / size, …)."""
        return whole[self.share(len(whole))]

    def gather(self, part: Tensor) -> Tensor:
        """Gather the rows of all ranks, with gradients: (B / size, …) → (B, …)."""
        return part if self.size == 1 else _gather(part, self)

    def maximum(self, values: Tensor) -> Tensor:
        """Return the elementwise maximum over all ranks, without gradients."""
        values = values.detach()
        if self.size > 1:
            values = values.float()
            dist.all_reduce(values, dist.ReduceOp.MAX)
        return values

    def broadcast(self, values: Tensor) -> Tensor:
        """Replace a tensor by that of the main rank, and return it."""
        if self.size > 1:
            dist.broadcast(values, 0)
        return values

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace float32 tensors by their means over all ranks, in one all-reduce."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        flat /= self.size
        parts = flat.split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def agree(self, value: int, what: str) -> None:
        """Raise a ValueError if the ranks have different values."""
        if self.size == 1:
            return
        seen: list[int | None] = [None] * self.size
        dist.all_gather_object(seen, value)
        if len(set(seen)) > 1:
            raise ValueError(f"processes disagree on {what}: {seen}; all must see the same files")

    def wait(self) -> None:
        """Wait for all ranks."""
        if self.size > 1:
            dist.barrier()


ALONE = World()


class _Gather(torch.autograd.Function):
    """All-gather whose backward pass sums the gradients of each row over all ranks."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, world: World) -> Tensor:
        ctx.world, ctx.dtype = world, part.dtype
        # As bytes, because not every backend and version supports bfloat16.
        sent = part.detach().contiguous().view(torch.uint8)
        parts = [torch.empty_like(sent) for _ in range(world.size)]
        dist.all_gather(parts, sent)
        return torch.cat(parts).view(part.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        # In float32, for an accurate sum over many ranks.
        total = gradients[0].to(torch.float32, copy=True).contiguous()
        dist.all_reduce(total)
        return ctx.world.mine(total).to(ctx.dtype), None


def _gather(part: Tensor, world: World) -> Tensor:
    return _Gather.apply(part, world)  # pyright: ignore[reportReturnType]


def keep_gather_eager() -> None:
    """Keep `torch.compile` from tracing `World.gather`.

    Not done by a decorator, because it imports the compiler, which takes a second.
    """
    global _gather
    _gather = torch.compiler.disable(_gather)  # pyright: ignore[reportAssignmentType]


def world_from_env() -> World:
    """Read rank and world size from the environment of `torchrun`; a ValueError if invalid."""
    rank, size = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    if not (rank.isdecimal() and size.isdecimal() and int(rank) < int(size)):
        raise ValueError(
            f"RANK={rank!r} and WORLD_SIZE={size!r} are not valid; expected integers with "
            "RANK < WORLD_SIZE: start with `torchrun --nproc-per-node N -m -- sieve train …`, "
            "or unset both"
        )
    return World(int(rank), int(size))


@contextmanager
def process_group(device: torch.device) -> Iterator[World]:
    """Join the process group of `torchrun` for the duration of the block.

    Uses NCCL on CUDA, with one GPU per local rank, and Gloo otherwise. Without `torchrun` this is a
    single process. A process group that the caller initialised is used as it is. Raises a
    ValueError if there are more processes than GPUs.
    """
    world = world_from_env()
    if world.size == 1 or dist.is_initialized():
        yield world
        return
    on_cuda = device.type == "cuda"
    if on_cuda:
        local = int(os.environ.get("LOCAL_RANK", world.rank))
        if local >= torch.cuda.device_count():
            raise ValueError(
                f"process {local} has no GPU: this machine has "
                f"{torch.cuda.device_count()}; use a smaller --nproc-per-node or --device cpu"
            )
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if on_cuda else "gloo", timeout=_PATIENCE)
    yield world
    # Not in a `finally`: after an error, other ranks may be waiting for this one in a collective,
    # and destroying the group would wait for them. The launcher stops them when this process ends.
    dist.destroy_process_group()
