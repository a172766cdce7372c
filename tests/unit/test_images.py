"""Each step from grey values to the 28×28 image that the network sees."""

from collections.abc import Callable

import cv2
import numpy as np
import PIL.Image
import PIL.ImageDraw
import pytest

from tests.drawing import encode_image, random_digits
from worker.dataset import load_mnist
from worker.decoding import ImageError, open_image
from worker.ground import (
    NARROW,
    WIDE,
    close,
    darken_edges,
    estimate_ground,
    fit_light,
    is_ground_dark,
    otsu_threshold,
    separate_ink,
    shrink,
)
from worker.images import (
    BOX,
    LOOK,
    LOOKS,
    STROKE,
    STROKE_SIDE,
    centre_of_mass,
    crop,
    drop_specks,
    is_digit_dropped,
    is_normalised,
    measure_stroke,
    normalise,
    place,
    read_digit,
    scale,
    thicken,
    trace_steps,
)
from worker.lines import remove_lines

SIDE = 120


def draw_ring(side: int = SIDE, width: int = 8, ink: int = 0, ground: int = 255) -> np.ndarray:
    """A ring, as of a 0, in the middle of an image."""
    image = PIL.Image.new("L", (side, side), ground)
    box = (side * 0.3, side * 0.2, side * 0.7, side * 0.8)
    PIL.ImageDraw.Draw(image).ellipse(box, outline=ink, width=width)
    return np.array(image)


def likeness(first: np.ndarray, second: np.ndarray) -> float:
    """Correlation of two images."""
    return float(np.corrcoef(first.reshape(-1), second.reshape(-1))[0, 1])


def same_digit(first: np.ndarray, second: np.ndarray, least: float = 0.95) -> bool:
    """Whether two images are alike, but for one pixel's move; `least` is of their correlation."""
    moves = [np.roll(first, (down, right), (0, 1)) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    return max(likeness(moved, second) for moved in moves) > least


def add_grain(grey: np.ndarray, sigma: float = 3) -> np.ndarray:
    """As a camera sees it."""
    grain = np.random.default_rng(0).normal(0, sigma, grey.shape)
    return np.asarray(np.clip(grey + grain, 0, 255), np.uint8)


@pytest.mark.parametrize("split", ["train", "test"])
def test_all_of_mnist_passes_unchanged(mnist_root: object, split: str) -> None:
    for image in load_mnist(split)[0].numpy():
        assert is_normalised(image)


def test_what_is_mnist_like_passes_to_the_bit() -> None:
    for digit in random_digits(5):
        assert np.array_equal(read_digit(encode_image(PIL.Image.fromarray(digit))).pixels, digit)


@pytest.mark.parametrize(
    "change",
    [
        lambda digit: 255 - digit,
        lambda digit: np.roll(digit, 4, axis=1),
        lambda digit: np.pad(digit[8:20, 8:20], 8),
        lambda digit: np.repeat(np.repeat(digit, 2, 0), 2, 1),
    ],
    ids=["dark on light", "off the centre", "small", "large"],
)
def test_what_is_not_mnist_like_is_made_so(
    change: Callable[[np.ndarray], np.ndarray],
) -> None:
    digit = normalise(draw_ring())
    assert is_normalised(digit) and not is_normalised(change(digit))
    assert is_normalised(normalise(change(digit)))


@pytest.mark.parametrize(("ink", "ground"), [(0, 255), (255, 0), (40, 200), (220, 90), (100, 130)])
def test_ink_comes_out_light_on_black(ink: int, ground: int) -> None:
    digit = normalise(draw_ring(ink=ink, ground=ground))
    assert same_digit(digit, normalise(draw_ring()))
    assert digit[0].max() == 0 and digit.max() > 200


def test_a_large_image_is_shrunk_and_a_small_one_left() -> None:
    assert shrink(np.zeros((400, 300), np.uint8), 64).shape == (64, 48)
    small = np.zeros((30, 50), np.uint8)
    assert shrink(small, 64) is small


@pytest.mark.parametrize("dark", [False, True])
def test_the_ground_is_what_the_border_shows_and_not_the_mean(dark: bool) -> None:
    blot = np.full((60, 60), 255, np.uint8)
    blot[6:54, 6:54] = 0  # two thirds are ink
    assert is_ground_dark(255 - blot if dark else blot) == dark


def test_a_drawing_of_light_strokes_that_fill_it() -> None:
    """Of a photo, most would have to speak for it."""
    left, top, width, height = cv2.boundingRect(255 - draw_ring(width=20))
    ring = 255 - draw_ring(width=20)[top - 3 : top + height + 3, left - 3 : left + width + 3]
    drawing = cv2.resize(ring, (32, 42), interpolation=cv2.INTER_AREA)
    assert is_ground_dark(np.where(drawing > 127, 255, 0).astype(np.uint8))


def test_where_the_votes_balance_the_ground_is_light() -> None:
    """Half and half, whichever way: not for sums of floats to decide."""
    for side in range(4, 49, 2):
        half = np.zeros((side, side), np.uint8)
        half[:, side // 2 :] = 255
        assert not is_ground_dark(half) and not is_ground_dark(half[:, ::-1].copy())


@pytest.mark.parametrize("dark", [False, True])
def test_the_frame_of_a_cell_is_not_the_ground(dark: bool) -> None:
    framed = np.pad(draw_ring(), 4, constant_values=0)
    assert is_ground_dark(255 - framed if dark else framed) == dark


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
@pytest.mark.parametrize(("side", "looks"), [(700, 1), (400, 2), (140, 3)])
def test_a_small_digit_in_a_large_photo_is_looked_at_closer(
    side: int, looks: int, format: str
) -> None:
    ring = draw_ring(side, width=side // 12)
    photo = np.full((2000, 1500), 255, np.uint8)
    photo[1200 : 1200 + side, 300 : 300 + side] = ring
    content = encode_image(PIL.Image.fromarray(photo), format, quality=95)
    names = [step.name for step in trace_steps(open_image(content, LOOK[0]))]
    assert [name for name in names if name in LOOKS] == [*LOOKS][:looks]
    assert names.count("place") == 1
    pixels, alone = read_digit(content)
    assert alone and same_digit(pixels, normalise(ring), least=0.85)


@pytest.mark.parametrize("radius", [12, 16])
def test_a_blot_does_not_hide_a_digit_of_thin_strokes(radius: int) -> None:
    """At a glance it is all there is."""
    photo = np.full((1000, 1000), 235, np.uint8)
    cv2.ellipse(photo, (500, 450), (180, 280), 0, 0, 360, 150, 4)
    cv2.circle(photo, (150, 940), radius, 30, -1)
    *_, box = (step for step in trace_steps(lambda side: photo) if step.name == "crop")
    assert box.image.shape[0] > 0.6 * LOOK[1]


@pytest.mark.parametrize("shape", [(50, 400), (400, 50), (60, 900), (100, 1800)])
def test_a_digit_on_a_strip(shape: tuple[int, int]) -> None:
    height, width = shape
    side = min(shape)
    strip = np.full(shape, 255, np.uint8)
    top, left = (height - side) // 3, (width - side) // 3
    strip[top : top + side, left : left + side] = draw_ring(side, width=side // 14)
    digit = read_digit(encode_image(PIL.Image.fromarray(strip)))
    assert same_digit(digit.pixels, normalise(draw_ring()), least=0.85)


def test_a_stroke_that_is_too_thin_for_a_glance_is_found() -> None:
    thin = np.full((1000, 1000), 255, np.uint8)
    cv2.line(thin, (500, 200), (500, 800), 200, 4)
    assert (normalise(thin) > 0).any()


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


@pytest.mark.parametrize("share", [WIDE, NARROW])
def test_closing_has_no_side(share: float) -> None:
    small = cv2.resize(add_grain(draw_ring(), 30), (48, 40), interpolation=cv2.INTER_AREA)
    assert np.array_equal(close(small[:, ::-1].copy(), share), close(small, share)[:, ::-1])


def test_light_goes_on_to_the_edges() -> None:
    lit = (220 * fall_off(40, 48, "lens")).astype(np.uint8)
    closed = close(lit, NARROW)
    assert np.abs(closed[0].astype(int) - lit[0]).min() > 10
    light = fit_light(closed, closed.mean())
    assert light is not None and np.abs(light - lit).max() < 4
    assert fit_light((220 * cast_shadow(0, 0, 0.5)[::8, ::8]).astype(np.uint8), 165) is None
    assert fit_light((220 * cast_shadow(0, 0, 0.05)[::8, ::8]).astype(np.uint8), 215) is None
    dark = 250 * (1 - 0.45 * np.add.outer(np.linspace(-1, 1, 40) ** 2, np.linspace(-1, 1, 48) ** 2))
    assert fit_light(dark.astype(np.uint8), dark.mean()) is None  # too dark for light
    assert fit_light(np.full((9, 48), 200, np.uint8), 200) is not None
    slope = (220 * fall_off(40, 48, "lamp")).astype(np.uint8)
    assert np.abs(darken_edges(close(slope, NARROW)).astype(int) - slope).max() < 8


def test_edges_are_darkened_alike_and_not_too_much() -> None:
    closed = cv2.GaussianBlur(
        np.random.default_rng(0).integers(0, 256, (15, 48), np.uint8), (0, 0), 3
    )
    darkened = darken_edges(closed)
    assert (darkened != closed).any() and (darkened >= np.floor(0.85 * closed)).all()
    for turn in (np.flipud, np.fliplr, np.transpose):
        assert np.array_equal(darken_edges(turn(closed).copy()), turn(darkened))


def test_the_ground_under_a_digit_is_that_around_it() -> None:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    lamp = 240 - columns * 0.8
    ground = estimate_ground(np.where(draw_ring() == 0, 30, lamp).astype(np.uint8))
    assert np.abs(ground[10:-10, 15:-15] - lamp[10:-10, 15:-15]).max() < 25


def test_the_grain_of_paper_is_no_ink() -> None:
    ink = separate_ink(add_grain(draw_ring(ink=120, ground=200), 5))
    far = cv2.dilate((draw_ring() == 0).astype(np.uint8), np.ones((9, 9), np.uint8)) == 0
    assert (ink[far] > 0).mean() < 0.001
    assert ink[draw_ring() == 0].mean() > 200


@pytest.mark.parametrize("value", [0, 128, 255])
def test_an_image_of_one_colour_is_blank(value: int) -> None:
    with pytest.raises(ImageError, match="blank"):
        separate_ink(np.full((40, 30), value, np.uint8))
    with pytest.raises(ImageError, match="blank"):
        crop(np.zeros((40, 30), np.uint8))


def draw_lines(*lines: tuple[int, int, int, int], width: int = 3) -> np.ndarray:
    """A ring as ink, and lines from one point to another."""
    image = PIL.Image.fromarray(255 - draw_ring())
    for line in lines:
        PIL.ImageDraw.Draw(image).line(line, fill=200, width=width)
    return np.asarray(image)


RING = 255 - draw_ring()


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
    assert likeness(drop_specks(cleaned), RING) > 0.9


def draw_two(left: int, right: int) -> np.ndarray:
    """A 2 as ink, whose bar goes from left to right."""
    two = np.zeros((SIDE, SIDE), np.uint8)
    cv2.ellipse(two, (60, 42), (26, 22), 0, 180, 400, 255, 6)
    cv2.line(two, (80, 56), (left, 96), 255, 6)
    return cv2.line(two, (left, 96), (right, 96), 255, 6)


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


def test_specks_and_neighbours_are_dropped() -> None:
    ink = RING.copy()
    ink[5:8, 30:33] = 255  # a speck
    ink[40:90, :8] = 255  # a neighbour's edge
    ink[110:, 60:80] = 255  # and another's
    assert np.array_equal(drop_specks(ink), RING)


def test_what_is_left_of_a_frame_is_dropped() -> None:
    ink = RING.copy()
    ink[:4, 10:] = ink[5:115, -3:] = 255  # at two edges each
    ink[118:, :100] = 255
    assert np.array_equal(drop_specks(ink), RING)


@pytest.mark.parametrize("speck", [3, 5, 8])
def test_a_digit_at_the_edge_is_more_than_a_speck_in_the_middle(speck: int) -> None:
    digit = cv2.line(np.zeros((280, 280), np.uint8), (20, 90), (14, 180), 255, 8)
    ink = digit.copy()
    ink[140 : 140 + speck, 140 : 140 + speck] = 255
    assert np.array_equal(drop_specks(ink), digit)


@pytest.mark.parametrize("shape", ["a digit's stroke", "a thin one that reaches in"])
def test_a_stroke_at_the_edge_is_no_end_of_a_shadow(shape: str) -> None:
    ink = np.zeros((SIDE, 2 * SIDE), np.uint8)
    ink[54:66, 150:162] = 255  # a blot
    digit = np.zeros_like(ink)
    if shape == "a digit's stroke":  # slim, though it fills its box
        digit[20:100, :12] = 255
    else:  # as wide as it is long, and mostly not ink
        cv2.ellipse(digit, (25, 60), (25, 30), 0, 0, 360, 255, 4)
    assert np.array_equal(drop_specks(ink | digit), digit)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (np.s_[30:80, 5:12], True),
        (np.s_[30:80, 0:7], False),
        (np.s_[0:50, 5:12], False),
        (np.s_[70:120, 5:12], False),
        (np.s_[30:60, 5:12], False),
        (np.s_[30:80, 5:7], False),
    ],
    ids=["a stroke", "at the left", "at the top", "at the bottom", "short", "thin"],
)
def test_what_is_dropped_may_be_a_digit(other: tuple[slice, slice], expected: bool) -> None:
    kept = np.pad(RING, ((0, 0), (60, 0)))
    ink = kept.copy()
    ink[other] = 255
    assert np.array_equal(drop_specks(ink), kept)
    assert is_digit_dropped(ink, kept) == expected
    ink[other] = 100
    assert not is_digit_dropped(ink, kept)  # pale
    ink[other] = 255
    ink, kept = (np.ascontiguousarray(image[:, ::-1]) for image in (ink, kept))
    assert is_digit_dropped(ink, kept) == expected


@pytest.mark.parametrize(("width", "left", "alone"), [(18, 600, True), (30, 613, False)])
def test_what_may_be_a_digit_is_for_the_closer_look_to_say(
    width: int, left: int, alone: bool
) -> None:
    photo = np.full((900, 900), 230, np.uint8)
    photo[300:400, 300:400] = draw_ring(100, width=4, ink=60, ground=230)
    photo[600:618, left : left + width] = 60
    *_, last = steps = list(trace_steps(lambda side: photo))
    glance = steps[[step.name for step in steps].index("closer") - 1]
    assert last.alone == alone != glance.alone


def test_what_a_look_drops_is_told_though_the_digit_is_cut_out() -> None:
    photo = np.full((1000, 1500), 255, np.uint8)
    for left in (100, 900):
        photo[400:540, left : left + 140] = draw_ring(140, width=11)
    digit = read_digit(encode_image(PIL.Image.fromarray(photo)))
    assert same_digit(digit.pixels, normalise(draw_ring(140, width=11)), least=0.85)
    assert not digit.alone


def test_the_end_of_a_shadow_is_less_than_a_digit() -> None:
    digit = np.pad(RING, ((0, 0), (200, 0)))
    ink = digit.copy()
    cv2.fillPoly(ink, [np.array([(0, 119), (0, 30), (100, 119)])], 255)
    assert np.array_equal(drop_specks(ink), digit)


def test_a_digit_in_two_strokes_stays_whole() -> None:
    five = np.zeros((SIDE, SIDE), np.uint8)
    five[20:26, 50:85] = 255  # the bar, set down apart
    five[32:100, 40:48] = 255
    assert np.array_equal(drop_specks(five), five)
    tight = five[20:100, 40:85]
    assert np.array_equal(drop_specks(tight), tight)


def test_a_box_is_that_of_the_ink() -> None:
    assert crop(RING).shape == (73, 49)


def test_a_thin_stroke_is_thickened_and_a_thick_one_left() -> None:
    thin, thick = (crop(255 - draw_ring(width=width)) for width in (2, 12))
    assert np.array_equal(thicken(thick), thick)
    width = measure_stroke(scale(thicken(thin), STROKE_SIDE)) * BOX / STROKE_SIDE
    assert measure_stroke(scale(thin, STROKE_SIDE)) * BOX / STROKE_SIDE < STROKE / 2
    assert width == pytest.approx(STROKE, rel=0.25)


@pytest.mark.parametrize("width", [4, 8, 12])
def test_the_width_of_a_stroke(width: int) -> None:
    assert measure_stroke(255 - draw_ring(width=width)) == pytest.approx(width, abs=1.2)


@pytest.mark.parametrize("shape", [(10, 10), (300, 40), (1, 50), (400, 1), (7, 3)])
def test_the_longer_side_fills_the_box(shape: tuple[int, int]) -> None:
    scaled = scale(np.full(shape, 255, np.uint8))
    assert max(scaled.shape) == BOX and min(scaled.shape) >= 1


@pytest.mark.parametrize("shape", [(20, 4), (4, 20), (20, 20)])
def test_the_centre_of_mass_is_in_the_middle(shape: tuple[int, int]) -> None:
    ink = np.zeros(shape, np.uint8)
    ink[: shape[0] // 2] = 255
    placed = place(ink)
    assert placed.shape == (28, 28) and placed.sum() == ink.sum()
    assert centre_of_mass(placed)[1] == pytest.approx(14, abs=0.6)
    if shape[0] < 20:  # else there is no room
        assert centre_of_mass(placed)[0] == pytest.approx(14, abs=0.6)


def test_otsu_parts_two_heaps() -> None:
    counts = np.zeros(256)
    counts[10], counts[12], counts[200] = 500, 400, 100
    assert 12 <= otsu_threshold(counts) < 200


def test_the_trace_ends_with_what_the_network_sees() -> None:
    names, images, _ = zip(*trace_steps(lambda side: draw_ring()), strict=True)
    assert names[:3] == ("grey", "shrink", "separate ink") and names[-1] == "place"
    assert np.array_equal(images[-1], normalise(draw_ring()))
    assert [step.name for step in trace_steps(lambda side: images[-1])] == ["grey"]


SHAPES = [(1, 1), (1, 2), (2, 1), (3, 3), (1, 300), (300, 1), (5, 500), (1, 2000), (3000, 2)]


@pytest.mark.parametrize("format", ["PNG", "JPEG", "BMP"])
@pytest.mark.parametrize("shape", SHAPES)
def test_no_shape_is_a_crash(shape: tuple[int, int], format: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    for grey in (noise, np.where(noise > 200, 255, 0).astype(np.uint8), noise * 0):
        try:
            digit = read_digit(encode_image(PIL.Image.fromarray(grey), format))
            assert digit.pixels.shape == (28, 28)
        except ImageError as error:
            assert "blank" in str(error)
