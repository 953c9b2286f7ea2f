"""Maps that look at no image: what every table should carry beside its methods, and the ceiling above them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def centred_gaussian(size: tuple[int, int]) -> Tensor:
    """A Gaussian in the middle of the image, stretched to [0, 1].

    Its level sets are ellipses with the image's own aspect, so that every box has it too. The width of the Gaussian
    changes only which threshold gives which box; here the edge of the image is two standard deviations out.

    Args:
        size: Height and width.

    Returns:
        float32 ``(H, W)``.

    Example:
        >>> centred_gaussian((3, 5)).argmax().item()
        7
    """
    axes = [torch.exp(-0.5 * ((torch.arange(n) + 0.5) / n * 4 - 2) ** 2) for n in size]
    field = axes[0].unsqueeze(1) * axes[1]
    spread = field.max() - field.min()
    return (field - field.min()) / spread if spread > 0 else torch.ones_like(field)


def random_boxes(images: Sequence[int], size: tuple[int, int]) -> Tensor:
    """One random box per image: two points drawn evenly over the grid of pixel corners, apart on both axes.

    Args:
        images: Numbers of the images; the same number gives the same box, in whatever batch it comes.
        size: Height and width.

    Returns:
        float32 ``(B, 4)`` xyxy, far corner exclusive.

    Example:
        >>> bool((random_boxes([4, 5], (3, 5)) == random_boxes([5, 4], (3, 5)).flip(0)).all())
        True
    """
    boxes = torch.empty(len(images), 4)
    for row, image in enumerate(images):
        generator = torch.Generator().manual_seed(int(image))
        for axis, length in enumerate(reversed(size)):
            ends = torch.randperm(length + 1, generator=generator)[:2].sort().values
            boxes[row, axis], boxes[row, axis + 2] = ends[0], ends[1]
    return boxes


def box_maps(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps that are 1 in a box and 0 around it.

    Args:
        boxes: Whole pixels, ``(B, 4)`` xyxy, far corner exclusive.
        size: Height and width.

    Returns:
        float32 ``(B, H, W)``.

    Example:
        >>> box_maps(torch.tensor([[1.0, 0.0, 3.0, 1.0]]), (2, 4))
        tensor([[[0., 1., 1., 0.],
                 [0., 0., 0., 0.]]])
    """
    x0, y0, x1, y1 = boxes.unbind(1)
    y, x = (torch.arange(n, device=boxes.device) for n in size)
    rows = (y >= y0.unsqueeze(1)) & (y < y1.unsqueeze(1))
    columns = (x >= x0.unsqueeze(1)) & (x < x1.unsqueeze(1))
    return (rows.unsqueeze(2) & columns.unsqueeze(1)).float()


def baseline_maps(images: Sequence[int], size: tuple[int, int], masks: Tensor | None = None) -> dict[str, Tensor]:
    """Maps of all baselines for a batch of images, to be scored by the same metrics as any method's.

    ``centred Gaussian`` and ``whole image`` are the same for all images; ``random box`` differs. Where masks are known,
    ``ceiling`` is the mask itself: 1 for PxAP, and for boxes what the rule and the annotation let a perfect map reach.

    Args:
        images: Numbers of the images in the data set.
        size: Height and width of the maps.
        masks: Foreground, bool ``(B, H, W)``.

    Returns:
        Name to float32 ``(B, H, W)`` in [0, 1].

    Raises:
        ValueError: If the masks are not one per image and of that size.

    Example:
        >>> {name: tuple(maps.shape) for name, maps in baseline_maps(range(2), (3, 5)).items()}
        {'centred Gaussian': (2, 3, 5), 'whole image': (2, 3, 5), 'random box': (2, 3, 5)}
    """
    shape = (len(images), *size)
    maps = {
        "centred Gaussian": centred_gaussian(size).expand(shape),
        "whole image": torch.ones(shape),
        "random box": box_maps(random_boxes(images, size), size),
    }
    if masks is not None:
        if masks.shape != shape:
            raise ValueError(f"masks must have shape {shape}, got {tuple(masks.shape)}")
        maps["ceiling"] = masks.float()
    return maps
