"""A digit on a panel: on a plate or a disc, on a sheet on a desk, on a page beside a desk."""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.normalisation.lines import remove_lines
from worker.pictures import Grey, Mask

Outline = NDArray[np.int32]
Corners = tuple[tuple[float, float], ...]  # of its width and height, from the upper left on around
Window = tuple[float, float, float, float]  # of an image's height and width: from, to, from, to

MIN_BAR = 0.04  # of the image's side: a strip of a desk is thicker
LEAST = 0.12  # of the image is the box of a plate
RECTANGLE = 0.93  # of the smallest rectangle around it, which may be tilted
DISC = 0.93  # of the smallest circle around it
TILT = 25  # degrees
MIN_PLATE_WIDTH, MAX_PLATE_WIDTH = 0.75, 2.5  # times as wide as high: else it may be a thick 0
MIN_PLATE_INK = 0.7  # of it is ink: more than of a digit
MIN_PLATE_DIGIT = 0.25  # of its shorter side a digit is high at least
MIN_CONVEX_FILL = 0.9  # of its hull: a fuller shape is convex
MIN_HOLE_GROUND = 0.8  # of a hole: the hole of a 0 has more ground
STROKES = 30  # times its area, or more, is the square of the edge of what is made of strokes
MAX_SLIM_WIDTH = 0.35  # as wide as long, or less, is the hole that a 1 makes
PLATE_RIM = 0.03  # of its shorter side is cut off
SHEET = 0.9  # of a sheet is as light as it is, or more: all but a digit
ASLANT = 0.85  # of the smallest rectangle around it
FOUR_SIDES = 0.95  # of the area between its corners, at least, and that of its own
PORTRAIT = 0.6  # times as wide as high, or wider: A4 is 0.71
MIN_SHEET = 14  # px: a side of it
DARKER = 0.85  # of the lightest are three corners of the image, at most: these are of the desk
BLURRED = 1.25  # px at its edges: these are of the desk as well
LIGHT = 0.1  # of what is around it, at most, is as light as the sheet
MAX_STRIP_DEPTH = 0.35  # of the image's side is a strip at an edge of it, at most
MIN_STRIP_COVER = 0.5  # of an edge there is such a strip, or more
PIECE = 0.1  # of the page's side: a longer one at the desk may be of a digit
MIN_PAGE_DIGIT = 0.15  # of it: a digit on a page beside a desk is as long, or longer
DISC_MARGIN = 0.08  # of the longer side of a digit on a disc is left around it


def find_panel(ink: Grey) -> Window | None:
    """The part of the image that has a digit on it, if the ink is that part and the digit a hole in
    it, or if the ink has strips beside that part."""
    mask = cv2.threshold(ink, 127, 1, cv2.THRESH_BINARY)[1]
    if cv2.countNonZero(mask) >= LEAST * MIN_PLATE_INK * mask.size and (plate := find_plate(mask)):
        return plate
    row, column = mask.shape[0] // 2, mask.shape[1] // 2
    if mask[0, column] or mask[-1, column] or mask[row, 0] or mask[row, -1]:
        return beside_strips(ink, mask)
    return None


def beside_strips(ink: Grey, mask: Mask) -> Window | None:
    """The part of the image that is a page, where the desk beside it is seen at edges of the
    image; what may be a digit is in that part, away from its edges, and the largest shape but for
    lines."""
    height, width = mask.shape
    top, left, bottom, right = (
        measure_strip(part) for part in (mask, mask.T, mask[::-1], mask[:, ::-1].T)
    )
    page = ink[top : height - bottom, left : width - right]
    if page.size == ink.size or min(page.shape) < MIN_SHEET:
        return None
    page = remove_lines(np.ascontiguousarray(page))
    _, _, stats, _ = cv2.connectedComponentsWithStats((page > 0).view(np.uint8), ltype=cv2.CV_16U)
    x, y, w, h, _ = stats[1:].T
    edges = np.stack([y == 0, x == 0, y + h == page.shape[0], x + w == page.shape[1]])
    cut_off = edges[np.array([top, left, bottom, right]) > 0].any(axis=0)
    at_edge = edges.any(axis=0)
    length = np.maximum(w, h) / min(page.shape)
    largest = length[~at_edge].max(initial=0)
    others = length[at_edge].max(initial=0)
    if largest < max(MIN_PAGE_DIGIT, others) or length[cut_off].max(initial=0) > PIECE:
        return None
    return top / height, 1 - bottom / height, left / width, 1 - right / width


def measure_strip(mask: Mask) -> int:
    """How many rows at the top of a mask a strip of ink takes, with some to spare; it may be
    tilted, and there may be others at the sides."""
    if np.count_nonzero(mask[0]) < MIN_STRIP_COVER * mask.shape[1]:
        return 0
    height, width = mask.shape
    deep = np.minimum.accumulate(mask, axis=0).sum(axis=0)
    strip = deep[(deep > 0) & (deep < MAX_STRIP_DEPTH * height)]
    if len(strip) < MIN_STRIP_COVER * width or strip.max() < MIN_BAR * height:
        return 0
    if strip.max() > 2 * np.median(strip) + 2:  # no straight edge has it, however tilted
        return 0  # as a line with the bar of a 7 along it
    return int(strip.max()) + round(PLATE_RIM * len(mask)) + 1


def find_plate(mask: Mask) -> Window | None:
    """The part of the image that is a plate with a digit on it: a rectangle or anything convex."""
    height, width = mask.shape
    outlines, tree = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    around = tree[0, :, 3].tolist()  # which outline a hole lies in
    if max(around) < 0:
        return None
    sizes = [cv2.contourArea(outline) for outline in outlines]
    largest = max((n for n, of in enumerate(around) if of < 0), key=sizes.__getitem__)
    outline, size = outlines[largest], sizes[largest]
    holes = [hole for hole, of in zip(outlines, around, strict=True) if of == largest]
    left, top, w, h = cv2.boundingRect(outline)
    narrow = not MIN_PLATE_WIDTH * h <= w <= MAX_PLATE_WIDTH * h
    if (
        not holes
        or w * h < max(LEAST * mask.size, 1)
        or (w, h) == (width, height)
        or cv2.countNonZero(mask[top : top + h, left : left + w]) < MIN_PLATE_INK * size
        or is_of_0(hole := max(holes, key=cv2.contourArea), mask, narrow)
        or cv2.boundingRect(hole)[3] < MIN_PLATE_DIGIT * min(w, h)
    ):
        return None
    if is_rectangle(outline, size):
        if narrow and w < width and h < height:
            return None
        down, right = measure_margins(outline)
    elif is_disc(outline, size) or is_convex(outline, size) and is_digit(hole, mask):
        left, top, w, h = cv2.boundingRect(np.concatenate(holes))
        down = right = -round(DISC_MARGIN * max(w, h))
    else:
        return None
    return (
        max(0, top + down) / height,
        min(height, top + h - down) / height,
        max(0, left + right) / width,
        min(width, left + w - right) / width,
    )


def find_sheet(grey: Grey) -> Corners | None:
    """The corners of a light sheet, about a rectangle, on a darker desk; without the sheet's rim,
    unless the sheet goes on to the edge of the image."""
    if sorted(corner_values(grey))[2] > DARKER * cv2.minMaxLoc(grey)[1]:
        return None  # as usual
    mask = cv2.threshold(grey, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[1]
    light = cv2.countNonZero(mask)
    if sum(corner_values(mask)) > 1 or light < LEAST * SHEET * mask.size:
        return None
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = max(outlines, key=cv2.contourArea)
    corners, size = find_corners(outline), cv2.contourArea(outline)
    left, top, w, h = cv2.boundingRect(outline)
    height, width = mask.shape
    if (
        min(w, h) < MIN_SHEET
        or w * h < LEAST * mask.size
        or not PORTRAIT * h <= w <= MAX_PLATE_WIDTH * h
        or not is_rectangle(outline, size, ASLANT)
        or not FOUR_SIDES <= size / max(cv2.contourArea(corners), 1) <= 1 / FOUR_SIDES
    ):
        return None
    sheet = cv2.drawContours(np.zeros_like(mask), [outline], -1, 1, cv2.FILLED)
    covered, lit = cv2.countNonZero(sheet), cv2.countNonZero(mask & sheet)
    if lit < SHEET * covered or light - lit > LIGHT * (mask.size - covered):
        return None
    x0, x1 = BLURRED / w * (left > 0), 1 - BLURRED / w * (left + w < width)
    y0, y1 = BLURRED / h * (top > 0), 1 - BLURRED / h * (top + h < height)
    inner = ((x0, y0), (x1, y0), (x1, y1), (x0, y1))
    weights = [((1 - x) * (1 - y), x * (1 - y), x * y, (1 - x) * y) for x, y in inner]
    places = (weights @ corners + 0.5) / (width, height)
    return tuple((x, y) for x, y in places.tolist())


def corner_values(grey: Grey) -> list[int]:
    return [grey.item(0, 0), grey.item(0, -1), grey.item(-1, 0), grey.item(-1, -1)]


def find_corners(outline: Outline) -> Outline:
    """What is farthest in each diagonal direction, the upper left first: (4, 2)."""
    points = outline[:, 0]
    along, across = points.sum(axis=1), points[:, 0] - points[:, 1]
    return points[[along.argmin(), across.argmax(), along.argmax(), across.argmin()]]


def is_rectangle(outline: Outline, size: float, least: float = RECTANGLE) -> bool:
    _, sides, angle = cv2.minAreaRect(outline)
    return bool(measure_tilt(angle) <= TILT and size >= least * math.prod(sides))


def measure_tilt(angle: float) -> float:
    return abs((angle + 45) % 90 - 45)


def measure_margins(outline: Outline) -> tuple[int, int]:
    """How far into the box of a rectangle, which may be tilted, one has to go not to see what is
    around it: down and right."""
    _, _, w, h = cv2.boundingRect(outline)
    twice = math.sin(2 * math.radians(measure_tilt(cv2.minAreaRect(outline)[2])))
    off = twice / (1 + twice) / 2  # what a square in a tilted square leaves of the box around
    down, right = (round(PLATE_RIM * min(w, h) + off * side) + 1 for side in (w, h))
    return down, right


def is_of_0(hole: Outline, mask: Mask, narrow: bool) -> bool:
    """Whether a hole may be that of a thick 0: convex, nothing in it, and not slim as a 1 is,
    unless what it is in is narrow."""
    size = cv2.contourArea(hole)
    empty = count_ground(hole, mask) >= MIN_HOLE_GROUND * size
    return (narrow or not is_slim(hole)) and empty and is_convex(hole, size)


def is_digit(hole: Outline, mask: Mask) -> bool:
    """Whether a hole can hardly be that of a thick 0 or 8: it is made of strokes, or there is
    something in it."""
    size = cv2.contourArea(hole)
    strokes = cv2.arcLength(hole, True) ** 2 >= STROKES * size
    inside = size - len(hole) / 2  # Pick's theorem: the outline runs through the ink around
    return not is_slim(hole) and (strokes or count_ground(hole, mask) < MIN_HOLE_GROUND * inside)


def count_ground(hole: Outline, mask: Mask) -> int:
    """How much of the box of a hole is ground, in px."""
    left, top, w, h = cv2.boundingRect(hole)
    return int(w * h - cv2.countNonZero(mask[top : top + h, left : left + w]))


def is_disc(outline: Outline, size: float) -> bool:
    return bool(size >= DISC * math.pi * cv2.minEnclosingCircle(outline)[1] ** 2)


def is_convex(outline: Outline, size: float) -> bool:
    return bool(size >= MIN_CONVEX_FILL * cv2.contourArea(cv2.convexHull(outline)))


def is_slim(outline: Outline) -> bool:
    _, sides, _ = cv2.minAreaRect(outline)
    return bool(min(sides) <= MAX_SLIM_WIDTH * max(sides))
