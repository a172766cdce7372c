"""Draws the images in `examples/digits` and `examples/numbers` anew: `python examples/draw.py`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SCALE = 4  # strokes are drawn at this many times the size, and shrunk: so their edges are smooth
STEPS = 24  # a curve is drawn as this many lines from one point to the next
BLUE, BLACK, GREY, WHITE = (30, 50, 140), (25, 25, 30), (120, 120, 125), (235, 235, 230)
PAPER, BOARD = (246, 244, 238), (44, 74, 60)

# The strokes of each digit: points (x, y) in percent of its box; a curve goes through them. A
# point that is there twice is a corner.
STROKES = {
    "0": ["60,2 20,15 5,55 35,98 85,80 92,30 55,2 45,4"],
    "1": ["15,32 52,2 52,2 50,100"],
    "2": ["8,25 40,1 82,22 60,60 8,98 8,98 95,96"],
    "3": ["8,10 50,1 82,22 40,46 40,46 88,70 50,99 5,88"],
    "4": ["35,2 6,62 6,62 95,60", "72,32 66,100"],
    "5": ["20,4 15,45 15,45 65,40 86,72 42,99 4,88", "20,4 92,2"],
    "6": ["72,2 25,35 8,75 45,99 82,76 50,55 14,72"],
    "7": ["5,5 92,3 92,3 40,100", "28,52 78,50"],
    "8": ["78,12 45,1 20,22 50,47 84,76 46,99 12,78 50,47 82,22 60,3"],
    "9": ["82,20 45,1 12,26 42,50 80,24 80,24 72,100"],
    "4 or 9": ["36,6 22,44 50,52 76,36", "66,2 78,22 66,100"],
}


def trace_curve(points: np.ndarray) -> np.ndarray:
    """Points (N, 2) on a Catmull-Rom curve through the given ones."""
    ends = np.concatenate([points[:1], points, points[-1:]])
    times = np.linspace(0, 1, STEPS)[:, None]
    before, start, end, after = ends[:-3, None], ends[1:-2, None], ends[2:-1, None], ends[3:, None]
    curve: np.ndarray = (
        2 * start
        + (end - before) * times
        + (2 * before - 5 * start + 4 * end - after) * times**2
        + (3 * start - before - 3 * end + after) * times**3
    )
    return (curve / 2).reshape(-1, 2)


def draw_text(
    texts: Sequence[str],
    rng: np.random.Generator,
    ink: tuple[int, int, int] = BLUE,
    ground: tuple[int, int, int] = PAPER,
    pen: float = 5,
    height: int = 90,
    margin: int = 35,
    squares: int = 0,
) -> Image.Image:
    """Digits side by side, by a hand that trembles a little. `pen`, `height`, `margin` and the side
    of the paper's squares are in px."""
    width = round(height * 0.6)
    size = (2 * margin + len(texts) * (width + height // 6), 2 * margin + height)
    image = Image.new("RGB", (size[0] * SCALE, size[1] * SCALE), ground)
    draw = ImageDraw.Draw(image)
    for place in range(squares, max(size), squares) if squares else ():
        for line in ([(place, 0), (place, size[1])], [(0, place), (size[0], place)]):
            draw.line([(x * SCALE, y * SCALE) for x, y in line], (196, 212, 226), SCALE)
    left = margin + height / 12
    for text in texts:
        slant = rng.normal(0.08, 0.04)
        for stroke in STROKES[text]:
            points = np.array([point.split(",") for point in stroke.split()], float) / 100
            points += rng.normal(0, 0.012, (1, 2))
            points[:, 0] += (0.5 - points[:, 1]) * slant
            curve = trace_curve(points * (width, height) + (left, margin)) * SCALE
            radius = pen * SCALE / 2
            for (x, y), change in zip(curve, rng.normal(1, 0.03, len(curve)), strict=True):
                reach = radius * change
                draw.ellipse([x - reach, y - reach, x + reach, y + reach], ink)
            draw.line([(x, y) for x, y in curve], ink, round(2 * radius), "curve")
        left += width + height / 6
    return image.resize(size, Image.Resampling.LANCZOS)


def photograph(image: Image.Image, rng: np.random.Generator, angle: float) -> Image.Image:
    """The image as a camera sees it: turned, a little blurred, with a shadow and grain."""
    turned = image.rotate(angle, Image.Resampling.BICUBIC, fillcolor=image.getpixel((0, 0)))
    blurred = turned.filter(ImageFilter.GaussianBlur(0.8))
    light = (
        np.linspace(1, 0.55, image.width)[None, :, None]
        * np.linspace(0.9, 1, image.height)[:, None, None]
    )
    grain = rng.normal(0, 4, (image.height, image.width, 1))
    return Image.fromarray(np.clip(np.asarray(blurred) * light + grain, 0, 255).astype(np.uint8))


def draw_all(folder: Path) -> None:
    """Write the folders `digits` and `numbers`."""
    rng = np.random.default_rng(48)
    digits, numbers = folder / "digits", folder / "numbers"
    for part in (digits, numbers):
        part.mkdir(parents=True, exist_ok=True)
    draw_text("0", rng, pen=9, ink=BLACK).save(digits / "0.png")
    draw_text("1", rng, squares=18).save(digits / "1.png")
    photograph(draw_text("2", rng, pen=6), rng, 8).save(digits / "2.jpg", quality=85)
    draw_text("3", rng, pen=4, ink=GREY).save(digits / "3.png")
    draw_text("4", rng, pen=8, ink=WHITE, ground=BOARD).save(digits / "4.png")
    draw_text("5", rng, pen=14, ink=(200, 30, 40), ground=(255, 255, 255)).save(digits / "5.png")
    far = draw_text("6", rng, height=40, pen=3, margin=120)
    photograph(far, rng, -6).save(digits / "6.jpg", quality=85)
    draw_text("7", rng, squares=18).save(digits / "7.png")
    draw_text("8", rng, pen=8, ink=(255, 255, 255), ground=(0, 0, 0)).save(digits / "8.png")
    draw_text("9", rng, pen=4).convert("1").save(digits / "9.png")
    draw_text(["4 or 9"], np.random.default_rng(1)).save(digits / "unclear.png")
    (digits / "empty.png").write_bytes(b"")
    for number in ("007", "86", "41902"):
        draw_text(number, rng, height=60, margin=24, pen=4).save(numbers / f"{number}.png")
    (numbers / "ids.txt").write_text("007\n86\n41902\n52630\n")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    draw_all(Path(__file__).parent)
