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


def find_review_reason(step: Callable[[Grey], Grey], before: Grey, after: Grey) -> Reason:
    """The reason to doubt an image that a step gives, or ""."""
    if step is centre and is_solid(after):
        return SOLID
    if step is not select_digit or after is before:  # as in most images; it takes no time then
        return ""
    doubted = is_digit_dropped(before, after) or is_digit_within(after) or is_digit_above(after)
    return ANOTHER if doubted else ""


def is_digit_dropped(ink: Grey, kept: Grey) -> bool:
    """Whether a shape that was not kept is a digit: whole, large, strong, and no line or frame."""
    digit, dropped = mask_over(kept, FAINT), mask_over(cv2.subtract(ink, kept), FAINT)
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
    least_length = 0.5 * max(digit_width, digit_height)
    least_strength = 0.5 * cv2.mean(ink, digit)[0]
    return any(
        max(w, h) >= least_length
        and area >= 0.15 * digit_area
        and not (h <= MAX_LINE_HEIGHT * w and w > WIDER * digit_width)
        and ink[labels == number].mean() >= least_strength
        and not (
            left < digit_left < digit_left + digit_width < left + w
            and top < digit_top < digit_top + digit_height < top + h
            and is_box(labels == number)
        )
        for number, left, top, w, h, area in others
    )


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
