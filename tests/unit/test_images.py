"""Each step from grey values to the 28×28 image that the network sees."""

from collections.abc import Callable

import cv2
import numpy as np
import PIL.Image
import pytest

from tests.drawing import RING, SIDE, draw_ring, encode_image, random_digits, same_digit
from worker.dataset import load_mnist
from worker.decoding import ImageError, open_image
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
    normalise,
    place,
    read_digit,
    scale,
    thicken,
    trace_steps,
)
from worker.lines import measure_stroke


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
    """At a glance it may be all there is."""
    photo = np.full((1000, 1000), 235, np.uint8)
    cv2.ellipse(photo, (500, 450), (180, 280), 0, 0, 360, 150, 4)
    cv2.circle(photo, (150, 940), radius, 30, -1)
    steps = {step.name: step.image for step in trace_steps(lambda side: photo)}  # of the last look
    assert len(steps["crop"]) > 0.5 * len(steps["shrink"])


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


@pytest.mark.parametrize("radius", [40, 52])
def test_a_digit_in_a_circle_is_what_is_inside(radius: int) -> None:
    three = np.zeros((SIDE, SIDE), np.uint8)
    cv2.ellipse(three, (58, 46), (14, 14), 0, 200, 440, 255, 5)
    cv2.ellipse(three, (58, 74), (14, 14), 0, -80, 160, 255, 5)
    circled = cv2.circle(three.copy(), (60, 60), radius, 255, 5)
    assert np.array_equal(drop_specks(circled), three)
    assert is_digit_dropped(circled, three)


def test_a_ring_around_a_dot_is_a_0() -> None:
    dotted = cv2.circle(RING.copy(), (60, 60), 6, 255, -1)
    assert np.array_equal(drop_specks(dotted), dotted)


def draw_dashes() -> np.ndarray:
    """A ring of dashes, as ink, that goes to two edges of the image."""
    ink = np.zeros((64, 64), np.uint8)
    for start in range(0, 360, 24):
        cv2.ellipse(ink, (44, 40), (18, 22), 0, start, start + 16, 255, 2)
    return ink


def test_the_pieces_of_a_broken_stroke_stay_together() -> None:
    dashes = draw_dashes()
    assert np.array_equal(drop_specks(dashes), dashes)


@pytest.mark.parametrize("turned", [False, True])
def test_what_is_left_of_a_frame_is_no_piece_of_a_stroke(turned: bool) -> None:
    dashes = draw_dashes()
    framed = dashes.copy()
    framed[61:, 4:28] = 255
    if turned:
        dashes, framed = dashes.T.copy(), framed.T.copy()
    assert np.array_equal(drop_specks(framed), dashes)


def test_a_box_is_that_of_the_ink() -> None:
    assert crop(RING).shape == (73, 49)


def test_a_thin_stroke_is_thickened_and_a_thick_one_left() -> None:
    thin, thick = (crop(255 - draw_ring(width=width)) for width in (2, 12))
    assert np.array_equal(thicken(thick), thick)
    before, after = (
        measure_stroke(scale(ink, STROKE_SIDE) >> 7) * BOX / STROKE_SIDE
        for ink in (thin, thicken(thin))
    )
    assert before < STROKE / 2
    assert after == pytest.approx(STROKE, rel=0.25)


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
