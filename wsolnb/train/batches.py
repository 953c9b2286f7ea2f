"""Which images a training sees when: the same with any number of workers, in one process or in many."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from wsolnb._utils.cache import fingerprint


class Shuffled(Sampler[list[int]]):
    """Every image once, in batches of an order that follows from the seed.

    Several processes share the batches that one process would take with a batch as large as theirs together.

    Args:
        length: Number of images.
        batch_size: Images in a batch of one process.
        rank: This process's number.
        replicas: Number of processes.

    Example:
        >>> list(Shuffled(5, 2)), list(Shuffled(5, 1, rank=1, replicas=2))
        ([[3, 1], [0, 4], [2]], [[1], [4], [2]])
    """

    def __init__(self, length: int, batch_size: int, *, rank: int = 0, replicas: int = 1) -> None:
        self.length, self.batch_size, self.rank, self.replicas, self.seed = length, batch_size, rank, replicas, 0

    def __len__(self) -> int:
        """Batches of one process in an epoch."""
        return -(-self.length // (self.batch_size * self.replicas))

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed)
        torch.empty((), dtype=torch.int64).random_(generator=generator)  # what a DataLoader draws before the order
        order = torch.randperm(self.length, generator=generator).tolist()
        together = self.batch_size * self.replicas
        for first in range(0, self.length, together):
            batch = order[first : first + together]
            yield batch[self.rank :: self.replicas] or batch[:1]  # with nothing left, one that does not count

    def images(self, batch: int) -> tuple[int, int]:
        """How many images of a batch count: in this process, and in all of them.

        Example:
            >>> Shuffled(5, 1, rank=1, replicas=2).images(2)
            (0, 1)
        """
        together = self.batch_size * self.replicas
        everywhere = min(together, self.length - batch * together)
        return len(range(self.rank, everywhere, self.replicas)), everywhere


class Rest(Sampler[list[Any]]):
    """What is left of an epoch's batches from a position on.

    Args:
        batches: All batches.
        seeded: Name images as :class:`Seeded` wants them.

    Example:
        >>> rest = Rest(Shuffled(5, 2))
        >>> rest.start = 1
        >>> list(rest), len(rest)
        ([[0, 4], [2]], 2)
    """

    def __init__(self, batches: Sampler[list[int]], *, seeded: bool = False) -> None:
        self.batches, self.seeded, self.start, self.seed = batches, seeded, 0, 0

    def __len__(self) -> int:
        """Batches that are left."""
        return len(self.batches) - self.start  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[list[Any]]:
        for batch in islice(self.batches, self.start, None):
            yield [(self.seed, index) for index in batch] if self.seeded else batch


class Seeded(Dataset[Any]):
    """Images whose augmentation follows from epoch and image, whatever worker loads them, and whatever it did before.

    Example:
        >>> torch.equal(*(Seeded([1, 2])[7, 0] * torch.rand(2) for _ in range(2)))
        True
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        """Number of images."""
        return len(self.dataset)

    def __getitem__(self, where: tuple[int, int]) -> Any:
        seed = int(fingerprint(*where), 16) % 2**32
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        return self.dataset[where[1]]


def collate(batch: list[tuple[Tensor, Any]]) -> tuple[Tensor, Tensor]:
    """Stack samples: images `(B, 3, H, W)` and labels, int64 `(B,)`, or float `(B, C)` of several classes per image.

    A target is a label, a float vector with an entry per class, or a dictionary whose `labels` holds one of them.

    Example:
        >>> images, labels = collate([(torch.zeros(3, 4, 6), 2), (torch.ones(3, 4, 6), {"labels": torch.tensor([0])})])
        >>> images.shape, labels
        (torch.Size([2, 3, 4, 6]), tensor([2, 0]))
    """
    labels = [t["labels"] if isinstance(t, Mapping) else t for _, t in batch]
    images = torch.stack([i.as_subclass(Tensor) for i, _ in batch])
    if all(isinstance(k, Tensor) and k.is_floating_point() for k in labels):
        return images, torch.stack(labels)
    return images, torch.as_tensor([int(k) for k in labels])
