"""Batches on their way to the device.

A GPU takes a step in the time that drawing its batch takes, so threads draw the next ones meanwhile
into pinned memory, embeddings travel in float16, and the noise is made on the GPU. All of it
depends only on the seed and the step, as on a CPU; the noise itself differs between the two.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from sieve.model.training.data import Batch, TrainingData
from sieve.model.training.distributed import World

_AHEAD = 6
"""Batches that wait or are being drawn."""
_THREADS = 3


class Feed:
    """The batches of a training, step by step, on its device.

    Parameters
    ----------
    data : TrainingData
    device : torch.device
    world : World
        Each rank gets the embeddings of its own rows.
    n_steps : int
        Nothing is drawn ahead beyond.

    Raises
    ------
    ValueError
        If the ranks cannot share a batch equally.
    """

    def __init__(
        self, data: TrainingData, device: torch.device, world: World, n_steps: int
    ) -> None:
        self._data = data
        self._device = device
        self._share = world.share(data.batch_size)
        self._n_steps = n_steps
        self._ahead: deque[tuple[int, Future[Batch]]] = deque()
        self._threads: ThreadPoolExecutor | None = None

    def batch(self, step: int) -> Batch:
        """Give the batch of a step."""
        if self._device.type != "cuda":
            return Batch(*(part.to(self._device) for part in self._data.batch(step, self._share)))
        return self._noisy(self._drawn(step), step)

    def _drawn(self, step: int) -> Batch:
        """Take a batch that was drawn ahead, and have the following ones drawn."""
        self._threads = self._threads or ThreadPoolExecutor(_THREADS, "feed")
        if not self._ahead or self._ahead[0][0] != step:  # the first, or a resumed training's
            self._ahead.clear()
        following = self._ahead[-1][0] + 1 if self._ahead else step
        for later in range(following, min(step + _AHEAD, self._n_steps)):
            self._ahead.append((later, self._threads.submit(self._pinned, later)))
        batch = self._ahead.popleft()[1].result()
        return Batch(*(part.to(self._device, non_blocking=True) for part in batch))

    def _pinned(self, step: int) -> Batch:
        batch = self._data.batch(step, self._share, noisy=False)
        return Batch(*(part.pin_memory() for part in batch))

    def _noisy(self, batch: Batch, step: int) -> Batch:
        images, texts = device_noise(batch.images, batch.texts, self._data, step, self._share)
        return batch._replace(images=images, texts=texts)


def device_noise(
    images: Tensor, texts: Tensor, data: TrainingData, step: int, share: slice
) -> tuple[Tensor, Tensor]:
    """Make float32 of a share's embeddings, and add noise that their own device draws.

    Parameters
    ----------
    images, texts : (b, d) float16
    data : TrainingData
    step : int
    share : slice
        Which rows of the batch these are: a row's noise is the same however many ranks there are.
    """
    generator = torch.Generator(images.device).manual_seed(data.noise_seed(step))
    noise = torch.empty((2, data.batch_size, images.shape[1]), device=images.device)
    noise.normal_(generator=generator)
    scale = data.noise / images.shape[1] ** 0.5
    return images.float() + scale * noise[0, share], texts.float() + scale * noise[1, share]
