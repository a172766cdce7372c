"""Finds reasons for a review: another component may be a digit, or the digit may be none."""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from digitq.protocol.chunk import Reason
from digitq.worker.picture import Grey
from digitq.worker.sight.normalisation.measuring import (
    CORNERS,
    HALF_INK,
    INK_THRESHOLD,
    mask_over,
    measure_radius,
)
from digitq.worker.sight.normalisation.placing import centre
from digitq.worker.sight.normalisation.shapes import MAX_LINE_ASPECT, WIDE_LINE, select_digit

ANOTHER: Reason = "several digits"
SOLID: Reason = "too solid"
MAX_RADIUS = 4.2  # px in 28×28: no stroke of a digit has a larger radius

# A dropped component may be a digit if it has these shares of the kept digit's measures
MIN_LENGTH, MIN_AREA, MIN_STRENGTH = 0.5, 0.15, 0.5

# A component at an edge of the image may be a digit that is cut, unless one of these holds
MIN_EDGE_WIDTH = 0.25  # it is at the left or right, and less wide than this share of the digit
MIN_EDGE_HEIGHT = 0.5  # it is at the top or bottom, and lower than this share of the digit
MAX_SPAN = 0.95  # it is a line or a shadow, which spans more than this share of the image
MAX_BLOT_RADIUS = 0.35  # it is a blot, whose radius is more than this share of its length
ONE_LENGTHS = 0.7, 1.5  # a cut 1 has a length between these, as shares of the digit's
MIN_ONE_WIDTH = 0.07  # a cut 1 has at least this share of the digit's length in width
MIN_BOX_FILL = 0.9  # a box fills more than this share of its rectangle; a circle fills 79 %

# Two components are two digits, one above the other, if both of these hold
MIN_TWO_ASPECT = 1.7  # they are this many times as high as wide, which one digit seldom is
MIN_TWO_WIDTH, MIN_TWO_HEIGHT = 0.3, 0.35  # each has these shares of their width and height
MIN_INNER_LENGTH = 0.2  # a component within another is a digit from this share of its length on

Component = NDArray[np.bool_]  # (height, width) of the image, or (pixels,) of one edge


def find_review_reason(step: Callable[[Grey], Grey], before: Grey, after: Grey) -> Reason:
    """The reason to doubt what a step has made of an image, or ""."""
    if step is centre and is_solid(after):
        return SOLID
    if step is not select_digit or after is before:  # nothing was dropped
        return ""
    doubted = is_digit_dropped(before, after) or is_digit_within(after) or is_digit_above(after)
    return ANOTHER if doubted else ""


def is_digit_dropped(ink: Grey, kept: Grey) -> bool:
    """Whether a dropped component may be a digit: large, strong, and neither a line nor a frame.

    Without this rule, 85 instead of 5 % of the pictures with a digit cut by an edge are not marked.
    """
    digit = mask_over(kept, INK_THRESHOLD)
    dropped = mask_over(cv2.subtract(ink, kept), INK_THRESHOLD)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(dropped, ltype=cv2.CV_16U)
    if count == 1 or not digit.any():
        return False
    others = stats[1:].tolist()
    stats = cv2.connectedComponentsWithStats(digit, ltype=cv2.CV_16U)[2][1:]
    digit_left, digit_top, digit_width, digit_height, digit_area = stats[stats[:, 4].argmax()]
    digit_length = max(digit_width, digit_height)
    min_strength = MIN_STRENGTH * cv2.mean(ink, digit)[0]
    return any(
        max(w, h) >= MIN_LENGTH * digit_length
        and area >= MIN_AREA * digit_area
        and not (h <= MAX_LINE_ASPECT * w and w > WIDE_LINE * digit_width)
        and ink[labels == number].mean() >= min_strength
        and not (
            left < digit_left < digit_left + digit_width < left + w
            and top < digit_top < digit_top + digit_height < top + h
            and is_box(labels == number)
        )
        and is_visible_enough(labels == number, (left, top, w, h), digit_length)
        for number, (left, top, w, h, area) in enumerate(others, 1)
    )


def is_visible_enough(component: Component, box: tuple[int, ...], digit_length: float) -> bool:
    """Whether a component is away from the edges, or large and thin enough for a cut digit."""
    (height, width), (left, top, w, h) = component.shape, box
    beside = left == 0 or left + w == width
    above = top == 0 or top + h == height
    if not (beside or above):
        return True
    edge = component[:, 0 if left == 0 else -1]
    return (
        not component[CORNERS].any()  # a shadow or a desk fills a corner
        and not (
            beside
            and w < MIN_EDGE_WIDTH * digit_length
            and (above or not is_upright_1(edge, w, h, digit_length))
        )
        and not (above and h < MIN_EDGE_HEIGHT * digit_length)
        and w <= MAX_SPAN * width
        and h <= MAX_SPAN * height
        and measure_radius(component.view(np.uint8)) <= MAX_BLOT_RADIUS * max(w, h)
    )


def is_upright_1(edge: Component, w: int, h: int, digit_length: float) -> bool:
    """Whether a component at the left or right edge is one stroke, about as long as the digit.

    The remainder of a round digit meets the edge twice, and a frame is thinner or longer.
    """
    shortest, longest = ONE_LENGTHS
    is_digit_long = shortest * digit_length <= h <= longest * digit_length
    is_wide = w >= MIN_ONE_WIDTH * digit_length
    return is_digit_long and is_wide and np.count_nonzero(np.diff(edge)) == 2


def is_box(component: Component) -> bool:
    """Whether the convex hull is nearly a rectangle; its corners may be rounded."""
    found = cv2.findContours(component.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    hull = cv2.convexHull(found[0][0])
    _, sides, _ = cv2.minAreaRect(hull)
    return bool(cv2.contourArea(hull) > MIN_BOX_FILL * sides[0] * sides[1])


def is_digit_above(kept: Grey) -> bool:
    """Whether there are two components, one above the other, too large for parts of one digit.

    Without this rule, 14 instead of 3 % of the pictures with such digits are not marked.
    """
    mask = mask_over(kept, INK_THRESHOLD)
    _, _, width, height = cv2.boundingRect(mask)
    if height < MIN_TWO_ASPECT * width:
        return False
    components = cv2.connectedComponentsWithStats(mask, ltype=cv2.CV_16U)[2][1:].tolist()
    if len(components) < 2:
        return False
    largest = sorted(components, key=lambda component: component[4])[-2:]
    upper, lower = sorted(largest, key=lambda component: component[1])
    return upper[1] + upper[3] <= lower[1] and all(
        w >= MIN_TWO_WIDTH * width and h >= MIN_TWO_HEIGHT * height for _, _, w, h, _ in largest
    )


def is_digit_within(kept: Grey) -> bool:
    """Whether a component surrounds a long other one: it is a circle around a digit, not a 0.

    Without this rule, 98 instead of 1 % of the circles around something small are not marked.
    """
    mask = mask_over(kept, INK_THRESHOLD)
    contours, tree = cv2.findContours(mask, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    parents = [] if tree is None else tree[0, :, 3].tolist()  # −1 for an outermost contour
    lengths = [max(cv2.boundingRect(contour)[2:]) for contour in contours]
    return any(
        hole >= 0
        and (outer := parents[hole]) >= 0
        and lengths[inner] >= MIN_INNER_LENGTH * lengths[outer]
        for inner, hole in enumerate(parents)
    )


def is_solid(digit: Grey) -> bool:
    """Whether a 28×28 image has ink that is wider than any stroke, as a garment's is."""
    return measure_radius(mask_over(digit, HALF_INK)) > MAX_RADIUS
