"""What is written in a place stays, the blank's print and the writing of other rows do not."""

import cv2
import numpy as np
import pytest

from digitq.worker.picture import Grey
from digitq.worker.sight.forms.written import keep_writing
from digitq.worker.sight.numbers.ink import has_strokes
from tests.forms import FONT

BOX = (2.0, 18.0, 218.0, 54.0)  # a row of 36 px, with half a row above and below it
PAPER, PEN = 200, 90


def draw_place() -> Grey:
    """A row between two lines, with a faint watermark."""
    place = np.full((72, 220), PAPER, np.uint8)
    cv2.putText(place, "ADC", (120, 48), FONT, 1.0, PAPER - 20, 2, cv2.LINE_AA)
    for y in (18, 54):
        cv2.line(place, (0, y), (219, y), PAPER - 60, 2)
    return place


def shade(place: Grey) -> Grey:
    """The place in the shadow, 1 px lower, with more contrast."""
    lower = np.roll(place, 1, 0)
    dark = PAPER - 1.5 * (PAPER - lower.astype(np.float32)) - np.linspace(0, 60, 220)
    return np.asarray(dark.clip(0, 255), np.uint8)


def test_a_watermark_and_lines_are_paper_in_an_empty_place() -> None:
    written, rows, _ = keep_writing(shade(draw_place()), draw_place(), BOX)
    assert np.ptp(written) == 0 and rows == (18, 54)
    assert not has_strokes(written)


@pytest.mark.parametrize("base", [47, 63])  # within the row, and across its lower line
def test_a_number_stays_and_what_is_around_it_does_not(base: int) -> None:
    page = draw_place()
    cv2.putText(page, "43", (20, base), FONT, 1.1, PEN, 3, cv2.LINE_AA)
    page[:8, 100:110] = PEN  # the foot of a digit of the row above
    written, (top, bottom), _ = keep_writing(shade(page), draw_place(), BOX)
    dark = cv2.subtract(cv2.medianBlur(written, 29), written) > 40
    assert not dark[:, 95:].any()
    digits = cv2.subtract(shade(draw_place()), shade(page)) > 60
    digits[:, 95:] = False
    assert (dark & digits).sum() > 0.9 * digits.sum()
    assert top <= 18 and bottom >= base


def test_a_dash_is_no_line_of_the_form() -> None:
    page = draw_place()
    cv2.line(page, (30, 36), (110, 38), PEN, 3)
    written, _, _ = keep_writing(shade(page), draw_place(), BOX)
    assert has_strokes(written)


def test_what_may_belong_to_a_place_is_told() -> None:
    low, empty, pale = (draw_place() for _ in range(3))
    cv2.putText(low, "147", (20, 69), FONT, 1.1, PEN, 3, cv2.LINE_AA)  # most of it is below
    cv2.line(pale, (30, 44), (60, 28), PAPER - 9, 3)
    told = [keep_writing(one, draw_place(), BOX).is_contested for one in (low, empty, pale)]
    assert told == [True, False, True]
