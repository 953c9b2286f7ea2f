"""The order and randomness of the training images: the same with any number of workers and processes."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from wsolnb._utils.cache import fingerprint


class ShuffledBatchSampler(Sampler[list[int]]):
    """Batches of all images, shuffled by `seed`; `replicas` processes share each, and this one is number `rank`.

    Example:
        >>> list(ShuffledBatchSampler(5, 2)), list(ShuffledBatchSampler(5, 2, rank=1, replicas=2))
        ([[3, 1], [0, 4], [2]], [[1], [4], [2]])
    """

    def __init__(self, length: int, batch_size: int, *, rank: int = 0, replicas: int = 1) -> None:
        self.length, self.batch_size, self.rank, self.replicas, self.seed = length, batch_size, rank, replicas, 0

    def __len__(self) -> int:
        """Batches per epoch."""
        return -(-self.length // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed)
        torch.empty((), dtype=torch.int64).random_(generator=generator)  # as a DataLoader draws before the order
        order = torch.randperm(self.length, generator=generator).tolist()
        for first in range(0, self.length, self.batch_size):
            batch = order[first : first + self.batch_size]
            yield batch[self.rank :: self.replicas] or batch[:1]  # a process without images gets one of no weight

    def share(self, batch: int) -> tuple[Sequence[int], int]:
        """Places in a batch of this process's images, and the number of images in it.

        Example:
            >>> ShuffledBatchSampler(5, 2, rank=1, replicas=2).share(1)
            (range(1, 2, 2), 2)
        """
        total = min(self.batch_size, self.length - batch * self.batch_size)
        return range(self.rank, total, self.replicas), total


class ResumableSampler(Sampler[list[tuple[int, int]]]):
    """The batches of an epoch from batch `start` on, as items of :class:`SeededDataset`.

    Example:
        >>> sampler = ResumableSampler(ShuffledBatchSampler(5, 2))
        >>> sampler.start, sampler.seed = 1, 7
        >>> list(sampler), len(sampler)
        ([[(7, 0), (7, 4)], [(7, 2)]], 2)
    """

    def __init__(self, batches: Sampler[list[int]]) -> None:
        self.batches, self.start, self.seed = batches, 0, 0

    def __len__(self) -> int:
        """Remaining batches."""
        return len(self.batches) - self.start  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batch in islice(self.batches, self.start, None):
            yield [(self.seed, index) for index in batch]


class SeededDataset(Dataset[Any]):
    """A data set indexed by (seed, index): both determine the augmentation, in whatever process the image is loaded.

    The random numbers of the process go on as if nothing had been drawn.

    Example:
        >>> torch.equal(*(SeededDataset([1, 2]).__getitems__([(7, 0)])[0] * torch.rand(2) for _ in range(2)))
        False
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        """Number of images."""
        return len(self.dataset)

    def __getitems__(self, items: Sequence[tuple[int, int]]) -> list[Any]:
        states = torch.get_rng_state(), random.getstate(), np.random.get_state()
        try:
            return [self._sample(*item) for item in items]
        finally:
            torch.set_rng_state(states[0])
            random.setstate(states[1])
            np.random.set_state(states[2])

    def _sample(self, seed: int, index: int) -> Any:
        seed = int(fingerprint(seed, index), 16) % 2**32
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        return self.dataset[index]


def collate(batch: list[tuple[Tensor, Any]]) -> tuple[Tensor, Tensor]:
    """Stack samples to images `(B, 3, H, W)` and labels: int64 `(B,)`, or float `(B, C)` for several classes per image.

    A target is a label, a float vector with one entry per class, or a dictionary with either as `labels`.

    Example:
        >>> images, labels = collate([(torch.zeros(3, 4, 6), 2), (torch.ones(3, 4, 6), {"labels": torch.tensor([0])})])
        >>> images.shape, labels
        (torch.Size([2, 3, 4, 6]), tensor([2, 0]))
    """
    labels = [target["labels"] if isinstance(target, Mapping) else target for _, target in batch]
    images = torch.stack([image.as_subclass(Tensor) for image, _ in batch])
    if all(isinstance(label, Tensor) and label.is_floating_point() for label in labels):
        return images, torch.stack(labels)
    return images, torch.as_tensor([int(label) for label in labels])
