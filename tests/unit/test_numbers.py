"""Whole numbers: from candidates to a line, and from a line to readings."""

import numpy as np
import pytest

from protocol.known import Known
from worker.numbers.finding import Candidates, drop_copies, merge
from worker.numbers.lines import choose_line
from worker.numbers.reading import Seen, choose_readings, find_others, list_alternatives
from worker.numbers.readings import weigh_readings
from worker.pictures import ImageError


def candidates(
    number: str,
    chances: list[float] | None = None,
    top: float = 0,
    left: float = 0,
    pitch: float = 20,
) -> Candidates:
    """Digits of 15×25 px in a line, each read with 0.9, else as the digit after it."""
    digits = np.zeros((len(number), 10), np.float32)
    for row, digit in enumerate(map(int, number)):
        digits[row, [digit, (digit + 1) % 10]] = 0.9, 0.1
    lefts = left + pitch * np.arange(len(number))
    boxes = np.stack(
        [lefts, np.full(len(number), top), lefts + 15, np.full(len(number), top + 25)], 1
    )
    clear = np.array(chances or [0.99] * len(number), np.float32)
    return Candidates(clear, digits, np.zeros_like(clear), boxes.astype(np.float32))


def together(*parts: Candidates) -> Candidates:
    joined = Candidates(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    return joined.take(np.argsort(-joined.chances, kind="stable"))


def read(found: Candidates, known: Known = Known()) -> str:  # noqa: B008 (frozen)
    return weigh_readings(found.take(choose_line(found)), known)[0].number


def test_a_line_is_read_from_left_to_right() -> None:
    found = candidates("0072")
    assert read(found.take(np.array([2, 0, 3, 1]))) == "0072"


def test_the_line_of_more_and_larger_digits_is_the_number() -> None:
    assert read(together(candidates("123", top=40), candidates("4567"))) == "4567"


def test_a_tilted_line_is_one_line() -> None:
    found = candidates("12345")
    found.boxes[:, [1, 3]] += 0.25 * found.boxes[:, :1]  # 14°
    assert read(found) == "12345"


def test_a_far_number_is_another_one_and_boxes_are_not() -> None:
    assert read(together(candidates("123"), candidates("45", left=400))) == "123"
    assert read(candidates("123", pitch=80)) == "123"


def test_what_is_unlikely_is_left_out() -> None:
    assert read(candidates("123", [0.99, 0.2, 0.99])) == "13"


def test_the_probabilities_of_a_reading_are_multiplied() -> None:
    first, second, *_ = weigh_readings(candidates("12", [0.9, 0.8]))
    assert (first.number, second.number) == ("12", "1")
    assert first.chance == pytest.approx(0.9 * 0.9 * 0.8 * 0.9, rel=1e-3)


def test_two_candidates_of_the_same_ink_are_not_both_read() -> None:
    found = candidates("18", [0.7, 0.8], pitch=3)
    assert {path.number for path in weigh_readings(found)} <= {"1", "2", "8", "9"}


@pytest.mark.parametrize(
    ("length", "allowed", "number"),
    [
        ("3", None, "123"),
        ("2", None, "13"),
        (None, ["133", "999"], "133"),
        (None, ["124", "13", "423"], "13"),
        ("3", ["13", "124"], "124"),
    ],
)
def test_what_is_known_helps(length: str | None, allowed: list[str] | None, number: str) -> None:
    line = candidates("123", [0.99, 0.3, 0.99])
    readings, reason = choose_readings(Seen(line, ""), Known.check(length, allowed))
    assert (readings[0].number, reason) == (number, "")
    assert sum(path.chance for path in readings) == pytest.approx(1)


def test_where_no_allowed_number_is_plausible_the_free_reading_stays() -> None:
    readings, reason = choose_readings(Seen(candidates("123"), ""), Known.check(None, ["777"]))
    assert (readings[0].number, reason) == ("123", "not allowed")


def test_a_million_allowed_numbers() -> None:
    known = Known.check(9, [f"{n:09d}" for n in range(0, 1_000_000_000, 1009)])
    number = f"{1009 * 123_456:09d}"
    readings, _ = choose_readings(Seen(candidates(number), ""), known)
    assert readings[0].number == number and readings[0].chance > 0.999


def test_a_letter_or_a_crossed_out_digit_is_a_reason_and_no_digit() -> None:
    found = candidates("123", [0.99, 0.99, 0.05])
    line = found.take(choose_line(found))
    assert find_others(found, line, 25) == ""
    found.others[2] = 0.9
    assert find_others(found, line, 25) == "other signs" and read(found) == "12"
    assert find_others(found, line, 60) == ""  # it is small beside the line


def test_other_digits_are_a_reason_if_they_are_as_tall() -> None:
    line = candidates("4567")
    assert find_others(together(line, candidates("12", top=40)), line, 25) == "several lines"
    assert find_others(together(line, candidates("12", top=40)), line, 60) == ""


def test_nothing_found_is_an_error() -> None:
    with pytest.raises(ImageError, match="no number can be seen"):
        choose_readings(Seen(candidates(""), ""), Known())


def test_alternatives_share_what_the_confidence_leaves() -> None:
    readings = weigh_readings(candidates("12", [0.9, 0.8]))
    others = list_alternatives(readings, 0.7)
    assert len(others) == 5 and "12" not in dict(others)
    assert 0.2 < sum(share for _, share in others) <= 0.3 + 1e-9


def test_a_weaker_box_on_the_same_digit_is_dropped() -> None:
    boxes = np.array([[0, 0, 15, 25], [2, 1, 16, 26], [14, 0, 30, 25]], np.float32)
    assert drop_copies(boxes).tolist() == [0, 2]


def test_two_looks_at_a_digit_are_one_candidate() -> None:
    first, second = candidates("12", [0.9, 0.4]), candidates("1", [0.9])
    both = merge(first, second)
    assert both.digits.argmax(1).tolist() == [1, 2]
    assert both.chances[0] == pytest.approx(0.9) and both.chances[1] < 0.2
    empty = candidates("")
    assert len(merge(empty, empty).chances) == 0 and len(merge(empty, first).chances) == 2
