"""The labels of a data set with one class per image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset


def labels_of(dataset: Dataset[Any]) -> Tensor:
    """Label of every sample, int64 `(n,)`: `labels` or `targets` of the data set, or read sample by sample.

    Example:
        >>> from wsolnb.data.critters import World
        >>> labels_of(World(families=2, species=2).singles(6))
        tensor([0, 1, 2, 3, 0, 1])
    """
    known = next((found for name in ("labels", "targets") if (found := getattr(dataset, name, None)) is not None), None)
    if known is None:
        targets = [dataset[index][1] for index in range(len(dataset))]  # type: ignore[arg-type]
        known = [int(target["labels"] if isinstance(target, Mapping) else target) for target in targets]
    return torch.as_tensor(known, dtype=torch.int64)
