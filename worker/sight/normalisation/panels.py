"""Finds the panel that a digit is on: a plate or disc, a sheet on a desk, a page beside a desk."""

import math

import cv2
import numpy as np

from digitq.worker.picture import Grey, Mask
from digitq.worker.sight.normalisation.lines import remove_lines
from digitq.worker.sight.normalisation.measuring import (
    CORNERS,
    HALF_INK,
    Contour,
    find_largest,
    mask_over,
)
from digitq.worker.sight.normalisation.placing import bounding_box

Corners = tuple[tuple[float, float], ...]  # x and y as shares of the sides, clockwise from the left
Region = tuple[float, float, float, float]  # top, bottom, left, right as shares of the sides

MIN_PANEL_AREA = 0.12  # the box of a plate or sheet takes at least this share of the image
MAX_PANEL_ASPECT = 2.5  # a plate or sheet is at most this many times as wide as high
MIN_PLATE_INK = 0.7  # ink takes at least this share of a plate; it takes less of a digit's box
PLATE_RIM = 0.03  # this share of a plate's shorter side is cut off at its edges
MIN_HOLE_BACKGROUND = 0.8  # an empty hole, as a 0 has, consists of background by this share
MAX_RECTANGLE_TILT = 25  # degrees: a plate or sheet is tilted by at most this
MIN_CONVEX_FILL = 0.9  # a convex contour fills at least this share of its hull
MIN_DISC_FILL = 0.93  # a disc fills at least this share of the circle around it, a plate of its box
MAX_SLIM_HOLE = 0.35  # a slim hole, as around a 1, has a shorter side of at most this share

# A strip of a desk beside a page
MIN_STRIP_LENGTH = 0.5  # it takes at least this share of an edge
STRIP_DEPTHS = 0.04, 0.35  # it is this share of the image deep: less is a line, more is no strip
MAX_UNEVEN_DEPTH = 2  # its greatest depth is at most this many times the median, plus 2 px
MIN_PAGE_DIGIT = 0.15  # the digit on the page has at least this share of its shorter side
MAX_CUT_PIECE = 0.1  # a longer piece at the strip may be a part of the digit that was cut off

# A plate with a digit in its hole
MIN_PLATE_ASPECT = 0.75  # a narrower plate may be a thick 0
MIN_HOLE_HEIGHT = 0.25  # the digit has at least this share of the plate's shorter side
HOLE_MARGIN = 0.08  # this share of the digit's length is left around it
MIN_STROKE_CURVE = 30  # a hole with strokes has this ratio of squared length to area; a disc has 4π

# A sheet on a desk
MIN_SHEET_SIDE = 14  # px: a page or sheet whose shorter side is less is ignored
MIN_SHEET_ASPECT = 0.6  # a sheet is at least this many times as wide as high; A4 has 0.71
MAX_DESK_LIGHT = 0.85  # three corners show the desk, with at most this share of the highest value
MIN_SHEET_LIGHT = 0.9  # at least this share of a sheet shows no ink
MAX_LIT_DESK = 0.1  # at most this share of a desk is as light as the sheet
MIN_SHEET_FILL = 0.85  # a sheet fills at least this share of its rectangle
MIN_CORNER_FIT = 0.95  # the areas of a sheet and of its four corners have at least this ratio
BLURRED_RIM = 1.25  # px: the rim of a sheet, where desk and sheet mix


def find_panel(ink: Grey) -> Region | None:
    """The part of the image with the digit, if it is on a plate or beside strips of a desk."""
    mask = mask_over(ink, HALF_INK)
    min_pixels = MIN_PANEL_AREA * MIN_PLATE_INK * mask.size
    if cv2.countNonZero(mask) >= min_pixels and (plate := find_plate(mask)):
        return plate
    row, column = mask.shape[0] // 2, mask.shape[1] // 2
    has_strip = mask[0, column] or mask[-1, column] or mask[row, 0] or mask[row, -1]
    return find_page(ink, mask) if has_strip else None


def find_page(ink: Grey, mask: Mask) -> Region | None:
    """The part of the image that is a page, if strips at the edges show a desk.

    The largest component on the page, apart from lines, must be away from the page's edges.
    """
    height, width = mask.shape
    top, left, bottom, right = map(measure_strip, (mask, mask.T, mask[::-1], mask[:, ::-1].T))
    page = ink[top : height - bottom, left : width - right]
    if page.size == ink.size or min(page.shape) < MIN_SHEET_SIDE:
        return None
    page = remove_lines(np.ascontiguousarray(page))
    _, _, stats, _ = cv2.connectedComponentsWithStats((page > 0).view(np.uint8), ltype=cv2.CV_16U)
    x, y, w, h, _ = stats[1:].T
    edges = np.stack([y == 0, x == 0, y + h == page.shape[0], x + w == page.shape[1]])
    at_strip = edges[np.array([top, left, bottom, right]) > 0].any(axis=0)
    at_edge = edges.any(axis=0)
    length = np.maximum(w, h) / min(page.shape)
    largest = length[~at_edge].max(initial=0)
    if largest < max(MIN_PAGE_DIGIT, length[at_edge].max(initial=0)):
        return None
    if length[at_strip].max(initial=0) > MAX_CUT_PIECE:
        return None
    return top / height, 1 - bottom / height, left / width, 1 - right / width


def measure_strip(mask: Mask) -> int:
    """The height in px, with a margin, of a strip of ink at the top of a mask; it may be tilted."""
    height, width = mask.shape
    min_width, (least, most) = MIN_STRIP_LENGTH * width, STRIP_DEPTHS
    if np.count_nonzero(mask[0]) < min_width:
        return 0
    depths = np.minimum.accumulate(mask, axis=0).sum(axis=0)
    strip = depths[(depths > 0) & (depths < most * height)]
    if len(strip) < min_width or strip.max() < least * height:
        return 0
    if strip.max() > MAX_UNEVEN_DEPTH * np.median(strip) + 2:  # it may be the bar of a 7
        return 0
    return int(strip.max()) + round(PLATE_RIM * height) + 1


def find_plate(mask: Mask) -> Region | None:
    """The part of the image that is a convex plate with a digit on it.

    Without this rule, 35 instead of 90 % of the digits on plates are right.
    """
    found = find_largest(mask, cv2.CHAIN_APPROX_NONE)
    if not found:
        return None
    contours, _, main, holes = found
    contour = contours[main]
    area = cv2.contourArea(contour)
    left, top, w, h = cv2.boundingRect(contour)
    (height, width), hole = mask.shape, max(holes, key=cv2.contourArea)
    narrow = not MIN_PLATE_ASPECT * h <= w <= MAX_PANEL_ASPECT * h
    if (
        w * h < max(MIN_PANEL_AREA * mask.size, 1)
        or (w, h) == (width, height)
        or cv2.countNonZero(mask[top : top + h, left : left + w]) < MIN_PLATE_INK * area
        or is_zero_hole(hole, mask, narrow)
        or cv2.boundingRect(hole)[3] < MIN_HOLE_HEIGHT * min(w, h)
    ):
        return None
    if is_rectangle(contour, area):
        if narrow and w < width and h < height:
            return None
        # a tilted rectangle leaves a margin between its box and an upright one inside of it
        twice = math.sin(2 * math.radians(measure_tilt(cv2.minAreaRect(contour)[2])))
        off = twice / (1 + twice) / 2
        down, right = (round(PLATE_RIM * min(w, h) + off * side) + 1 for side in (w, h))
    elif is_disc(contour, area) or is_convex(contour, area) and is_digit_hole(hole, mask):
        left, top, w, h = cv2.boundingRect(np.concatenate(holes))
        down = right = -round(HOLE_MARGIN * max(w, h))
    else:
        return None
    return to_region(top + down, top + h - down, left + right, left + w - right, mask)


def to_region(top: float, bottom: float, left: float, right: float, image: Grey) -> Region:
    """The region between these px, as far as the image reaches."""
    height, width = image.shape
    top, bottom = max(0, top) / height, min(height, bottom) / height
    return top, bottom, max(0, left) / width, min(width, right) / width


def surroundings(ink: Grey) -> Region:
    """The digit's box with a margin of at least half of its longer side."""
    left, top, width, height = bounding_box(ink)
    reach = max(width, height)
    row, column = top + height / 2, left + width / 2
    return to_region(row - reach, row + reach, column - reach, column + reach, ink)


def find_sheet(grey: Grey) -> Corners | None:
    """The corners of a light sheet on a darker desk, inside of the sheet's blurred rim.

    Without this rule, 15 instead of 0 % of the sheets on a desk are marked for review.
    """
    corner_values = [grey.item(row, column) for row in (0, -1) for column in (0, -1)]
    if sorted(corner_values)[2] > MAX_DESK_LIGHT * cv2.minMaxLoc(grey)[1]:
        return None
    mask = cv2.threshold(grey, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[1]
    light = cv2.countNonZero(mask)
    if mask[CORNERS].sum() > 1 or light < MIN_PANEL_AREA * MIN_SHEET_LIGHT * mask.size:
        return None
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    contour = max(contours, key=cv2.contourArea)
    points, area = contour[:, 0], cv2.contourArea(contour)
    sums, differences = points.sum(axis=1), points[:, 0] - points[:, 1]
    # (4, 2): x + y is least at the upper left corner, and x − y is greatest at the upper right one
    corners = points[[sums.argmin(), differences.argmax(), sums.argmax(), differences.argmin()]]
    left, top, w, h = cv2.boundingRect(contour)
    height, width = mask.shape
    if (
        min(w, h) < MIN_SHEET_SIDE
        or w * h < MIN_PANEL_AREA * mask.size
        or not MIN_SHEET_ASPECT * h <= w <= MAX_PANEL_ASPECT * h
        or not is_rectangle(contour, area, MIN_SHEET_FILL)
        or not MIN_CORNER_FIT <= area / max(cv2.contourArea(corners), 1) <= 1 / MIN_CORNER_FIT
    ):
        return None
    sheet = cv2.drawContours(np.zeros_like(mask), [contour], -1, 1, cv2.FILLED)
    covered, lit = cv2.countNonZero(sheet), cv2.countNonZero(mask & sheet)
    if lit < MIN_SHEET_LIGHT * covered or light - lit > MAX_LIT_DESK * (mask.size - covered):
        return None  # the sheet is not light, or the desk is not dark
    x0, x1 = BLURRED_RIM / w * (left > 0), 1 - BLURRED_RIM / w * (left + w < width)
    y0, y1 = BLURRED_RIM / h * (top > 0), 1 - BLURRED_RIM / h * (top + h < height)
    inner = ((x0, y0), (x1, y0), (x1, y1), (x0, y1))
    weights = [((1 - x) * (1 - y), x * (1 - y), x * y, (1 - x) * y) for x, y in inner]
    inner_corners = (weights @ corners + 0.5) / (width, height)
    return tuple((x, y) for x, y in inner_corners.tolist())


def is_rectangle(contour: Contour, area: float, min_fill: float = MIN_DISC_FILL) -> bool:
    """Whether a contour fills the smallest rectangle around it, and is not tilted too far."""
    _, sides, angle = cv2.minAreaRect(contour)
    return bool(measure_tilt(angle) <= MAX_RECTANGLE_TILT and area >= min_fill * math.prod(sides))


def measure_tilt(angle: float) -> float:
    return abs((angle + 45) % 90 - 45)  # degrees to the nearest axis


def is_zero_hole(hole: Contour, mask: Mask, narrow: bool) -> bool:
    """Whether a hole may be that of a thick 0: convex and empty, and not as slim as a 1."""
    area = cv2.contourArea(hole)
    is_empty = count_background(hole, mask) >= MIN_HOLE_BACKGROUND * area
    return (narrow or not is_slim(hole)) and is_empty and is_convex(hole, area)


def is_digit_hole(hole: Contour, mask: Mask) -> bool:
    """Whether a hole is a digit, not that of a thick 0 or 8: it has strokes or is not empty."""
    area = cv2.contourArea(hole)
    has_strokes = cv2.arcLength(hole, True) ** 2 >= MIN_STROKE_CURVE * area
    inside = area - len(hole) / 2  # Pick's theorem: the contour runs through the ink around it
    is_empty = count_background(hole, mask) >= MIN_HOLE_BACKGROUND * inside
    return not is_slim(hole) and (has_strokes or not is_empty)


def count_background(hole: Contour, mask: Mask) -> int:
    """The number of background pixels in the box of a hole."""
    left, top, w, h = cv2.boundingRect(hole)
    return int(w * h - cv2.countNonZero(mask[top : top + h, left : left + w]))


def is_disc(contour: Contour, area: float) -> bool:
    return bool(area >= MIN_DISC_FILL * math.pi * cv2.minEnclosingCircle(contour)[1] ** 2)


def is_convex(contour: Contour, area: float) -> bool:
    return bool(area >= MIN_CONVEX_FILL * cv2.contourArea(cv2.convexHull(contour)))


def is_slim(contour: Contour) -> bool:
    _, sides, _ = cv2.minAreaRect(contour)
    return bool(min(sides) <= MAX_SLIM_HOLE * max(sides))
