"""One look for every figure, legible from the back of a room and for colour-blind readers, and figures as files."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from io import BytesIO
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from PIL import Image, ImageOps
from torch import Tensor

from wsolnb.boxes import iou

Colour = tuple[float, float, float]

HEAT = "inferno"  # lightness rises evenly
TRUTH = (1.0, 1.0, 1.0)
LINES = ("-", "--", "-.", ":")
BESIDE: dict[str, Any] = {"frameon": False, "loc": "center left", "bbox_to_anchor": (1, 0.5)}  # legend at the right

_PALETTE_INDEX = {"cam": 7, "cosine-cam": 1, "dcm-onehot": 0, "dcm-semantic": 2}
_PALETTE_INDEX |= {"beam": 0, "greedy": 9, "peak": 1, "centre": 8}
_MAX_BYTES = 32_000  # of a picture at full size
_MARGIN = 8  # pixels of white left around a picture


def use_style() -> None:
    """Set fonts and colours for all figures that follow, and small pictures inside a notebook.

    Example:
        >>> with plt.rc_context():  # restores the previous settings
        ...     use_style()
        ...     plt.rcParams["savefig.dpi"]
        150
    """
    sns.set_theme(context="notebook", style="ticks", palette="colorblind", font_scale=1.15)
    plt.rcParams |= {"figure.dpi": 57, "savefig.dpi": 150}
    plt.rcParams |= {"axes.titleweight": "bold", "figure.constrained_layout.use": True}
    if "IPython" in sys.modules and sys.modules["IPython"].get_ipython() is not None:
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("jpeg", pil_kwargs={"quality": 66})


def class_colours(labels: Iterable[int]) -> dict[int, Colour]:
    """A colour for every class in a picture; colour-blind readers can distinguish the first ten.

    Example:
        >>> list(class_colours([4, 2, 4]))
        [2, 4]
    """
    distinct = sorted(set(labels))
    return dict(zip(distinct, sns.color_palette("colorblind", max(10, len(distinct))), strict=False))


def method_colour(name: str) -> Colour:
    """The colour of a method, the same in every figure.

    Example:
        >>> [round(channel, 2) for channel in method_colour("dcm-semantic")]
        [0.01, 0.62, 0.45]
    """
    palette = sns.color_palette("colorblind", 10)
    colour: Colour = palette[_PALETTE_INDEX.get(name, sum(map(ord, name)) % 10)]
    return colour


def show_picture(ax: Axes, image: Tensor, *, dim: float = 0.0, mask: Tensor | None = None) -> None:
    """Draw an image `(3, H, W)`, uint8 or float in [0, 1], without axes.

    `dim` is the fraction of white to mix in; pixels outside of the `mask` `(H, W)` are darkened.

    Example:
        >>> fig, ax = plt.subplots()
        >>> show_picture(ax, torch.zeros(3, 4, 6, dtype=torch.uint8), dim=0.25)
        >>> float(ax.images[0].get_array().min())
        0.25
    """
    image = image.as_subclass(Tensor)
    if mask is not None:
        image = image.float() / (255 if image.dtype == torch.uint8 else 1) * (0.25 + 0.75 * mask)
    pixels = image.permute(1, 2, 0).cpu().numpy()
    if dim:
        pixels = pixels / (255 if image.dtype == torch.uint8 else 1) * (1 - dim) + dim
    ax.imshow(pixels)
    ax.set_axis_off()


def draw_outlines(ax: Axes, boxes: Tensor, colour: Colour = TRUTH, *, dashed: bool = False) -> None:
    """Draw boxes (xyxy) in one colour with a dark edge; rows of NaN are skipped.

    Example:
        >>> fig, ax = plt.subplots()
        >>> draw_outlines(ax, torch.tensor([[2.0, 2.0, 9.0, 6.0], [torch.nan] * 4]))
        >>> len(ax.patches)
        1
    """
    line = (0, (3, 2)) if dashed else "solid"
    style: dict[str, Any] = {"fill": False, "linewidth": 2.5, "linestyle": line, "edgecolor": colour}
    for x0, y0, x1, y1 in boxes[boxes.isfinite().all(dim=1)].tolist():
        edge = [withStroke(linewidth=4.5, foreground="black")]
        ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, path_effects=edge, **style))


def draw_boxes(
    ax: Axes, boxes: Tensor, labels: Iterable[int], colours: Mapping[int, Colour], names: Iterable[str] | None = None
) -> None:
    """Draw boxes (xyxy) in the colours of their classes, dark-edged, each with a name at its upper left corner.

    Example:
        >>> fig, ax = plt.subplots()
        >>> boxes, labels = torch.tensor([[2.0, 2.0, 9.0, 6.0], [1.0, 0.0, 4.0, 3.0]]), [5, 0]
        >>> draw_boxes(ax, boxes, labels, class_colours(labels), ["cat", "dog"])
        >>> len(ax.patches), [text.get_text() for text in ax.texts]
        (2, ['cat', 'dog'])
    """
    texts = list(names) if names is not None else [""] * len(boxes)
    for box, label, text in zip(boxes, labels, texts, strict=True):
        x, y = box[:2].tolist()
        draw_outlines(ax, box[None], colours[label])
        if text:
            ax.text(
                x, y, text, color="white", fontsize=10, va="bottom", ha="left", clip_on=True,
                bbox={"facecolor": [c * 0.75 for c in colours[label]], "edgecolor": "none", "pad": 1.5},
            )  # fmt: skip


def draw_prediction(ax: Axes, box: Tensor, truth: Tensor) -> None:
    """Draw a predicted box (dashed), the true ones, and their IoU in the corner: green from 0.5 on, orange below.

    Example:
        >>> fig, ax = plt.subplots()
        >>> draw_prediction(ax, torch.tensor([[0.0, 0.0, 8.0, 8.0]]), torch.tensor([[0.0, 0.0, 8.0, 4.0]]))
        >>> ax.texts[0].get_text()
        '0.50'
    """
    overlap = float(iou(box, truth).max()) if bool(box.isfinite().all()) else 0.0
    colour = sns.color_palette("colorblind")[2 if overlap >= 0.5 else 1]
    draw_outlines(ax, truth)
    draw_outlines(ax, box, colour, dashed=True)
    ax.text(
        0.97, 0.03, f"{overlap:.2f}", transform=ax.transAxes, ha="right", va="bottom", color="white",
        fontsize=11, fontweight="bold", bbox={"facecolor": colour, "pad": 1.2},
    )  # fmt: skip


def name_intervals(figure: Figure) -> None:
    """Say below a figure what its intervals are taken over: images, not trainings.

    Example:
        >>> figure = Figure()
        >>> name_intervals(figure)
        >>> figure.get_supxlabel()
        'lines: 95 %, over images of one training'
    """
    figure.supxlabel("lines: 95 %, over images of one training", fontsize=11, color="0.35")


def render(figure: Figure, *, dpi: int = 110) -> Image.Image:
    """Draw a figure as an RGB image and cut off the white around it.

    Example:
        >>> figure = Figure(figsize=(2, 1))
        >>> _ = figure.text(0.5, 0.5, "here")
        >>> render(figure).height < 110
        True
    """
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    extent = figure.get_tightbbox(canvas.get_renderer())
    if extent.x0 < 0 or extent.y0 < 0 or extent.x1 > figure.bbox_inches.x1 or extent.y1 > figure.bbox_inches.y1:
        figure.savefig(whole := BytesIO(), dpi=dpi, bbox_inches="tight")  # something extends beyond the figure
        return Image.open(whole).convert("RGB")
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    left, top, right, bottom = ImageOps.invert(image).getbbox() or (0, 0, *image.size)
    near = max(0, left - _MARGIN), max(0, top - _MARGIN)
    return image.crop((*near, min(image.width, right + _MARGIN), min(image.height, bottom + _MARGIN)))


def encode_png(image: Image.Image, colours: int = 256) -> bytes:
    """A picture as PNG with a palette of at most `colours` colours.

    Example:
        >>> encode_png(Image.new("RGB", (40, 30)))[1:4]
        b'PNG'
    """
    palette = image.quantize(colours, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    palette.save(buffer := BytesIO(), "PNG", optimize=True)
    return buffer.getvalue()


def compact(image: Image.Image, *, scale: float = 0.6) -> tuple[str, bytes]:
    """Encode a picture for a notebook, whose figures together may take at most 500 kB.

    A PNG of at most 32 kB keeps its size, so that lines and text stay sharp. Anything larger, such as photos, is scaled
    by `scale` and stored as JPEG or PNG, whichever is smaller. Returned are ``"jpeg"`` or ``"png"`` and the bytes.

    Example:
        >>> compact(Image.new("RGB", (800, 600), "white"))[0]
        'png'
    """
    png = encode_png(image)
    if len(png) <= _MAX_BYTES:
        return "png", png
    small = image.resize((round(scale * image.width), round(scale * image.height)), Image.Resampling.LANCZOS)
    small.save(buffer := BytesIO(), "JPEG", optimize=True, quality=66)
    jpeg, png = buffer.getvalue(), encode_png(small)
    return ("jpeg", jpeg) if len(jpeg) <= len(png) else ("png", png)
