"""A data set that is drawn or decoded once and then kept in memory."""

from __future__ import annotations

from typing import Any

from torch.utils.data import Dataset


class Kept(Dataset[Any]):
    """Samples kept in memory from the first time they are asked for: drawn once, looked at by every network.

    Args:
        dataset: Where they come from.
        bare: Keep image and label only, without boxes and masks.

    Example:
        >>> from wsolnb.data.critters import World
        >>> once = Kept(World(size=32).singles(4), bare=True)
        >>> once[3] is once[3]
        True
    """

    def __init__(self, dataset: Dataset[Any], *, bare: bool = False) -> None:
        self.dataset, self.bare = dataset, bare
        self.samples: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    @property
    def labels(self) -> Any:
        """Labels of all samples, where the data set knows them without looking."""
        return self.dataset.labels  # type: ignore[attr-defined]

    def __getitem__(self, index: int) -> Any:
        if index not in self.samples:
            image, target = self.dataset[index]
            self.samples[index] = (image, int(target["labels"])) if self.bare else (image, target)
        return self.samples[index]
