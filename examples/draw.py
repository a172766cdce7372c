"""Draws the images in the folders of `examples` anew: `python examples/draw.py`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

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

# A mark sheet: the places of its lines, in px
SHEET = (760, 860)  # width, height
CLASS_BOXES = tuple(range(420, 621, 50)), (150, 200)
MARKS = (60, 260, 380, 500, 620), (270, 310, 360, 410, 460, 510, 560)
TOTAL_BOX = (500, 620), (590, 640)
NAMES = ("Ada", "Ben", "Cleo", "Dora", "Emil")
PHOTO = (1.02, -0.13, 4, 0.08, 0.98, -58, 1e-4, -6e-5)  # of a point of the photo, one of the sheet
FORM = f"""\
blank = "blank.png"

[fields.class]
box = [{CLASS_BOXES[0][0]}, {CLASS_BOXES[1][0]}, {CLASS_BOXES[0][-1]}, {CLASS_BOXES[1][-1]}]
length = 4

[tables.marks]
box = [{MARKS[0][0]}, {MARKS[1][1]}, {MARKS[0][-1]}, {MARKS[1][-1]}]
rows = {len(NAMES)}
columns = ["", "oral", "written", "points"]
length = "1-2"

[fields.total]
box = [{TOTAL_BOX[0][0]}, {TOTAL_BOX[1][0]}, {TOTAL_BOX[0][-1]}, {TOTAL_BOX[1][-1]}]
length = "1-3"

[[checks]]
rule = "oral + written == points"

[[checks]]
rule = "sum(points) == total"
"""


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
    write(draw, texts, rng, (margin + height / 12, margin), width + height / 6, height, pen, ink)
    return image.resize(size, Image.Resampling.LANCZOS)


def write(
    draw: ImageDraw.ImageDraw,
    texts: Sequence[str],
    rng: np.random.Generator,
    place: tuple[float, float],
    step: float,
    height: int,
    pen: float,
    ink: tuple[int, int, int],
) -> None:
    """Write digits from a place on, each a step right of the one before it. All is in px."""
    left, top = place
    for text in texts:
        slant = rng.normal(0.08, 0.04)
        for stroke in STROKES[text]:
            points = np.array([point.split(",") for point in stroke.split()], float) / 100
            points += rng.normal(0, 0.012, (1, 2))
            points[:, 0] += (0.5 - points[:, 1]) * slant
            curve = trace_curve(points * (round(height * 0.6), height) + (left, top)) * SCALE
            radius = pen * SCALE / 2
            for (x, y), change in zip(curve, rng.normal(1, 0.03, len(curve)), strict=True):
                reach = radius * change
                draw.ellipse([x - reach, y - reach, x + reach, y + reach], ink)
            draw.line([(x, y) for x, y in curve], ink, round(2 * radius), "curve")
        left += step


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


def draw_sheet(
    rng: np.random.Generator, number: str = "", marks: Sequence[int] = ()
) -> Image.Image:
    """The mark sheet: the number of a class, three marks for each name in turn, and their total."""
    image = Image.new("RGB", (SHEET[0] * SCALE, SHEET[1] * SCALE), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    for columns, rows in (CLASS_BOXES, MARKS, TOTAL_BOX):
        for x in columns:
            draw.line([(x * SCALE, y * SCALE) for y in (rows[0], rows[-1])], BLACK, 2 * SCALE)
        for y in rows:
            draw.line([(x * SCALE, y * SCALE) for x in (columns[0], columns[-1])], BLACK, 2 * SCALE)
    printed = {"Mark sheet": (60, 50, 46), "Number of the class": (60, 162, 24)}
    printed["Marks of the summer term, half a year, each out of twenty"] = (60, 224, 20)
    heads = zip(("Name", "oral", "written", "points"), MARKS[0], strict=False)
    printed |= {head: (left + 10, MARKS[1][0] + 8, 22) for head, left in heads}
    printed |= {name: (70, top + 12, 24) for name, top in zip(NAMES, MARKS[1][1:-1], strict=True)}
    printed["All points of the class together"] = (60, 602, 24)
    last = "Leave a mark open if the pupil was ill.", "This sheet goes to the office in June."
    printed |= {text: (60, top, 20) for text, top in zip(last, (690, 730), strict=True)}
    for text, (left, top, size) in printed.items():
        font = ImageFont.load_default(size * SCALE)
        draw.text((left * SCALE, top * SCALE), text, BLACK, font)
    for left, digit in zip(CLASS_BOXES[0], number, strict=False):
        write(draw, digit, rng, (left + 14, CLASS_BOXES[1][0] + 9), 0, 32, 2.4, BLUE)
    places = [(left, top) for top in MARKS[1][1:-1] for left in MARKS[0][1:-1]]
    places += [(TOTAL_BOX[0][0], TOTAL_BOX[1][0])]
    for (left, top), mark in zip(places, marks, strict=False):
        place = left + rng.uniform(20, 40), top + rng.uniform(8, 14)
        write(draw, str(mark), rng, place, 25, 31, 2.4, BLUE)
    return image.resize(SHEET, Image.Resampling.LANCZOS)


def draw_forms(folder: Path) -> None:
    """Write the blank of the mark sheet, its form, a scan, and a photo on which a sum is wrong."""
    rng = np.random.default_rng(10)
    (folder / "pages").mkdir(parents=True, exist_ok=True)
    draw_sheet(rng).convert("L").quantize(16).save(folder / "blank.png")
    (folder / "form.toml").write_text(FORM)
    marks = [9, 14, 23, 12, 17, 29, 7, 8, 15, 20, 18, 38, 16, 11, 27, 132]
    scan = draw_sheet(rng, "3052", marks).rotate(0.6, Image.Resampling.BICUBIC, fillcolor="white")
    scan.quantize(16).save(folder / "pages" / "scan.png")
    marks = [11, 13, 24, 8, 15, 23, 19, 16, 36, 5, 10, 15, 14, 12, 26, 124]
    sheet = draw_sheet(rng, "4718", marks)
    size, desk = (SHEET[0] + 60, SHEET[1] + 100), (120, 100, 80)
    photo = sheet.transform(
        size, Image.Transform.PERSPECTIVE, PHOTO, Image.Resampling.BICUBIC, fillcolor=desk
    )
    photograph(photo, rng, 0).save(folder / "pages" / "photo.jpg", quality=70)


def draw_all(folder: Path) -> None:
    """Write the folders `digits`, `numbers` and `forms`."""
    draw_forms(folder / "forms")
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
