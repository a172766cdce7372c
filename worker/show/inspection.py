"""`digitq inspect IMAGE...`: draws each step from an image to its answer."""

import sys
import textwrap
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pyarrow as pa
from numpy.typing import NDArray
from PIL.ImageDraw import Draw, ImageDraw

from digitq.protocol.asked.form import Form
from digitq.protocol.asked.known import Known
from digitq.protocol.asked.risk import Risk
from digitq.protocol.chunk import ABSENT, Chunk, FoundDigit, Reason
from digitq.protocol.errors import UsageError
from digitq.protocol.host.fonts import load_font
from digitq.protocol.settings import NUMBER
from digitq.worker.classify import (
    MIN_DIGIT_CONFIDENCE,
    TTA_BELOW,
    classify_chunk,
    combine_views,
    watch,
)
from digitq.worker.models.lent import describe_weights
from digitq.worker.models.model import Model, load_model
from digitq.worker.models.second_reader import use_second_reader
from digitq.worker.picture import ImageError, error_of_row
from digitq.worker.show.drawings import Inspected, draw_file, read
from digitq.worker.sight.decoding.any_file import read_picture
from digitq.worker.sight.decoding.pillow import (
    decode_image,
    measure_image,
    prepare_libraries,
    to_picture,
)
from digitq.worker.sight.decoding.scales import DECODED_SIDE, size_of
from digitq.worker.sight.digits import trace_digit, trace_other_views
from digitq.worker.sight.forms.alignment import is_plausible
from digitq.worker.sight.forms.cutting import MIN_BLANK_SIDE, PAGE_SIDE
from digitq.worker.sight.forms.perspective import to_corners, warp
from digitq.worker.sight.normalisation.colours import to_grey
from digitq.worker.sight.normalisation.steps import SCALES, Step, Views
from digitq.worker.sight.numbers.recognition import read_number

ORIGINAL_SIDE = 168  # px: the shorter side to which the original is decoded
PANELS_A_ROW = 6
PLACED_QUALITY = 92  # of a JPEG: a page that a person has placed
WIDTH = 1100  # px: the width of the picture
PANEL_WIDTH, PANEL_HEIGHT = 180, 236  # px: with the caption and the space to the next one
CAPTION_HEIGHT = 36  # px: two lines
PANEL_SIDES = (164, 186)  # px: a step's image is as large as it fits into these
NUMBER_HEIGHT = 900  # px: the picture of a number is at most as high
MARGIN = 12  # px
BAR_WIDTH, BAR_HEIGHT = 970, 20  # px: for a probability of 1; with the space to the next one
TITLE_FONT, FONT = 18, 13  # px
HEADLINE_CHARACTERS = 100  # a longer headline is wrapped
BAR_CHARACTERS = 40  # the length of the bar of a probability of 1, in the terminal
DOUBTS: dict[Reason, str] = {  # the reasons for a review that an image's steps give, in sentences
    "several digits": "another shape in the image may be a digit too",
    "too solid": "it is too solid for strokes",
    "pages": "the file has more pages than this",
}
STEP_NAMES = {"centre": "seen"}  # a clearer name than the step's function has
Panels = list[list[tuple[str, PIL.Image.Image]]]  # names and images, a list for each scale


def collect_panels(content: bytes, panels: Panels) -> Step:
    """Add the original and the image after each step to `panels`; gives the last step.

    Raises `ImageError` if a step does. Then `panels` has the steps before it.
    """
    watch.forget()
    with watch.running(), watch.on(0):
        original = decode_image(content, ORIGINAL_SIDE)
    watch.forget()  # a worker does not decode the original
    width, height = measure_image(content)
    panels.append([(f"original\n{width} x {height}", to_shown(original))])
    with watch.running(), watch.on(0):
        for step in trace_digit(content):
            if step.name in list(SCALES)[1:]:
                panels.append([])
            height, width = step.image.shape
            name = STEP_NAMES.get(step.name, step.name.replace("_", " "))
            shown = PIL.Image.fromarray(step.image)
            panels[-1].append((f"{name}\n{width} x {height}", shown))
    return step


def to_shown(image: PIL.Image.Image) -> PIL.Image.Image:
    """The image in grey, or in colours with an alpha channel."""
    deep = image.mode.startswith(("I", "F"))
    return PIL.Image.fromarray(to_picture(image)) if deep else image.convert("RGBA")


def answer(
    content: bytes, digit: Step, model: Model, panels: Panels
) -> tuple[float, NDArray[np.float32]]:
    """The confidence in the first view, and the ten probabilities that a worker would give.

    Other views that the network saw are added to `panels` with its answer to each.
    """
    first = model.classify(digit.image.reshape(1, -1))[0]
    views: Views = {}
    if first.max() < TTA_BELOW:
        with suppress(Exception), watch.running(), watch.on(0):  # a worker ignores them, too
            *_, views = trace_other_views(content)
    if views:
        seen = {"at first": digit.image} | views
        answers = model.classify(np.stack([*seen.values()]).reshape(len(seen), -1))
        panels.append([])
        for (name, view), row in zip(seen.items(), answers, strict=True):
            title = f"{name.replace('_', ' ')}\n{row.argmax()}, {row.max():.0%} sure"
            panels[-1].append((title, PIL.Image.fromarray(view)))
    return float(first.max()), combine_views(model, first, views)


def start_picture(headline: str, height: int) -> tuple[PIL.Image.Image, ImageDraw, int]:
    """A picture with its headline and this height below it; and where that begins, in px."""
    title = textwrap.fill(headline, HEADLINE_CHARACTERS)
    top = 2 * MARGIN + round(1.3 * TITLE_FONT) * (1 + title.count("\n"))
    picture = PIL.Image.new("RGB", (WIDTH, top + height), "white")
    draw = Draw(picture)
    draw.text((MARGIN, MARGIN), title, "black", load_font(TITLE_FONT))
    return picture, draw, top


def place(
    picture: PIL.Image.Image, image: PIL.Image.Image, left: int, top: int, sides: tuple[int, int]
) -> float:
    """Draw an image with a frame, as large as it fits into the sides; gives its enlargement."""
    factor = min(larger / side for larger, side in zip(sides, image.size, strict=True))
    width, height = (max(1, round(side * factor)) for side in image.size)
    how = PIL.Image.Resampling.NEAREST if factor > 1 else PIL.Image.Resampling.BOX
    image = image.convert("RGBA").resize((width, height), how)
    frame = (left - 1, top - 1, left + width, top + height)
    Draw(picture).rectangle(frame, fill="#cccccc", outline="#bbbbbb")
    picture.paste(image, (left, top), image)
    return factor


def draw_steps(
    panels: Panels, probabilities: NDArray[np.float32] | None, headline: str
) -> PIL.Image.Image:
    """Draw the panels in rows, and below them the ten probabilities as horizontal bars."""
    rows = [
        scale[start : start + PANELS_A_ROW]
        for scale in panels
        for start in range(0, len(scale), PANELS_A_ROW)
    ]
    bars = [] if probabilities is None else probabilities.tolist()
    height = PANEL_HEIGHT * len(rows) + BAR_HEIGHT * len(bars) + MARGIN
    picture, draw, top = start_picture(headline, height)
    font = load_font(FONT)
    for row in rows:
        for column, (name, image) in enumerate(row):
            left = MARGIN + column * PANEL_WIDTH
            draw.text((left, top), name, "black", font)
            place(picture, image, left, top + CAPTION_HEIGHT, PANEL_SIDES)
        top += PANEL_HEIGHT
    for digit, probability in enumerate(bars):
        left, middle = 3 * MARGIN, top + BAR_HEIGHT // 2
        end = left + round(probability * BAR_WIDTH)
        draw.rectangle((left, top + 2, end, top + BAR_HEIGHT - 3), "#2b6cb0")
        draw.text((MARGIN, middle), f"{digit}", "black", font, "lm")
        draw.text((end + MARGIN // 2, middle), f"{probability:.2%}", "black", font, "lm")
        top += BAR_HEIGHT
    return picture


def draw_boxes(
    image: NDArray[np.uint8], size: tuple[int, int], digits: list[FoundDigit], headline: str
) -> PIL.Image.Image:
    """Draw an image with a box around each digit, in px of the image's `size` in its file."""
    sides, shown = (WIDTH - 2 * MARGIN, NUMBER_HEIGHT), PIL.Image.fromarray(image)
    height = min(sides[1], round(sides[0] * shown.height / shown.width))
    picture, draw, top = start_picture(headline, height + MARGIN)
    factor = place(picture, shown, MARGIN, top, sides) * shown.width / size[0]
    for digit in digits:
        corners = [factor * side for side in digit[2:]]
        box = [start + side for start, side in zip((MARGIN, top) * 2, corners, strict=True)]
        draw.rectangle(box, outline="red", width=2)
        draw.text((box[0], box[1] - 3), f"{digit.digit}", "red", load_font(TITLE_FONT), "lb")
    return picture


def list_probabilities(probabilities: NDArray[np.float32], block: str = "█") -> list[str]:
    """Ten lines with a bar each."""
    return [
        f"{digit}  {probability:7.2%}  {block * round(probability * BAR_CHARACTERS)}".rstrip()
        for digit, probability in enumerate(probabilities.tolist())
    ]


def find_doubt(first: float, confidence: float, below: float, review_reason: Reason) -> str:
    """Why the answer is to be reviewed; "" if it is not. `first` is the first view's confidence."""
    if confidence < MIN_DIGIT_CONFIDENCE:
        return "it does not look like a digit"
    if review_reason:
        return DOUBTS[review_reason]
    if confidence < below:
        return f"below {below:.2%}"
    return f"only {first:.2%} sure at first" if first < below else ""


def inspect(path: Path, out: Path | None, name: str, known: Known | Form) -> int:
    """Draw the picture and print the answer; gives the exit status, 1 if the image can't be read.

    Raises `UsageError`, `OutputError`.
    """
    look: Callable[[bytes, str], Inspected] = partial(inspect_digit, name=name, risk=known.risk)
    if isinstance(known, Form):
        look = partial(inspect_page, form=known)
    elif name == NUMBER:
        look = partial(inspect_number, known=known)
    return draw_file(path, out, read(path), look)


def inspect_number(content: bytes, title: str, known: Known) -> Inspected:
    """The number with its alternatives, and the picture with a box around each digit."""
    watch.forget()
    try:
        with watch.running(), watch.on(0), use_second_reader(known.second_reader):
            reading = read_number(content, known)
            picture = read_picture(content, DECODED_SIDE)
    except Exception as error:
        return [f"{title}: {error_of_row(error)}"], None, 1
    headline = f"{title}: {reading.number or 'nothing'}, {reading.confidence:.2%} sure"
    if reading.reason:
        headline += f", to review: {reading.reason}"
    lines = [headline]
    for digit in reading.digits:
        box = " ".join(f"{side:g}" for side in digit[2:])
        lines.append(f"{digit.digit}  {digit.confidence:7.2%}  at {box}")
    lines += [f"or {number}  {probability:.2%}" for number, probability in reading.alternatives]
    size = size_of(content, picture.shape)
    return lines, draw_boxes(picture, size, reading.digits, headline), 0


def answer_page(content: bytes, form: Form) -> list[dict[str, Any]]:
    """A row of results for each field of a page."""
    ids = [f"/{cell.id}" for cell in form.cells]
    images = pa.array([content, *[None] * (len(ids) - 1)], pa.binary())
    chunk = Chunk(0, pa.record_batch({"id": ids, "image": images}))
    rows: list[dict[str, Any]] = classify_chunk(chunk, NUMBER, known=form).to_pylist()
    return rows


def read_placed(known: Path, page: Path, corners: list[Any], out: Path) -> dict[str, Any]:
    """Read a page on which a person has shown the form's corners (4, 2), as shares of the picture's
    sides, clockwise from the corner that is the form's own left upper one.

    The form alone is written as a picture, upright, and this is read. Gives the rows, and the
    weights that answered. `known` has the form as it travels. Raises `UsageError`.
    """
    form = Form.decode(known.read_bytes())
    try:
        prepare_libraries()
        grey = to_grey(read_picture(page.read_bytes(), PAGE_SIDE))
        blank = to_grey(read_picture(form.blank, MIN_BLANK_SIDE)) if form.blank else grey
    except ImageError as error:
        raise UsageError(str(error)) from None
    placed = np.array(corners) * grey.shape[::-1]
    sides = np.linalg.norm(placed - np.roll(placed, 1, axis=0), axis=1)
    across = max(1, round(max(sides[1], sides[3])))
    ratio = blank.shape[0] / blank.shape[1] if form.blank else max(sides[0], sides[2]) / across
    size = across, max(1, round(across * ratio))
    frame = to_corners((0, 0, *size)).astype(np.float32)
    matrix = cv2.getPerspectiveTransform(frame, placed.astype(np.float32))
    if not is_plausible(matrix, size, grey.shape):
        raise UsageError("these are no corners of a form, seen from its front")
    PIL.Image.fromarray(warp(grey, matrix, size)).save(out, "jpeg", quality=PLACED_QUALITY)
    rows = answer_page(out.read_bytes(), form)
    with use_second_reader(form.second_reader):
        return {"rows": rows, "weights": describe_weights(NUMBER)}


def inspect_page(content: bytes, title: str, form: Form) -> Inspected:
    """The number in each field of a page, and the picture with a box around each digit."""
    rows = answer_page(content, form)
    lines, found = list[str](), list[FoundDigit]()
    for cell, row in zip(form.cells, rows, strict=True):
        if row["reason"] == ABSENT:
            continue
        answer = row["error"] or f"{row['number'] or 'nothing'}, {row['confidence']:.2%} sure"
        reason = f", to review: {row['reason']}" if row["reason"] and not row["error"] else ""
        lines.append(f"{cell.id}: {answer}{reason}")
        found += [FoundDigit(**digit) for digit in row["digits"] or ()]
    errors = {row["error"] for row in rows}
    if None not in errors:
        return [f"{title}: {' / '.join(map(str, errors))}"], None, 1
    headline = f"{title}: {len(lines)} fields, {sum(row['review'] for row in rows)} to review"
    picture = read_picture(content, PAGE_SIDE)
    size = size_of(content, picture.shape)
    return [headline, *lines], draw_boxes(picture, size, found, headline), int(errors != {None})


def inspect_digit(content: bytes, title: str, name: str, risk: Risk | None) -> Inspected:
    """The digit with its probabilities, and the picture of the steps as far as they went."""
    panels: Panels = []
    try:
        digit = collect_panels(content, panels)
    except Exception as error:
        headline = f"{title}: {error_of_row(error)}"
        return [headline], draw_steps(panels, None, headline) if panels else None, 1
    model = load_model(name)
    below = model.card.find_threshold(risk)
    first, probabilities = answer(content, digit, model, panels)
    confidence = float(probabilities.max())
    headline = f"{title}: {probabilities.argmax()}, {confidence:.2%} sure by {name}"
    if doubt := find_doubt(first, confidence, below, digit.review_reason):
        headline += f", to review: {doubt}"
    is_utf = sys.stdout.encoding.lower().startswith("utf")
    lines = [headline, *list_probabilities(probabilities, "█" if is_utf else "#")]
    return lines, draw_steps(panels, probabilities, headline), 0
