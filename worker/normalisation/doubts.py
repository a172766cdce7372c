"""Signs that another shape may be a digit too."""

import cv2

from worker.normalisation.measuring import FAINT, is_box
from worker.normalisation.shapes import MAX_LINE_HEIGHT, WIDER
from worker.pictures import Grey

AS_LONG, AS_MUCH, AS_STRONG = 0.5, 0.15, 0.5  # as the digit, or more: what may be one as well
WITHIN = 0.2  # as long as a circle, or longer, may be a digit in it
TALL = 1.7  # times as high as wide, or higher, are two digits one above the other
EACH_HIGH, EACH_WIDE = 0.35, 0.3  # of the height and the width of both, or more, is each


def is_digit_dropped(ink: Grey, kept: Grey) -> bool:
    """Whether anything in the ink that was not kept may be a digit as well: all in the image, and
    neither small beside the one that was, nor pale, nor a line that is wider, nor a frame."""
    digit, dropped = (
        cv2.threshold(part, FAINT, 1, cv2.THRESH_BINARY)[1]
        for part in (kept, cv2.subtract(ink, kept))
    )
    height, width = ink.shape
    _, labels, stats, _ = cv2.connectedComponentsWithStats(dropped, ltype=cv2.CV_16U)
    others = [
        (number, left, top, w, h, area)
        for number, (left, top, w, h, area) in enumerate(stats[1:].tolist(), 1)
        if 0 < left < width - w and 0 < top < height - h
    ]
    if not others or not digit.any():
        return False
    stats = cv2.connectedComponentsWithStats(digit, ltype=cv2.CV_16U)[2][1:]
    digit_left, digit_top, digit_width, digit_height, digit_area = stats[stats[:, 4].argmax()]
    least_length = AS_LONG * max(digit_width, digit_height)
    least_area = AS_MUCH * digit_area
    least_strength = AS_STRONG * cv2.mean(ink, digit)[0]
    return any(
        max(w, h) >= least_length
        and area >= least_area
        and not (h <= MAX_LINE_HEIGHT * w and w > WIDER * digit_width)
        and ink[labels == number].mean() >= least_strength
        and not (
            left < digit_left < digit_left + digit_width < left + w
            and top < digit_top < digit_top + digit_height < top + h
            and is_box(labels == number)
        )
        for number, left, top, w, h, area in others
    )


def is_digit_above(kept: Grey) -> bool:
    """Whether there are two shapes, one above the other, of which each may be a digit: both are too
    high for the pieces of one."""
    mask = cv2.threshold(kept, FAINT, 1, cv2.THRESH_BINARY)[1]
    _, _, width, height = cv2.boundingRect(mask)
    if height < TALL * width:
        return False  # as nearly always
    shapes = cv2.connectedComponentsWithStats(mask, ltype=cv2.CV_16U)[2][1:].tolist()
    if len(shapes) < 2:
        return False
    largest = sorted(shapes, key=lambda shape: shape[4])[-2:]
    upper, lower = sorted(largest, key=lambda shape: shape[1])
    return upper[1] + upper[3] <= lower[1] and all(
        w >= EACH_WIDE * width and h >= EACH_HIGH * height for _, _, w, h, _ in largest
    )


def is_digit_within(kept: Grey) -> bool:
    """Whether a shape closes around another that is not tiny beside it: it may be a circle around
    a digit, and no 0."""
    mask = cv2.threshold(kept, FAINT, 1, cv2.THRESH_BINARY)[1]
    outlines, tree = cv2.findContours(mask, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    within = [] if tree is None else tree[0, :, 3].tolist()  # of a shape its hole's, or none
    length = [max(cv2.boundingRect(outline)[2:]) for outline in outlines]
    return any(
        hole >= 0 and (outer := within[hole]) >= 0 and length[shape] >= WITHIN * length[outer]
        for shape, hole in enumerate(within)
    )
