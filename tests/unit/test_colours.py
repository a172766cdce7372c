"""From colours to grey values in which the ink stands out."""

import numpy as np
import PIL.Image
import pytest

from digitq.worker.sight.normalisation.colours import project_colours, to_grey
from tests.drawing import draw_one, encode_image, likeness, same_digit
from tests.reading import read_digit

REFERENCE = read_digit(encode_image(draw_one())).image


@pytest.mark.parametrize(
    ("ink", "paper"),
    [
        ("red", "cyan"),  # as light as each other, within a tenth
        ("#2040c0", "white"),
        ("#e8d040", "white"),
        ("#c06060", "#8080a0"),
        ("#404040", "#f0e0c0"),
        ("white", "yellow"),
        ("black", "#0000c0"),
    ],
)
def test_coloured_ink_stands_out_from_coloured_paper(ink: str, paper: str) -> None:
    image = PIL.Image.new("RGB", (60, 80), paper)
    image.paste(ink, mask=draw_one(ink=255, ground=0))
    assert likeness(read_digit(encode_image(image)).image, REFERENCE) > 0.95
    grey = to_grey(np.asarray(image)).astype(int)
    assert abs(grey[40, 33] - grey[0, 0]) > 40


def test_grey_in_three_channels_stays_what_it_is() -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.abs(project_colours(np.repeat(grey[..., None], 3, 2)).astype(int) - grey).max() <= 1


def test_grey_values_stay_as_they_are() -> None:
    grey = np.asarray(draw_one())
    assert to_grey(grey) is grey


@pytest.mark.parametrize(
    ("frame", "paper", "ink"),
    [
        ("#60f0c0", "#b0e890", "#203860"),
        ("#c02840", "#302048", "#30a878"),
        ("white", "red", "blue"),
    ],
)
def test_the_colour_of_a_frame_hides_no_ink(frame: str, paper: str, ink: str) -> None:
    image = PIL.Image.new("RGB", (120, 120), frame)
    image.paste(paper, (8, 8, 112, 112))
    image.paste(ink, (30, 20), draw_one(ink=255, ground=0))
    grey = to_grey(np.asarray(image)).astype(int)
    assert abs(grey[60, 63] - grey[20, 20]) > 50


def test_ink_near_an_edge_stands_out_too() -> None:
    image = PIL.Image.new("RGB", (120, 120), "yellow")
    image.paste("#ff6000", (104, 90, 116, 116))
    grey = to_grey(np.asarray(image)).astype(int)
    assert abs(grey[100, 110] - grey[60, 60]) > 50


def test_the_colours_around_a_panel_do_not_count_on_it() -> None:
    desk, sheet, ink = (98, 163, 252), (179, 181, 167), (154, 74, 22)
    photo = PIL.Image.new("RGB", (240, 240), desk)
    photo.paste(sheet, (40, 40, 200, 200))
    photo.paste(ink, (75, 60), draw_one((90, 120), ink=255, ground=0))
    alone = read_digit(encode_image(draw_one((90, 120)))).image
    assert same_digit(read_digit(encode_image(photo)).image, alone)
