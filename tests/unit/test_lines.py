"""Lines of forms and ruled paper go, strokes stay."""

import cv2
import numpy as np
import PIL.Image
import PIL.ImageDraw
import pytest

from digitq.worker.sight.normalisation.line_finding import find_sides, measure_thickness
from digitq.worker.sight.normalisation.lines import remove_lines
from digitq.worker.sight.normalisation.measuring import measure_stroke_width
from digitq.worker.sight.normalisation.shapes import select_digit
from tests.drawing import RING, RING_SIDE, draw_ring, likeness


def draw_lines(*lines: tuple[int, int, int, int], width: int = 3) -> np.ndarray:
    """A ring as ink, and lines from one point to another."""
    image = PIL.Image.fromarray(255 - draw_ring())
    for line in lines:
        PIL.ImageDraw.Draw(image).line(line, fill=200, width=width)
    return np.asarray(image)


@pytest.mark.parametrize(
    "lines",
    [
        [(0, 100, 119, 100)],
        [(0, 5, 119, 7), (0, 110, 119, 113)],
        [(8, 0, 8, 119), (111, 0, 110, 119), (0, 6, 119, 6), (0, 115, 119, 115)],
        [(0, 20, 119, 20), (0, 60, 119, 60), (0, 100, 119, 100)],
        [(20, 0, 20, 119), (60, 0, 60, 119), (0, 60, 119, 60)],
    ],
    ids=["a ruled line", "tilted", "a frame", "ruled", "squared"],
)
def test_lines_are_removed_and_strokes_that_cross_them_stay(
    lines: list[tuple[int, int, int, int]],
) -> None:
    ink = draw_lines(*lines)
    cleaned = remove_lines(ink)
    assert likeness(ink, RING) < 0.95
    assert likeness(select_digit(cleaned), RING) > 0.9


def test_thin_lines_in_steps_are_removed() -> None:
    """Whatever tilt is tried, no row has nearly all of one."""
    ink = np.zeros((64, 38), np.uint8)
    for upper in (6, 56):
        ink[upper, 4:] = ink[upper + 1, :16] = 200
    cv2.line(ink, (18, 16), (20, 46), 255, 4)
    cleaned = remove_lines(ink)
    assert not cleaned[:10].any() and not cleaned[52:].any()
    assert np.array_equal(cleaned[10:52], ink[10:52])


def test_lines_around_a_small_digit_are_no_strokes_of_it() -> None:
    """One or two may be: what is left is too small beside a 1 or an 11, not beside so many."""
    small = cv2.resize(255 - draw_ring(width=14), (30, 30), interpolation=cv2.INTER_AREA)
    ink = np.zeros((120, 120), np.uint8)
    ink[46:76, 50:80] = small
    ruled = ink.copy()
    ruled[8::26] = ruled[9::26] = 200
    assert likeness(select_digit(remove_lines(ruled)), ink) > 0.9


@pytest.mark.parametrize("inset", [0, 5])
def test_no_line_of_an_empty_cell_is_its_digit(inset: int) -> None:
    """None is left alone, as a 1 would be."""
    ink = np.zeros((64, 60), np.uint8)
    for line in (inset, -3 - inset):
        ink[line:][:2] = ink[:, line:][:, :2] = 255
    assert np.array_equal(remove_lines(ink), ink)


def test_what_touches_a_line_on_the_rim_goes_with_it() -> None:
    """The ticks of a comb do, and ends of other lines; a piece of the digit does not touch it."""
    ink = draw_lines((0, 112, 119, 112), (10, 84, 10, 112), (109, 84, 109, 112), (60, 0, 84, 0))
    ink = cv2.line(ink.copy(), (50, 14), (70, 14), 255, 6)
    cleaned = remove_lines(ink)
    assert not cleaned[84:, :20].any() and not cleaned[84:, 100:].any() and not cleaned[:4].any()
    assert np.array_equal(cleaned[8:100, 20:100], ink[8:100, 20:100])


def test_a_line_is_as_thick_as_where_nothing_lies_along_it() -> None:
    """For most of its length something may; and it may be broken."""
    rows = np.zeros((9, 20), np.uint8)
    rows[:3] = 1
    rows[:, 10:] = 1
    rows[1:, :2] = 0
    assert measure_thickness(rows) == 3


def draw_two(left: int, right: int) -> np.ndarray:
    """A 2 as ink, whose bar goes from left to right."""
    two = np.zeros((RING_SIDE, RING_SIDE), np.uint8)
    cv2.ellipse(two, (60, 42), (26, 22), 0, 180, 400, 255, 6)
    cv2.line(two, (80, 56), (left, 96), 255, 6)
    return cv2.line(two, (left, 96), (right, 96), 255, 6)


def test_the_frame_of_a_small_cell_goes() -> None:
    one = np.zeros((40, 18), np.uint8)
    one[8:32, 8:11] = 255
    framed = one.copy()
    framed[[1, -2]] = framed[:, [1, -2]] = 200
    assert np.array_equal(remove_lines(framed), one)


@pytest.mark.parametrize("side", [8, 16])
def test_a_bar_of_a_tiny_digit_is_no_line(side: int) -> None:
    """It may go right across, and is as thin."""
    z = np.zeros((side, side), np.uint8)
    z[[0, -1]] = 255
    np.fill_diagonal(z[:, ::-1], 255)
    assert (remove_lines(z) == z).all()


def test_a_bar_along_a_line_stays() -> None:
    two = draw_two(30, 88)
    ink = cv2.line(two.copy(), (0, 101), (119, 101), 200, 3)
    assert likeness(remove_lines(ink), two) > 0.92


def test_a_bar_between_lines_is_none() -> None:
    two = draw_two(18, 100)
    ink = two.copy()
    for x in (4, 115):
        cv2.line(ink, (x, 0), (x, 119), 200, 3)
    cv2.line(ink, (0, 8), (119, 8), 200, 3)
    assert likeness(remove_lines(ink), two) > 0.97


def test_a_line_that_the_digit_does_not_reach_is_no_part_of_it() -> None:
    five = np.zeros((60, 50), np.uint8)
    cv2.polylines(
        five, [np.array([(30, 6), (8, 6), (8, 25), (26, 30), (24, 48), (0, 50)])], False, 255, 4
    )
    ink = cv2.line(five.copy(), (45, 0), (45, 59), 200, 3)
    assert np.array_equal(remove_lines(ink), five)


@pytest.mark.parametrize("sides", [3, 4])
def test_a_frame_that_the_digit_touches_is_taken_from_it(sides: int) -> None:
    five = np.zeros((120, 110), np.uint8)
    strokes = np.array([(70, 30), (40, 30), (40, 55), (65, 60), (66, 85), (35, 88)])
    cv2.polylines(five, [strokes], False, 255, 7)
    frame = np.array([(20, 24), (20, 100), (90, 100), (90, 24)])
    framed = cv2.polylines(five.copy(), [frame], sides == 4, 255, 3)
    cv2.line(framed, (35, 88), (20, 88), 255, 7)  # where it touches
    left = remove_lines(framed)
    assert not left[101:].any() and not left[:22].any() and not left[:, 93:].any()
    assert likeness(left, five) > 0.9
    assert np.array_equal(remove_lines(five), five)


@pytest.mark.parametrize("digit", ["abcdef", "abcdg", "acdefg", "abcdefg", "abcfg"])
def test_the_bars_of_a_digit_on_a_display_are_no_frame(digit: str) -> None:
    """Of seven segments, named as is usual."""
    corners = {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4, "f": 5}
    points = [(40, 20), (90, 20), (90, 64), (90, 108), (40, 108), (40, 64)]
    ink = np.zeros((128, 128), np.uint8)
    for segment in digit:
        start = corners.get(segment, 5)
        end = points[(start + 1) % 6] if segment != "g" else points[2]
        cv2.line(ink, points[start], end, 255, 5)
    assert np.array_equal(remove_lines(ink), ink)


def test_the_bars_of_a_digit_that_fills_the_image_are_no_lines() -> None:
    seven = np.zeros((60, 40), np.uint8)
    cv2.line(seven, (0, 3), (39, 3), 255, 5)
    cv2.line(seven, (37, 3), (15, 59), 255, 5)
    four = np.zeros((60, 40), np.uint8)
    cv2.line(four, (15, 0), (0, 35), 255, 4)
    cv2.line(four, (0, 37), (39, 37), 255, 4)
    cv2.line(four, (28, 0), (28, 59), 255, 4)
    one = np.zeros((60, 20), np.uint8)
    one[:, 8:12] = 255
    for digit in (seven, four, one):
        assert np.array_equal(remove_lines(digit), digit)


@pytest.mark.parametrize("turned", [False, True])
def test_a_digit_that_fills_the_image_may_leave_some_pixels_free(turned: bool) -> None:
    seven = np.zeros((64, 64), np.uint8)
    cv2.line(seven, (4, 4), (59, 4), 255, 5)
    cv2.line(seven, (58, 4), (22, 59), 255, 5)
    seven = seven.T.copy() if turned else seven
    assert np.array_equal(remove_lines(seven), seven)


@pytest.mark.parametrize("turned", [False, True])
def test_a_line_over_a_digit_that_fills_the_rest_goes_on_past_the_edges(turned: bool) -> None:
    lined = np.zeros((64, 64), np.uint8)
    lined[3:5] = 255
    cv2.circle(lined, (32, 19), 11, 255, 5)
    cv2.circle(lined, (32, 46), 13, 255, 5)
    freed = remove_lines(lined.T.copy()).T if turned else remove_lines(lined)
    assert np.count_nonzero(freed[3:5]) < 64
    assert np.array_equal(freed[8:], lined[8:])


def test_the_stem_of_a_1_in_thin_strokes_is_no_line() -> None:
    one = np.zeros((28, 28), np.uint8)
    one[:, 18] = 255
    cv2.line(one, (9, 13), (18, 1), 255, 1)
    assert np.array_equal(remove_lines(one), one)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("thickness", [3, 8])
def test_a_lone_line_in_the_midst_is_a_bar_if_it_is_as_thick_as_strokes(
    thickness: int, turned: bool
) -> None:
    """A 4 that reaches no edge above or below."""
    four = np.zeros((90, 70), np.uint8)
    cv2.polylines(four, [np.array([(20, 6), (6, 46)])], False, 255, 8)
    cv2.line(four, (50, 6), (50, 84), 255, 8)
    ink = cv2.line(four.copy(), (0, 50), (69, 50), 255, thickness)
    ink = ink.T.copy() if turned else ink
    is_kept = np.array_equal(remove_lines(ink), ink)
    assert is_kept == (thickness == 8)


def test_a_digit_paler_than_the_lines_is_as_strong_as_any_without_them() -> None:
    ink = np.zeros((100, 100), np.uint8)
    ink[8:12] = ink[88:92] = 255
    cv2.line(ink, (50, 25), (45, 75), 100, 6)
    cleaned = remove_lines(ink)
    assert cleaned[25:75].max() == 255 and not cleaned[:15].any()


@pytest.mark.parametrize("turned", [False, True])
def test_the_sides_of_a_cell_go_no_farther_than_its_lines(turned: bool) -> None:
    """As in a row of boxes with space above and below; a 1 beside one stays."""
    ink = np.zeros((100, 80), np.uint8)
    ink[10:13] = ink[88:91] = 200
    ink[13:88, 5:8] = ink[13:88, 66:69] = 200
    ink[16:85, 56:61] = 255
    digit = np.zeros_like(ink)
    digit[16:85, 56:61] = 255
    ink, digit = (np.ascontiguousarray(part.T if turned else part) for part in (ink, digit))
    assert np.array_equal(remove_lines(ink), digit)


@pytest.mark.parametrize("turned", [False, True])
def test_a_box_may_have_its_sides_well_inside_of_the_image(turned: bool) -> None:
    ink = np.zeros((100, 100), np.uint8)
    ink[10:13] = ink[88:91] = ink[13:88, 21:24] = ink[13:88, 76:79] = 200
    digit = cv2.ellipse(np.zeros_like(ink), (50, 50), (14, 25), 0, 0, 360, 255, 5)
    ink, digit = (np.ascontiguousarray(p.T if turned else p) for p in (ink | digit, digit))
    assert np.array_equal(remove_lines(ink), digit)


def test_the_stem_of_a_7_that_fills_the_image_is_no_side_of_a_cell() -> None:
    mask = np.zeros((40, 20), np.uint8)
    mask[:3] = mask[:, 17:19] = 1
    bar = np.zeros_like(mask)
    bar[:3] = 1
    assert not find_sides(mask, bar).any()
    bar[37:] = 1
    assert find_sides(mask | bar, bar)[3:37, 17:19].all()


@pytest.mark.parametrize("around", [0, 20])
@pytest.mark.parametrize("start", [(24, 4), (20, 22)])
def test_a_stroke_inside_of_a_0_is_not_in_a_frame(start: tuple[int, int], around: int) -> None:
    ink = np.zeros((73, 57), np.uint8)
    cv2.ellipse(ink, (28, 36), (26, 34), 0, 0, 360, 255, 5)
    cv2.line(ink, start, (30, 46), 255, 5)
    ink = np.pad(ink, around)
    assert np.array_equal(remove_lines(ink), ink)


@pytest.mark.parametrize("width", [4, 8, 12])
def test_the_width_of_a_stroke(width: int) -> None:
    assert measure_stroke_width(255 - draw_ring(width=width) >> 7) == pytest.approx(width, abs=1.2)
