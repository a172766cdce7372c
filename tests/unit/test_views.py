"""Each other view of an image changes one thing."""

import tracemalloc
from unittest.mock import Mock

import cv2
import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from digitq.worker.classify import take_turns
from digitq.worker.picture import ImageError, TimeLimitError
from digitq.worker.sight.decoding import any_file
from digitq.worker.sight.digits import trace_other_views
from digitq.worker.sight.normalisation import steps
from digitq.worker.sight.normalisation.background import is_background_dark
from digitq.worker.sight.normalisation.measuring import shrink
from digitq.worker.sight.normalisation.steps import STEPS, normalise, trace_views
from digitq.worker.sight.normalisation.views import (
    VIEWS,
    extended,
    framed,
    levelled,
    softened,
)
from tests.drawing import add_grain, draw_ring, draw_tight_ring, encode_image, same_digit

RING = draw_ring()
DRAWN = [view for view in VIEWS if view != "levelled"]  # a drawing isn't


def test_softened_has_less_grain() -> None:
    grain = np.random.default_rng(0).integers(100, 156, (60, 60), np.uint8)
    assert softened(grain).std() < 0.3 * grain.std()
    assert abs(softened(grain).mean() - grain.mean()) < 1


def test_softened_joins_a_broken_stroke() -> None:
    dotted = RING.copy()
    dotted[::6] = dotted[1::6] = 255
    assert not same_digit(normalise(dotted), normalise(RING), least=0.9)
    assert same_digit(normalise(softened(dotted)), normalise(RING), least=0.9)


def test_extended_goes_on_as_it_was_at_the_edge() -> None:
    """The stem of a digit that is cut off below becomes longer; the corners, too, go on."""
    grey = np.full((40, 20), 200, np.uint8)
    grey[10:, 8:12] = 30
    wide = extended(grey)
    assert wide.shape == (54, 34)
    assert (wide[17:, 15:19] == 30).all() and (wide[:17] == 200).all()
    assert np.array_equal(wide[7:-7, 7:-7], grey)


@pytest.mark.parametrize("light", [False, True])
def test_framed_shows_which_is_ground(light: bool) -> None:
    tight = 255 - draw_tight_ring() if light else draw_tight_ring()
    wide = framed(tight)
    assert is_background_dark(shrink(tight, 48)) != light
    assert is_background_dark(shrink(wide, 48)) == light
    assert wide[0, 0] == wide[-1, -1] == 255 * (not light)
    assert np.array_equal(wide[32:-32, 32:-32], tight)


@pytest.mark.parametrize(
    "view, rows, columns",
    [
        ("middle", slice(4, 16), slice(4, 16)),
        ("trimmed", slice(2, 18), slice(2, 18)),
        ("middle_rows", slice(3, 17), slice(20)),
        ("middle_columns", slice(20), slice(3, 17)),
    ],
)
def test_some_views_are_without_what_is_around(view: str, rows: slice, columns: slice) -> None:
    grey = np.arange(400).reshape(20, 20).astype(np.uint8)
    assert np.array_equal(VIEWS[view](grey), grey[rows, columns])


@pytest.mark.parametrize("light", [False, True])
def test_levelled_is_without_a_shadow(light: bool) -> None:
    ring = 255 - RING if light else RING
    depth = 0.7 if light else 0.4
    shadow = np.where(np.add.outer(range(120), range(120)) > 120, depth, 1)
    lit = (40 + 0.8 * ring) * shadow
    photo = np.random.default_rng(0).normal(lit, 4).clip(0, 255).astype(np.uint8)
    assert same_digit(normalise(levelled(photo)), normalise(ring), least=0.9)
    with pytest.raises(ImageError):
        levelled(ring)  # a drawing


def test_levelled_still_shows_a_small_digit() -> None:
    page = np.full((600, 600), 220, np.uint8)
    page[400:460, 90:150] = draw_ring(60, width=5, ink=90, ground=220)
    shades = np.random.default_rng(0).normal(1, 0.05, (6, 6))
    photo = add_grain(page * cv2.resize(shades, (600, 600), interpolation=cv2.INTER_CUBIC))
    assert same_digit(normalise(levelled(photo)), normalise(page), least=0.8)


def test_of_a_sheet_on_a_desk_the_views_are_of_the_sheet() -> None:
    sheet = np.full((300, 260), 220, np.uint8)
    sheet[150:240, 100:190] = draw_ring(90, width=6, ink=60, ground=220)
    desk = {"borderType": cv2.BORDER_CONSTANT, "value": 60}
    on_desk = add_grain(cv2.copyMakeBorder(sheet, 160, 160, 150, 150, **desk))
    *_, views = trace_views(lambda side: on_desk)
    assert [*views] == [*VIEWS]
    del views["softened"]  # blurred
    assert all(same_digit(view, normalise(sheet), least=0.8) for view in views.values())


def test_views_that_show_no_digit_are_left_out() -> None:
    corner = np.full((100, 100), 255, np.uint8)
    corner[1:10, 6:9] = 0
    *_, views = trace_views(lambda side: corner)
    assert [*views] == ["softened", "extended", "framed"]


def test_what_a_view_does_to_a_step_is_no_other_s(monkeypatch: pytest.MonkeyPatch) -> None:
    def odd(picture: np.ndarray) -> np.ndarray:
        raise ZeroDivisionError("odd")

    monkeypatch.setattr(
        steps, "VIEWS", {"softened": softened, "odd": odd, "middle": VIEWS["middle"]}
    )
    *_, views = trace_views(lambda side: RING)
    assert [*views] == ["softened", "middle"]


@pytest.mark.parametrize("first", [True, False], ids=["at a glance", "closer"])
def test_the_limit_of_time_ends_all_views(first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lest the answer depend on how many of them were done by then."""

    def slow(picture: np.ndarray) -> np.ndarray:
        raise TimeLimitError("takes longer than 10 s")

    two = {"slow": slow, "middle": VIEWS["middle"]}
    monkeypatch.setattr(steps, "VIEWS", two if first else dict(reversed(two.items())))
    with pytest.raises(TimeLimitError):
        list(trace_views(lambda side: RING))


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_the_middle_is_looked_at_as_closely_as_the_whole(
    format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = np.full((1000, 1000), 255, np.uint8)
    photo[430:570, 430:570] = draw_ring(140, width=12)
    looks: list[tuple[int, ...]] = []
    monkeypatch.setattr(steps, "VIEWS", {"middle": VIEWS["middle"]})
    monkeypatch.setattr(steps, "shrink", lambda grey, side: looks.append(grey.shape[:2]) or grey)
    list(trace_other_views(encode_image(PIL.Image.fromarray(photo), format)))
    assert min(min(shape) for shape in looks) >= 56
    assert max(max(shape) for shape in looks) >= 448


def test_one_decoding_is_enough_for_all_views_at_a_glance(monkeypatch: pytest.MonkeyPatch) -> None:
    read = Mock(side_effect=any_file.read_picture)
    monkeypatch.setattr(any_file, "read_picture", read)
    large = PIL.Image.fromarray(draw_ring(600, width=50))
    *_, views = trace_other_views(encode_image(large, "JPEG"))
    assert len(views) == len(DRAWN)
    assert read.call_count == 1


def test_images_whose_views_are_read_in_turns_take_little_memory() -> None:
    """Each is held as large as its views are made of it, not as it was decoded."""
    photo = np.full((1493, 4400), 255, np.uint8)
    photo[400:1000, 2000:2600] = draw_ring(600, width=40)
    content = encode_image(PIL.Image.fromarray(photo).convert("RGB"))
    images = 6  # each is held while the others take their turns
    tracemalloc.start()
    try:
        readings = {row: trace_other_views(content) for row in range(images)}
        assert all(len(views or {}) == len(DRAWN) for views, _ in take_turns(readings))
        assert tracemalloc.get_traced_memory()[1] < 10e6 * images
    finally:
        tracemalloc.stop()


def test_views_are_read_a_step_at_a_time() -> None:
    assert len([*trace_views(lambda side: RING)]) > 4 * len(STEPS)


def test_a_very_long_image_takes_little_memory() -> None:
    """Though a view puts a third of its length around it."""
    strip = np.full((895, 14335, 3), 255, np.uint8)
    cv2.ellipse(strip, (7000, 450), (200, 300), 0, 0, 360, (0, 0, 200), 200)
    content = encode_image(PIL.Image.fromarray(strip))
    tracemalloc.start()
    try:
        *_, views = trace_other_views(content)
        assert views
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("view", VIEWS)
@given(arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_any_image_has_each_view(view: str, grey: np.ndarray) -> None:
    before = grey.copy()
    try:
        seen = VIEWS[view](grey)
    except ImageError:
        assert view == "levelled"
    else:
        assert seen.dtype == np.uint8 and seen.ndim == 2 and seen.size
    assert np.array_equal(grey, before)
