"""Several processes, one training: data parallel under `torchrun`.

Every process (a rank) draws the same batch and encodes its share of the rows. Losses that are means
over rows are then means over the share, and their average over the ranks is the loss of the whole
batch. Losses that look at the whole batch at once, such as contrast against all other pairs, see
the codes of all ranks through a gather that passes gradients back. So averaged gradients are those
of one process that trains alone, up to rounding.
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
"""The others wait so long while the first rank measures and names what was trained."""


@dataclass(frozen=True)
class World:
    """The processes of a training, seen from one of them; by default it is alone."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the rank that writes, shows and logs."""
        return self.rank == 0

    def share(self, n: int) -> slice:
        """Rows of a batch of n that are this rank's.

        Raises
        ------
        ValueError
            If the ranks' shares would not be equal, as means over them must weigh alike.
        """
        if n % self.size:
            most = n - n % self.size
            advice = f"--batch-size {most}" if most else f"at most {n} processes"
            raise ValueError(
                f"{self.size} processes cannot share a batch of {n} pairs equally; use {advice}"
            )
        each = n // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def mine(self, whole: Tensor) -> Tensor:
        """Take this rank's rows of a batch: (B, …) → (B / size, …)."""
        return whole[self.share(len(whole))]

    def gather(self, part: Tensor) -> Tensor:
        """Put the rows of all ranks together, with gradients to each: (B / size, …) → (B, …)."""
        return part if self.size == 1 else _gather(part, self)  # pyright: ignore[reportCallIssue]

    def maximum(self, values: Tensor) -> Tensor:
        """Take the largest over all ranks, element by element, without gradients."""
        values = values.detach()
        if self.size > 1:
            values = values.float()
            dist.all_reduce(values, dist.ReduceOp.MAX)
        return values

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace float32 tensors by their means over all ranks, in one exchange."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        flat /= self.size
        parts = flat.split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def agree(self, value: int, what: str) -> None:
        """Refuse to go on where ranks have different values.

        Raises
        ------
        ValueError
            Naming what differs.
        """
        if self.size == 1:
            return
        seen: list[int | None] = [None] * self.size
        dist.all_gather_object(seen, value)
        if len(set(seen)) > 1:
            raise ValueError(f"the processes differ in {what}: {seen}; all must see the same files")

    def wait(self) -> None:
        """Wait until all ranks are here."""
        if self.size > 1:
            dist.barrier()


ALONE = World()


class _Gather(torch.autograd.Function):
    """Every rank's rows; the gradient of a row is the sum of what all ranks ask of it."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, world: World) -> Tensor:
        ctx.world, ctx.dtype = world, part.dtype
        # As bytes: not every backend and version exchanges bfloat16.
        sent = part.detach().contiguous().view(torch.uint8)
        parts = [torch.empty_like(sent) for _ in range(world.size)]
        dist.all_gather(parts, sent)
        return torch.cat(parts).view(part.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        # In float32, so that the sum over many ranks keeps its digits.
        total = gradients[0].to(torch.float32, copy=True).contiguous()
        dist.all_reduce(total)
        return ctx.world.mine(total).to(ctx.dtype), None


@torch.compiler.disable
def _gather(part: Tensor, world: World) -> Tensor:
    return _Gather.apply(part, world)  # pyright: ignore[reportReturnType]


def world_from_env() -> World:
    """Tell this process's place from what `torchrun` says in the environment.

    Raises
    ------
    ValueError
        If that is no pair of numbers that fit.
    """
    rank, size = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    if not (rank.isdecimal() and size.isdecimal() and int(rank) < int(size)):
        raise ValueError(
            f"RANK={rank!r} and WORLD_SIZE={size!r} are no place among processes; start with"
            " `torchrun --nproc-per-node N -m -- sieve train …`, or unset both"
        )
    return World(int(rank), int(size))


@contextmanager
def process_group(device: torch.device) -> Iterator[World]:
    """Join the other processes that `torchrun` started, for as long as the block lasts.

    Over NCCL on CUDA, each rank on the GPU of its local number; over Gloo elsewhere. Without
    `torchrun` the process is alone. Where the caller has joined already, that stays as it is.

    Raises
    ------
    ValueError
        If there are more processes than GPUs.
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
                f"process {local} has no GPU of its own: this machine has "
                f"{torch.cuda.device_count()}; use a smaller --nproc-per-node or --device cpu"
            )
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if on_cuda else "gloo", timeout=_PATIENCE)
    yield world
    # Not after a fault: closing waits for the others, and they may wait for us in an exchange. The
    # launcher ends them when this process ends.
    dist.destroy_process_group()
