"""Draws forms with bubbles and boxes, marks in them as people make them, and photos of both."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

SHEET_SIZE = (1240, 1754)  # width and height of a sheet, px: A4 at 150 dpi
FINENESS = 3  # all is drawn at this many times the size, and shrunk
WORDS = "each pupil marks one answer of every question with a dark pen and signs below the line"
MAX_BOX = 36  # px: what is wider is a cell
CLEAR_KINDS = ("fill", "scribble", "tick", "cross")
DOUBTFUL_KINDS = ("faint", "half", "erased", "crossed", "two")
# Around a box, around its label, through it, beside it, and through it into the next one
AROUND_KINDS = ("circle", "label", "strike", "beside", "across")
Kind = Literal[
    "fill",
    "scribble",
    "tick",
    "cross",
    "faint",
    "half",
    "erased",
    "crossed",
    "two",
    "circle",
    "label",
    "strike",
    "beside",
    "across",
    "",
]
Box = tuple[float, float, float, float]
Random = np.random.Generator


@dataclass
class Question:
    """What is asked at a place, and what was marked there."""

    id: str
    options: tuple[str, ...]
    boxes: list[Box]
    many: bool = False
    truth: str | None = None  # None if no answer is right without a person's look
    kind: Kind = ""  # how it was marked
    drawn: dict[int, Kind] = field(default_factory=dict)  # what is in each of its bubbles


@dataclass
class Sheet:
    """A form with its questions. Marks are drawn on a copy of the blank."""

    toml: str
    questions: list[Question]
    blank: Image.Image
    pen: "Pen" = field(init=False)


@dataclass(frozen=True)
class Pen:
    """How one person marks."""

    grey: int  # value of full ink
    width: float  # px
    usual: Kind


def choose_pen(rng: Random, is_round: bool) -> Pen:
    """A ball pen, a fibre pen or a pencil; bubbles are mostly filled, boxes ticked or crossed."""
    grey, width = [(40, 2.2), (75, 2.6), (25, 4.0), (105, 3.0)][rng.integers(4)]
    usual = rng.choice(CLEAR_KINDS, p=(0.5, 0.35, 0.05, 0.1) if is_round else (0.1, 0.1, 0.4, 0.4))
    return Pen(int(grey + rng.integers(-10, 20)), float(width * rng.uniform(0.8, 1.2)), usual)


def new_canvas(rng: Random, title: str) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """White paper with a title, and lines of words above and below."""
    image = Image.new("L", (SHEET_SIZE[0] * FINENESS, SHEET_SIZE[1] * FINENESS), 255)
    draw = ImageDraw.Draw(image)
    write(draw, (100, 70), title, 40)
    words = WORDS.split()
    for top in (140, 175, 1570, 1605, 1640):
        write(draw, (100, top), " ".join(rng.permutation(words)[:12]), 22)
    return image, draw


def write(draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, size: float) -> None:
    font = ImageFont.load_default(size * FINENESS)
    draw.text((place[0] * FINENESS, place[1] * FINENESS), text, 30, font)


def choose_print(rng: Random) -> int:
    """The grey value of a sheet's bubbles: most are black, some light, as red ones seem to be."""
    return 40 if rng.random() < 0.7 else int(rng.integers(130, 205))


def outline(draw: ImageDraw.ImageDraw, box: Box, is_round: bool, grey: int, text: str = "") -> None:
    """A bubble or a box, perhaps with a letter or a digit in it."""
    sides = [side * FINENESS for side in box]
    shape = draw.ellipse if is_round else draw.rectangle
    shape(sides, outline=grey, width=round(1.5 * FINENESS))
    if text:
        middle = (sides[0] + sides[2]) / 2, (sides[1] + sides[3]) / 2
        font = ImageFont.load_default((box[3] - box[1]) * 0.6 * FINENESS)
        draw.text(middle, text, min(grey + 50, 215), font, "mm")


def spread(
    left: float, top: float, width: float, height: float, step: float, count: int, way: int
) -> list[Box]:
    """Equal boxes side by side (0) or below each other (1)."""
    moves = [(at * step, 0.0) if way == 0 else (0.0, at * step) for at in range(count)]
    return [(left + x, top + y, left + x + width, top + y + height) for x, y in moves]


def draw_letters(rng: Random) -> Sheet:
    """Eight questions with five round bubbles, which have letters in them."""
    image, draw = new_canvas(rng, "Answer sheet")
    grey = choose_print(rng)
    side, step, down = rng.uniform(24, 34), rng.uniform(52, 80), rng.uniform(50, 90)
    left, top, questions = rng.uniform(150, 500), rng.uniform(260, 420), []
    for row in range(8):
        boxes = spread(left, top + row * down, side, side, step, 5, 0)
        write(draw, (left - 60, top + row * down), str(row + 1), 24)
        for box, letter in zip(boxes, "ABCDE", strict=True):
            outline(draw, box, True, grey, letter)
        questions.append(Question(f"q{row + 1}", tuple("ABCDE"), boxes))
    toml = write_choice("q", "ABCDE", questions, "rows = 8")
    return Sheet(toml, questions, shrink(image))


def draw_digits(rng: Random) -> Sheet:
    """Four columns of ten flat bubbles, which have digits in them."""
    image, draw = new_canvas(rng, "Number of the candidate")
    grey = choose_print(rng)
    wide, high = rng.uniform(26, 34), rng.uniform(19, 26)
    left, top = rng.uniform(200, 600), rng.uniform(300, 600)
    step, down, questions = rng.uniform(44, 60), rng.uniform(34, 60), []
    for column in range(4):
        boxes = spread(left + column * step, top, wide, high, down, 10, 1)
        for box, digit in zip(boxes, "0123456789", strict=True):
            outline(draw, box, True, grey, digit)
        questions.append(Question(f"id{column + 1}", tuple("0123456789"), boxes))
    toml = write_choice("id", "0123456789", questions, "columns = 4")
    return Sheet(toml, questions, shrink(image))


def draw_ticks(rng: Random) -> Sheet:
    """Forty single boxes with words beside them."""
    image, draw = new_canvas(rng, "What applies to you?")
    grey = choose_print(rng)
    side, down = rng.uniform(20, 30), rng.uniform(50, 60)
    questions, words = list[Question](), WORDS.split()
    for number in range(40):
        left, top = (140, 640)[number // 20], 280 + number % 20 * down
        box = left, top, left + side, top + side
        outline(draw, box, False, grey)
        write(draw, (left + side + 14, top), " ".join(rng.permutation(words)[:4]), 20)
        questions.append(Question(f"t{number + 1}", ("1",), [box]))
    toml = "".join(
        f'[fields.{one.id}]\nbox = {show(one.boxes[0])}\nkind = "mark"\n' for one in questions
    )
    return Sheet(toml, questions, shrink(image))


def draw_boxes(rng: Random) -> Sheet:
    """Ten questions with four boxes, of which several may be marked, and letters beside them."""
    image, draw = new_canvas(rng, "Several answers may be right")
    grey = choose_print(rng)
    side, step, down = rng.uniform(20, 28), rng.uniform(90, 140), rng.uniform(60, 100)
    left, top, questions, toml = rng.uniform(200, 500), 300.0, list[Question](), ""
    for row in range(10):
        boxes = spread(left, top + row * down, side, side, step, 4, 0)
        write(draw, (left - 90, top + row * down), f"{row + 1}.", 24)
        for box, letter in zip(boxes, "abcd", strict=True):
            outline(draw, box, False, grey)
            write(draw, (box[2] + 8, box[1] - 1), letter, 22)
        question = Question(f"m{row + 1}", tuple("abcd"), boxes, many=True)
        questions.append(question)
        toml += write_choice(question.id, "abcd", [question], "many = true")
    return Sheet(toml, questions, shrink(image))


def draw_table(rng: Random) -> Sheet:
    """A list of twenty people with two columns for marks."""
    image, draw = new_canvas(rng, "Who was there?")
    high, left, top = rng.uniform(44, 56), 120.0, 300.0
    columns = [left, left + 420, left + 420 + rng.uniform(70, 130)]
    columns.append(columns[-1] + columns[2] - columns[1])
    rows, words = [top + at * high for at in range(21)], WORDS.split()
    for x in columns:
        draw.line(
            [x * FINENESS, rows[0] * FINENESS, x * FINENESS, rows[-1] * FINENESS], 40, 2 * FINENESS
        )
    for y in rows:
        draw.line(
            [columns[0] * FINENESS, y * FINENESS, columns[-1] * FINENESS, y * FINENESS],
            40,
            2 * FINENESS,
        )
    questions = []
    for row, y in enumerate(rows[:-1]):
        write(draw, (left + 10, y + high / 4), " ".join(rng.permutation(words)[:2]).title(), 22)
        for name, start, end in zip(("here", "ill"), columns[1:3], columns[2:4], strict=True):
            box = start + 6, y + 6, end - 6, y + high - 6
            questions.append(Question(f"list/{row + 1}/{name}", ("1",), [box]))
    whole = show((columns[0], rows[0], columns[-1], rows[-1]))
    toml = (
        f'[tables.list]\nbox = {whole}\nrows = 20\nkind = "mark"\ncolumns = ["", "here", "ill"]\n'
    )
    return Sheet(toml, questions, shrink(image))


LAYOUTS: dict[str, Callable[[Random], Sheet]] = {
    "letters": draw_letters,
    "digits": draw_digits,
    "ticks": draw_ticks,
    "boxes": draw_boxes,
    "table": draw_table,
}


def show(box: Sequence[float]) -> str:
    return str([round(side) for side in box])


def write_choice(name: str, options: str, questions: Sequence[Question], more: str) -> str:
    """The part of a form's file that describes these questions."""
    sides = np.array([box for one in questions for box in one.boxes])
    box = [*sides[:, :2].min(0), *sides[:, 2:].max(0)]
    return f"[choices.{name}]\noptions = {[*options]}\nbox = {show(box)}\n{more}\n"


def shrink(image: Image.Image) -> Image.Image:
    return image.resize(SHEET_SIZE, Image.Resampling.LANCZOS)


def fill_in(sheet: Sheet, rng: Random, doubtful: float = 0.0, around: float = 0.0) -> Image.Image:
    """A copy of the blank, marked by one person; gives the questions their truths. `doubtful` and
    `around` are the shares of questions that are marked in a doubtful way, or not in the box."""
    ink = Image.new("L", (SHEET_SIZE[0] * FINENESS, SHEET_SIZE[1] * FINENESS), 0)  # darkness
    is_round = len(sheet.questions[0].boxes) > 1 and not sheet.questions[0].many
    sheet.pen = choose_pen(rng, is_round)
    for one in sheet.questions:
        mark_question(ink, one, sheet.pen, rng, doubtful, around)
    dark = np.asarray(shrink(ink), np.float32) / 255
    page = np.asarray(sheet.blank, np.float32)
    return Image.fromarray((page * (1 - dark)).round().astype(np.uint8))


def mark_question(
    ink: Image.Image, one: Question, pen: Pen, rng: Random, doubtful: float, around: float
) -> None:
    """Mark some of the bubbles of a question."""
    count = len(one.boxes)
    if one.many or count == 1:
        chosen = [at for at in range(count) if rng.random() < 0.4]
    else:
        chosen = [int(rng.integers(count))] if rng.random() < 0.92 else []
    one.kind = pen.usual if rng.random() < 0.85 else rng.choice(CLEAR_KINDS)
    if rng.random() < doubtful and chosen:
        one.kind = rng.choice(DOUBTFUL_KINDS if count > 1 and not one.many else DOUBTFUL_KINDS[:4])
    is_cell = one.boxes[0][2] - one.boxes[0][0] > MAX_BOX
    if around and chosen and not is_cell and rng.random() < around:
        one.kind, chosen = choose_around(one, rng), chosen[:1]
    one.truth = ",".join(one.options[at] for at in chosen)
    if not chosen:
        one.kind = ""
        return
    first, *others = chosen
    usual = pen.usual
    if one.kind == "across":
        pair = one.boxes[first : first + 2] if first + 1 < count else one.boxes[first - 1 :]
        sides = np.array(pair)
        draw_mark(ink, (*sides[:, :2].min(0), *sides[:, 2:].max(0)), "across", pen, rng)
        one.truth = None
        return
    for at in others:
        draw_mark(ink, one.boxes[at], usual, pen, rng)
        one.drawn[at] = usual
    draw_mark(ink, one.boxes[first], one.kind, pen, rng)
    one.drawn[first] = one.kind
    if one.kind in ("erased", "crossed"):
        kept = [*others]
        if count > 1 and not one.many and rng.random() < 0.7:
            kept = [(first + int(rng.integers(1, count))) % count]
            draw_mark(ink, one.boxes[kept[0]], usual, pen, rng)
            one.drawn[kept[0]] = usual
        one.truth = ",".join(one.options[at] for at in kept)
    if one.kind == "two":
        draw_mark(ink, one.boxes[(first + 1) % count], usual, pen, rng)
        one.drawn[(first + 1) % count] = usual
        one.truth = None


def choose_around(one: Question, rng: Random) -> Kind:
    """A way to mark a question that is not in a box, as far as there is room for it."""
    kind: Kind = rng.choice(AROUND_KINDS)
    if kind == "label" and len(one.boxes) > 1 and not one.many:  # it is in the bubble
        return "circle"
    return "circle" if kind == "across" and len(one.boxes) == 1 else kind


def draw_mark(ink: Image.Image, box: Box, kind: Kind, pen: Pen, rng: Random) -> None:
    """Draw one mark into the darkness of a page."""
    layer = Image.new("L", ink.size, 0)
    draw = ImageDraw.Draw(layer)
    full = 255 - pen.grey
    strokes = list(trace_mark(box, kind, pen, rng))
    for stroke in strokes:
        points = [(x * FINENESS, y * FINENESS) for x, y in stroke]
        draw.line(points, full, round(pen.width * FINENESS), "curve")
    factor = 1.0
    if kind == "faint":
        factor = rng.uniform(0.2, 0.4)
    elif kind == "erased":
        factor = rng.uniform(0.15, 0.35)
    reach = round(4 * max(box[2] - box[0], box[3] - box[1]) * FINENESS)
    left, top = (max(0, round(side * FINENESS) - reach) for side in box[:2])
    area = left, top, round(box[2] * FINENESS) + reach, round(box[3] * FINENESS) + reach
    part = np.asarray(layer.crop(area), np.float32) * factor
    if kind in ("erased", "faint") or pen.grey > 90:  # a pencil's grain
        part *= rng.uniform(0.75, 1.0, part.shape).astype(np.float32)
    old = np.asarray(ink.crop(area), np.float32)
    ink.paste(Image.fromarray(np.maximum(old, part).astype(np.uint8)), area[:2])


def trace_mark(box: Box, kind: Kind, pen: Pen, rng: Random) -> Iterator[NDArray[np.float64]]:
    """The strokes of a mark, (N, 2) each."""
    width, height = box[2] - box[0], box[3] - box[1]
    side = min(width, height)
    middle = (
        np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2]) + rng.normal(0, 0.05, 2) * side
    )
    half = np.array([min(width, 1.6 * side), side]) / 2 * rng.uniform(0.85, 1.05)

    def at(*points: tuple[float, float]) -> NDArray[np.float64]:
        jitter = rng.normal(0, 0.06, (len(points), 2))
        return middle + (np.array(points) + jitter) * half

    def zigzag(start: float, end: float, step: float) -> NDArray[np.float64]:
        angle, points = rng.uniform(-0.8, 0.8), []
        for number, y in enumerate(np.arange(start, end, step)):
            reach = math.sqrt(max(0.05, 1 - y * y)) * rng.uniform(0.8, 1.02)
            points.append((reach * (-1) ** number, y))
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        return middle + (np.array(points) @ turn) * half

    dense = 0.75 * pen.width / half[1]
    if kind in AROUND_KINDS:
        yield trace_around(box, kind, middle, half, rng)
    elif kind == "tick":
        yield at((-0.7, 0.0), (-0.2, 0.7), (0.9, -1.1))
    elif kind == "cross":
        yield from (at((-0.8, -0.8), (0.8, 0.8)), at((0.8, -0.8), (-0.8, 0.8)))
    elif kind == "scribble":
        yield from (zigzag(-0.85, 0.9, 1.4 * dense), zigzag(-0.7, 0.8, 1.6 * dense))
    else:
        yield zigzag(-0.95, rng.uniform(-0.2, 0.1) if kind == "half" else 1.0, dense)
    if kind == "crossed":
        yield from (at((-1.9, -1.7), (1.9, 1.7)), at((1.9, -1.7), (-1.9, 1.7)))


def trace_around(
    box: Box, kind: Kind, middle: NDArray[np.float64], half: NDArray[np.float64], rng: Random
) -> NDArray[np.float64]:
    """The stroke (N, 2) of a mark that is not in its box, of which these are the middle and half
    the sides."""
    if kind in ("circle", "label"):
        angles = rng.uniform(0, 6) + np.linspace(0, rng.uniform(6.0, 6.8), 40)
        wobble = 1 + 0.06 * np.sin(2 * angles + rng.uniform(0, 6))
        size = rng.uniform(1.45, 1.8, 2) if kind == "circle" else rng.uniform(0.8, 1.2, 2)
        points = np.stack([np.cos(angles), np.sin(angles)], 1) * size * wobble[:, None]
        return middle + (points + (2.5 if kind == "label" else 0, 0)) * half
    if kind == "strike":
        slope = rng.uniform(-0.8, 0.8)
        return middle + np.array([(-1.5, slope), (1.6, -slope)]) * half
    if kind == "beside":
        place = [(-1.7, 0.0), (0.0, 1.75), (-1.5, 1.5), (0.0, -1.75)][rng.integers(4)]
        return middle + (np.array([(-0.35, 0), (-0.1, 0.3), (0.45, -0.4)]) + place) * half
    side = min(box[2] - box[0], box[3] - box[1])  # across: the box is around two
    ends = np.array([box[:2], box[2:]]) + [[side / 2], [-side / 2]]
    return np.asarray(ends + rng.normal(0, 0.15, (2, 2)) * side)


def photograph(page: Image.Image, rng: Random, difficulty: float = 1.0) -> NDArray[np.uint8]:
    """The page as a phone sees it: from an angle, in uneven light, a little blurred, with grain."""
    width, height = SHEET_SIZE
    zoom = rng.uniform(0.8, 1.6)
    size = round(width * zoom * 1.1), round(height * zoom * 1.1)
    frame = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    corners = frame * zoom + np.array(size) * 0.045
    corners = corners + rng.normal(0, 0.012 * difficulty, (4, 2)) * size
    angle = np.radians(rng.normal(0, 1.5 * difficulty))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.array(size) / 2
    corners = ((corners - middle) @ turn + middle).astype(np.float32)
    matrix = cv2.getPerspectiveTransform(frame, corners)
    seen = cv2.warpPerspective(
        np.asarray(page), matrix, size, flags=cv2.INTER_AREA, borderValue=int(rng.integers(60, 160))
    ).astype(np.float32)
    seen = cv2.GaussianBlur(seen, (0, 0), rng.uniform(0.5, 1.2) * zoom * difficulty)
    y, x = np.mgrid[0 : size[1], 0 : size[0]].astype(np.float32)
    along = rng.uniform(0, 2 * np.pi)
    slope = (x / size[0] - 0.5) * np.cos(along) + (y / size[1] - 0.5) * np.sin(along)
    light = rng.uniform(0.7, 1.0) * (1 - rng.uniform(0, 0.5) * difficulty * (slope + 0.5))
    edge = rng.uniform(0.2, 0.8) * size[0]
    shadow = 1 / (1 + np.exp(((x + rng.uniform(-0.3, 0.3) * y - edge) / (12 * zoom)).clip(-50, 50)))
    light *= 1 - rng.uniform(0, 0.35) * difficulty * shadow
    seen = seen * light + rng.normal(0, rng.uniform(1, 4) * difficulty, seen.shape)
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(60, 92))]
    encoded = cv2.imencode(".jpg", seen.clip(0, 255).astype(np.uint8), quality)[1]
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE))
