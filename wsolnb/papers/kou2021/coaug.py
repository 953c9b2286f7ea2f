"""Co-supervised augmentation (kou2021 Sec. 3.2): images of a batch supervise each other.

The true class's map splits an image into object and background. A fixed network embeds both, and a loss over all pairs
of the batch pulls objects of one class together and everything else apart. Paper: https://arxiv.org/abs/1911.07160
"""

from __future__ import annotations

import warnings
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsolnb._utils.whole_batch import gather
from wsolnb.boxes.quantise import minmax_normalise
from wsolnb.papers.kou2021.confseg import confidence_mask

Pairs = Literal["printed", "swapped"]
Squash = Literal["stretch", "sigmoid"]
_TINY = 1e-6  # smallest denominator: the loss stays finite for equal embeddings of object and background


class Parts(NamedTuple):
    """Embeddings `(B, D)` of the parts of every image.

    `object` `F` and `background` `B` are of the image weighted by the map and by one minus the map (kou2021 Eq. 8),
    `confident` `Mask_B` of the background's confident cells (Eq. 10).
    """

    object: Tensor
    background: Tensor
    confident: Tensor


class Distances(NamedTuple):
    """Distances within and between images.

    Attributes:
        cam: `‖F_m - B_m‖` (kou2021 Eq. 9), `(B,)`; should be large.
        back: `‖B_m - Mask_B^m‖` (Eq. 10), `(B,)`; should be small.
        pairs: `‖F_m - F_n‖` (Eq. 11), `(B, B)`; should be small within a class, large between classes.
    """

    cam: Tensor
    back: Tensor
    pairs: Tensor


def distances(parts: Parts) -> Distances:
    """All distances of a batch (kou2021 Eqs. 9 to 11); a distance of zero has gradient zero.

    Example:
        >>> ones = torch.ones(2, 4)
        >>> found = distances(Parts(torch.tensor([[0.0] * 4, [3.0] * 4]), ones, ones))
        >>> found.cam, found.back, found.pairs
        (tensor([2., 4.]), tensor([0., 0.]), tensor([[0., 6.],
                [6., 0.]]))
    """
    return Distances(
        torch.linalg.vector_norm(parts.object - parts.background, dim=1),
        torch.linalg.vector_norm(parts.background - parts.confident, dim=1),
        torch.cdist(parts.object, parts.object, compute_mode="donot_use_mm_for_euclid_dist"),
    )


def coaug_loss(
    parts: Parts, labels: Tensor, *, gamma: float = 1.0, delta: float = 1.0, pairs: Pairs = "printed"
) -> Tensor:
    """The loss over all pairs of a batch (kou2021 Eq. 12), without a loop, for int labels `(B,)`; a finite scalar.

    Over pairs of different classes the sum of `γ (D_m^back + D_n^back) / (δ D_mn + (D_m^cam + D_n^cam) / 2)`, over
    pairs of one class that of `(γ (D_m^back + D_n^back) + D_mn) / ((D_m^cam + D_n^cam) / 2)`; both divided by the
    number of all pairs, so that batch sizes are comparable. No denominator goes below 1e-6.

    The paper calls the first sum `L^same` and the second `L^diff`. Either only the names were swapped
    (`pairs="printed"`), or the index sets were, then the first sum runs over pairs of one class (`"swapped"`). The text
    (objects of one class near, others far) agrees with the formulas as printed.

    All terms but `D_mn` of one class have `D^back` above and `D^cam` below, so what falls is their ratio. It is 0 for a
    map of ones everywhere, where background and sure background are both black; nothing in the loss asks for outlines.

    A batch without two samples of any class has no second sum: the loss is the first one, and a warning says so. A
    batch of a single class has no first sum. A single image has no pair: its loss is zero.

    Raises:
        ValueError: If shapes do not fit or `pairs` is unknown.

    Example:
        >>> ones = torch.ones(2, 4)
        >>> parts = Parts(torch.tensor([[0.0] * 4, [3.0] * 4]), ones, ones)
        >>> coaug_loss(parts, torch.tensor([5, 5]))  # (0 + 6) / 3
        tensor(2.)
    """
    if pairs not in ("printed", "swapped"):
        raise ValueError(f"pairs must be 'printed' or 'swapped', not {pairs!r}")
    shape = parts.object.shape
    if len(shape) != 2 or any(each.shape != shape for each in parts) or labels.shape != shape[:1]:
        shapes = ", ".join(str(tuple(each.shape)) for each in (*parts, labels))
        raise ValueError(f"embeddings must be (B, D) each and labels (B,), got {shapes}")
    cam, back, between = distances(parts)
    one_class = labels[:, None] == labels[None, :]
    every = torch.ones_like(one_class).triu(diagonal=1)  # each pair once
    if bool(every.any()) and not bool((one_class & every).any()):
        warnings.warn(
            f"no class has two samples in this batch of {len(labels)}: the co-supervised loss compares different "
            "classes only; draw batches with wsolnb.papers.kou2021.sampler.ClassBalanced",
            stacklevel=2,
        )
    background = gamma * (back[:, None] + back[None, :])
    contrast = (cam[:, None] + cam[None, :]) / 2
    apart = background / (delta * between + contrast).clamp(min=_TINY)
    together = (background + between) / contrast.clamp(min=_TINY)
    first = one_class if pairs == "swapped" else ~one_class
    terms = torch.where(first, apart, together)
    return terms[every].sum() / max(1, len(labels) * (len(labels) - 1) // 2)


class CoAug(nn.Module):
    """Embed object and background of every image by its map, and compare all pairs of the batch (kou2021 Sec. 3.2).

    Args:
        embed: Frozen, from images in [0, 1] `(B, 3, H, W)` to vectors `(B, D)`, such as
            `wsolnb.papers.kou2021.network.embedder`.
        gamma: `γ` of Eq. 12; the paper gives no value, nor one of `δ`.
        delta: `δ` of Eq. 12.
        pairs: As for `coaug_loss`.
        squash: How a map is brought to [0, 1], as `1 - S` requires and the paper leaves open: `stretch` from its
            smallest to its largest value, or the `sigmoid` of each value.
        size: Side to which images are resized before they are embedded; 0: not resized.

    Example:
        >>> loss = CoAug(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))  # the mean colour
        >>> maps = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]])
        >>> float(loss(maps, torch.ones(2, 3, 4, 8), torch.tensor([0, 0]))) >= 0
        True
    """

    def __init__(
        self,
        embed: nn.Module,
        *,
        gamma: float = 1.0,
        delta: float = 1.0,
        pairs: Pairs = "printed",
        squash: Squash = "stretch",
        size: int = 0,
    ) -> None:
        super().__init__()
        for name, value in (("gamma", gamma), ("delta", delta), ("size", size)):
            if value < 0:
                raise ValueError(f"{name}={value}: must not be negative")
        if squash not in ("stretch", "sigmoid"):
            raise ValueError(f"squash must be 'stretch' or 'sigmoid', not {squash!r}")
        self.embed, self.gamma, self.delta, self.size = embed, gamma, delta, size
        self.pairs: Pairs = pairs
        self.squash: Squash = squash

    def forward(self, maps: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch: `S_L` of the true class `(B, h, w)`, images `(B, 3, H, W)`, labels `(B,)`."""
        parts, labels = Parts(*map(gather, self.parts(maps, images))), gather(labels)
        return coaug_loss(parts, labels, gamma=self.gamma, delta=self.delta, pairs=self.pairs)

    def parts(self, maps: Tensor, images: Tensor) -> Parts:
        """Embeddings of object, background and confident background (kou2021 Eqs. 8 and 10), in one pass."""
        shown = torch.cat(self.masked(maps, images))
        return Parts(*self.embed(shown).float().chunk(3))

    def masked(self, maps: Tensor, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Object, background and confident background as images, ready to be embedded."""
        if self.size:
            images = F.interpolate(images, (self.size, self.size), mode="bilinear", antialias=True)
        frame = images.shape[2:]
        share = minmax_normalise(maps.float()) if self.squash == "stretch" else maps.float().sigmoid()
        share = F.interpolate(share[:, None], frame, mode="bilinear")
        sure = F.interpolate(confidence_mask(maps.detach().float())[:, None].float(), frame, mode="nearest")
        return share * images, (1 - share) * images, (1 - share) * sure * images

    def extra_repr(self) -> str:
        """The settings, for `repr`."""
        return f"gamma={self.gamma}, delta={self.delta}, pairs={self.pairs}, squash={self.squash}, size={self.size}"
