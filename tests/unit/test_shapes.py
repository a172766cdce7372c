"""Which shape in the ink is the digit."""

import cv2
import numpy as np
import pytest

from digitq.worker.sight.normalisation.doubts import (
    is_digit_above,
    is_digit_dropped,
    is_digit_within,
)
from digitq.worker.sight.normalisation.shapes import fill_outline, select_digit
from tests.drawing import RING, RING_SIDE, draw_ring


def test_specks_and_neighbours_are_dropped() -> None:
    ink = RING.copy()
    ink[5:8, 30:33] = 255  # a speck
    ink[40:90, :8] = 255  # a neighbour's edge
    ink[110:, 60:80] = 255  # and another's
    assert np.array_equal(select_digit(ink), RING)


def test_what_is_left_of_a_frame_is_dropped() -> None:
    ink = RING.copy()
    ink[:4, 10:] = ink[5:115, -3:] = 255  # at two edges each
    ink[118:, :100] = 255
    assert np.array_equal(select_digit(ink), RING)


def test_a_digit_drawn_as_an_outline_is_filled() -> None:
    two = np.array([[40, 40], [60, 28], [78, 40], [70, 60], [40, 95], [82, 95]])
    six = np.array([[70, 20], [45, 60], [45, 90], [75, 90], [75, 65], [45, 65]])
    for strokes in (two, six):
        solid = cv2.polylines(np.zeros((RING_SIDE, RING_SIDE), np.uint8), [strokes], False, 255, 13)
        outline = cv2.morphologyEx(solid, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
        filled = fill_outline(outline)
        assert np.array_equal(filled, cv2.dilate(solid, np.ones((3, 3), np.uint8)))
        assert np.array_equal(fill_outline(solid), solid)


@pytest.mark.parametrize("width", [1, 3, 8])
def test_a_ring_is_no_outline(width: int) -> None:
    ring = 255 - draw_ring(width=width)
    eight = np.vstack([ring[20:90], ring[30:100]])
    with_tail = cv2.line(ring.copy(), (60, 24), (85, 10), 255, width)
    for ink in (ring, eight, with_tail, np.zeros_like(ring)):
        assert np.array_equal(fill_outline(ink), ink)


@pytest.mark.parametrize("speck", [3, 5, 8])
def test_a_digit_at_the_edge_is_more_than_a_speck_in_the_middle(speck: int) -> None:
    digit = cv2.line(np.zeros((280, 280), np.uint8), (20, 90), (14, 180), 255, 8)
    ink = digit.copy()
    ink[140 : 140 + speck, 140 : 140 + speck] = 255
    assert np.array_equal(select_digit(ink), digit)


@pytest.mark.parametrize("shape", ["a digit's stroke", "a thin one that reaches in"])
def test_a_stroke_at_the_edge_is_no_end_of_a_shadow(shape: str) -> None:
    ink = np.zeros((RING_SIDE, 2 * RING_SIDE), np.uint8)
    ink[54:66, 150:162] = 255  # a blot
    digit = np.zeros_like(ink)
    if shape == "a digit's stroke":  # slim, though it fills its box
        digit[20:100, :12] = 255
    else:  # as wide as it is long, and mostly not ink
        cv2.ellipse(digit, (25, 60), (25, 30), 0, 0, 360, 255, 4)
    assert np.array_equal(select_digit(ink | digit), digit)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (np.s_[30:80, 5:12], True),
        (np.s_[30:80, 0:7], False),
        (np.s_[20:85, 0:8], True),
        (np.s_[20:85, 0:5], False),
        (np.s_[0:50, 5:12], True),
        (np.s_[70:120, 5:12], True),
        (np.s_[0:30, 5:12], False),
        (np.s_[30:60, 5:12], False),
        (np.s_[30:80, 5:7], False),
        (np.s_[108:117, 90:150], False),
        (np.s_[108:117, 100:148], True),
    ],
    ids=[
        *("a stroke", "short at the left", "long at the left", "thin at the left"),
        *("at the top", "at the bottom", "short at the top", "short", "thin"),
        *("a line", "a base"),
    ],
)
def test_what_is_dropped_may_be_a_digit(other: tuple[slice, slice], expected: bool) -> None:
    kept = np.pad(RING, ((0, 0), (60, 0)))
    ink = kept.copy()
    ink[other] = 255
    assert np.array_equal(select_digit(ink), kept)
    assert is_digit_dropped(ink, kept) == expected
    ink[other] = 100
    assert not is_digit_dropped(ink, kept)  # pale
    ink[other] = 255
    ink, kept = (np.ascontiguousarray(image[:, ::-1]) for image in (ink, kept))
    assert is_digit_dropped(ink, kept) == expected


def test_the_end_of_a_shadow_is_less_than_a_digit() -> None:
    digit = np.pad(RING, ((0, 0), (200, 0)))
    ink = digit.copy()
    cv2.fillPoly(ink, [np.array([(0, 119), (0, 30), (100, 119)])], 255)
    assert np.array_equal(select_digit(ink), digit)


def print_beside_a_seven(places: list[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """A 7; and one with rings, whose left, top and height these are."""
    seven = np.zeros((RING_SIDE, RING_SIDE), np.uint8)
    cv2.polylines(seven, [np.array([(50, 34), (86, 34), (60, 90)])], False, 255, 7)
    printed = seven.copy()
    for left, top, height in places:
        cv2.ellipse(printed, (left + 5, top + height // 2), (5, height // 2), 0, 0, 360, 255, 3)
    return seven, printed


@pytest.mark.parametrize(
    "places",
    [
        [(20, 8, 14), (36, 8, 14), (52, 8, 14)],
        [(80, 96, 20), (96, 102, 14)],  # a capital, and a small letter
        [(10, 50, 14), (26, 53, 16)],  # one with a tail
    ],
)
def test_print_beside_a_digit_is_left_out(places: list[tuple[int, int, int]]) -> None:
    seven, printed = print_beside_a_seven(places)
    assert np.array_equal(select_digit(printed), seven)
    assert not is_digit_dropped(printed, seven)


@pytest.mark.parametrize(
    "places",
    [
        [(20, 8, 14), (36, 26, 14)],  # not in a row
        [(20, 8, 14), (36, 15, 14)],  # nor are these
        [(12, 40, 32), (29, 40, 32)],  # too high
        [(20, 6, 24), (38, 12, 8)],  # of other heights
        [(20, 8, 14), (64, 8, 14)],  # far from each other
    ],
)
def test_what_is_no_row_is_no_print(places: list[tuple[int, int, int]]) -> None:
    _, printed = print_beside_a_seven(places)
    assert np.array_equal(select_digit(printed), printed)


def test_a_digit_in_pieces_is_no_print() -> None:
    zero = np.zeros((RING_SIDE, RING_SIDE), np.uint8)
    for left, top, width, height in (
        (40, 30, 8, 30), (40, 64, 8, 28), (72, 30, 8, 30), (72, 64, 8, 28),
        (46, 18, 12, 8), (62, 18, 12, 8),
    ):  # fmt: skip
        zero[top : top + height, left : left + width] = 255
    assert np.array_equal(select_digit(zero), zero)


@pytest.mark.parametrize("gap", [5, 12])
def test_a_bar_in_pieces_is_no_print(gap: int) -> None:
    five = np.zeros((RING_SIDE, RING_SIDE), np.uint8)
    cv2.line(five, (45, 50), (45, 62), 255, 9)
    cv2.ellipse(five, (55, 78), (20, 20), 0, -120, 140, 255, 9)
    top = int(np.flatnonzero(five.any(axis=1))[0]) - gap
    five[top - 9 : top, 41:57] = five[top - 9 : top, 62:78] = 255
    assert np.array_equal(select_digit(five), five)


def test_a_digit_in_two_strokes_stays_whole() -> None:
    five = np.zeros((RING_SIDE, RING_SIDE), np.uint8)
    five[20:26, 50:85] = 255  # the bar, set down apart
    five[32:100, 40:48] = 255
    assert np.array_equal(select_digit(five), five)
    tight = five[20:100, 40:85]
    assert np.array_equal(select_digit(tight), tight)


@pytest.mark.parametrize(("radius", "width"), [(40, 5), (52, 5), (46, 22)])
def test_a_digit_in_a_circle_is_what_is_inside(radius: int, width: int) -> None:
    three = np.zeros((RING_SIDE, RING_SIDE), np.uint8)
    cv2.ellipse(three, (58, 46), (14, 14), 0, 200, 440, 255, 5)
    cv2.ellipse(three, (58, 74), (14, 14), 0, -80, 160, 255, 5)
    circled = cv2.circle(three.copy(), (60, 60), radius, 255, width)
    assert np.array_equal(select_digit(circled), three)
    assert is_digit_dropped(circled, three)


@pytest.mark.parametrize(("height", "expected"), [(24, True), (18, False)])
def test_what_is_around_a_small_shape_may_be_a_circle(height: int, expected: bool) -> None:
    ring = cv2.circle(np.zeros((RING_SIDE, RING_SIDE), np.uint8), (60, 60), 45, 255, 12)
    place = slice(60 - height // 2, 60 + height // 2)
    ring[place, 57:63] = 255
    assert is_digit_within(select_digit(ring)) == expected
    beside = np.pad(RING, ((0, 0), (0, 60)))
    beside[place, 140:146] = 255
    assert not is_digit_within(select_digit(beside))


@pytest.mark.parametrize(
    ("upper", "lower", "expected"),
    [
        ((30, 36), (30, 40), True),
        ((12, 36), (30, 40), True),
        ((8, 36), (30, 40), False),  # a stroke of a broken digit
        ((30, 22), (30, 50), False),  # and a bar
        ((34, 24), (34, 25), False),  # a broken 8
    ],
)
def test_a_digit_above_another_is_one_as_well(
    upper: tuple[int, int], lower: tuple[int, int], expected: bool
) -> None:
    ink = np.zeros((RING_SIDE, RING_SIDE), np.uint8)
    (w, h), (width, height) = upper, lower
    ink[10 : 10 + h, 40 : 40 + w] = ink[12 + h : 12 + h + height, 40 : 40 + width] = 255
    assert is_digit_above(select_digit(ink)) == expected
    assert not is_digit_above(cv2.transpose(ink))
    assert not is_digit_above(ink[: 10 + h])


def test_a_circle_that_is_small_in_a_large_image_is_one() -> None:
    one = cv2.line(np.zeros((RING_SIDE, RING_SIDE), np.uint8), (60, 57), (60, 63), 255, 2)
    assert np.array_equal(select_digit(cv2.circle(one.copy(), (60, 60), 7, 255, 1)), one)


@pytest.mark.parametrize(("start", "stop"), [(20, 340), (200, 500)])
def test_a_circle_around_a_digit_need_not_close(start: int, stop: int) -> None:
    one = cv2.line(np.zeros((RING_SIDE, RING_SIDE), np.uint8), (60, 40), (60, 82), 255, 7)
    circled = cv2.ellipse(one.copy(), (60, 60), (45, 50), 0, start, stop, 255, 5)
    assert np.array_equal(select_digit(circled), one)
    assert is_digit_dropped(circled, one)
    half = cv2.ellipse(one.copy(), (60, 60), (45, 50), 0, 100, 260, 255, 5)
    assert not np.array_equal(select_digit(half), one)


@pytest.mark.parametrize("ends", [(0, 0), (-7, 7)])
def test_two_lines_under_a_digit_are_dropped(ends: tuple[int, int]) -> None:
    digit = np.pad(RING[16:104], ((4, 40), (60, 60)))
    lined = digit.copy()
    for down in (100, 108):
        cv2.line(lined, (30, down + ends[0]), (210, down + ends[1]), 255, 3)
    assert np.array_equal(select_digit(lined), digit)


def test_the_base_of_a_2_may_be_set_down_apart() -> None:
    two = np.zeros((128, 128), np.uint8)
    top = np.array([(50, 40), (55, 28), (68, 26), (75, 38), (70, 58), (46, 92)])
    cv2.polylines(two, [top], False, 255, 6)
    cv2.line(two, (38, 102), (84, 102), 255, 6)
    assert np.array_equal(select_digit(two), two)


def test_a_frame_is_no_second_digit_but_what_is_round_may_be() -> None:
    one = cv2.line(np.zeros((RING_SIDE, RING_SIDE), np.uint8), (60, 40), (60, 82), 255, 7)
    framed = cv2.rectangle(one.copy(), (20, 15), (100, 105), 255, 4)
    ringed = cv2.ellipse(one.copy(), (60, 60), (40, 45), 0, 0, 360, 255, 4)
    for around, doubted in [(framed, False), (ringed, True)]:
        assert np.array_equal(select_digit(around), one)
        assert is_digit_dropped(around, one) == doubted


def test_a_punched_hole_beside_a_digit_is_no_part_of_it() -> None:
    punched = cv2.circle(RING.copy(), (12, 50), 9, 255, -1)
    assert np.array_equal(select_digit(punched), RING)


def test_a_ring_around_a_dot_is_a_0() -> None:
    dotted = cv2.circle(RING.copy(), (60, 60), 6, 255, -1)
    assert np.array_equal(select_digit(dotted), dotted)


@pytest.mark.parametrize(
    ("box", "dropped"),
    [
        ((30, 102, 90, 105), True),
        ((10, 104, 50, 118), True),
        ((30, 99, 90, 108), False),
        ((30, 14, 90, 17), False),
        ((50, 104, 70, 107), False),
        ((86, 104, 117, 107), False),
        ((45, 104, 75, 118), False),
    ],
    ids=["a line", "a button", "a base", "a bar above", "a dash", "at the side", "a blot"],
)
def test_a_line_under_a_digit_is_none(box: tuple[int, int, int, int], dropped: bool) -> None:
    digit = np.pad(RING, ((0, 20), (0, 0)))
    ink = digit.copy()
    cv2.rectangle(ink, box[:2], box[2:], 255, -1)
    assert np.array_equal(select_digit(ink), digit if dropped else ink)


def test_a_stroke_under_a_digit_is_no_button() -> None:
    ink = cv2.line(np.pad(RING, ((0, 20), (0, 0))), (10, 104), (50, 120), 255, 2)
    assert np.array_equal(select_digit(ink), ink)


def test_a_speck_above_does_not_make_a_line_of_a_flat_digit() -> None:
    digit = cv2.rectangle(np.zeros((RING_SIDE, RING_SIDE), np.uint8), (20, 60), (100, 72), 255, -1)
    ink = cv2.rectangle(digit.copy(), (55, 40), (65, 50), 255, -1)
    assert (select_digit(ink)[digit > 0] > 0).all()


@pytest.mark.parametrize("first", [9, 20])
def test_stripes_of_a_digit_are_no_lines_under_it(first: int) -> None:
    ink = np.zeros((RING_SIDE, RING_SIDE), np.uint8)
    ink[20 : 20 + first, 45:75] = 255
    for top in range(23 + first, 90, 12):  # as a printer with a dead row has them
        ink[top : top + 9, 45:75] = 255
    assert np.array_equal(select_digit(ink), ink)


def test_a_thick_line_is_no_more_a_digit_than_a_thin_one() -> None:
    digit = cv2.line(np.zeros((RING_SIDE, RING_SIDE), np.uint8), (60, 20), (56, 80), 255, 4)
    ink = cv2.line(digit.copy(), (10, 100), (110, 96), 255, 9)
    assert np.array_equal(select_digit(ink), digit)


def draw_dashes() -> np.ndarray:
    """A ring of dashes, as ink, that goes to two edges of the image."""
    ink = np.zeros((64, 64), np.uint8)
    for start in range(0, 360, 24):
        cv2.ellipse(ink, (44, 40), (18, 22), 0, start, start + 16, 255, 2)
    return ink


def test_the_pieces_of_a_broken_stroke_stay_together() -> None:
    dashes = draw_dashes()
    assert np.array_equal(select_digit(dashes), dashes)


def test_a_1_of_a_pen_is_no_margin() -> None:
    """Though it is long and slim, and something larger than a speck lies beside it."""
    one = cv2.line(np.zeros((RING_SIDE, RING_SIDE), np.uint8), (55, 15), (68, 100), 255, 6)
    blot = cv2.ellipse(one.copy(), (95, 40), (14, 9), 30, 0, 360, 255, 3)
    assert np.array_equal(select_digit(blot) & one, one)


def test_pieces_of_a_broken_stroke_at_the_edge_are_the_digits() -> None:
    """As a 9's stem is in an image that is binarised and stretched to its edges."""
    nine = cv2.circle(np.zeros((60, 48), np.uint8), (30, 16), 11, 255, 2)
    nine[16:, 44:46] = 255
    for gap in (24, 36, 48):
        nine[gap : gap + 3, 44:46] = 0
    assert np.array_equal(select_digit(nine), nine)


def test_a_thin_1_is_no_margin() -> None:
    page = np.zeros((RING_SIDE, RING_SIDE), np.uint8)
    page[15:115, 60:63] = page[40:44, 80:84] = 255  # and a speck
    one = page.copy()
    one[40:44, 80:84] = 0
    assert np.array_equal(select_digit(page), one)
