"""Tells ink from paper where no digit is seen: lines, boxes and dots of a form are paper."""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from digitq.worker.picture import Grey

INK_SIDE = 300  # px: ink is measured in a picture whose longer side is at most this
INK_CONTRAST = 24  # ink differs from the paper around it by more than this, in grey values
PAPER_SIDE = 21  # px: the paper around a px is the median of a square with this side
LINE_LENGTH = 25  # px: ink in a run of this length may be a line of a form
DOT_GAP = 7  # px: dots and dashes that are at most so far apart may be one line
LINE_RIM = 5  # px: the edge of a line, and what smears beside it, is within a square of this side
PRINTED_RIM = 9  # px: the same for what is printed on a blank, which is aligned to a few px
MIN_LINE_SPAN = 0.7  # a form's line spans at least this share of the picture, or reaches its edge
MAX_CUT = 0.2  # what reaches at most this far into the picture is cut off from a neighbour
MIN_STROKE = 0.12  # a stroke is at least so long, in shorter sides of the picture
MIN_STROKE_PX = 6  # px: ... and at least this long; a speck or a dot of a form is shorter
MIN_PEN_PX = 1.5  # px: the mean width of a stroke is at least this; fine lines of forms are thinner
FAINT_CONTRAST = 5  # even a pale pencil is darker than the paper by more than this, in grey values
FAINT_SIDE = 48  # px: pale ink is measured in a picture with a shorter side of this length
PEN_SIDE = 21  # px: what is wider there is no ink, but shadow
MARGIN_PX = 10  # px: ... and without a blank, lines of the form may be so near to the edge
FAINT_STROKE = (8, 16)  # px: ... and a stroke has at least this length and area
PRINT_GAIN = 2.0  # print may be so many times as dark on a page as on the blank
Ink = NDArray[np.uint8]  # (height, width): 1 where there is ink


def find_ink(picture: Grey) -> Ink:
    """The ink in a picture whose longer side is shrunk to INK_SIDE."""
    scale = min(1.0, INK_SIDE / max(picture.shape))
    height, width = (max(1, round(side * scale)) for side in picture.shape)
    small = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    contrast = cv2.absdiff(small, cv2.medianBlur(small, PAPER_SIDE))
    return np.asarray(contrast > INK_CONTRAST, np.uint8)


def find_runs(ink: Ink) -> Ink:
    """The ink that is in a long run across or down."""
    along, down = (
        cv2.morphologyEx(ink, cv2.MORPH_OPEN, np.ones(shape, np.uint8))
        for shape in ((1, LINE_LENGTH), (LINE_LENGTH, 1))
    )
    return np.asarray(along | down)


def has_strokes(picture: Grey, printed: Grey | None = None) -> bool:
    """Whether something is written in a picture without digits, such as a dash or a tick.

    `printed` is the same part of an empty form, if there is one: what it shows is no stroke.
    Otherwise, long lines are none.
    """
    ink = find_ink(picture)
    if printed is None:
        ink[find_lines(ink, MIN_LINE_SPAN) > 0] = 0
    else:
        near = cv2.dilate(find_ink(printed), np.ones((PRINTED_RIM, PRINTED_RIM), np.uint8))
        ink[(find_lines(ink, math.inf) | near) > 0] = 0
    count, _, boxes, _ = cv2.connectedComponentsWithStats(ink)
    return any(is_stroke(box, ink.shape) for box in boxes[1:count].tolist())


def has_ink(picture: Grey, printed: Grey | None, contrast: float = FAINT_CONTRAST) -> bool:
    """Whether there may be ink in a place, also pale ink: strokes that are darker by more than this
    contrast, and not printed on the blank; without a blank, in the middle of the place."""
    dark = measure_darkness(picture)
    if printed is None:
        dark = dark[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX]
    else:
        near = cv2.dilate(measure_darkness(printed), np.ones((PRINTED_RIM, PRINTED_RIM), np.uint8))
        dark = np.asarray(cv2.subtract(dark, cv2.convertScaleAbs(near, alpha=PRINT_GAIN)))
    count, _, boxes, _ = cv2.connectedComponentsWithStats(np.asarray(dark > contrast, np.uint8))
    height, (min_length, min_area) = len(dark), FAINT_STROKE
    return any(
        max(wide, high) >= min_length
        and area >= min_area
        # What is written above or below may reach into the place
        and not (printed is not None and high <= MAX_CUT * height and top in (0, height - high))
        for _, top, wide, high, area in boxes[1:count].tolist()
    )


def measure_darkness(picture: Grey) -> Grey:
    """How much darker each px is than the paper around it, where it may be of a stroke."""
    scale = FAINT_SIDE / min(picture.shape)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    smooth = cv2.GaussianBlur(
        cv2.resize(picture, None, fx=scale, fy=scale, interpolation=how), (0, 0), 1
    )
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (PEN_SIDE, PEN_SIDE))
    return np.asarray(cv2.morphologyEx(smooth, cv2.MORPH_BLACKHAT, disc))


def find_lines(ink: Ink, min_span: float) -> Ink:
    """The lines of a form, with their edges: long runs, also of dots, that span this share of the
    picture's width or height, reach its edge, or go from one such line to another."""
    height, width = ink.shape
    lines = np.zeros_like(ink)
    runs = [(axis, *label_runs(ink, axis)) for axis in (0, 1)]
    for _, labels, boxes in runs:
        left, top, wide, high, _ = boxes.T
        is_line = (wide >= min_span * width) | (high >= min_span * height)
        is_line |= (left == 0) | (top == 0) | (left + wide == width) | (top + high == height)
        is_line[0] = False  # what is no run
        lines |= is_line[labels]
    between = np.zeros_like(ink)
    for axis, labels, boxes in runs:
        for label in range(1, len(boxes)):
            places = np.nonzero(labels == label)
            along, on_line = places[1 - axis], lines[places] > 0
            if on_line[along == along.min()].any() and on_line[along == along.max()].any():
                between[places] = 1
    return lines | between


def label_runs(ink: Ink, axis: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The long runs across (axis 0) or down, with their edges: the number of each px's run, 0 for
    none, and the box of each run."""
    gap, run = ((length, 1) if axis else (1, length) for length in (DOT_GAP, LINE_LENGTH))
    closed = cv2.morphologyEx(ink, cv2.MORPH_CLOSE, np.ones(gap, np.uint8))
    found = cv2.morphologyEx(closed, cv2.MORPH_OPEN, np.ones(run, np.uint8))
    _, labels, boxes, _ = cv2.connectedComponentsWithStats(
        cv2.dilate(found, np.ones((LINE_RIM, LINE_RIM), np.uint8))
    )
    return np.asarray(labels), np.asarray(boxes)


def is_stroke(box: list[int], shape: tuple[int, ...]) -> bool:
    """Whether a piece of ink, with its left, top, width and height, is long enough, and no rest of
    what is written beside the picture."""
    left, top, wide, high, area = box
    height, width = shape
    length = max(wide, high)
    if length < max(MIN_STROKE_PX, MIN_STROKE * min(shape)) or area < MIN_PEN_PX * length:
        return False
    at_side = (left == 0 or left + wide == width) and wide <= MAX_CUT * width
    at_edge = (top == 0 or top + high == height) and high <= MAX_CUT * height
    return not (at_side or at_edge)
