"""From a figure to its pixels, drawn once: the file of a run and the notebook show the same picture."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageOps

_LIGHT = 32_000  # bytes that a picture may take at full size
_MARGIN = 8  # pixels of white that stay around what is drawn


def pixels(figure: Figure, *, dpi: int = 110) -> Image.Image:
    """Draw a figure and cut off the white around it.

    Args:
        figure: The figure.
        dpi: Pixels per inch.

    Returns:
        The picture, RGB.

    Example:
        >>> figure = Figure(figsize=(2, 1))
        >>> _ = figure.text(0.5, 0.5, "here")
        >>> pixels(figure).height < 110
        True
    """
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    extent = figure.get_tightbbox(canvas.get_renderer())
    if extent.x0 < 0 or extent.y0 < 0 or extent.x1 > figure.bbox_inches.x1 or extent.y1 > figure.bbox_inches.y1:
        figure.savefig(whole := BytesIO(), dpi=dpi, bbox_inches="tight")  # something stands over the edge
        return Image.open(whole).convert("RGB")
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    left, top, right, bottom = ImageOps.invert(image).getbbox() or (0, 0, *image.size)
    near = max(0, left - _MARGIN), max(0, top - _MARGIN)
    return image.crop((*near, min(image.width, right + _MARGIN), min(image.height, bottom + _MARGIN)))


def compact(image: Image.Image, *, scale: float = 0.6) -> tuple[str, bytes]:
    """Encode a picture for a notebook, whose figures together may take less than 500 kB.

    Lines and text stay as large as they are, as PNG with 256 colours. Where that takes more than 32 kB, as photos do,
    a smaller copy takes its place, as JPEG or PNG, whichever is shorter.

    Args:
        image: The picture.
        scale: Side of the smaller copy as a share of the picture's.

    Returns:
        ``"jpeg"`` or ``"png"``, and the file's content.

    Example:
        >>> compact(Image.new("RGB", (800, 600), "white"))[0]
        'png'
    """
    whole = _encoded(image, "png")
    if len(whole) <= _LIGHT:
        return "png", whole
    small = image.resize((round(scale * image.width), round(scale * image.height)), Image.Resampling.LANCZOS)
    contents = {kind: _encoded(small, kind) for kind in ("jpeg", "png")}
    kind = min(contents, key=lambda kind: len(contents[kind]))
    return kind, contents[kind]


def _encoded(image: Image.Image, kind: str) -> bytes:
    if kind == "png":
        image = image.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    image.save(buffer := BytesIO(), kind, optimize=True, **({"quality": 66} if kind == "jpeg" else {}))
    return buffer.getvalue()
