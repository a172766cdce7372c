"""Ink and ground: which is which, in any light."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from digitq.worker.picture import ImageError
from digitq.worker.sight.normalisation.background import (
    NARROW_CLOSING,
    ROUGH_SIDE,
    WIDE_CLOSING,
    close,
    darken_edges,
    estimate_background,
    extract_ink,
    fit_light,
    is_background_dark,
)
from digitq.worker.sight.normalisation.measuring import otsu_threshold, shrink
from digitq.worker.sight.normalisation.placing import crop
from digitq.worker.sight.normalisation.steps import normalise
from tests.drawing import RING_SIDE, add_grain, draw_ring, likeness, same_digit


@pytest.mark.parametrize(("ink", "ground"), [(0, 255), (255, 0), (40, 200), (220, 90), (100, 130)])
def test_ink_comes_out_light_on_black(ink: int, ground: int) -> None:
    digit = normalise(draw_ring(ink=ink, ground=ground))
    assert same_digit(digit, normalise(draw_ring()))
    assert digit[0].max() == 0 and digit.max() > 200


def test_a_large_image_is_shrunk_and_a_small_one_left() -> None:
    assert shrink(np.zeros((400, 300), np.uint8), 64).shape == (64, 48)
    small = np.zeros((30, 50), np.uint8)
    assert shrink(small, 64) is small


@pytest.mark.parametrize("shape", [(1000, 801), (501, 999, 3), (1, 5000), (5000, 1)])
def test_a_large_image_is_halved_first_which_is_hardly_another(shape: tuple[int, ...]) -> None:
    large = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, shape, np.uint8), (0, 0), 9)
    small = shrink(large, 64)
    at_once = cv2.resize(large, small.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert max(small.shape) == 64
    assert cv2.absdiff(small, at_once).max() <= 2


@pytest.mark.parametrize("dark", [False, True])
def test_the_ground_is_what_the_border_shows_and_not_the_mean(dark: bool) -> None:
    blot = np.full((60, 60), 255, np.uint8)
    blot[6:54, 6:54] = 0  # two thirds are ink
    assert is_background_dark(255 - blot if dark else blot) == dark


@pytest.mark.parametrize("dark", [False, True])
def test_what_is_obvious_is_not_asked_further(monkeypatch: pytest.MonkeyPatch, dark: bool) -> None:
    monkeypatch.delattr("digitq.worker.sight.normalisation.background.measure_radius")
    ring = draw_ring(width=6)
    assert is_background_dark(255 - ring if dark else ring) == dark


@pytest.mark.parametrize("turn", [np.asarray, np.transpose])
def test_a_shadow_over_most_of_a_photo_is_no_dark_ground(
    turn: Callable[[np.ndarray], np.ndarray],
) -> None:
    light = np.where(np.linspace(0, 1, RING_SIDE) < 0.92, 0.3, 1)
    photo = add_grain(draw_ring(ink=60, ground=220) * light)
    assert not is_background_dark(shrink(turn(photo).copy(), ROUGH_SIDE))


def test_a_drawing_of_light_strokes_that_fill_it() -> None:
    """Of a photo, most would have to speak for it."""
    left, top, width, height = cv2.boundingRect(255 - draw_ring(width=20))
    ring = 255 - draw_ring(width=20)[top - 3 : top + height + 3, left - 3 : left + width + 3]
    drawing = cv2.resize(ring, (32, 42), interpolation=cv2.INTER_AREA)
    assert is_background_dark(np.where(drawing > 127, 255, 0).astype(np.uint8))


def cut_out(ink: np.ndarray) -> np.ndarray:
    """The ink, and nothing around it."""
    left, top, width, height = cv2.boundingRect(cv2.threshold(ink, 8, 1, cv2.THRESH_BINARY)[1])
    return ink[top : top + height, left : left + width]


@pytest.mark.parametrize("width", [8, 12, 16])
@pytest.mark.parametrize("fall", [0.2, 0.5])
def test_a_light_digit_cut_out_tightly_of_a_photo(width: int, fall: float) -> None:
    """There, it is ink that the grey values vary by, more than light."""
    ink = cut_out(255 - draw_ring(width=width))
    photo = add_grain((50 + 0.6 * ink) * (1 - np.linspace(0, fall, ink.shape[1])), 2)
    assert is_background_dark(shrink(photo, 48)) and not is_background_dark(shrink(255 - photo, 48))


TINY_TWO = """
    0 0 4 7 7 3 0 0
    0 3 7 4 5 7 0 0
    0 2 1 0 6 6 0 0
    0 0 0 3 7 4 0 0
    0 0 0 7 5 0 0 0
    0 0 5 7 1 0 0 0
    0 3 7 7 3 4 4 2
    0 2 5 7 7 7 5 1
"""


@pytest.mark.parametrize("times", [4, 8])
def test_soft_strokes_on_black_that_fill_the_image(times: int) -> None:
    """Most of it is neither the one nor the other; hardly a photo has a ground as even."""
    two = np.array([line.split() for line in TINY_TWO.split("\n")[1:-1]], np.uint8) * 36
    large = cv2.resize(two, None, fx=times, fy=times, interpolation=cv2.INTER_CUBIC)
    assert is_background_dark(shrink(large, 48)) and not is_background_dark(shrink(255 - large, 48))


def test_a_wide_stroke_at_the_edge_is_no_shadow_on_black() -> None:
    seven = np.zeros((96, 96), np.uint8)
    seven[:36, 12:84] = seven[:, 48:84] = 255
    seven = cv2.GaussianBlur(seven, (0, 0), 3)
    assert likeness(extract_ink(seven), seven) > 0.98


def test_where_the_votes_balance_the_ground_is_light() -> None:
    """Half and half, whichever way: not for sums of floats to decide."""
    for side in range(4, 49, 2):
        half = np.zeros((side, side), np.uint8)
        half[:, side // 2 :] = 255
        assert not is_background_dark(half) and not is_background_dark(half[:, ::-1].copy())


@pytest.mark.parametrize("dark", [False, True])
def test_the_frame_of_a_cell_is_not_the_ground(dark: bool) -> None:
    framed = np.pad(draw_ring(), 4, constant_values=0)
    assert is_background_dark(255 - framed if dark else framed) == dark


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("side", [128, 280, 1000])
@pytest.mark.parametrize("share", [0.06, 0.1, 0.2])
def test_a_small_digit_is_not_the_ground(dark: bool, side: int, share: float) -> None:
    image = np.full((side, side), 255, np.uint8)
    half = int(side * share / 2)
    middle, thick = side // 2, max(1, half // 7)
    cv2.line(image, (middle - half, middle - half), (middle + half, middle - half), 0, thick)
    cv2.line(image, (middle + half, middle - half), (middle, middle + half), 0, thick)
    digit = normalise(255 - image if dark else image)
    assert 0.02 < (digit > 127).mean() < 0.2


def shade(grey: np.ndarray) -> np.ndarray:
    """Under a lamp on the left, with the edge of a shadow across the digit."""
    rows, columns = np.mgrid[: grey.shape[0], : grey.shape[1]]
    lamp = 1 - 0.3 * columns / grey.shape[1]
    shadow = np.where(rows + columns > grey.shape[0], 0.55, 1.0)
    return add_grain(grey * lamp * cv2.GaussianBlur(shadow, (0, 0), 2))


def test_ink_is_told_from_shadow() -> None:
    ring = draw_ring(ink=40, ground=230)
    assert same_digit(normalise(shade(ring)), normalise(ring))


def fall_off(height: int, width: int, kind: str) -> np.ndarray:
    """A share of full light at each pixel: as a lamp at the side gives it, and as a lens does."""
    down, right = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    lamp = 0.75 + 0.25 * (0.6 * right + 0.4 * down)
    lens = 1 - 0.2 * (down**2 + right**2)
    return np.asarray({"lamp": lamp, "lens": lens}[kind])


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("light", ["lamp", "lens"])
@pytest.mark.parametrize("side", [80, 130, 500])
def test_a_digit_in_light_that_falls_off(side: int, light: str, dark: bool) -> None:
    """The smaller it is, the less of the image is ink, and the more falls to the light."""
    ring = draw_ring(side, width=side // 12, ink=40, ground=220)
    photo = np.full((900, 1200), 220, np.uint8)
    photo[150 : 150 + side, 200 : 200 + side] = ring
    if dark:
        photo, ring = 255 - photo, 255 - ring
    digit = normalise(add_grain(photo * fall_off(900, 1200, light), 2))
    assert same_digit(digit, normalise(ring), least=0.85)


def cast_shadow(angle: float, off: float, depth: float) -> np.ndarray:
    """Light (300, 400) that falls off, with the edge of a shadow beside the middle."""
    down, right = np.meshgrid(np.linspace(-1, 1, 300), np.linspace(-1, 1, 400), indexing="ij")
    along = right * np.cos(angle) + down * np.sin(angle)
    light = (1 - 0.1 * along) * (1 - depth / (1 + np.exp((off - along) / 0.02)))
    return np.asarray(light)


@pytest.mark.parametrize(
    "shadow", [(2.2, -0.3, 0.3), (1.2, 0.3, 0.5), (1.2, 0.5, 0.5), (-2, 0.5, 0.5)]
)
def test_a_small_digit_beside_the_edge_of_a_shadow(shadow: tuple[float, float, float]) -> None:
    """Half of the paper may be dark; it is paper all the same, and so are its corners."""
    photo = np.full((300, 400), 220, np.uint8)
    photo[50:83, 70:103] = draw_ring(33, width=2, ink=40, ground=220)
    digit = normalise(add_grain(photo * cast_shadow(*shadow), 2))
    assert same_digit(digit, normalise(draw_ring(100)), least=0.8)


@pytest.mark.parametrize(("paper", "ink", "spot"), [(130, 60, 255), (110, 190, 5)])
def test_a_small_spot_says_nothing_of_the_ground(paper: int, ink: int, spot: int) -> None:
    """As where a lamp is mirrored, or of dirt."""
    photo = draw_ring(ink=ink, ground=paper)
    alone = normalise(add_grain(photo))
    cv2.circle(photo, (100, 20), 4, spot, cv2.FILLED)
    assert is_background_dark(shrink(photo, 48)) == (ink > paper)
    assert same_digit(normalise(add_grain(photo)), alone, least=0.85)


def test_a_spot_of_light_is_no_ink() -> None:
    down, right = np.meshgrid(np.linspace(0, 1, 300), np.linspace(0, 1, 400), indexing="ij")
    light = 0.5 + 0.5 * np.exp(-((right - 0.9) ** 2 + (down - 0.95) ** 2) / 0.08)
    photo = np.full((300, 400), 220, np.uint8)
    photo[40:160, 60:180] = draw_ring(120, width=9, ink=175, ground=220)
    assert same_digit(normalise(add_grain(photo * light, 1)), normalise(draw_ring()), least=0.85)


def test_a_sheet_on_a_darker_desk() -> None:
    photo = add_grain(np.full((300, 400), 110, np.uint8), 6)
    sheet = np.array([(30, 15), (380, 25), (370, 290), (20, 280)])
    cv2.fillPoly(photo, [sheet], 215)
    photo[90:210, 140:260] = draw_ring(120, width=9, ink=50, ground=215)
    assert same_digit(normalise(add_grain(photo)), normalise(draw_ring()), least=0.85)


@pytest.mark.parametrize("share", [WIDE_CLOSING, NARROW_CLOSING])
def test_closing_has_no_side(share: float) -> None:
    small = cv2.resize(add_grain(draw_ring(), 30), (48, 40), interpolation=cv2.INTER_AREA)
    assert np.array_equal(close(small[:, ::-1].copy(), share), close(small, share)[:, ::-1])


def test_light_goes_on_to_the_edges() -> None:
    lit = (220 * fall_off(40, 48, "lens")).astype(np.uint8)
    closed = close(lit, NARROW_CLOSING)
    assert np.abs(closed[0].astype(int) - lit[0]).min() > 10
    light = fit_light(closed, closed.mean())
    assert light is not None and np.abs(light - lit).max() < 4
    assert fit_light((220 * cast_shadow(0, 0, 0.5)[::8, ::8]).astype(np.uint8), 165) is None
    assert fit_light((220 * cast_shadow(0, 0, 0.05)[::8, ::8]).astype(np.uint8), 215) is None
    dark = 250 * (1 - 0.45 * np.add.outer(np.linspace(-1, 1, 40) ** 2, np.linspace(-1, 1, 48) ** 2))
    assert fit_light(dark.astype(np.uint8), dark.mean()) is None  # too dark for light
    assert fit_light(np.full((9, 48), 200, np.uint8), 200) is not None
    slope = (220 * fall_off(40, 48, "lamp")).astype(np.uint8)
    assert np.abs(darken_edges(close(slope, NARROW_CLOSING)).astype(int) - slope).max() < 8


def test_edges_are_darkened_alike_and_not_too_much() -> None:
    closed = cv2.GaussianBlur(
        np.random.default_rng(0).integers(0, 256, (15, 48), np.uint8), (0, 0), 3
    )
    darkened = darken_edges(closed)
    assert (darkened != closed).any() and (darkened >= np.floor(0.85 * closed)).all()
    for turn in (np.flipud, np.fliplr, np.transpose):
        assert np.array_equal(darken_edges(turn(closed).copy()), turn(darkened))


def test_the_ground_under_a_digit_is_that_around_it() -> None:
    rows, columns = np.mgrid[:RING_SIDE, :RING_SIDE]
    lamp = 240 - columns * 0.8
    ground = estimate_background(np.where(draw_ring() == 0, 30, lamp).astype(np.uint8))
    assert np.abs(ground[10:-10, 15:-15] - lamp[10:-10, 15:-15]).max() < 25


def test_the_grain_of_paper_is_no_ink() -> None:
    ink = extract_ink(add_grain(draw_ring(ink=120, ground=200), 5))
    far = cv2.dilate((draw_ring() == 0).astype(np.uint8), np.ones((9, 9), np.uint8)) == 0
    assert (ink[far] > 0).mean() < 0.001
    assert ink[draw_ring() == 0].mean() > 200


@pytest.mark.parametrize("depth", [0.3, 0.45])
def test_a_shadow_that_is_wider_than_strokes_is_no_ink(depth: float) -> None:
    shadow = np.zeros((RING_SIDE, RING_SIDE), np.float32)
    cv2.line(shadow, (0, 95), (45, 119), 1, 22)
    shadow = cv2.GaussianBlur(shadow, (0, 0), 2)
    photo = draw_ring(ink=30, ground=220) * (1 - depth * shadow)
    ink = extract_ink(add_grain(photo.astype(np.uint8)))
    assert likeness(ink, extract_ink(draw_ring(ink=30, ground=220))) > 0.95


@pytest.mark.parametrize("width", [20, 30])
def test_a_pale_digit_is_no_shade_beside_a_dark_line(width: int) -> None:
    paper = np.full((400, 400), 230) * (1 - np.linspace(0, 0.25, 400))
    strokes = np.zeros((400, 400), np.uint8)
    cv2.ellipse(strokes, (200, 190), (60, 110), 0, 0, 360, 1, width)
    photo = add_grain(np.where(strokes, paper * 0.68, paper).astype(np.uint8), 2)
    lined = cv2.line(photo.copy(), (0, 360), (399, 360), 25, 4)
    assert same_digit(normalise(lined), normalise(photo), least=0.85)


@pytest.mark.parametrize("inset", [4, 10])
def test_a_pale_digit_among_the_dark_lines_of_a_cell(inset: int) -> None:
    grey = (255 - 0.2 * (255 - draw_ring())).astype(np.uint8)
    cell = 255 - np.zeros_like(grey)
    for first in (inset, RING_SIDE - inset - 4):
        cell[first : first + 3] = cell[:, first : first + 3] = 0
    ink = extract_ink(np.minimum(grey, cell))
    inside = np.s_[16:-16, 16:-16]
    assert likeness(ink[inside], (255 - draw_ring())[inside]) > 0.9


@pytest.mark.parametrize("value", [0, 128, 255])
def test_an_image_of_one_colour_is_blank(value: int) -> None:
    with pytest.raises(ImageError, match="blank"):
        extract_ink(np.full((40, 30), value, np.uint8))
    with pytest.raises(ImageError, match="blank"):
        crop(np.zeros((40, 30), np.uint8))


def test_otsu_parts_two_heaps() -> None:
    values = np.repeat(np.array([10, 12, 200], np.uint8), [500, 400, 100])
    assert 12 <= otsu_threshold(values) < 200


def test_a_pale_digit_in_wide_strokes_among_thin_lines_is_no_shade() -> None:
    grey = np.full((64, 64), 230, np.uint8) - np.linspace(0, 30, 64).astype(np.uint8)
    digit = np.zeros((64, 64), np.uint8)
    cv2.polylines(digit, [np.array([(22, 18), (42, 18), (30, 48)])], False, 40, 8)
    grey -= digit
    for line in (5, 58):
        grey[line] = grey[:, line] = 40
    assert (extract_ink(grey)[digit > 0] > 0).all()
