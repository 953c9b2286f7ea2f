"""What bency2016 trains on (Sec. 4.1): image-level labels, rare classes over-sampled with noise and rotations.

Paper: https://doi.org/10.48550/arXiv.1603.00489
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info
from torchvision.transforms import InterpolationMode, v2

from wsolnb.data.disk_cache import pixel_cache
from wsolnb.data.readers.images import file_of
from wsolnb.data.tasks.multi_label import all_labels

_MEMORY = 2**30  # bytes of images in memory


def copies(present: Tensor, most: int) -> list[int]:
    """Over-sample rare classes (bency2016 Sec. 4.1): the number of copies of every image in the training set.

    A class with `n` images needs `N / n` copies of each to match the `N` images of the most frequent class. An image is
    copied as often as its rarest class needs, rounded, at least once and at most `most` times: 1 leaves the data set as
    it is. `present` `(N, K)` is from `all_labels`.

    Raises:
        ValueError: If `most` is below 1.

    Example:
        >>> copies(torch.tensor([[1, 0], [1, 0], [1, 0], [1, 1]]), most=3)
        [1, 1, 1, 3]
    """
    if most < 1:
        raise ValueError(f"most={most}: every image is in the training set at least once")
    shown = present.nan_to_num() > 0
    counts = shown.sum(dim=0)
    needed = counts.max() / counts.clamp(min=1) * shown
    return [int(k) for k in needed.amax(dim=1).round().clamp(1, most)]


class MultiLabelImages(Dataset[tuple[Tensor, Tensor]]):
    """Whole images resized to one size, with the classes they show; rare classes are over-sampled.

    All copies but the first of an image get white Gaussian noise and a random rotation (bency2016 Sec. 4.1). Resized
    images are kept in memory, up to 1 GiB in all workers together.

    Args:
        scenes: Items `(image, target)` with "labels", without a transform.
        most: Largest number of copies, see `copies`.
        noise: Standard deviation of the noise, in units of the grey range 0 to 1.
        turn: Largest angle in degrees.
        flip: Mirror half of all images.
        cache_gb: Keep resized photos on disk, up to so many GB (1e9 bytes); for scenes from files only.

    Raises:
        ValueError: If there is no image, or a number is out of range.

    Example:
        >>> from wsolnb.data.critters import World
        >>> data = MultiLabelImages(World(size=32).scenes(4, size=(48, 64)), classes=12, side=40)
        >>> data[0][0].shape, data[0][1].shape
        (torch.Size([3, 40, 40]), torch.Size([12]))
    """

    def __init__(
        self,
        scenes: Dataset[Any],
        classes: int,
        side: int,
        *,
        most: int = 1,
        noise: float = 0.05,
        turn: float = 30.0,
        flip: bool = False,
        cache_gb: float = 0.0,
    ) -> None:
        if not len(scenes):  # type: ignore[arg-type]
            raise ValueError("there is no image to train on")
        if noise < 0 or not 0 <= turn <= 180:
            raise ValueError(f"noise={noise} must be at least 0, turn={turn} between 0 and 180 degrees")
        self.scenes, self.side = scenes, side
        self.present = all_labels(scenes, classes)
        self.copies = copies(self.present, most)
        self.rows = [index for index, count in enumerate(self.copies) for _ in range(count)]
        self.first = [k == 0 or index != self.rows[k - 1] for k, index in enumerate(self.rows)]
        self.transform = f"side={side}, most={most}, noise={noise}, turn={turn}, flip={flip}"  # for the cache's key
        self._resize = v2.Resize([side, side], antialias=True)
        self._flip = v2.RandomHorizontalFlip(0.5 if flip else 0.0)
        self._change = v2.Compose(
            [
                v2.RandomRotation(turn, interpolation=InterpolationMode.BILINEAR, fill=127),
                v2.ToDtype(torch.float32, scale=True),
                v2.GaussianNoise(sigma=noise, clip=True),
                v2.ToDtype(torch.uint8, scale=True),
            ]
        )
        self._kept: dict[int, Tensor] = {}
        self._cache = pixel_cache(scenes, side, cache_gb)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        row = self.rows[index]
        image = self._flip(self._kept[row] if row in self._kept else self._load(row))
        return (image if self.first[index] else self._change(image)), self.present[row]

    def file(self, index: int) -> Path:
        """Path of a photo."""
        return file_of(self.scenes, self.rows[index])

    def _load(self, row: int) -> Tensor:
        def resized() -> Tensor:
            return self._resize(self.scenes[row][0]).as_subclass(Tensor)

        image = resized() if self._cache is None else self._cache.get(row, file_of(self.scenes, row), resized)
        info = get_worker_info()
        if image.nbytes * (1 + len(self._kept)) * (info.num_workers if info else 1) <= _MEMORY:
            self._kept[row] = image
        return image
