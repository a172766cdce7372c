"""Frames around a digit."""

import cv2
import numpy as np

from worker.normalisation.line_finding import HALF, find_lines
from worker.normalisation.measuring import is_box, largest_shape, ones
from worker.pictures import Grey, Mask

FAINT_LINE = 32  # of 255: it may be fainter than the digit
MIN_LINED_SIDE = 17  # px: in a smaller image, a stroke is no thicker than a line
COVERED = 0.85  # of the length of a frame's side there is ink, or more
COVERED_IF_ROUND = 0.7  # of it, where the corners are round
FRAMED = 0.3  # of a frame's height a digit in it is high, or more
FORM_RIM = 0.2  # of the image's height, or width: what lies there and touches lines is the form's
EDGE_ZONE = 0.15  # of the image's height: so near, a bar is at the top of a digit, or at its foot


def is_frame(mask: Mask) -> bool:
    """Whether there are lines along three of the four sides of what is inked, or along all."""
    if not has_sides(mask, EDGE_ZONE, COVERED):
        return False
    down, right = (round(EDGE_ZONE * side) + 1 for side in mask.shape)
    across = find_lines(mask)
    found = int(across[:down].any()) + int(across[-down:].any())
    if not found:
        return False
    along = find_lines(cv2.transpose(mask))
    return found + int(along[:right].any()) + int(along[-right:].any()) > 2


def leave_inside(ink: Grey, mask: Mask, most_cut_off: int) -> Grey:
    """What is inside of a frame that goes along the edges of an image, of which so many may cut it
    off, if there is a digit; else the ink itself.

    The frame may have rounded corners, end at a neighbour's, or be touched by the digit, but it is
    no ring; all that is between its sides is in the convex hull of the ground there.
    """
    height, width = mask.shape
    _, labels, stats, _ = cv2.connectedComponentsWithStats(
        1 - mask, connectivity=4, ltype=cv2.CV_16U
    )
    background = 1 + int(stats[1:, 4].argmax()) if len(stats) > 1 else 0
    left, top, w, h, _ = stats[background]
    cut_off = int(left == 0) + int(top == 0) + int(left + w == width) + int(top + h == height)
    if not background or cut_off > most_cut_off or w < HALF * width or h < HALF * height:
        return ink
    within = labels == background
    if not is_box(within):
        return ink  # a 0's, with a stroke in it; of a circle, see select_digit
    hull = cv2.convexHull(cv2.findNonZero(within.view(np.uint8)))
    inside = cv2.drawContours(np.zeros_like(mask), [hull], -1, 1, cv2.FILLED)
    framed: Grey = ink * cv2.erode(inside, ones(3, 3))  # no slivers of its sides
    return framed if is_framed(framed[top : top + h, left : left + w]) else ink


def has_sides(mask: Mask, rim: float, covered: float) -> bool:
    """Whether there is so much ink along three of the four sides of a mask, or along all."""
    down, right = (round(rim * side) + 1 for side in mask.shape)
    sides = (mask[:, :right], 1), (mask[:, -right:], 1), (mask[:down], 0), (mask[-down:], 0)
    missing = 0
    for side, axis in sides:
        along = cv2.reduce(side, axis, cv2.REDUCE_MAX)
        missing += cv2.countNonZero(along) < covered * along.size
        if missing > 1:
            return False  # as nearly always
    return True


def is_framed(ink: Grey) -> bool:
    """Whether what is left of a frame without its lines is a digit in its middle."""
    digit = largest_shape(cv2.threshold(ink, FAINT_LINE, 1, cv2.THRESH_BINARY)[1])
    (height, width), (x, y, w, h) = ink.shape, cv2.boundingRect(digit)
    return h >= FRAMED * height and x < width / 2 < x + w and y < height / 2 < y + h
