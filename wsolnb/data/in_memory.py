"""A data set whose samples are kept in memory once they are drawn or decoded."""

from __future__ import annotations

from typing import Any

from torch.utils.data import Dataset


class InMemoryDataset(Dataset[Any]):
    """An in-memory data set: every sample is computed on first access, for all networks that use it.

    Its items are `(image, target)`, or `(image, label)` with `labels_only`.

    >>> from wsolnb.data.critters import World
    >>> kept = InMemoryDataset(World(size=32).singles(4), labels_only=True)
    >>> kept[3] is kept[3]
    True
    """

    def __init__(self, dataset: Dataset[Any], *, labels_only: bool = False) -> None:
        self.dataset, self.labels_only = dataset, labels_only
        self.samples: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    @property
    def labels(self) -> Any:
        """Labels of all samples, if the data set has them without computing the samples."""
        return self.dataset.labels  # type: ignore[attr-defined]

    def __getitem__(self, index: int) -> Any:
        if index not in self.samples:
            image, target = self.dataset[index]
            self.samples[index] = (image, int(target["labels"])) if self.labels_only else (image, target)
        return self.samples[index]
