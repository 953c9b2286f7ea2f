"""Figures of images: examples of a data set, maps side by side, detections of several methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.utils.data import Dataset

from wsolnb.localization.detect import Prediction
from wsolnb.plots.style import HEAT, Colour, class_colours, draw_boxes, draw_outlines, show_picture


def show_singles(images: Dataset[Any], classes: Sequence[str], indices: Sequence[int], *, title: str = "") -> Figure:
    """Images of one object each, titled with their classes, in one row.

    Example:
        >>> from wsolnb.data.critters import World
        >>> images = World(families=2, species=2, size=32).singles(4)
        >>> [ax.get_title() for ax in show_singles(images, images.classes, [0, 3]).axes] == images.classes[::3]
        True
    """
    fig, axes = plt.subplots(1, len(indices), figsize=(2.4 * len(indices), 2.9), squeeze=False)
    for ax, (image, target) in zip(axes[0], (images[index] for index in indices), strict=True):
        show_picture(ax, image)
        ax.set_title(classes[int(target["labels"] if isinstance(target, Mapping) else target)], fontsize=11)
    fig.suptitle(title)
    return fig


def show_scenes(scenes: Dataset[Any], classes: Sequence[str], indices: Sequence[int], *, title: str = "") -> Figure:
    """Images of a data set with their true boxes and class names, in one row.

    Example:
        >>> from wsolnb.data.critters import World
        >>> scenes = World(families=2, species=2, size=32).scenes(2, size=(48, 64))
        >>> fig = show_scenes(scenes, scenes.classes, [0, 1], title="scenes")
        >>> [len(ax.patches) for ax in fig.axes] == [len(scenes[k][1]["boxes"]) for k in range(2)]
        True
    """
    fig, axes = plt.subplots(1, len(indices), figsize=(3.1 * len(indices), 3.1), squeeze=False)
    for ax, (image, target) in zip(axes[0], (scenes[index] for index in indices), strict=True):
        show_picture(ax, image)
        labels = target["labels"].tolist()
        draw_boxes(ax, target["boxes"], labels, class_colours(labels), [classes[k] for k in labels])
    fig.suptitle(title)
    return fig


def show_maps(
    image: Tensor, maps: Mapping[str, Tensor], *, target: Mapping[str, Any] | None = None, title: str = ""
) -> Figure:
    """Maps `(h, w)` of one image side by side, each with a colour bar for its own scale.

    Example:
        >>> fig = show_maps(torch.rand(3, 48, 64), {"cam": torch.rand(6, 8), "dcm": torch.rand(6, 8)})
        >>> [ax.get_title() for ax in fig.axes[:3]]
        ['image', 'cam', 'dcm']
    """
    fig, axes = plt.subplots(1, len(maps) + 1, figsize=(3.1 * (len(maps) + 1), 3.0), squeeze=False)
    show_picture(axes[0, 0], image)
    axes[0, 0].set_title("image")
    if target is not None:
        draw_outlines(axes[0, 0], target["boxes"])
    for ax, (name, values) in zip(axes[0, 1:], maps.items(), strict=True):
        panel = ax.imshow(values.float().cpu().numpy(), cmap=HEAT, interpolation="nearest")
        ax.set(title=name, xticks=[], yticks=[])
        fig.colorbar(panel, ax=ax, shrink=0.8)
    fig.suptitle(title)
    return fig


def show_detections(
    scenes: Dataset[Any], classes: Sequence[str], indices: Sequence[int], detections: Mapping[str, Sequence[Prediction]]
) -> Figure:
    """Detections on several images: a row per image, a column per method after the truth (barz2022 Fig. 5).

    Example:
        >>> from wsolnb.data.critters import World
        >>> scenes = World(families=2, species=2, size=32).scenes(2, size=(48, 64))
        >>> perfect = [target | {"scores": torch.ones(len(target["labels"]))} for _, target in (scenes[0], scenes[1])]
        >>> fig = show_detections(scenes, scenes.classes, [0, 1], {"perfect": perfect})
        >>> len(fig.axes), [ax.get_title() for ax in fig.axes[:2]]
        (4, ['truth', 'perfect'])
    """
    columns = len(detections) + 1
    fig, axes = plt.subplots(len(indices), columns, figsize=(3.0 * columns, 2.6 * len(indices)), squeeze=False)
    for row, index in zip(axes, indices, strict=True):
        image, target = scenes[index]
        truth: Prediction = {"boxes": target["boxes"], "labels": target["labels"]}
        panels = {"truth": truth, **{name: predictions[index] for name, predictions in detections.items()}}
        colours = class_colours(torch.cat([panel["labels"].cpu() for panel in panels.values()]).tolist())
        for ax, panel in zip(row, panels.values(), strict=True):
            show_picture(ax, image)
            draw_detections(ax, panel, classes, colours)
    for ax, name in zip(axes[0], ["truth", *detections], strict=True):
        ax.set_title(name)
    return fig


def draw_detections(ax: Axes, prediction: Prediction, classes: Sequence[str], colours: Mapping[int, Colour]) -> None:
    """Draw the boxes of one image with class names and, if there are any, scores.

    Example:
        >>> fig, ax = plt.subplots()
        >>> boxes, labels = torch.tensor([[2.0, 2.0, 9.0, 6.0]]), torch.tensor([1])
        >>> prediction = {"boxes": boxes, "labels": labels, "scores": torch.tensor([0.75])}
        >>> draw_detections(ax, prediction, ["cat", "dog"], class_colours([1]))
        >>> ax.texts[0].get_text()
        'dog 0.75'
    """
    labels = prediction["labels"].tolist()
    names = [classes[k] for k in labels]
    if "scores" in prediction:
        names = [f"{name} {score:.2f}" for name, score in zip(names, prediction["scores"].tolist(), strict=True)]
    draw_boxes(ax, prediction["boxes"].float().cpu(), labels, colours, names)


_SIDE, _STRIP, _TEXT = 360, 26, 16


def overlay(photo: Image.Image, boxes: Tensor, maps: Tensor, captions: Sequence[str]) -> Image.Image:
    """Draw maps and boxes over an RGB photo, in panels side by side of at most 360 pixels.

    Colours show fractions of a map's maximum: black where the evidence is zero or against the class. The `n` boxes
    xyxy are in pixels of the photo, rows of NaN are not drawn; consecutive ones with the same caption share a panel
    with the first of their maps `(n, h, w)`.

    Example:
        >>> import torch
        >>> photo, box = Image.new("RGB", (200, 100)), torch.tensor([[10.0, 20.0, 60.0, 80.0]])
        >>> overlay(photo, box, torch.rand(1, 3, 6), ["dog 0.93"]).size
        (200, 126)
    """
    scale = min(1.0, _SIDE / max(photo.size))
    width, height = (max(1, round(scale * side)) for side in photo.size)
    small = np.asarray(photo.resize((width, height), Image.Resampling.BILINEAR), dtype=np.float32)
    starts = [i for i, caption in enumerate(captions) if i == 0 or caption != captions[i - 1]]
    sheet = Image.new("RGB", (width * len(starts) + 4 * (len(starts) - 1), height + _STRIP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_TEXT)
    for panel, (start, stop) in enumerate(zip(starts, [*starts[1:], len(captions)], strict=True)):
        left = panel * (width + 4)
        heat = F.interpolate(maps[start][None, None].float().cpu(), (height, width), mode="bilinear")[0, 0].clamp(min=0)
        fraction = (heat / heat.max().clamp(min=1e-12)).numpy()
        colours = colormaps[HEAT](fraction)[..., :3].astype(np.float32) * 255
        sheet.paste(Image.fromarray((0.5 * small + 0.5 * colours).astype(np.uint8)), (left, _STRIP))
        for x0, y0, x1, y1 in boxes[start:stop][boxes[start:stop].isfinite().all(dim=1)].tolist():
            near, far = (left + x0 * scale, _STRIP + y0 * scale), (left + x1 * scale - 1, _STRIP + y1 * scale - 1)
            for colour, inset, line in (("black", 0, 4), ("white", 1, 2)):
                corners = [near[0] + inset, near[1] + inset, far[0] - inset, far[1] - inset]
                if corners[0] <= corners[2] and corners[1] <= corners[3]:
                    draw.rectangle(corners, outline=colour, width=line)
        draw.rectangle((left, 0, left + width, _STRIP - 1), fill="white")
        draw.text((left + 2, 3), _shortened(captions[start], width - 4, font), fill="black", font=font)
        if panel:
            draw.rectangle((left - 4, 0, left - 1, height + _STRIP), fill="white")
    return sheet


def _shortened(text: str, width: float, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """The text, with its name cut before the score (the last word) until it fits."""
    name, _, score = text.rpartition(" ")
    while name and font.getlength(text) > width:
        name = name[:-1]
        text = f"{name.rstrip()}… {score}"
    return text
