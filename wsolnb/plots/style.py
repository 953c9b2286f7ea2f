"""One look for every figure: legible from the back of a room, and for colour-blind readers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import matplotlib.pyplot as plt
import seaborn as sns
import torch
from IPython import get_ipython
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib_inline.backend_inline import set_matplotlib_formats
from torch import Tensor

from wsolnb.boxes import iou

Colour = tuple[float, float, float]

HEAT = "inferno"  # rises evenly in lightness
TRUTH = (1.0, 1.0, 1.0)
METHODS = {
    "cam": 7,
    "cosine-cam": 1,
    "dcm-onehot": 0,
    "dcm-semantic": 2,
    "beam": 0,
    "greedy": 9,
    "peak": 1,
    "centre": 8,
}  # place in the palette


def use_style() -> None:
    """Set fonts and colours for all figures that follow, and small pictures inside a notebook.

    Example:
        >>> with plt.rc_context():  # leaves everything as it was
        ...     use_style()
        ...     plt.rcParams["savefig.dpi"]
        150
    """
    sns.set_theme(context="notebook", style="ticks", palette="colorblind", font_scale=1.15)
    plt.rcParams |= {
        "figure.dpi": 57,
        "savefig.dpi": 150,
        "axes.titleweight": "bold",
        "figure.constrained_layout.use": True,
    }
    if get_ipython() is not None:
        set_matplotlib_formats("jpeg", pil_kwargs={"quality": 66})


def class_colours(labels: Iterable[int]) -> dict[int, Colour]:
    """A colour for every class of a picture: the first ten distinct labels differ for colour-blind readers too.

    Example:
        >>> list(class_colours([4, 2, 4]))
        [2, 4]
    """
    distinct = sorted(set(labels))
    return dict(zip(distinct, sns.color_palette("colorblind", max(10, len(distinct))), strict=False))


def method_colour(name: str) -> Colour:
    """The colour by which a method goes in every figure.

    Example:
        >>> [round(channel, 2) for channel in method_colour("dcm-semantic")]
        [0.01, 0.62, 0.45]
    """
    palette = sns.color_palette("colorblind", 10)
    colour: Colour = palette[METHODS.get(name, sum(map(ord, name)) % 10)]
    return colour


def picture(image: Tensor) -> Any:
    """An image `(3, H, W)`, uint8 or float in [0, 1], as matplotlib takes it.

    Example:
        >>> picture(torch.zeros(3, 4, 6, dtype=torch.uint8)).shape
        (4, 6, 3)
    """
    return image.as_subclass(Tensor).permute(1, 2, 0).cpu().numpy()


def show_picture(ax: Axes, image: Tensor, *, dim: float = 0.0) -> None:
    """Draw an image without axes; `dim` mixes it with white.

    Example:
        >>> fig, ax = plt.subplots()
        >>> show_picture(ax, torch.zeros(3, 4, 6, dtype=torch.uint8), dim=0.25)
        >>> float(ax.images[0].get_array().min())
        0.25
    """
    pixels = picture(image)
    if dim:
        pixels = pixels / (255 if image.dtype == torch.uint8 else 1) * (1 - dim) + dim
    ax.imshow(pixels)
    ax.set_axis_off()


def draw_boxes(
    ax: Axes,
    boxes: Tensor,
    labels: Iterable[int],
    colours: Mapping[int, Colour],
    names: Iterable[str] | None = None,
    *,
    dashed: bool = False,
) -> None:
    """Draw boxes (xyxy) in the colour of their class, dark-edged, with a name at the upper left corner of each.

    Example:
        >>> fig, ax = plt.subplots()
        >>> boxes, labels = torch.tensor([[2.0, 2.0, 9.0, 6.0], [1.0, 0.0, 4.0, 3.0]]), [5, 0]
        >>> draw_boxes(ax, boxes, labels, class_colours(labels), ["cat", "dog"])
        >>> len(ax.patches), [text.get_text() for text in ax.texts]
        (2, ['cat', 'dog'])
    """
    texts = list(names) if names is not None else [""] * len(boxes)
    for (x0, y0, x1, y1), label, text in zip(boxes.tolist(), labels, texts, strict=True):
        outline = [withStroke(linewidth=4.5, foreground="black")]
        style: dict[str, Any] = {"fill": False, "linewidth": 2.5, "linestyle": (0, (3, 2)) if dashed else "solid"}
        ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, edgecolor=colours[label], path_effects=outline, **style))
        if text:
            ax.text(
                x0, y0, text, color="white", fontsize=10, va="bottom", ha="left", clip_on=True,
                bbox={"facecolor": [c * 0.75 for c in colours[label]], "edgecolor": "none", "pad": 1.5},
            )  # fmt: skip


def judge_box(ax: Axes, box: Tensor, truth: Tensor) -> None:
    """Draw a predicted box and the true ones, and their overlap in the corner: green from 0.5 on, orange below.

    Example:
        >>> fig, ax = plt.subplots()
        >>> judge_box(ax, torch.tensor([[0.0, 0.0, 8.0, 8.0]]), torch.tensor([[0.0, 0.0, 8.0, 4.0]]))
        >>> ax.texts[0].get_text()
        '0.50'
    """
    there = bool(box.isfinite().all())
    overlap = float(iou(box, truth).max()) if there else 0.0
    colour = sns.color_palette("colorblind")[2 if overlap >= 0.5 else 1]
    draw_boxes(ax, truth, [0] * len(truth), {0: TRUTH})
    if there:
        draw_boxes(ax, box, [0], {0: colour}, dashed=True)
    ax.text(
        0.97, 0.03, f"{overlap:.2f}", transform=ax.transAxes, ha="right", va="bottom", color="white",
        fontsize=11, fontweight="bold", bbox={"facecolor": colour, "pad": 1.2},
    )  # fmt: skip
