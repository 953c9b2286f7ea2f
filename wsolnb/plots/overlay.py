"""A photo with maps and boxes drawn over it: one picture with a panel per class, titled with name and score."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F
from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from wsolnb.plots.style import HEAT

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
