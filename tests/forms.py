"""Draws forms, pages with them, and photos of pages, for the tests."""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from digitq.protocol.asked.form import Field, Form, Table
from digitq.protocol.asked.form_file import Box
from digitq.protocol.asked.known import Known
from digitq.worker.picture import Grey
from digitq.worker.sight.forms.perspective import HALF, Points, project

WIDTH, HEIGHT = 850, 1100  # px: a page
FONT = cv2.FONT_HERSHEY_SIMPLEX
BOXES: dict[str, Box] = {
    "student": (420, 130, 740, 170),
    "valid": (600, 420, 720, 460),
    "invalid": (600, 500, 720, 540),
    "total": (600, 580, 720, 620),
}
TABLE: Box = (100, 700, 740, 1000)  # with a header, six rows and four columns
COLUMNS, ROWS = (100, 300, 430, 590, 740), (700, 740, 785, 825, 870, 910, 955, 1000)


def draw_words(page: Grey, seed: int, left: int, top: int, size: float = 0.6) -> None:
    """Print three words at a place."""
    letters = [*"abcdefghiklmnoprstuvwyz"]
    rng = np.random.default_rng(seed)
    text = " ".join("".join(rng.choice(letters, rng.integers(3, 9))) for _ in range(3))
    cv2.putText(page, text, (left, top), FONT, size, 0, 1, cv2.LINE_AA)


def draw_lines(page: Grey, columns: tuple[int, ...], rows: tuple[int, ...]) -> None:
    for x in columns:
        cv2.line(page, (x, rows[0]), (x, rows[-1]), 0, 2)
    for y in rows:
        cv2.line(page, (columns[0], y), (columns[-1], y), 0, 2)


def draw_blank(seed: int = 0) -> Grey:
    """A form with four fields, a table and a lot of printed words, which `seed` chooses."""
    page = np.full((HEIGHT, WIDTH), 255, np.uint8)
    draw_words(page, seed, 120, 80, 1.2)
    for number, top in enumerate([120, 150, 220, 260, 300, 340, 440, 520, 600, 660, 1050]):
        draw_words(page, 100 * seed + number + 1, 60 + 10 * (number % 3), top)
    for left, top, right, bottom in BOXES.values():
        step = round(bottom - top)
        draw_lines(page, (*range(int(left), int(right) + 1, step),), (int(top), int(bottom)))
    draw_lines(page, COLUMNS, ROWS)
    for number, left in enumerate(COLUMNS[:-1]):
        draw_words(page[:, : COLUMNS[number + 1]], seed + number + 50, left + 8, 728, 0.45)
    return page


def make_form(blank: Grey) -> Form:
    """The form with that blank: four fields, and a table without its header and first column."""
    left, _, right, bottom = TABLE
    return Form(
        cv2.imencode(".png", blank)[1].tobytes(),
        "page",
        tuple(Field(name, box, Known()) for name, box in BOXES.items()),
        (Table("marks", (left, ROWS[1], right, bottom), 6, ("", "c1", "c2", "c3"), Known()),),
        (),
    )


def cell_boxes() -> list[Box]:
    """The place of each cell of `make_form`, in px of the blank."""
    cells: list[Box] = [*BOXES.values()]
    for top, bottom in zip(ROWS[1:-1], ROWS[2:], strict=True):
        cells += [
            (left, top, right, bottom)
            for left, right in zip(COLUMNS[1:-1], COLUMNS[2:], strict=True)
        ]
    return cells


def fill(blank: Grey, seed: int = 0) -> Grey:
    """The page with a number written into each cell."""
    page, rng = blank.copy(), np.random.default_rng(seed)
    for left, top, _, bottom in cell_boxes():
        place = int(left + rng.integers(2, 12)), int(bottom - rng.integers(2, 10))
        number = f"{rng.integers(10, 999)}"
        cv2.putText(page, number, place, FONT, (bottom - top) / 35, 40, 2, cv2.LINE_AA)
    return page


def take_photo(
    page: Grey, corners: list[tuple[float, float]], size: tuple[int, int], desk: int = 90
) -> tuple[Grey, Callable[[Points], Points]]:
    """The page with its corners (clockwise from the upper left one) at these places of a photo.

    Also gives the function from px of the page to px of the photo.
    """
    height, width = page.shape
    frame = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    matrix: NDArray[np.float64] = cv2.getPerspectiveTransform(frame, np.array(corners, np.float32))
    centred = np.linalg.inv(HALF) @ matrix @ HALF
    photo = cv2.warpPerspective(page, centred, size, flags=cv2.INTER_AREA, borderValue=desk)
    return np.asarray(photo), lambda points: project(matrix, points)
