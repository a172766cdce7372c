"""Frames around a digit."""

import cv2

from worker.normalisation.line_finding import find_lines
from worker.normalisation.measuring import largest_shape
from worker.pictures import Grey, Mask

FAINT_LINE = 32  # of 255: it may be fainter than the digit
MIN_LINED_SIDE = 17  # px: in a smaller image, a stroke is no thicker than a line
COVERED = 0.85  # of the length of a frame's side there is ink, or more
FRAMED = 0.3  # of a frame's height a digit in it is high, or more
FORM_RIM = 0.2  # of the image's height, or width: what lies there and touches lines is the form's
EDGE_ZONE = 0.15  # of the image's height: so near, a bar is at the top of a digit, or at its foot


def is_frame(mask: Mask) -> bool:
    """Whether there are lines along three of the four sides of what is inked, or along all."""
    if not has_sides(mask):
        return False
    down, right = (round(EDGE_ZONE * side) + 1 for side in mask.shape)
    across = find_lines(mask)
    found = int(across[:down].any()) + int(across[-down:].any())
    if not found:
        return False
    along = find_lines(cv2.transpose(mask))
    return found + int(along[:right].any()) + int(along[-right:].any()) > 2


def has_sides(mask: Mask) -> bool:
    """Whether there is ink along three of the four sides of a mask, or along all."""
    down, right = (round(EDGE_ZONE * side) + 1 for side in mask.shape)
    sides = (mask[:, :right], 1), (mask[:, -right:], 1), (mask[:down], 0), (mask[-down:], 0)
    missing = 0
    for side, axis in sides:
        along = cv2.reduce(side, axis, cv2.REDUCE_MAX)
        missing += cv2.countNonZero(along) < COVERED * along.size
        if missing > 1:
            return False  # as nearly always
    return True


def is_framed(ink: Grey) -> bool:
    """Whether what is left of a frame without its lines is a digit in its middle."""
    digit = largest_shape(cv2.threshold(ink, FAINT_LINE, 1, cv2.THRESH_BINARY)[1])
    (height, width), (x, y, w, h) = ink.shape, cv2.boundingRect(digit)
    return h >= FRAMED * height and x < width / 2 < x + w and y < height / 2 < y + h
