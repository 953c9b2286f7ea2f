"""The animals of the drawn world, one body per family, and the pen that draws them.

Every body looks to the right on a unit square (x to the right, y down). `draw_body` returns it as an image together
with the centre of its head, where `wsolnb.data.critters.drawing` puts the mark of the species.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]

POSES = 3
INK: Colour = (44, 36, 40)
_WHITE: Colour = (250, 250, 246)
_CANVAS = 1024
_OUTLINE = 0.011


class _Pen:
    """Draws smooth outlined shapes on a transparent square of unit side."""

    def __init__(self) -> None:
        self.image = Image.new("RGBA", (_CANVAS, _CANVAS), (0, 0, 0, 0))
        self._draw = ImageDraw.Draw(self.image)

    def oval(self, x: float, y: float, rx: float, ry: float, fill: Colour, outline: bool = True) -> None:
        """An ellipse with centre (x, y) and semi-axes rx, ry."""
        if outline:
            self.oval(x, y, rx + _OUTLINE, ry + _OUTLINE, INK, outline=False)
        corners = [round(v * _CANVAS) for v in (x - rx, y - ry, x + rx, y + ry)]
        self._draw.ellipse(corners, fill=fill)

    def blob(self, points: Sequence[Point], fill: Colour, outline: bool = True) -> None:
        """The area inside a smooth closed curve through the points."""
        curve = _pixels(_smooth(points, closed=True))
        if outline:
            self._thick([*curve, *curve[:2]], 2 * _OUTLINE, INK)
        self._draw.polygon(curve, fill=fill)

    def stroke(self, points: Sequence[Point], width: float, fill: Colour, outline: bool = True) -> None:
        """A smooth line through the points, with round ends."""
        curve = _pixels(_smooth(points, closed=False))
        if outline:
            self._thick(curve, width + 2 * _OUTLINE, INK)
        self._thick(curve, width, fill)

    def eye(self, x: float, y: float, radius: float = 0.042) -> None:
        """A round eye that looks ahead."""
        self.oval(x, y, radius, radius * 1.15, _WHITE)
        self.oval(x + radius * 0.2, y + radius * 0.1, radius * 0.66, radius * 0.8, INK, outline=False)
        self.oval(x + radius * 0.42, y - radius * 0.3, radius * 0.24, radius * 0.24, _WHITE, outline=False)

    def _thick(self, curve: Sequence[tuple[int, int]], width: float, fill: Colour) -> None:
        half = round(width * _CANVAS / 2)
        self._draw.line(curve, fill=fill, width=2 * half, joint="curve")
        for x, y in (curve[0], curve[-1]):
            self._draw.ellipse((x - half, y - half, x + half, y + half), fill=fill)


def _pixels(points: Sequence[Point]) -> list[tuple[int, int]]:
    return [(round(x * _CANVAS), round(y * _CANVAS)) for x, y in points]


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
            x, y = (sum(w * point[axis] for w, point in zip(weights, around, strict=True)) for axis in (0, 1))
            curve.append((x, y))
    return curve if closed else [*curve, points[-1]]


def _shade(colour: Colour, factor: float) -> Colour:
    """The colour darkened by a factor below 1, or mixed with white by a factor above 1 (2 is white)."""
    red, green, blue = (round(c * factor if factor <= 1 else c + (255 - c) * (factor - 1)) for c in colour)
    return red, green, blue


def _beetle(pen: _Pen, sway: float, colour: Colour) -> Point:
    for side in (-1, 1):
        for k, x in enumerate((0.2, 0.38, 0.56)):
            step = sway * (0.05 if k % 2 else -0.05) * side
            pen.stroke([(x, 0.5), (x - 0.01, 0.5 + side * 0.3), (x - 0.04 + step, 0.5 + side * 0.37)], 0.03, INK)
        pen.stroke([(0.8, 0.5), (0.9, 0.5 + side * 0.16), (0.97, 0.5 + side * (0.22 + 0.03 * sway))], 0.018, INK)
    pen.oval(0.77, 0.5, 0.185, 0.185, _shade(colour, 1.62))
    pen.eye(0.84, 0.365)
    pen.eye(0.84, 0.635)
    loop = [(0.06, 0.5), (0.14, 0.3), (0.36, 0.21), (0.57, 0.27), (0.65, 0.5), (0.57, 0.73), (0.36, 0.79), (0.14, 0.7)]
    pen.blob(loop, colour)
    pen.stroke([(0.07, 0.5), (0.64, 0.5)], 0.014, INK, outline=False)
    pen.stroke([(0.2, 0.33), (0.36, 0.28), (0.5, 0.31)], 0.03, _shade(colour, 1.4), outline=False)
    for x, y in ((0.24, 0.41), (0.45, 0.38), (0.24, 0.62), (0.45, 0.66)):
        pen.oval(x, y, 0.045, 0.045, _shade(colour, 0.5), outline=False)
    return 0.795, 0.5


def _fish(pen: _Pen, sway: float, colour: Colour) -> Point:
    fin = _shade(colour, 0.72)
    swing = 0.07 * sway
    upper = [(0.12, 0.27 + swing), (0.03, 0.25 + swing)]
    lower = [(0.03, 0.75 + swing), (0.12, 0.73 + swing)]
    pen.blob([(0.27, 0.5), *upper, (0.08, 0.5 + swing / 2), *lower], fin)
    pen.blob([(0.3, 0.36), (0.34, 0.16), (0.48, 0.11), (0.66, 0.27)], fin)
    pen.blob([(0.4, 0.68), (0.36, 0.86), (0.46, 0.87), (0.56, 0.72)], fin)
    loop = [(0.18, 0.5), (0.32, 0.32), (0.58, 0.22), (0.82, 0.29), (0.97, 0.5), (0.82, 0.7), (0.58, 0.77), (0.32, 0.67)]
    pen.blob(loop, colour)
    loop = [(0.58, 0.5), (0.64, 0.3), (0.8, 0.3), (0.94, 0.48), (0.95, 0.54), (0.8, 0.69), (0.64, 0.7)]
    pen.blob(loop, _shade(colour, 1.62), outline=False)
    for x, y in ((0.3, 0.5), (0.39, 0.42), (0.39, 0.58), (0.48, 0.5), (0.48, 0.35), (0.48, 0.65)):
        pen.stroke([(x + 0.03, y - 0.045), (x - 0.01, y), (x + 0.03, y + 0.045)], 0.016, fin, outline=False)
    pen.stroke([(0.89, 0.6), (0.92, 0.585), (0.945, 0.55)], 0.014, INK, outline=False)
    pen.eye(0.86, 0.42)
    return 0.71, 0.51


def _bird(pen: _Pen, sway: float, colour: Colour) -> Point:
    leg = (226, 120, 50)
    for x, step in ((0.4, -0.04), (0.52, 0.04)):
        foot = x + step * sway
        pen.stroke([(x, 0.74), (foot, 0.95)], 0.024, leg)
        pen.stroke([(foot - 0.03, 0.96), (foot + 0.06, 0.96)], 0.02, leg)
    loop = [(0.26, 0.58), (0.1, 0.48 - 0.04 * sway), (0.02, 0.5 - 0.05 * sway), (0.06, 0.6 - 0.03 * sway), (0.26, 0.72)]
    pen.blob(loop, _shade(colour, 0.66))
    pen.blob([(0.93, 0.22), (0.99, 0.29), (0.93, 0.34), (0.84, 0.34), (0.84, 0.22)], leg)
    back = [(0.18, 0.66), (0.24, 0.5), (0.42, 0.42), (0.62, 0.4), (0.76, 0.5)]
    pen.blob([*back, (0.74, 0.68), (0.6, 0.82), (0.4, 0.84), (0.24, 0.78)], colour)
    pen.oval(0.7, 0.27, 0.2, 0.2, _shade(colour, 1.62))
    loop = [(0.22, 0.62), (0.34, 0.52), (0.5, 0.52), (0.58, 0.6), (0.46, 0.74 + 0.03 * sway), (0.3, 0.72 + 0.03 * sway)]
    pen.blob(loop, _shade(colour, 0.7))
    pen.stroke([(0.36, 0.63), (0.48, 0.64)], 0.016, INK, outline=False)
    pen.stroke([(0.62, 0.08), (0.58, 0.03), (0.52, 0.04)], 0.022, INK, outline=False)
    pen.eye(0.815, 0.21)
    return 0.675, 0.28


def _cat(pen: _Pen, sway: float, colour: Colour) -> Point:
    dark = _shade(colour, 0.66)
    pen.stroke([(0.17, 0.64), (0.06, 0.52), (0.07, 0.34), (0.16 + 0.06 * sway, 0.22)], 0.065, colour)
    for x, step, fur in ((0.25, -0.04, dark), (0.5, 0.04, dark), (0.19, 0.04, colour), (0.57, -0.04, colour)):
        pen.stroke([(x, 0.72), (x + step * sway, 0.93)], 0.085, fur)
    loop = [(0.1, 0.66), (0.16, 0.5), (0.36, 0.46), (0.58, 0.48), (0.68, 0.62), (0.6, 0.78), (0.36, 0.8), (0.16, 0.78)]
    pen.blob(loop, colour)
    for x in (0.26, 0.36, 0.46):
        pen.stroke([(x, 0.475), (x - 0.01, 0.59)], 0.032, dark, outline=False)
    head = _shade(colour, 1.62)
    for x, lean in ((0.56, -0.03), (0.86, 0.03)):
        pen.blob(
            [(x - 0.06, 0.3), (x - 0.05 + lean, 0.12), (x + lean, 0.07), (x + 0.05 + lean, 0.13), (x + 0.07, 0.3)],
            colour,
        )
    pen.oval(0.71, 0.38, 0.235, 0.21, head)
    for y in (0.47, 0.52):
        for x in (0.5, 0.92):
            pen.stroke([(x, y + 0.01), (0.71 + (x - 0.71) * 0.55, y - 0.01)], 0.009, INK, outline=False)
    pen.eye(0.61, 0.435)
    pen.eye(0.81, 0.435)
    pen.oval(0.71, 0.495, 0.024, 0.017, (226, 116, 120), outline=False)
    pen.stroke([(0.67, 0.53), (0.69, 0.545), (0.71, 0.525), (0.73, 0.545), (0.75, 0.53)], 0.011, INK, outline=False)
    return 0.71, 0.295


def _butterfly(pen: _Pen, sway: float, colour: Colour) -> Point:
    spread = 0.94 - 0.06 * sway
    for side in (-1, 1):

        def wing(points: Sequence[Point], fill: Colour, side: int = side, outline: bool = True) -> None:
            pen.blob([(x, 0.5 + side * y * spread) for x, y in points], fill, outline)

        wing([(0.34, 0.04), (0.12, 0.12), (0.06, 0.3), (0.16, 0.4), (0.34, 0.3), (0.42, 0.12)], _shade(colour, 0.72))
        wing([(0.42, 0.04), (0.34, 0.26), (0.4, 0.46), (0.6, 0.45), (0.68, 0.26), (0.6, 0.06)], colour)
        wing([(0.48, 0.26), (0.5, 0.37), (0.58, 0.34), (0.58, 0.24)], _shade(colour, 1.5), outline=False)
        wing([(0.17, 0.22), (0.2, 0.31), (0.27, 0.26), (0.25, 0.19)], _shade(colour, 1.5), outline=False)
        pen.stroke([(0.8, 0.5), (0.9, 0.5 + side * 0.18), (0.97, 0.5 + side * 0.2)], 0.018, INK)
        pen.oval(0.965, 0.5 + side * 0.2, 0.02, 0.02, INK, outline=False)
    pen.stroke([(0.16, 0.5), (0.36, 0.5), (0.62, 0.5)], 0.085, _shade(colour, 0.5))
    pen.oval(0.765, 0.5, 0.17, 0.17, _shade(colour, 1.62))
    pen.eye(0.84, 0.375)
    pen.eye(0.84, 0.625)
    return 0.78, 0.5


def _turtle(pen: _Pen, sway: float, colour: Colour) -> Point:
    skin = _shade(colour, 1.3)
    pen.blob([(0.14, 0.7), (0.02, 0.74), (0.12, 0.79)], skin)
    for x, step in ((0.22, -0.04), (0.52, 0.04)):
        pen.stroke([(x, 0.74), (x + step * sway, 0.88)], 0.1, skin)
    pen.stroke([(0.6, 0.7), (0.76, 0.52)], 0.14, skin)
    pen.oval(0.79, 0.42, 0.19, 0.18, _shade(colour, 1.62))
    pen.eye(0.885, 0.35)
    pen.stroke([(0.87, 0.5), (0.92, 0.49), (0.955, 0.46)], 0.013, INK, outline=False)
    pen.blob(
        [(0.07, 0.74), (0.1, 0.54), (0.22, 0.37), (0.38, 0.31), (0.54, 0.38), (0.65, 0.55), (0.67, 0.74), (0.36, 0.79)],
        colour,
    )
    pen.blob([(0.29, 0.45), (0.45, 0.45), (0.5, 0.6), (0.37, 0.69), (0.24, 0.6)], _shade(colour, 0.64))
    pen.stroke([(0.09, 0.72), (0.36, 0.76), (0.65, 0.72)], 0.03, _shade(colour, 0.64), outline=False)
    return 0.765, 0.425


def _snail(pen: _Pen, sway: float, colour: Colour) -> Point:
    skin = (206, 178, 140)
    for x, lean in ((0.72, -0.02), (0.86, 0.05)):
        pen.stroke([(x, 0.4), (x + lean + 0.03 * sway, 0.2)], 0.03, skin)
        pen.eye(x + lean + 0.03 * sway, 0.17)
    back = [(0.03, 0.88), (0.2, 0.76), (0.56, 0.76), (0.62, 0.5), (0.92, 0.46)]
    pen.blob([*back, (0.96, 0.64), (0.88, 0.84), (0.7, 0.91), (0.3, 0.91)], skin)
    pen.oval(0.775, 0.53, 0.185, 0.185, _shade(skin, 1.5))
    pen.oval(0.36, 0.52, 0.3, 0.3, colour)
    pen.oval(0.38, 0.54, 0.21, 0.21, _shade(colour, 0.68), outline=False)
    pen.oval(0.4, 0.55, 0.145, 0.145, _shade(colour, 1.25), outline=False)
    pen.oval(0.41, 0.56, 0.07, 0.07, _shade(colour, 0.6), outline=False)
    pen.stroke([(0.86, 0.65), (0.9, 0.645), (0.93, 0.61)], 0.013, INK, outline=False)
    return 0.765, 0.52


def _mouse(pen: _Pen, sway: float, colour: Colour) -> Point:
    pink = (238, 168, 170)
    pen.stroke([(0.16, 0.74), (0.05, 0.66), (0.08, 0.5 + 0.05 * sway), (0.02, 0.38 + 0.08 * sway)], 0.026, pink)
    for x, step in ((0.26, -0.03), (0.5, 0.03)):
        pen.stroke([(x, 0.84), (x + 0.06 + step * sway, 0.88)], 0.05, pink)
    loop = [(0.1, 0.76), (0.14, 0.56), (0.3, 0.42), (0.5, 0.42), (0.64, 0.56), (0.64, 0.76), (0.5, 0.85), (0.24, 0.86)]
    pen.blob(loop, colour)
    pen.oval(0.55, 0.31, 0.12, 0.13, colour)
    pen.oval(0.55, 0.31, 0.075, 0.085, pink, outline=False)
    pen.blob(
        [(0.52, 0.55), (0.58, 0.39), (0.72, 0.34), (0.86, 0.44), (0.97, 0.63), (0.92, 0.69), (0.74, 0.74), (0.58, 0.7)],
        _shade(colour, 1.62),
    )
    pen.oval(0.955, 0.645, 0.03, 0.028, pink)
    pen.eye(0.835, 0.51)
    return 0.685, 0.54


_Draw = Callable[[_Pen, float, Colour], Point]
# family: (group in the class tree, colour, drawing)
BODIES: dict[str, tuple[str, Colour, _Draw]] = {
    "beetle": ("insect", (206, 58, 48), _beetle),
    "fish": ("vertebrate", (44, 132, 204), _fish),
    "bird": ("vertebrate", (242, 186, 48), _bird),
    "cat": ("vertebrate", (150, 128, 170), _cat),
    "butterfly": ("insect", (222, 104, 178), _butterfly),
    "turtle": ("vertebrate", (84, 156, 84), _turtle),
    "snail": ("mollusc", (222, 122, 52), _snail),
    "mouse": ("vertebrate", (146, 120, 100), _mouse),
}


def draw_body(name: str, pose: int) -> tuple[Image.Image, Point]:
    """The body of a family as an RGBA image, and the centre of its head in units of the image's side.

    >>> image, (x, y) = draw_body("fish", pose=0)
    >>> image.size, x > 0.5
    ((1024, 1024), True)
    """
    _, colour, draw = BODIES[name]
    pen = _Pen()
    head = draw(pen, pose / max(1, POSES - 1) * 2 - 1, colour)
    return pen.image, head
