"""Batches of a few classes with equally many images each (kou2021 Sec. 4.1).

Paper: https://arxiv.org/abs/1911.07160
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import Sampler

from wsolnb._utils.cache import fingerprint


class ClassBalanced(Sampler[list[int]]):
    """Batches of `classes` classes with equally many images each; in the paper 48 images of at most 12 classes.

    Classes are dealt from a shuffled deck, and so are the images of each class; a deck with too few left is shuffled
    anew. Within a batch, classes differ and no image repeats; over an epoch every class occurs equally often, give or
    take one. An epoch shows as many images as the data set has.

    Batches follow from seed and epoch. Of n processes each takes every n-th class of a batch, with all its images, as
    losses compare images of a class; rank and number of processes (`replicas`) are torch's by default.

    Raises:
        ValueError: If there are fewer classes than requested, a class has fewer images than a batch takes of it, the
            batch size is no multiple of `classes`, a process gets no class, or the rank is out of range.

    Example:
        >>> [len(batch) for batch in ClassBalanced([0, 0, 0, 1, 1, 1, 2, 2, 2], batch_size=4, classes=2)]
        [4, 4, 4]
    """

    def __init__(
        self,
        labels: Sequence[int] | Tensor,
        batch_size: int = 48,
        classes: int = 12,
        *,
        seed: int = 0,
        rank: int | None = None,
        replicas: int | None = None,
    ) -> None:
        self.labels = torch.as_tensor(labels, dtype=torch.int64)
        if self.labels.ndim != 1 or not len(self.labels):
            raise ValueError(f"labels must be one row with at least one label, got shape {tuple(self.labels.shape)}")
        if classes < 1 or batch_size < classes or batch_size % classes:
            raise ValueError(f"a batch of {batch_size} images cannot be shared out equally to {classes} classes")
        self.members = [(self.labels == k).nonzero()[:, 0] for k in self.labels.unique().tolist()]
        if len(self.members) < classes:
            raise ValueError(
                f"{classes} classes asked for in a batch, but the labels have only {len(self.members)}: lower `classes`"
            )
        each = batch_size // classes
        fewest = min(self.members, key=len)
        if len(fewest) < each:
            raise ValueError(
                f"class {int(self.labels[fewest[0]])} has {len(fewest)} images, but a batch takes {each} of a class: "
                "lower the batch size or raise `classes`"
            )
        self.batch_size, self.classes, self.seed, self.epoch = batch_size, classes, seed, 0
        self._rank, self._replicas = rank, replicas
        if not 0 <= self.rank < self.replicas:
            raise ValueError(f"rank {self.rank} is out of range for {self.replicas} processes")

    @property
    def rank(self) -> int:
        """Number of this process."""
        return self._rank if self._rank is not None else dist.get_rank() if _grouped() else 0

    @property
    def replicas(self) -> int:
        """Number of processes."""
        return self._replicas if self._replicas is not None else dist.get_world_size() if _grouped() else 1

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches come next; the training loop calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-len(self.labels) // self.batch_size)

    def share(self, batch: int) -> tuple[list[int], int]:
        """Places in a batch of this process's images, and the number of images in it.

        Example:
            >>> ClassBalanced([0, 0, 1, 1, 2, 2], batch_size=6, classes=3, rank=0, replicas=2).share(0)
            ([0, 1, 4, 5], 6)
        """
        places = torch.arange(self.batch_size).unflatten(0, (self.classes, -1))
        return places[self.rank :: self.replicas].flatten().tolist(), self.batch_size

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(int(fingerprint("balanced", self.seed, self.epoch), 16) % 2**63)
        deck: list[int] = []
        decks: list[Tensor] = [members[:0] for members in self.members]
        each = self.batch_size // self.classes
        if self.replicas > self.classes:
            raise ValueError(f"{self.classes} classes in a batch cannot be shared by {self.replicas} processes")
        mine = slice(self.rank, None, self.replicas)
        for _ in range(len(self)):
            if len(deck) < self.classes:
                fresh = torch.randperm(len(self.members), generator=generator).tolist()
                deck += sorted(fresh, key=deck.__contains__)  # what is left comes first, and not twice in one batch
            chosen, deck = deck[: self.classes], deck[self.classes :]
            batch: list[list[int]] = []  # a row of images per class
            for k in chosen:
                if len(decks[k]) < each:
                    decks[k] = self.members[k][torch.randperm(len(self.members[k]), generator=generator)]
                batch.append(decks[k][:each].tolist())
                decks[k] = decks[k][each:]
            yield [image for row in batch[mine] for image in row]

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(labels={fingerprint(self.labels)}, batch_size={self.batch_size}, "
            f"classes={self.classes}, seed={self.seed}, replicas={self.replicas})"
        )


def _grouped() -> bool:
    return dist.is_available() and dist.is_initialized()
