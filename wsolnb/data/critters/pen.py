"""A pen for smooth outlined shapes, with which the animals of the drawn world are drawn."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]

INK: Colour = (44, 36, 40)
WHITE: Colour = (250, 250, 246)
CANVAS = 1024
_OUTLINE = 0.011


class Pen:
    """Draws smooth outlined shapes, given in units of the canvas, on a transparent square."""

    def __init__(self) -> None:
        self.image = Image.new("RGBA", (CANVAS, CANVAS), (0, 0, 0, 0))
        self._draw = ImageDraw.Draw(self.image)

    def oval(self, x: float, y: float, rx: float, ry: float, fill: Colour, outline: bool = True) -> None:
        """An ellipse with the middle (x, y) and the half axes rx, ry."""
        if outline:
            self.oval(x, y, rx + _OUTLINE, ry + _OUTLINE, INK, outline=False)
        corners = [round(v * CANVAS) for v in (x - rx, y - ry, x + rx, y + ry)]
        self._draw.ellipse(corners, fill=fill)

    def blob(self, points: Sequence[Point], fill: Colour, outline: bool = True) -> None:
        """The inside of a smooth closed curve through the points."""
        curve = _pixels(_smooth(points, closed=True))
        if outline:
            self._thick([*curve, *curve[:2]], 2 * _OUTLINE, INK)
        self._draw.polygon(curve, fill=fill)

    def stroke(self, points: Sequence[Point], width: float, fill: Colour, outline: bool = True) -> None:
        """A smooth line with round ends through the points."""
        curve = _pixels(_smooth(points, closed=False))
        if outline:
            self._thick(curve, width + 2 * _OUTLINE, INK)
        self._thick(curve, width, fill)

    def eye(self, x: float, y: float, radius: float = 0.042) -> None:
        """A round eye that looks ahead."""
        self.oval(x, y, radius, radius * 1.15, WHITE)
        self.oval(x + radius * 0.2, y + radius * 0.1, radius * 0.66, radius * 0.8, INK, outline=False)
        self.oval(x + radius * 0.42, y - radius * 0.3, radius * 0.24, radius * 0.24, WHITE, outline=False)

    def _thick(self, curve: Sequence[tuple[int, int]], width: float, fill: Colour) -> None:
        half = round(width * CANVAS / 2)
        self._draw.line(curve, fill=fill, width=2 * half, joint="curve")
        for x, y in (curve[0], curve[-1]):
            self._draw.ellipse((x - half, y - half, x + half, y + half), fill=fill)


def _pixels(points: Sequence[Point]) -> list[tuple[int, int]]:
    return [(round(x * CANVAS), round(y * CANVAS)) for x, y in points]


def _smooth(points: Sequence[Point], closed: bool, steps: int = 12) -> list[Point]:
    """Points of the Catmull-Rom curve through `points`."""
    n = len(points)
    curve = []
    for i in range(n if closed else n - 1):
        around = [points[j % n] if closed else points[min(max(j, 0), n - 1)] for j in range(i - 1, i + 3)]
        for k in range(steps):
            t = k / steps
            weights = (
                t * (-1 + t * (2 - t)) / 2,
                1 + t * t * (3 * t - 5) / 2,
                t * (1 + t * (4 - 3 * t)) / 2,
                t * t * (t - 1) / 2,
            )
            curve.append(
                (
                    sum(w * p[0] for w, p in zip(weights, around, strict=True)),
                    sum(w * p[1] for w, p in zip(weights, around, strict=True)),
                )
            )
    return curve if closed else [*curve, points[-1]]


def shade(colour: Colour, factor: float) -> Colour:
    """The colour darkened by a factor below 1, or mixed with white by one above 1 (2 is white).

    >>> shade((100, 40, 0), 0.5), shade((100, 40, 0), 2)
    ((50, 20, 0), (255, 255, 255))
    """
    if factor <= 1:
        mixed = [round(c * factor) for c in colour]
    else:
        mixed = [round(c + (255 - c) * (factor - 1)) for c in colour]
    return (mixed[0], mixed[1], mixed[2])
