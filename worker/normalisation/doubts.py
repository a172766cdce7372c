"""Signs that another shape may be a digit too, or that the digit is none."""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from protocol.chunk import Reason
from worker.normalisation.measuring import FAINT, mask_over, measure_reach
from worker.normalisation.placing import centre
from worker.normalisation.shapes import MAX_LINE_HEIGHT, WIDER, select_digit
from worker.pictures import Grey

ANOTHER: Reason = "several digits"
SOLID: Reason = "too solid"
MIN_EDGE_WIDTH = 0.25  # a digit cut at the left or right is as wide as this share of the read one
MIN_EDGE_HEIGHT = 0.5  # one cut at the top or bottom is as high as this share of the read one
MAX_EDGE_SPAN = 0.95  # what takes more of the width or height at an edge is a line or a shadow
MAX_EDGE_REACH = 0.35  # half the width of its widest stroke is at most this share of its length


def find_review_reason(step: Callable[[Grey], Grey], before: Grey, after: Grey) -> Reason:
    """The reason to doubt an image that a step gives, or ""."""
    if step is centre and is_solid(after):
        return SOLID
    if step is not select_digit or after is before:  # as in most images; it takes no time then
        return ""
    doubted = is_digit_dropped(before, after) or is_digit_within(after) or is_digit_above(after)
    return ANOTHER if doubted else ""


def is_digit_dropped(ink: Grey, kept: Grey) -> bool:
    """Whether a shape that was not kept is a digit: large, strong, and no line or frame.

    At an edge of the image, it is no remainder of a neighbour, no shadow and no corner either.
    """
    digit, dropped = mask_over(kept, FAINT), mask_over(cv2.subtract(ink, kept), FAINT)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(dropped, ltype=cv2.CV_16U)
    if count == 1 or not digit.any():
        return False
    others = stats[1:].tolist()
    stats = cv2.connectedComponentsWithStats(digit, ltype=cv2.CV_16U)[2][1:]
    digit_left, digit_top, digit_width, digit_height, digit_area = stats[stats[:, 4].argmax()]
    digit_length = max(digit_width, digit_height)
    least_strength = 0.5 * cv2.mean(ink, digit)[0]
    return any(
        max(w, h) >= 0.5 * digit_length
        and area >= 0.15 * digit_area
        and not (h <= MAX_LINE_HEIGHT * w and w > WIDER * digit_width)
        and ink[labels == number].mean() >= least_strength
        and not (
            left < digit_left < digit_left + digit_width < left + w
            and top < digit_top < digit_top + digit_height < top + h
            and is_box(labels == number)
        )
        and reaches_in(labels == number, (left, top, w, h), digit_length)
        for number, (left, top, w, h, area) in enumerate(others, 1)
    )


def reaches_in(shape: NDArray[np.bool_], box: tuple[int, ...], digit_length: float) -> bool:
    """Whether a shape is away from the edges, or large and thin enough for a digit that is cut."""
    (height, width), (left, top, w, h) = shape.shape, box
    beside = left == 0 or left + w == width
    above = top == 0 or top + h == height
    if not (beside or above):
        return True
    return (
        not shape[[0, 0, -1, -1], [0, -1, 0, -1]].any()  # a corner shows a shadow or a desk
        and not (
            beside
            and w < MIN_EDGE_WIDTH * digit_length
            and (above or not is_upright_1(shape[:, 0 if left == 0 else -1], w, h, digit_length))
        )
        and not (above and h < MIN_EDGE_HEIGHT * digit_length)
        and w <= MAX_EDGE_SPAN * width
        and h <= MAX_EDGE_SPAN * height
        and measure_reach(shape.view(np.uint8)) <= MAX_EDGE_REACH * max(w, h)
    )


def is_upright_1(edge: NDArray[np.bool_], w: int, h: int, digit_length: float) -> bool:
    """Whether a shape at the left or right is one stroke that is as long as a digit.

    The remainder of a round digit meets the edge twice, and a frame is thinner or longer.
    """
    is_digit_long = 0.7 * digit_length <= h <= 1.5 * digit_length
    return is_digit_long and w >= 0.07 * digit_length and np.count_nonzero(np.diff(edge)) == 2


def is_box(shape: NDArray[np.bool_]) -> bool:
    """Whether the outline of a shape is nearly a rectangle; it may have rounded corners."""
    (outline, *_), _ = cv2.findContours(
        shape.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    hull = cv2.convexHull(outline)
    _, sides, _ = cv2.minAreaRect(hull)
    return bool(cv2.contourArea(hull) > 0.9 * sides[0] * sides[1])  # a circle fills less


def is_digit_above(kept: Grey) -> bool:
    """Whether there are two shapes, one above the other, which are too high for pieces of one."""
    mask = mask_over(kept, FAINT)
    _, _, width, height = cv2.boundingRect(mask)
    if height < 1.7 * width:
        return False  # as in nearly all images
    shapes = cv2.connectedComponentsWithStats(mask, ltype=cv2.CV_16U)[2][1:].tolist()
    if len(shapes) < 2:
        return False
    largest = sorted(shapes, key=lambda shape: shape[4])[-2:]
    upper, lower = sorted(largest, key=lambda shape: shape[1])
    return upper[1] + upper[3] <= lower[1] and all(
        w >= 0.3 * width and h >= 0.35 * height for _, _, w, h, _ in largest
    )


def is_digit_within(kept: Grey) -> bool:
    """Whether a shape is around another that is at least 0.2 times as long: a circle, and no 0."""
    mask = mask_over(kept, FAINT)
    outlines, tree = cv2.findContours(mask, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    within = [] if tree is None else tree[0, :, 3].tolist()  # the hole that each shape is in, or −1
    length = [max(cv2.boundingRect(outline)[2:]) for outline in outlines]
    return any(
        hole >= 0 and (outer := within[hole]) >= 0 and length[shape] >= 0.2 * length[outer]
        for shape, hole in enumerate(within)
    )


def is_solid(digit: Grey) -> bool:
    """Whether a 28×28 image has ink that is wider than any stroke, as a garment's is."""
    return measure_reach(mask_over(digit, 127)) > 4.2  # px: half the width of the widest stroke
