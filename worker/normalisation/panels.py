"""A digit on a panel: on a plate or a disc, on a sheet on a desk, on a page beside a desk."""

import math

import cv2
import numpy as np

from worker.normalisation.lines import remove_lines
from worker.normalisation.measuring import Outline, find_largest, mask_over
from worker.normalisation.placing import box_of
from worker.pictures import Grey, Mask

Corners = tuple[tuple[float, float], ...]  # x and y as shares of the sides, clockwise from the left
Window = tuple[float, float, float, float]  # shares of height and width: from, to, from, to

MIN_PLATE = 0.12  # the box of a plate or sheet takes at least this share of the image
MIN_PLATE_INK = 0.7  # a plate has ink on at least this share of it, which is more than a digit has
MAX_PLATE_WIDTH = 2.5  # a plate or sheet is at most this many times as wide as high
PLATE_RIM = 0.03  # this share of a plate's shorter side is cut off at its edges
MIN_HOLE_GROUND = 0.8  # a hole with less ground has something in it, unlike that of a 0
MIN_SHEET = 0.9  # at least this share of a sheet is light: all but a digit
MIN_SHEET_SIDE = 14  # px: a page or a sheet whose shorter side is less is not looked at
MIN_STRIP_COVER = 0.5  # a strip of a desk takes at least this share of an edge


def find_panel(ink: Grey) -> Window | None:
    """The part of the image with the digit, if it is on a plate or beside strips of a desk."""
    mask = mask_over(ink, 127)
    least = MIN_PLATE * MIN_PLATE_INK * mask.size
    if cv2.countNonZero(mask) >= least and (plate := find_plate(mask)):
        return plate
    row, column = mask.shape[0] // 2, mask.shape[1] // 2
    if mask[0, column] or mask[-1, column] or mask[row, 0] or mask[row, -1]:
        return beside_strips(ink, mask)
    return None


def beside_strips(ink: Grey, mask: Mask) -> Window | None:
    """The part of the image that is a page, if strips at the edges show a desk.

    The largest shape on the page, apart from lines, must be away from the page's edges.
    """
    height, width = mask.shape
    top, left, bottom, right = (
        measure_strip(part) for part in (mask, mask.T, mask[::-1], mask[:, ::-1].T)
    )
    page = ink[top : height - bottom, left : width - right]
    if page.size == ink.size or min(page.shape) < MIN_SHEET_SIDE:
        return None
    page = remove_lines(np.ascontiguousarray(page))
    _, _, stats, _ = cv2.connectedComponentsWithStats((page > 0).view(np.uint8), ltype=cv2.CV_16U)
    x, y, w, h, _ = stats[1:].T
    edges = np.stack([y == 0, x == 0, y + h == page.shape[0], x + w == page.shape[1]])
    cut_off = edges[np.array([top, left, bottom, right]) > 0].any(axis=0)
    at_edge = edges.any(axis=0)
    length = np.maximum(w, h) / min(page.shape)
    largest = length[~at_edge].max(initial=0)
    if largest < max(0.15, length[at_edge].max(initial=0)):  # too small for a digit
        return None
    if length[cut_off].max(initial=0) > 0.1:  # it may be part of a digit that the strip cuts off
        return None
    return top / height, 1 - bottom / height, left / width, 1 - right / width


def measure_strip(mask: Mask) -> int:
    """How many rows a strip of ink takes at the top of a mask, with some to spare; it may tilt."""
    if np.count_nonzero(mask[0]) < MIN_STRIP_COVER * mask.shape[1]:
        return 0
    height, width = mask.shape
    deep = np.minimum.accumulate(mask, axis=0).sum(axis=0)
    strip = deep[(deep > 0) & (deep < 0.35 * height)]  # what is deeper is no strip
    if len(strip) < MIN_STRIP_COVER * width or strip.max() < 0.04 * height:
        return 0
    if strip.max() > 2 * np.median(strip) + 2:  # its edge is not straight, however it is tilted
        return 0  # it may be a line and the bar of a 7
    return int(strip.max()) + round(PLATE_RIM * len(mask)) + 1


def find_plate(mask: Mask) -> Window | None:
    """The part of the image that is a convex plate with a digit on it."""
    height, width = mask.shape
    found = find_largest(mask, cv2.CHAIN_APPROX_NONE)
    if not found:
        return None
    outlines, _, main, holes = found
    outline = outlines[main]
    size = cv2.contourArea(outline)
    left, top, w, h = cv2.boundingRect(outline)
    narrow = not 0.75 * h <= w <= MAX_PLATE_WIDTH * h  # else it may be a thick 0
    if (
        w * h < max(MIN_PLATE * mask.size, 1)
        or (w, h) == (width, height)
        or cv2.countNonZero(mask[top : top + h, left : left + w]) < MIN_PLATE_INK * size
        or is_of_0(hole := max(holes, key=cv2.contourArea), mask, narrow)
        or cv2.boundingRect(hole)[3] < 0.25 * min(w, h)
    ):
        return None
    if is_rectangle(outline, size):
        if narrow and w < width and h < height:
            return None
        twice = math.sin(2 * math.radians(measure_tilt(cv2.minAreaRect(outline)[2])))
        off = twice / (1 + twice) / 2  # what a square in a tilted square leaves of the box around
        down, right = (round(PLATE_RIM * min(w, h) + off * side) + 1 for side in (w, h))
    elif is_disc(outline, size) or is_convex(outline, size) and is_digit(hole, mask):
        left, top, w, h = cv2.boundingRect(np.concatenate(holes))
        down = right = -round(0.08 * max(w, h))  # leave a margin around the digit
    else:
        return None
    return to_window(top + down, top + h - down, left + right, left + w - right, mask)


def to_window(top: float, bottom: float, left: float, right: float, image: Grey) -> Window:
    """The window that reaches from and to these px, as far as the image does."""
    height, width = image.shape
    top, bottom = max(0, top) / height, min(height, bottom) / height
    return top, bottom, max(0, left) / width, min(width, right) / width


def surroundings(ink: Grey) -> Window:
    """The part of the image with the digit, and half of its longer side around it."""
    left, top, width, height = box_of(ink)
    reach = max(width, height)
    row, column = top + height / 2, left + width / 2
    return to_window(row - reach, row + reach, column - reach, column + reach, ink)


def find_sheet(grey: Grey) -> Corners | None:
    """The corners of a light sheet on a darker desk, inside of the sheet's blurred rim."""
    if sorted(corner_values(grey))[2] > 0.85 * cv2.minMaxLoc(grey)[1]:  # three show the desk
        return None  # as in most images
    mask = cv2.threshold(grey, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[1]
    light = cv2.countNonZero(mask)
    if sum(corner_values(mask)) > 1 or light < MIN_PLATE * MIN_SHEET * mask.size:
        return None
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = max(outlines, key=cv2.contourArea)
    points, size = outline[:, 0], cv2.contourArea(outline)
    along, across = points.sum(axis=1), points[:, 0] - points[:, 1]
    corners = points[[along.argmin(), across.argmax(), along.argmax(), across.argmin()]]
    left, top, w, h = cv2.boundingRect(outline)
    height, width = mask.shape
    if (
        min(w, h) < MIN_SHEET_SIDE
        or w * h < MIN_PLATE * mask.size
        or not 0.6 * h <= w <= MAX_PLATE_WIDTH * h  # A4 has 0.71
        or not is_rectangle(outline, size, 0.85)
        or not 0.95 <= size / max(cv2.contourArea(corners), 1) <= 1 / 0.95  # it has four corners
    ):
        return None
    sheet = cv2.drawContours(np.zeros_like(mask), [outline], -1, 1, cv2.FILLED)
    covered, lit = cv2.countNonZero(sheet), cv2.countNonZero(mask & sheet)
    if lit < MIN_SHEET * covered or light - lit > 0.1 * (mask.size - covered):
        return None
    blurred = 1.25  # px of a sheet's rim, which belong to the desk as well
    x0, x1 = blurred / w * (left > 0), 1 - blurred / w * (left + w < width)
    y0, y1 = blurred / h * (top > 0), 1 - blurred / h * (top + h < height)
    inner = ((x0, y0), (x1, y0), (x1, y1), (x0, y1))
    weights = [((1 - x) * (1 - y), x * (1 - y), x * y, (1 - x) * y) for x, y in inner]
    places = (weights @ corners + 0.5) / (width, height)
    return tuple((x, y) for x, y in places.tolist())


def corner_values(grey: Grey) -> list[int]:
    return [grey.item(0, 0), grey.item(0, -1), grey.item(-1, 0), grey.item(-1, -1)]


def is_rectangle(outline: Outline, size: float, least: float = 0.93) -> bool:
    """Whether an outline fills the smallest rectangle around it, which is tilted by up to 25°."""
    _, sides, angle = cv2.minAreaRect(outline)
    return bool(measure_tilt(angle) <= 25 and size >= least * math.prod(sides))


def measure_tilt(angle: float) -> float:
    return abs((angle + 45) % 90 - 45)


def is_of_0(hole: Outline, mask: Mask, narrow: bool) -> bool:
    """Whether a hole may be that of a thick 0: convex and empty, and not a 1, which is slim."""
    size = cv2.contourArea(hole)
    empty = count_ground(hole, mask) >= MIN_HOLE_GROUND * size
    return (narrow or not is_slim(hole)) and empty and is_convex(hole, size)


def is_digit(hole: Outline, mask: Mask) -> bool:
    """Whether a hole is hardly that of a thick 0 or 8: it consists of strokes or is not empty."""
    size = cv2.contourArea(hole)
    strokes = cv2.arcLength(hole, True) ** 2 >= 30 * size  # a disc has 4π
    inside = size - len(hole) / 2  # Pick's theorem: the outline runs through the ink around
    return not is_slim(hole) and (strokes or count_ground(hole, mask) < MIN_HOLE_GROUND * inside)


def count_ground(hole: Outline, mask: Mask) -> int:
    """How many px in the box of a hole are ground."""
    left, top, w, h = cv2.boundingRect(hole)
    return int(w * h - cv2.countNonZero(mask[top : top + h, left : left + w]))


def is_disc(outline: Outline, size: float) -> bool:
    return bool(size >= 0.93 * math.pi * cv2.minEnclosingCircle(outline)[1] ** 2)


def is_convex(outline: Outline, size: float) -> bool:
    return bool(size >= 0.9 * cv2.contourArea(cv2.convexHull(outline)))


def is_slim(outline: Outline) -> bool:
    _, sides, _ = cv2.minAreaRect(outline)
    return bool(min(sides) <= 0.35 * max(sides))
