"""What the explorer ships to the browser, once: JPEGs, maps in 16-bit steps, truth; checked before it is shown."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from wsolnb.boxes import BoxRule

STEPS = 65535
ANY = -1
"""The label of a map that belongs to no class."""


@dataclass(frozen=True)
class ShippedMaps:
    """The maps of one method for all images, as the browser has them."""

    maps: list[Tensor]  # one per image, float32 (C, h, w), rounded to 16-bit steps; C = 1 for a method without classes
    scores: Tensor | None  # of the classes, (N, C)
    agnostic: bool  # whether there is one map per image, whatever the class
    rule: BoxRule
    dense: bool = False  # whether the maps are similarities of dense class embeddings
    image_size: tuple[int, int] | None = None  # height and width to which the images were resized, if they were

    def first(self, count: int) -> ShippedMaps:
        """The maps and scores of the first images only."""
        return replace(self, maps=self.maps[:count], scores=None if self.scores is None else self.scores[:count])


def prepare(
    name: str,
    source: Any,
    count: int,
    classes: int,
    indices: Sequence[int],
    *,
    rule: BoxRule | None = None,
    dense: bool = False,
) -> ShippedMaps:
    """Take a method's maps, those of the images `indices`, from what a notebook has, check them, and round them.

    The `source` is maps `(N, C, h, w)` of `count` images and of the classes, one `(C, h, w)` per image, or without
    classes `(N, h, w)`; or what holds them: `wsolnb.localization.maps.SceneMaps`,
    `wsolnb.localization.maps.LocalizationMaps` or `LocalizationResult`. The default `rule` is that of the source, or
    the preset `"cam"` (`"dcm"` if the maps are `dense`: similarities of dense class embeddings).

    Raises:
        ValueError: If counts, classes or shapes do not fit or a value is not finite; the message names the method.

    Example:
        >>> shipped = prepare("cam", torch.rand(5, 2, 6, 8), 5, 2, [0, 3])
        >>> len(shipped.maps), shipped.maps[0].shape, shipped.agnostic
        (2, torch.Size([2, 6, 8]), False)
    """
    rule = rule or getattr(source, "rule", None) or BoxRule.preset("dcm" if dense else "cam")
    source = source if getattr(source, "rule", None) is None else source.maps
    image_size = getattr(source, "image_size", None)
    maps, scores = getattr(source, "maps", source), getattr(source, "scores", None)
    if image_size is not None and maps.ndim == 4:  # of several heads, merged cell by cell
        maps = source.upsample(maps, (maps.shape[2], maps.shape[3]))
    if len(maps) != count:
        raise ValueError(f"{name!r} has maps of {len(maps)} images, but there are {count} images")
    taken = [torch.as_tensor(maps[i]).detach().float().cpu() for i in indices]
    agnostic = taken[0].ndim == 2
    for i, values in zip(indices, taken, strict=True):
        if values.ndim != 3 - agnostic or 0 in values.shape:
            raise ValueError(f"{name!r}, image {i}: a map must be (classes, h, w) or (h, w), not {tuple(values.shape)}")
        if not agnostic and len(values) != classes:
            raise ValueError(f"{name!r}, image {i}: {len(values)} maps for {classes} classes; give one for each class")
        if not values.isfinite().all():
            raise ValueError(f"{name!r}, image {i}: the map holds NaN or infinite values")
    if scores is not None and not agnostic:
        scores = torch.as_tensor(scores).detach().float().cpu()
        if scores.shape != (count, classes):
            raise ValueError(f"{name!r}: scores must be ({count}, {classes}), not {tuple(scores.shape)}")
        scores = scores[list(indices)]
    rounded_maps = [rounded(values[None] if agnostic else values) for values in taken]
    return ShippedMaps(rounded_maps, None if agnostic else scores, agnostic, rule, dense, image_size)


def codes(maps: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Maps `(C, h, w)` in 16-bit steps between the lowest and the highest value of each.

    They are uint16 `(C, h, w)`; with them come the lowest values and the steps, float64 `(C,)`. A value is off by at
    most half a step, `(highest - lowest) / 131070`; the lowest and the highest are exact.

    Example:
        >>> code, low, step = codes(torch.tensor([[[-1.0, 0.0, 3.0]]]))
        >>> code.tolist(), low.tolist(), float(step[0] * STEPS)
        ([[[0, 16384, 65535]]], [-1.0], 4.0)
    """
    values = maps.double().numpy()
    low = values.min(axis=(1, 2))
    step = (values.max(axis=(1, 2)) - low) / STEPS
    safe = np.where(step > 0, step, 1)[:, None, None]
    return np.rint((values - low[:, None, None]) / safe).astype("<u2"), low, step


def rounded(maps: Tensor) -> Tensor:
    """The maps as the browser decodes them, bit for bit: float32, rounded to their steps.

    Example:
        >>> rounded(torch.tensor([[[0.0, 0.3, 1.0]]])).tolist()
        [[[0.0, 0.3000076413154602, 1.0]]]
    """
    return _decoded(*codes(maps))


def _decoded(code: np.ndarray, low: np.ndarray, step: np.ndarray) -> Tensor:
    return torch.from_numpy((low[:, None, None] + code * step[:, None, None]).astype(np.float32))


def pack(shipped: ShippedMaps) -> dict[str, Any]:
    """Maps and scores as the browser gets them: shapes, and bytes in little-endian order.

    Example:
        >>> packed = pack(prepare("cam", torch.rand(2, 3, 6, 8), 2, 3, [0, 1]))
        >>> packed["shapes"], len(packed["codes"])  # two bytes per value
        ([[3, 6, 8], [3, 6, 8]], 576)
    """
    encoded = [codes(maps) for maps in shipped.maps]
    return {
        "shapes": [list(maps.shape) for maps in shipped.maps],
        "codes": b"".join(code.tobytes() for code, _, _ in encoded),
        "lows": np.concatenate([low for _, low, _ in encoded]).astype("<f8").tobytes(),
        "steps": np.concatenate([step for _, _, step in encoded]).astype("<f8").tobytes(),
        "scores": None if shipped.scores is None else shipped.scores.numpy().astype("<f4").tobytes(),
        "agnostic": shipped.agnostic,
        "dense": shipped.dense,
    }


def unpack(packed: Mapping[str, Any], rule: BoxRule) -> ShippedMaps:
    """The inverse of `pack`, given the box rule.

    Example:
        >>> shipped = prepare("cam", torch.rand(1, 3, 6, 8), 1, 3, [0])
        >>> torch.equal(unpack(pack(shipped), shipped.rule).maps[0], shipped.maps[0])
        True
    """
    low, step = np.frombuffer(packed["lows"], "<f8"), np.frombuffer(packed["steps"], "<f8")
    code = np.frombuffer(packed["codes"], "<u2")
    maps, cell, row = [], 0, 0
    for c, h, w in packed["shapes"]:
        maps.append(_decoded(code[cell : cell + c * h * w].reshape(c, h, w), low[row : row + c], step[row : row + c]))
        cell, row = cell + c * h * w, row + c
    scores = packed["scores"]
    if scores is not None:
        scores = torch.from_numpy(np.frombuffer(scores, "<f4").astype(np.float32).reshape(len(maps), -1))
    return ShippedMaps(maps, scores, packed["agnostic"], rule, packed["dense"])


def picture(item: Any, target: Mapping[str, Any] | None, image_size: tuple[int, int] | None) -> dict[str, Any]:
    """An image `(3, H, W)`, uint8 or float in [0, 1], with its truth as the browser gets it.

    The truth holds `boxes` and `labels`, and optionally `masks` and `mark_masks` `(n, H, W)`. Image and boxes are
    resized to `image_size` (height, width), unless that is None. The browser gets `jpeg` (bytes), `size` `[height,
    width]`, `boxes`, `labels`, and `parts`: a PNG with the outlines of the parts, or None.

    Example:
        >>> truth = {"boxes": torch.tensor([[4.0, 6.0, 20.0, 15.0]]), "labels": torch.tensor([2])}
        >>> shown = picture(torch.zeros(3, 30, 40), truth, (60, 80))
        >>> shown["size"], shown["boxes"], shown["labels"]
        ([60, 80], [[8.0, 12.0, 40.0, 30.0]], [2])
    """
    pixels = torch.as_tensor(item).as_subclass(Tensor)
    if pixels.ndim != 3 or pixels.shape[0] != 3:
        raise ValueError(f"an image must be (3, height, width), not {tuple(pixels.shape)}")
    target = dict(target or {})
    height, width = pixels.shape[1:]
    boxes = torch.as_tensor(target.get("boxes", torch.zeros(0, 4))).as_subclass(Tensor).float().cpu()
    if image_size is not None and image_size != (height, width):
        pixels = v2.functional.resize(pixels, list(image_size))
        boxes = boxes * torch.tensor([image_size[1] / width, image_size[0] / height] * 2)
    if pixels.is_floating_point():
        pixels = (pixels.clamp(0, 1) * 255).round().to(torch.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy()).save(stream, "JPEG", quality=82)
    labels = torch.as_tensor(target.get("labels", torch.zeros(0))).reshape(-1).long().tolist()[: len(boxes)]
    size = [pixels.shape[1], pixels.shape[2]]
    return {"jpeg": stream.getvalue(), "size": size, "boxes": boxes.tolist(), "labels": labels, "parts": _parts(target)}


_PARTS = {"masks": (255, 255, 255), "mark_masks": (255, 215, 0)}


def _parts(target: Mapping[str, Any]) -> bytes | None:
    """Outlines of the objects (white) and of their marks (yellow), as a transparent PNG."""
    if not all(name in target for name in _PARTS):
        return None
    outlines = []
    for name in _PARTS:
        masks = torch.as_tensor(target[name]).as_subclass(Tensor).bool().cpu()
        core = -torch.nn.functional.max_pool2d(-masks[:, None].float(), 3, 1, 1)[:, 0]
        outlines.append((masks & (core == 0)).any(dim=0).numpy())
    code = np.where(outlines[1], 2, outlines[0].astype(np.uint8)).astype(np.uint8)
    image = Image.fromarray(code)
    image.putpalette([0, 0, 0, *(channel for colour in _PARTS.values() for channel in colour)])
    stream = io.BytesIO()
    image.save(stream, "PNG", transparency=0, optimize=True)
    return stream.getvalue()
