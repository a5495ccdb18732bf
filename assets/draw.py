"""Draws the sample inputs of this folder: a street with a school bus, and the ten digits.

python assets/draw.py
"""

from __future__ import annotations

from math import cos, pi, sin
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

HERE = Path(__file__).parent
FINE = 3  # drawn this much larger, then reduced, so that edges are smooth
Point = tuple[float, float]


def canvas(width: int, height: int, top: str, bottom: str) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """A picture with a vertical gradient."""
    ramp = Image.linear_gradient("L").resize((width * FINE, height * FINE))
    image = Image.composite(Image.new("RGB", ramp.size, bottom), Image.new("RGB", ramp.size, top), ramp)
    return image, ImageDraw.Draw(image)


def scaled(*values: float) -> list[float]:
    return [value * FINE for value in values]


def finish(image: Image.Image, name: str) -> None:
    """Reduce, give it the grain of a photograph, and save."""
    small = image.filter(ImageFilter.GaussianBlur(FINE * 0.6)).resize(
        (image.width // FINE, image.height // FINE), Image.Resampling.LANCZOS
    )
    small.save(HERE / name)


def tree(pen: ImageDraw.ImageDraw, x: float, base: float, size: float) -> None:
    pen.rectangle(scaled(x - size * 0.07, base - size * 0.6, x + size * 0.07, base), fill="#5b4630")
    for dx, dy, r, green in ((-0.25, 0.7, 0.28, "#3c6b35"), (0.25, 0.72, 0.27, "#35602f"), (0, 0.95, 0.34, "#457a3c")):
        cx, cy = x + dx * size, base - dy * size
        pen.ellipse(scaled(cx - r * size, cy - r * size, cx + r * size, cy + r * size), fill=green)


def bus(pen: ImageDraw.ImageDraw, x: float, y: float, s: float) -> None:
    """A school bus of length 300 s with its lower left corner at (x, y)."""

    def box(left: float, top: float, right: float, bottom: float, fill: str, radius: float = 0) -> None:
        corners = scaled(x + left * s, y - top * s, x + right * s, y - bottom * s)
        pen.rounded_rectangle(corners, radius * s * FINE, fill=fill)

    box(0, 128, 232, 18, "#f2b21b", 12)  # body
    box(220, 74, 300, 18, "#eda814", 10)  # bonnet
    box(8, 138, 228, 120, "#f7c33c", 8)  # roof
    for i in range(5):
        box(14 + i * 39, 112, 46 + i * 39, 76, "#22303c", 4)
        box(17 + i * 39, 109, 34 + i * 39, 92, "#5b7488", 3)
    box(208, 112, 229, 74, "#2d3e4c", 3)  # windscreen side
    for height in (66, 56, 34):
        box(0, height, 298, height - 4, "#1c1c1c")
    box(58, 52, 176, 40, "#141414", 2)
    box(288, 34, 306, 20, "#2b2b2b", 3)  # bumper
    box(286, 52, 298, 42, "#fff4c4", 4)
    for cx in (52, 250):
        for r, fill in ((27, "#111111"), (22, "#262626"), (11, "#b9b9b9"), (4, "#555555")):
            pen.ellipse(scaled(x + (cx - r) * s, y - (18 + r) * s, x + (cx + r) * s, y - (18 - r) * s), fill=fill)


def street() -> None:
    image, pen = canvas(480, 360, "#6fa4d8", "#dfeaf2")
    pen.rectangle(scaled(0, 220, 480, 262), fill="#6d9a4e")
    for x, base, size in ((50, 236, 130), (150, 228, 90), (432, 240, 150), (345, 226, 80)):
        tree(pen, x, base, size)
    pen.rectangle(scaled(0, 255, 480, 268), fill="#b7b2a8")
    pen.rectangle(scaled(0, 268, 480, 360), fill="#5f6266")
    for x in range(-20, 480, 90):
        pen.rectangle(scaled(x, 334, x + 52, 340), fill="#e8e6dc")
    pen.ellipse(scaled(80, 296, 420, 322), fill="#45484b")  # shadow
    bus(pen, 88, 318, 1.02)
    finish(image, "street.png")


STROKES: dict[int, list[list[Point]]] = {  # polylines on a 20 x 20 field, y down
    1: [[(7, 6), (11, 2), (11, 18)]],
    4: [[(12, 18), (12, 2), (4, 13), (17, 13)]],
    7: [[(3, 3), (16, 3), (8, 18)]],
}


def arc(cx: float, cy: float, rx: float, ry: float, start: float, end: float) -> list[Point]:
    """Points of an ellipse from one angle to another, in degrees clockwise from the right."""
    angles = [(start + (end - start) * i / 40) * pi / 180 for i in range(41)]
    return [(cx + rx * cos(a), cy + ry * sin(a)) for a in angles]


STROKES |= {
    0: [arc(10, 10, 5.5, 8, 0, 360)],
    2: [[*arc(10, 6.5, 5.2, 4.6, 190, 390), (4, 18), (16.5, 18)]],
    3: [[*arc(9.5, 6, 5, 4.2, 200, 450), *arc(9.5, 14, 5.8, 4.2, 270, 515)]],
    5: [[(15.5, 2.5), (6, 2.5), (5, 9), *arc(9.5, 12.8, 6, 5.2, 230, 510)]],
    6: [[(13, 2), *arc(10.5, 12, 7, 10, 250, 180), *arc(9.8, 13.2, 5, 4.8, 180, 540)]],
    8: [arc(10, 6, 4.2, 4, 90, 450), arc(10, 14, 5, 4.2, -90, 270)],
    9: [[*arc(10, 7, 4.8, 4.8, 0, 360), (14.6, 8), (13, 18)]],
}


def digit(value: int) -> None:
    """White strokes on black, placed as the digits of MNIST are: 20 px in a field of 28."""
    side, unit = 280 * FINE, 10 * FINE
    image = Image.new("L", (side, side))
    pen = ImageDraw.Draw(image)
    for stroke in STROKES[value]:
        points = [((4 + x) * unit, (4 + y) * unit) for x, y in stroke]
        pen.line(points, fill=255, width=int(2.2 * unit), joint="curve")
        for x, y in (points[0], points[-1]):
            pen.ellipse([x - 1.1 * unit, y - 1.1 * unit, x + 1.1 * unit, y + 1.1 * unit], fill=255)
    soft = image.filter(ImageFilter.GaussianBlur(0.4 * unit))
    soft.resize((280, 280), Image.Resampling.LANCZOS).save(HERE / f"digit-{value}.png")


if __name__ == "__main__":
    street()
    for value in range(10):
        digit(value)
