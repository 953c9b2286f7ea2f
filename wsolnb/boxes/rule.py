"""From maps to boxes: one rule object, with a preset for each convention of the field.

Papers that report "localization accuracy" cut their maps in at least seven incompatible ways. A `BoxRule` names every
choice; `BoxRule.preset` holds the known combinations. All rules return boxes in the package's one convention: float32
``xyxy`` in pixels of the original image, far corner exclusive. Where the original code reads far corners as inclusive,
one is added to them, so that the plain IoU of the result equals the IoU of that code.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from wsolnb.boxes import components
from wsolnb.boxes.components import ONE_BOX, in_threads
from wsolnb.boxes.quantise import cubehelix_grey, minmax_normalise, percentile, quantise, require_finite

CHUNK = {"cpu": 1 << 20}  # pixels resized at once by type of device: as many as fit into a CPU's cache
_THREAD = 1 << 21  # pixels of masks that are worth a thread of their own: about 2 ms of work


@dataclass(frozen=True)
class BoxRule:
    """How a map becomes boxes.

    A pixel is foreground if its value exceeds ``threshold`` times the reference. With a relative reference, a map
    without a positive value has no foreground.

    Attributes:
        threshold: Fraction of the reference, or the value itself if the reference is absolute.
        reference: What the threshold is relative to: the map's ``"maximum"``, a ``"percentile"`` of its values
            (bae2020 Eq. 6), or nothing (``"absolute"``).
        percentile: Which percentile, in (0, 100]; unused with other references.
        strict: True for "greater than", False for "at least".
        resize: Interpolation to the image's size before the cut. None cuts the map at its own resolution and scales
            the corners of the cells.
        normalise: Scale each map to [0, 1] ``"before"`` or ``"after"`` the resize, or not at all (None). A constant map
            becomes zero.
        quantise: Cut uint8 values (``255 v``, truncated) at an integer threshold, as code with OpenCV does.
        colour_map: Quantise through a colour map and back to grey, as the code of ADL does; needs ``quantise``.
        component: ``"largest"`` by pixels, ``"largest_contour"`` by the area of OpenCV's polygon, ``"all"``,
            ``"all_contours"`` (and one box per hole), or the ``"extent"`` of all foreground. Of equally large ones the
            first in raster order is taken, of contours the last (OpenCV lists them from the bottom up).
        connectivity: 8 or 4 neighbours.
        far_corner: ``"exclusive"``: correct. ``"padded"``: x + w, read as inclusive, which makes boxes a pixel too
            large; ``"padded_clamped"``: the same, clamped to the image. ``"last"``: the last cell's near corner, which
            makes boxes up to a cell too small (the bug of ORNet's code).
        empty: The result for a map without foreground: ``"none"`` (a row of NaN), ``"image"``, or a fixed box.

    Example:
        >>> rule = BoxRule.preset("dcm", threshold=0.5)
        >>> rule(torch.eye(3)[None, None], (30, 60))
        tensor([[[ 0.,  0., 60., 30.]]])
    """

    threshold: float = 0.2
    reference: Literal["maximum", "percentile", "absolute"] = "maximum"
    percentile: float = 90.0
    strict: bool = True
    resize: Literal["bicubic", "bilinear", "nearest"] | None = None
    normalise: Literal["before", "after"] | None = None
    quantise: bool = False
    colour_map: bool = False
    component: Literal["largest", "largest_contour", "all", "all_contours", "extent"] = "largest"
    connectivity: Literal[4, 8] = 8
    far_corner: Literal["exclusive", "padded", "padded_clamped", "last"] = "exclusive"
    empty: Literal["none", "image"] | tuple[float, float, float, float] = "none"

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"BoxRule has no {name} {getattr(self, name)!r}; choose one of {allowed}")
        if not isinstance(self.empty, tuple) and self.empty not in ("none", "image"):
            raise ValueError(f"empty must be 'none', 'image' or a box of four numbers, not {self.empty!r}")
        if not 0 < self.percentile <= 100:
            raise ValueError(f"percentile {self.percentile} must be above 0 and at most 100")
        if not math.isfinite(self.threshold):
            raise ValueError(f"threshold {self.threshold} is no finite number")
        if self.reference != "absolute" and self.threshold < 0:
            raise ValueError(f"threshold {self.threshold} is negative; a fraction of the {self.reference} cannot be")
        if "contour" in self.component and self.connectivity != 8:
            raise ValueError(f"component {self.component!r} follows 8-connected contours; connectivity must be 8")
        if self.colour_map and not self.quantise:
            raise ValueError("colour_map works on quantised values; set quantise=True")

    @classmethod
    def preset(cls, name: str, **changes: Any) -> BoxRule:
        """A known rule, with any field replaced.

        - ``cam``: 20 % of the maximum, largest component, as papers describe it (the released code merges three fixed
          cuts).
        - ``dcm`` (barz2022): the same at the resolution of the cells; threshold 0.06 on ImageNet, on COCO 0.3 one-hot
          and 0.75 semantic. The paper leaves the resize and the connectivity open.
        - ``wsoleval``, ``wsoleval_multi``: the field's evaluator. It searches the best threshold: 0.2 is arbitrary.
        - ``rethinking`` (bae2020), without its code's unclamped IoU (`iou` with ``clamped=False``).
        - ``ornet`` (xie2021), whose threshold, one of i / 20, was chosen on the test set; without its code's bug
          ``far_corner="last"``.
        - ``adl``.

        Example:
            >>> BoxRule.preset("dcm", threshold=0.3).threshold
            0.3
        """
        if name not in PRESETS:
            raise ValueError(f"no box rule {name!r}; the presets are {', '.join(PRESETS)}")
        return replace(PRESETS[name], **changes)

    def __call__(self, maps: Tensor, sizes: Tensor | tuple[int, int]) -> Tensor:
        """One box per map, float32 ``(B, K, 4)`` on the maps' device; rows of NaN where the rule finds no box.

        Args:
            maps: Float ``(B, K, h, w)``, any device.
            sizes: Height and width of the images: one pair, or ``(B, 2)``.

        Raises:
            ValueError: If the rule gives several boxes per map, or a map or size is invalid.
        """
        return self.at_thresholds(maps, sizes, [self.threshold])[0]

    def at_thresholds(self, maps: Tensor, sizes: Tensor | tuple[int, int], thresholds: Sequence[float]) -> Tensor:
        """As a call, at each of `T` thresholds in place of the rule's own: ``(T, B, K, 4)``. Maps are resized once.

        Example:
            >>> BoxRule().at_thresholds(torch.tensor([[[[0.4, 1.0]]]]), (10, 20), [0.2, 0.6])[:, 0, 0].tolist()
            [[0.0, 0.0, 20.0, 10.0], [10.0, 0.0, 20.0, 10.0]]
        """
        if self.component not in ONE_BOX:
            raise ValueError(f"component {self.component!r} gives several boxes per map; call rule.all_boxes")
        for threshold in thresholds:
            replace(self, threshold=threshold)  # raises if the threshold is invalid
        batch, image_sizes = _checked(maps, sizes)
        boxes = np.full((len(thresholds), *maps.shape[:2], 4), np.nan, np.float32)
        flat = boxes.reshape(len(thresholds), -1, 4)
        for index, size, cuts in self._masks(batch, image_sizes, thresholds):
            for row, masks in zip(flat, cuts, strict=True):
                cells = np.empty((len(masks), 4), np.int32)
                settings = (masks, self.connectivity == 8, ONE_BOX[self.component])
                in_threads(components.one_box, len(masks), *settings, cells, least=_worth_a_thread(masks))
                row[index] = self.convert(cells, (masks.shape[1], masks.shape[2]), size)
        return torch.from_numpy(boxes).to(maps.device)

    def all_boxes(self, maps: Tensor, sizes: Tensor | tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """All boxes of all maps, in the order of the maps. Arguments and errors as for a call.

        Returns:
            Boxes float32 ``(N, 4)``; the index of each box's image and of its class, int64 ``(N,)`` each. A map
            without a box contributes none; rules for one box give one.

        Example:
            >>> BoxRule(component="all", connectivity=4).all_boxes(torch.eye(2)[None, None], (10, 20))
            (tensor([[ 0.,  0., 10.,  5.],
                    [10.,  5., 20., 10.]]), tensor([0, 0]), tensor([0, 0]))
        """
        if self.component in ONE_BOX:
            single = self(maps, sizes)
            image, klass = (~single[..., 0].isnan()).nonzero(as_tuple=True)
            return single[image, klass], image, klass
        batch, image_sizes = _checked(maps, sizes)
        holes, parts, origins = self.component == "all_contours", [], []
        for index, size, (masks,) in self._masks(batch, image_sizes, [self.threshold]):
            counts = np.empty(len(masks), np.int64)
            settings, least = (masks, self.connectivity == 8, holes), _worth_a_thread(masks)
            in_threads(components.count_boxes, len(masks), *settings, counts, least=least)
            rows = counts if self.empty == "none" else np.maximum(counts, 1)
            starts = np.cumsum(rows) - rows
            cells = np.full((int(rows.sum()), 4), -1, np.int32)
            in_threads(components.all_boxes, len(masks), *settings, starts, cells, least=least)
            parts.append(self.convert(cells, (masks.shape[1], masks.shape[2]), size))
            origins.append(np.repeat(index, rows))
        # maps were grouped by the size of their images: back into their own order
        origin = np.concatenate(origins) if origins else np.empty(0, np.int64)
        order = np.argsort(origin, kind="stable")
        boxes = np.concatenate(parts)[order] if parts else np.empty((0, 4), np.float32)
        image, klass = (
            torch.from_numpy(part).to(maps.device) for part in np.divmod(origin[order], max(maps.shape[1], 1))
        )
        return torch.from_numpy(boxes).to(maps.device), image, klass

    def _masks(self, maps: Tensor, sizes: Tensor, thresholds: Sequence[float]) -> Iterator[_Cuts]:
        """Foreground of maps ``(B, K, h, w)``, an image size at a time: indices, size, bool ``(n, H, W)`` per cut."""
        classes, fractions = maps.shape[1], torch.tensor(thresholds, dtype=torch.float64)
        for size in sizes.unique(dim=0).tolist():
            images = (sizes == sizes.new_tensor(size)).all(dim=1).nonzero()[:, 0]
            index = (images[:, None] * classes + torch.arange(classes)).flatten()
            flat = maps[images.to(maps.device)].flatten(0, 1)
            pixels = flat.shape[1] * flat.shape[2] if self.resize is None else size[0] * size[1]
            step = max(1, CHUNK.get(maps.device.type, 1 << 25) // pixels)
            for start in range(0, len(flat), step):
                part = self.prepared(flat[start : start + step], size)
                limits = self.limits(part, fractions).T[:, :, None, None]
                cuts = (part > limit if self.strict else part >= limit for limit in limits)
                yield index[start : start + step].numpy(), tuple(size), (mask.cpu().numpy() for mask in cuts)

    def prepared(self, maps: Tensor, size: Sequence[int]) -> Tensor:
        """Maps ``(n, h, w)`` ready to be cut: resized to ``size``, normalised and quantised as the rule says.

        Half precision becomes float32 first: a limit that is rounded to it would pass its neighbours.
        """
        maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
        if self.normalise == "before":
            maps = minmax_normalise(maps)
        if self.resize is not None:
            corners = {} if self.resize == "nearest" else {"align_corners": False}
            maps = functional.interpolate(maps[:, None], list(size), mode=self.resize, **corners)[:, 0]
        if self.normalise == "after":
            maps = minmax_normalise(maps)
        if self.quantise:
            maps = cubehelix_grey(maps) if self.colour_map else quantise(maps)
        return maps

    def limits(self, maps: Tensor, thresholds: Tensor) -> Tensor:
        """The value ``(n, T)`` at which each of ``T`` thresholds (float64) cuts each prepared map ``(n, H, W)``.

        It has the maps' dtype (int16 if quantised) and device. With a relative reference, a map without a positive
        value is cut above its maximum.
        """
        highest = maps.amax(dim=(1, 2))
        thresholds = thresholds.cpu()
        if self.reference == "absolute":
            limit = (thresholds * (255 if self.quantise else 1)).expand(len(maps), -1)
        else:
            basis = highest if self.reference == "maximum" else percentile(maps, self.percentile)
            limit = basis.cpu().double()[:, None] * thresholds
        dtype, beyond = (torch.int16, 256) if self.quantise else (maps.dtype, torch.inf)
        limit = (limit.floor() if self.quantise else limit).to(maps.device, dtype)
        if self.reference != "absolute":
            limit = torch.where((highest > 0)[:, None], limit, limit.new_tensor(beyond))
        return limit

    def convert(self, cells: np.ndarray, grid: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
        """Boxes of cells on a grid as boxes in the image, float32 ``(n, 4)``, in the rule's convention.

        ``cells`` are int ``(n, 4)`` xyxy, far corner exclusive, rows of -1 for no box; ``grid`` and ``size`` are the
        heights and widths of grid and image.
        """
        height, width = size
        scale = np.array([width / grid[1], height / grid[0]] * 2)
        boxes, missing = cells.astype(np.float64), cells[:, 0] < 0
        if self.far_corner == "last":
            boxes[:, 2:] -= 1
        boxes *= scale
        if self.empty == "image":
            boxes[missing] = (0, 0, width, height)
        if self.far_corner == "padded_clamped":
            boxes[:, 2:] = np.minimum(boxes[:, 2:], np.array([width - 1, height - 1]))
        if self.far_corner.startswith("padded"):
            boxes[:, 2:] += 1
        if self.empty != "image":
            boxes[missing] = np.nan if self.empty == "none" else self.empty
        return boxes.astype(np.float32)


_Cuts = tuple[np.ndarray, tuple[int, int], Iterator[np.ndarray]]
_CHOICES: dict[str, tuple[Any, ...]] = {
    "reference": ("maximum", "percentile", "absolute"),
    "resize": ("bicubic", "bilinear", "nearest", None),
    "normalise": ("before", "after", None),
    "component": (*ONE_BOX, "all", "all_contours"),
    "connectivity": (4, 8),
    "far_corner": ("exclusive", "padded", "padded_clamped", "last"),
}
_OPENCV = BoxRule(resize="bicubic", normalise="after", quantise=True, component="largest_contour", far_corner="padded")
PRESETS: dict[str, BoxRule] = {
    "cam": BoxRule(0.2, resize="bilinear"),
    "dcm": BoxRule(0.06),
    "wsoleval": replace(_OPENCV, far_corner="padded_clamped", empty=(0, 0, 1, 1)),
    "wsoleval_multi": replace(_OPENCV, component="all_contours", far_corner="padded_clamped", empty=(0, 0, 1, 1)),
    "rethinking": replace(_OPENCV, threshold=0.35, reference="percentile", empty="image"),
    "ornet": BoxRule(0.5, reference="absolute", component="extent", empty="image"),
    "adl": replace(_OPENCV, resize="bilinear", colour_map=True, empty=(0, 0, 2, 2)),
}


def _worth_a_thread(masks: np.ndarray) -> int:
    return -(-_THREAD // masks[0].size) if len(masks) else 1


def _checked(maps: Tensor, sizes: Tensor | tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Maps in a dtype that can be resized, and the images' sizes as int64 ``(B, 2)`` on the CPU."""
    if maps.ndim != 4 or 0 in maps.shape[2:]:
        raise ValueError(f"maps must be (images, classes, height, width), not {tuple(maps.shape)}")
    if not maps.is_floating_point():
        raise TypeError(f"maps must be floating point, not {maps.dtype}")
    sizes = torch.as_tensor(sizes).cpu()
    if sizes.shape == (2,):
        sizes = sizes.expand(len(maps), 2)
    if sizes.shape != (len(maps), 2):
        expected = f"one (height, width) or a ({len(maps)}, 2) tensor"
        raise ValueError(f"{len(maps)} images need {expected}, not sizes of shape {tuple(sizes.shape)}")
    if sizes.is_floating_point():
        raise TypeError(f"image sizes must be whole numbers, not {sizes.dtype}")
    if len(sizes) and sizes.min() < 1:
        raise ValueError(f"image sizes must be positive, not {sizes[(sizes < 1).any(dim=1)][0].tolist()}")
    require_finite(maps)
    return maps.detach().to(torch.promote_types(maps.dtype, torch.float32)), sizes.long()
