"""Each step from grey values to the 28×28 image that the network sees."""

import io
from collections.abc import Callable
from unittest.mock import patch

import cv2
import numpy as np
import PIL.Image
import pytest

from digitq.protocol.formats.mnist import Part
from digitq.worker.dataset import load_mnist
from digitq.worker.picture import ImageError, TimeLimitError
from digitq.worker.sight.decoding.any_file import open_image
from digitq.worker.sight.normalisation import steps
from digitq.worker.sight.normalisation.doubts import ANOTHER, SOLID
from digitq.worker.sight.normalisation.measuring import measure_stroke_width
from digitq.worker.sight.normalisation.placing import (
    DIGIT_SIDE,
    MIN_STROKE_WIDTH,
    STROKE_SIDE,
    centre,
    centre_of_mass,
    crop,
    dilate_thin_strokes,
    is_normalised,
    scale,
)
from digitq.worker.sight.normalisation.steps import (
    COARSE,
    FINE,
    MAX_STRIP_ASPECT,
    SCALES,
    normalise,
    trace_steps,
)
from tests.drawing import RING, draw_ring, encode_image, random_digits, same_digit
from tests.reading import read_digit


def test_mnist_passes_unchanged() -> None:
    assert all(map(is_normalised, load_mnist("sample")[0].numpy()))


@pytest.mark.slow
@pytest.mark.parametrize("part", ["train", "test"])
def test_all_of_mnist_passes_unchanged(mnist_root: object, part: Part) -> None:
    assert all(map(is_normalised, load_mnist(part)[0].numpy()))


def test_what_is_mnist_like_passes_to_the_bit() -> None:
    for digit in random_digits(5):
        assert np.array_equal(read_digit(encode_image(PIL.Image.fromarray(digit))).image, digit)


def test_a_jpeg_of_such_an_image_is_what_it_is_decoded_to() -> None:
    for digit in load_mnist("sample")[0][:100].numpy():
        content = encode_image(PIL.Image.fromarray(digit), "JPEG", quality=85)
        assert np.array_equal(read_digit(content).image, PIL.Image.open(io.BytesIO(content)))


@pytest.mark.parametrize(("radius", "review_reason"), [(40, SOLID), (18, "")])
def test_what_is_wider_than_strokes_is_a_doubt(radius: int, review_reason: str) -> None:
    picture = np.full((300, 300), 240, np.uint8)
    cv2.line(picture, (120, 110), (180, 190), 20, 2 * radius)
    assert read_digit(encode_image(PIL.Image.fromarray(picture))).review_reason == review_reason


@pytest.mark.parametrize(
    "change",
    [
        lambda digit: 255 - digit,
        lambda digit: np.roll(digit, 4, axis=1),
        lambda digit: np.pad(digit[8:20, 8:20], 8),
        lambda digit: np.repeat(np.repeat(digit, 2, 0), 2, 1),
        lambda digit: digit // 2,
        lambda digit: 20 + digit // 255 * 235,
        lambda digit: cv2.applyColorMap(digit, cv2.COLORMAP_VIRIDIS),
    ],
    ids=["dark on light", "off the centre", "small", "large", "pale", "on grey", "in colours"],
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
    names = [step.name for step in trace_steps(open_image(content, FINE[0]))]
    assert [name for name in names if name in SCALES] == [*SCALES][:looks]
    assert names.count("centre") == 1
    digit = read_digit(content)
    assert not digit.review_reason and same_digit(digit.image, normalise(ring), least=0.85)


@pytest.mark.parametrize("radius", [12, 16])
def test_a_blot_does_not_hide_a_digit_of_thin_strokes(radius: int) -> None:
    """At a glance it may be all there is."""
    photo = np.full((1000, 1000), 235, np.uint8)
    cv2.ellipse(photo, (500, 450), (180, 280), 0, 0, 360, 150, 4)
    cv2.circle(photo, (150, 940), radius, 30, -1)
    steps = {step.name: step.image for step in trace_steps(lambda side: photo)}  # of the last look
    assert len(steps["crop"]) > 0.5 * len(steps["closer"])


@pytest.mark.parametrize("shape", [(50, 400), (400, 50), (60, 900), (100, 1800)])
def test_a_digit_on_a_strip(shape: tuple[int, int]) -> None:
    height, width = shape
    side = min(shape)
    strip = np.full(shape, 255, np.uint8)
    top, left = (height - side) // 3, (width - side) // 3
    strip[top : top + side, left : left + side] = draw_ring(side, width=side // 14)
    digit = read_digit(encode_image(PIL.Image.fromarray(strip)))
    assert same_digit(digit.image, normalise(draw_ring()), least=0.85)


@pytest.mark.parametrize("times", [3, 8, 14])
def test_a_long_strip_stays_as_wide_as_a_short_one(times: int) -> None:
    strip = np.full((60, 60 * times), 255, np.uint8)
    strip[5:55, 100:150] = draw_ring(50, width=4)
    for picture in (strip, strip.T):
        glance = next(trace_steps(lambda side: picture))  # noqa: B023
        assert abs(min(glance.image.shape) - COARSE[1] / min(times, MAX_STRIP_ASPECT)) <= 1


def test_a_stroke_that_is_too_thin_for_a_glance_is_found() -> None:
    thin = np.full((1000, 1000), 255, np.uint8)
    cv2.line(thin, (500, 200), (500, 800), 200, 4)
    assert (normalise(thin) > 0).any()


@pytest.mark.parametrize(("width", "left", "review_reason"), [(18, 600, ""), (32, 610, ANOTHER)])
def test_what_may_be_a_digit_is_for_the_closer_look_to_say(
    width: int, left: int, review_reason: str
) -> None:
    photo = np.full((900, 900), 230, np.uint8)
    photo[300:400, 300:400] = draw_ring(100, width=4, ink=60, ground=230)
    photo[600:618, left : left + width] = 60
    *_, last = steps = list(trace_steps(lambda side: photo))
    glance = steps[[step.name for step in steps].index("closer") - 1]
    assert last.review_reason == review_reason != glance.review_reason


def test_what_a_look_drops_is_told_though_the_digit_is_cut_out() -> None:
    photo = np.full((1000, 1500), 255, np.uint8)
    for left in (100, 900):
        photo[400:540, left : left + 140] = draw_ring(140, width=11)
    digit = read_digit(encode_image(PIL.Image.fromarray(photo)))
    assert same_digit(digit.image, normalise(draw_ring(140, width=11)), least=0.85)
    assert digit.review_reason == ANOTHER


def draw_pair(cut: float) -> np.ndarray:
    """A 0 and to its right a 2, of which a share is cut off by the edge."""
    picture = np.full((120, 200), 255, np.uint8)
    cv2.ellipse(picture, (60, 60), (26, 30), 0, 0, 360, 0, 7)
    two = np.array([(115, 40), (125, 25), (145, 25), (152, 42), (114, 96), (156, 96)], np.int32)
    cv2.polylines(picture, [two], False, 0, 7)
    return picture[:, : round(160 - 49 * cut)]


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize(
    ("cut", "review_reason"), [(0.0, ANOTHER), (0.1, ANOTHER), (0.2, ANOTHER), (0.8, "")]
)
def test_a_second_digit_at_an_edge_is_a_doubt_and_a_remainder_is_not(
    turns: int, cut: float, review_reason: str
) -> None:
    picture = np.ascontiguousarray(np.rot90(draw_pair(cut), turns))
    for seen in (picture, 255 - picture):
        digit = read_digit(encode_image(PIL.Image.fromarray(seen)))
        assert digit.review_reason == review_reason


@pytest.mark.parametrize(("height", "review_reason"), [(0.5, ""), (0.75, ANOTHER), (1.0, ANOTHER)])
def test_a_stroke_at_the_side_is_a_1_if_it_is_about_as_high_as_the_digit(
    height: float, review_reason: str
) -> None:
    picture = np.full((160, 130), 255, np.uint8)
    cv2.ellipse(picture, (50, 80), (24, 32), 0, 0, 360, 0, 7)  # 71 px high
    half = round(71 * height / 2)
    picture[80 - half : 80 + half, 121:] = 0
    for seen in (picture, picture[:, ::-1]):
        digit = read_digit(encode_image(PIL.Image.fromarray(np.ascontiguousarray(seen))))
        assert digit.review_reason == review_reason


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("kind", ["line", "frame", "corner", "shadow"])
def test_what_is_no_digit_at_an_edge_is_no_doubt(turns: int, kind: str) -> None:
    picture = np.full((120, 120), 235, np.uint8)
    cv2.ellipse(picture, (60, 60), (20, 32), 0, 0, 360, 20, 6)
    if kind == "line":
        picture[:, 112:116] = 20
    elif kind == "frame":
        cv2.rectangle(picture, (4, 4), (115, 115), 20, 3)
    elif kind == "corner":
        cv2.fillPoly(picture, [np.array([(80, 0), (119, 0), (119, 50)])], 20)
    else:
        cv2.circle(picture, (125, 60), 30, 90, cv2.FILLED)
    turned = np.ascontiguousarray(np.rot90(picture, turns))
    assert not read_digit(encode_image(PIL.Image.fromarray(turned))).review_reason


def test_a_circle_around_what_is_small_is_a_doubt() -> None:
    picture = np.full((120, 120), 255, np.uint8)
    cv2.circle(picture, (60, 60), 45, 0, 6)
    assert not read_digit(encode_image(PIL.Image.fromarray(picture))).review_reason
    cv2.line(picture, (60, 48), (60, 72), 0, 6)
    assert read_digit(encode_image(PIL.Image.fromarray(picture))).review_reason == ANOTHER


def test_a_digit_above_another_is_a_doubt() -> None:
    picture = np.full((280, 180), 255, np.uint8)
    for row in (90, 190):
        cv2.circle(picture, (90, row), 42, 0, 8)
    assert read_digit(encode_image(PIL.Image.fromarray(picture))).review_reason == ANOTHER


def test_of_four_digits_two_that_are_kept_hide_no_others() -> None:
    digits = load_mnist("sample")[0][:160].numpy().reshape(40, 2, 2, 28, 28)
    fours = digits.transpose(0, 1, 3, 2, 4).reshape(40, 56, 56)
    doubts = [
        read_digit(encode_image(PIL.Image.fromarray(255 - four))).review_reason for four in fours
    ]
    assert doubts.count(ANOTHER) >= 32  # of others, three or four may be kept


def test_a_box_is_that_of_the_ink() -> None:
    assert crop(RING).shape == (73, 49)


def test_a_thin_stroke_is_thickened_and_a_thick_one_left() -> None:
    thin, thick = (crop(255 - draw_ring(width=width)) for width in (2, 12))
    assert np.array_equal(dilate_thin_strokes(thick), thick)
    before, after = (
        measure_stroke_width(scale(ink, STROKE_SIDE) >> 7) * DIGIT_SIDE / STROKE_SIDE
        for ink in (thin, dilate_thin_strokes(thin))
    )
    assert before < MIN_STROKE_WIDTH / 2
    assert after == pytest.approx(MIN_STROKE_WIDTH, rel=0.25)


@pytest.mark.parametrize("shape", [(10, 10), (300, 40), (1, 50), (400, 1), (7, 3)])
def test_the_longer_side_fills_the_box(shape: tuple[int, int]) -> None:
    scaled = scale(np.full(shape, 255, np.uint8))
    assert max(scaled.shape) == DIGIT_SIDE and min(scaled.shape) >= 1


@pytest.mark.parametrize("shape", [(20, 4), (4, 20), (20, 20)])
def test_the_centre_of_mass_is_in_the_middle(shape: tuple[int, int]) -> None:
    ink = np.zeros(shape, np.uint8)
    ink[: shape[0] // 2] = 255
    placed = centre(ink)
    assert placed.shape == (28, 28) and placed.sum() == ink.sum()
    assert centre_of_mass(placed)[1] == pytest.approx(14, abs=0.6)
    if shape[0] < 20:  # else there is no room
        assert centre_of_mass(placed)[0] == pytest.approx(14, abs=0.6)


def test_an_image_that_took_its_time_at_a_glance_has_no_closer_look() -> None:
    sides: list[int] = []

    def read(side: int) -> np.ndarray:
        sides.append(side)
        return np.full((500, 500), 255, np.uint8)

    def slow(grey: np.ndarray) -> np.ndarray:
        raise TimeLimitError("takes longer than 10 s")

    with patch.object(steps, "STEPS", (slow,)), pytest.raises(TimeLimitError):
        list(trace_steps(read))
    assert sides == [COARSE[0]]


def test_the_trace_ends_with_what_the_network_sees() -> None:
    names, images, _ = zip(*trace_steps(lambda side: draw_ring()), strict=True)
    assert names[:2] == ("grey", "extract_ink") and names[-1] == "centre"
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
            assert digit.image.shape == (28, 28)
        except ImageError as error:
            assert "blank" in str(error)
