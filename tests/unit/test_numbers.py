"""Whole numbers: from candidates to a line, and from a line to readings."""

import math
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from digitq.protocol.asked.known import Known
from digitq.protocol.asked.values import ALPHABET
from digitq.worker.models.number_networks import (
    BLANK,
    CELL,
    EXPERT_SIZE,
    SIZE_UNIT,
    NumberReader,
    StripSize,
    load_networks,
)
from digitq.worker.picture import Grey, ImageError
from digitq.worker.sight.numbers import recognition
from digitq.worker.sight.numbers.finding import (
    Candidates,
    doubt_faint_ones,
    drop_copies,
    find_candidates,
    measure_contrast,
    shrink_by_factor,
)
from digitq.worker.sight.numbers.ink import has_ink, has_strokes
from digitq.worker.sight.numbers.line_strip import TextLine, place_line, read_strip, turn
from digitq.worker.sight.numbers.recognition import (
    EXPERT_SHIFT,
    NumberReading,
    Seen,
    choose_readings,
    list_alternatives,
    list_digits,
    look,
    map_boxes,
    measure_emptiness,
    read_line,
    read_number,
    trace_number,
    trace_readings,
)
from digitq.worker.sight.numbers.search import (
    FIRST_LOOK,
    FoundLine,
    find_line,
    find_others,
    is_better,
    search,
)
from digitq.worker.sight.numbers.strikes import find_strike
from digitq.worker.sight.numbers.text_line import choose_line, measure_tilt
from digitq.worker.sight.numbers.weighing import Proposal, propose_numbers


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


def read(found: Candidates) -> str:
    return propose_numbers(choose_line(found))[0].number


def see(line: Candidates, read: Candidates | None = None) -> Seen:
    """The line as both networks see it, or of which the network of columns sees something else."""
    read = read or line
    columns = np.zeros((2 * len(read.chances) + 1, BLANK + 1))
    columns[:, BLANK] = 1
    columns[1::2, :10] = read.chances[:, None] * read.digits
    columns[1::2, BLANK] = 1 - read.chances
    return see_columns(line, columns)


def see_signs(value: str, chance: float = 0.99) -> Seen:
    """A value whose digits the detector sees, too."""
    columns = np.zeros((2 * len(value) + 1, BLANK + 1))
    columns[:, BLANK] = 1
    for place, sign in enumerate(value):
        if sign != " ":
            columns[2 * place + 1, [ALPHABET.index(sign), BLANK]] = chance, 1 - chance
    return see_columns(candidates("".join(filter(str.isdigit, value))), columns)


def see_columns(line: Candidates, columns: np.ndarray) -> Seen:
    answer = np.log(columns + 1e-9).T.astype(np.float32)
    return Seen(line, answer, np.eye(2, 3), np.eye(2, 3), "")


def show(*columns: dict[str, float]) -> Callable[[torch.Tensor], torch.Tensor]:
    """A network that sees some signs in the columns of any strip."""

    def answer(strips: torch.Tensor) -> torch.Tensor:
        chances = torch.full((BLANK + 1, strips.shape[3] // 2), 1e-6)
        chances[BLANK] = 1
        for place, column in enumerate(columns):
            chances[:, 2 * place + 1] = 1e-6
            for sign, chance in column.items():
                chances[ALPHABET.index(sign), 2 * place + 1] = chance
        return chances.log()[None, :, None]

    return answer


@pytest.mark.parametrize(("chance", "number"), [(0.6, "7"), (0.9999, "1")])
def test_the_expert_reads_a_line_of_which_the_columns_are_unsure(
    chance: float, number: str
) -> None:
    """The columns see a 1 with a chance, else a 7; the expert sees a 7."""
    line = candidates("1")._replace(digits=np.full((1, 10), 0.1, np.float32))
    picture = np.full((40, 60), 200, np.uint8)
    found = FoundLine(picture, np.eye(2, 3), line, line)
    reader = NumberReader(show(), show({"1": chance, "7": 1 - chance}), show({"7": 1.0}))
    choice = choose_readings(read_line(reader, found), Known())
    assert choice.numbers[0].number == number
    assert (choice.seen.size == EXPERT_SIZE) == (number == "7")


@pytest.mark.parametrize(
    ("chance", "looks", "number"), [(0.99, 1, "7"), (0.8, 1, "7"), (0.6, 2, "1")]
)
def test_the_expert_looks_again_if_a_number_is_not_likely(
    chance: float, looks: int, number: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First a little higher, where it sees a 7 with a chance; the line itself shows a 1."""
    line = candidates("1")._replace(digits=np.full((1, 10), 0.1, np.float32))
    found = FoundLine(np.full((40, 60), 200, np.uint8), np.eye(2, 3), line, line)
    places: list[float] = []
    expert = show()

    def read(network: Any, picture: np.ndarray, place: TextLine, size: StripSize) -> Any:
        if network is expert:
            places.append(place.y)
            seen = {"7": chance, "1": 1 - chance} if len(places) == 1 else {"1": 0.99, "7": 0.01}
            network = show(seen)
        return read_strip(network, picture, place, size)

    monkeypatch.setattr(recognition, "read_strip", read)
    reader = NumberReader(show(), show({"1": 0.5, "7": 0.5}), expert)
    choice = choose_readings(read_line(reader, found), Known())
    assert choice.numbers[0].number == number
    place = place_line(line)
    assert places == pytest.approx([place.y - EXPERT_SHIFT * place.height, place.y][:looks])


@pytest.mark.parametrize(
    ("pattern", "number", "reason"),
    [
        (None, "7½", ""),
        (r"\d½?", "7½", ""),
        (r"\d(½|¼)", "7½", ""),
        ("integer", "7½", "not allowed"),
        (r"\d¾?", "7½", "not allowed"),
    ],
)
def test_a_fraction_is_read_or_marked(pattern: str | None, number: str, reason: str) -> None:
    line = candidates("7")
    found = FoundLine(np.full((40, 60), 200, np.uint8), np.eye(2, 3), line, line)
    reader = NumberReader(show(), show({"7": 0.7, "1": 0.3}), show({"7": 1.0}, {"½": 1.0}))
    choice = choose_readings(read_line(reader, found), Known(pattern))
    assert (choice.numbers[0].number, choice.reason) == (number, reason)
    digits = list_digits(choice.seen, choice.numbers[0].number, (40, 60), np.eye(3))
    assert [digit.digit for digit in digits] == [7]


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


def test_a_page_full_of_digits_takes_little_memory() -> None:
    rows = [candidates("1234567890" * 4, [0.9 - row / 100] * 40, top=40 * row) for row in range(40)]
    page = together(*rows)
    tracemalloc.start()
    try:
        line = choose_line(page)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(line.chances) == 40 and (line.boxes[:, 1] == 0).all()
    assert peak < 50e6  # bytes


def test_what_is_unlikely_is_left_out() -> None:
    assert read(candidates("123", [0.99, 0.2, 0.99])) == "13"


def test_the_probabilities_of_a_reading_are_multiplied() -> None:
    first, second, *_ = propose_numbers(candidates("12", [0.9, 0.8]))
    assert (first.number, second.number) == ("12", "1")
    assert first.chance == pytest.approx(0.9 * 0.9 * 0.8 * 0.9, rel=1e-3)


def test_hundreds_of_candidates_have_readings() -> None:
    for length in (None, 20):
        automaton = Known.check(length).automaton
        readings = propose_numbers(candidates("1234" * 300, [0.5] * 1200), automaton)
        assert len(readings) > 1 and all(1 <= len(one.number) <= 20 for one in readings)


def test_a_line_of_far_too_many_digits_is_read_too() -> None:
    readings, *_ = choose_readings(see(candidates("1234567890" * 10, [1 - 1e-6] * 100)), Known())
    assert len(readings[0].number) == 20


def test_two_candidates_of_the_same_ink_are_not_both_read() -> None:
    found = candidates("18", [0.7, 0.8], pitch=3)
    assert {path.number for path in propose_numbers(found)} <= {"1", "2", "8", "9"}


@pytest.mark.parametrize(
    ("length", "allowed", "number"),
    [
        ("3", None, "123"),
        ("2", None, "13"),
        (None, ["133", "193"], "133"),
        (None, ["124", "13", "423"], "13"),
        ("3", ["13", "124"], "124"),
    ],
)
def test_what_is_known_helps(length: str | None, allowed: list[str] | None, number: str) -> None:
    line = candidates("123", [0.99, 0.3, 0.99])
    readings, reason, is_free, _ = choose_readings(see(line), Known.check(length, allowed))
    assert (readings[0].number, reason, is_free) == (number, "", False)
    assert 0.95 < sum(path.chance for path in readings) < 1.0001


@pytest.mark.parametrize(
    "value", ["12.5", "-45", "50.000", "12/05/2024", "1,250.00", "+3", "40%", "9:15", "1--2"]
)
def test_a_value_is_read_as_it_is_written(value: str) -> None:
    readings, reason, *_ = choose_readings(see_signs(value), Known())
    assert (readings[0].number, reason) == (value, "") and readings[0].chance > 0.9


@pytest.mark.parametrize(
    ("written", "pattern", "allowed", "number"),
    [
        ("50.000", "integer", None, "50000"),  # a sign without a place is passed over
        ("12/05/2024", r"\d{8}", None, "12052024"),
        ("1,250.00", r"\d+\.\d\d", None, "1250.00"),
        ("32 6", r"\d+\.\d", None, "32.6"),  # a sign that must be there is put in
        ("326", r"\d+\.\d", None, "32.6"),
        ("32,6", r"\d+\.\d", None, "32.6"),
        ("12 05 2024", r"\d{2}/\d{2}/\d{4}|\d{4}-\d\d-\d\d", None, "12/05/2024"),
        ("12 05 2024", None, ["12/05/2024", "2/05/2024", "12/5/2024"], "12/05/2024"),
        ("12/05/2024", "date", None, "12/05/2024"),
        ("-45", "decimal", None, "-45"),
        ("45", "decimal", None, "45"),  # one that may be there is not
        ("4.5", "decimal", None, "4.5"),
        (".35", "decimal", None, ".35"),
        ("-45", None, ["45", "54"], "45"),
        ("12.5", None, ["12.5", "125"], "12.5"),
        ("125", None, ["12.5", "125"], "125"),
        ("125", None, ["12.5", "13.5", "1.3"], "12.5"),
        ("12.5", r"\d+", ["12.5", "125"], "125"),
    ],
)
def test_a_pattern_or_a_list_says_what_is_wanted(
    written: str, pattern: str | None, allowed: list[str] | None, number: str
) -> None:
    known = Known.check(None, allowed, pattern)
    readings, reason, is_free, _ = choose_readings(see_signs(written), known)
    assert (readings[0].number, reason, is_free) == (number, "", False)
    assert 0.98 < sum(one.chance for one in readings) < 1.0001


def test_a_sign_is_put_in_though_the_digits_are_unsure() -> None:
    """Eight readings of the digits alone are more probable than the one with the sign."""
    seen = see(candidates("3579"))
    columns = np.exp(seen.answer.T.astype(float))
    columns[1::2, :10] = 0.1
    columns[[1, 3, 5, 7], [3, 5, 7, 9]] = 0.2
    seen = see_columns(candidates("3579"), columns)
    readings, *_ = choose_readings(seen, Known(r"\d{3}\.\d"))
    assert readings[0].number == "357.9"


@pytest.mark.parametrize("known", [Known(r"\d+\.\d"), Known(r"\d\d\.\d"), Known(r"\d+[.,]\d")])
def test_digits_stay_as_unsure_as_they_are_where_a_sign_is_put_in(known: Known) -> None:
    columns = np.zeros((7, BLANK + 1))
    columns[:, BLANK] = 1
    for place, digit in enumerate((2, 6, 3)):
        columns[2 * place + 1, [digit, digit + 1, BLANK]] = 0.6, 0.3, 0.1
    line = candidates("263")._replace(digits=np.full((3, 10), 0.1, np.float32))
    readings, reason, is_free, _ = choose_readings(see_columns(line, columns), known)
    assert (readings[0].number.replace(",", "."), reason, is_free) == ("26.3", "", False)
    whole = sum(one.chance for one in readings if one.number.replace(",", ".") == "26.3")
    assert whole == pytest.approx(0.6**3 / 0.9**3, abs=0.1)  # of three digits, that many are it
    others = {one.number for one in list_alternatives(readings, 0.3)}
    assert others & {"36.3", "27.3", "26.4"}


def test_a_number_is_not_sure_if_only_a_few_others_were_weighed() -> None:
    """Each of eight digits is unsure: a hundred numbers are nearly as probable."""
    columns = np.zeros((17, BLANK + 1))
    columns[:, BLANK] = 1
    columns[1::2, BLANK] = 0
    for place in range(8):
        columns[2 * place + 1, [place, place + 1, place + 2]] = 0.4, 0.35, 0.25
    seen = see_columns(candidates("01234567"), columns)
    for known in (Known(), Known("integer"), Known(r"\d{8}"), Known(r"\d{7}\.\d")):
        readings, *_ = choose_readings(seen, known)
        assert readings[0].chance < 0.02
    # of those in a list, it is the only one that can be meant
    (best, *_), *_ = choose_readings(seen, Known.check(allowed=["01234567", "76543210"]))
    assert best.number == "01234567" and best.chance > 0.999


def test_the_pattern_does_not_replace_other_digits() -> None:
    readings, reason, is_free, _ = choose_readings(see_signs("12.57"), Known(r"\d\.\d"))
    assert (readings[0].number, reason, is_free) == ("12.57", "not allowed", True)


def test_found_digits_are_digits_only() -> None:
    seen = see_signs("-1.5")
    seen.to_strip[:] = [[0.2, 0, 1.5], [0, 0.2, 11.5]]
    for number in ("-1.5", "15", "1.5"):  # signs are there, passed over, or put in
        found = list_digits(seen, number, (25, 75), np.eye(3))
        middles = [(digit.left + digit.right) / 2 for digit in found]
        assert [digit.digit for digit in found] == [1, 5]
        assert middles == pytest.approx([27.5, 62.5], abs=9) and min(found)[1] > 0.9


def test_where_no_allowed_number_is_plausible_the_free_reading_stays() -> None:
    readings, reason, is_free, _ = choose_readings(
        see(candidates("123")), Known.check(None, ["777"])
    )
    assert (readings[0].number, reason, is_free) == ("123", "not allowed", True)


def test_what_is_known_is_not_plausible_where_another_number_is_nearly_certain() -> None:
    line = candidates("12", [0.95, 0.85])
    for known in (Known.check(1), Known.check(None, ["1", "34"])):
        readings, reason, is_free, _ = choose_readings(see(line), known)
        assert (readings[0].number, reason, is_free) == ("1", "", False)
    line = candidates("12", [0.99, 0.999])
    for known in (Known.check(1), Known.check(3), Known.check(None, ["1", "34"])):
        readings, reason, is_free, _ = choose_readings(see(line), known)
        assert (readings[0].number, reason, is_free) == ("12", "not allowed", True)


@pytest.mark.parametrize(
    ("length", "allowed", "is_apart"),
    [
        (None, None, False),
        ("1-9", None, False),
        ("3", None, True),
        (None, ["314", "31"], True),
        (None, ["777"], False),  # this can't be, so that the reading is free
    ],
)
def test_a_number_whose_length_is_known_is_calibrated_apart(
    length: str | None, allowed: list[str] | None, is_apart: bool
) -> None:
    picture = np.full((200, 500), 230, np.uint8)
    cv2.putText(picture, "3 1 4", (60, 140), cv2.FONT_HERSHEY_SIMPLEX, 3, 30, 8)
    known = Known.check(length, allowed)
    reader, card = load_networks()
    (best, *_), *_ = choose_readings(look(reader, picture), known)
    reading = read_number(cv2.imencode(".png", picture)[1].tobytes(), known)
    assert reading.number == "314"
    assert reading.confidence == pytest.approx(card.calibrate(best.chance, is_apart))


def test_a_million_allowed_numbers() -> None:
    numbers = np.arange(0, 1_000_000_000, 1009) + 1_000_000_000
    allowed = numbers.astype("S10").view("S1").reshape(-1, 10)[:, 1:].copy().view("S9").ravel()
    known = Known(None, allowed)
    number = f"{1009 * 123_456:09d}"
    readings, *_ = choose_readings(see(candidates(number)), known)
    # the 512 numbers that are read instead of it with 0.1 a digit are looked for in the list
    assert readings[0].number == number and 0.99 < readings[0].chance < 1


def test_no_colours_are_kept_between_the_steps() -> None:
    height, width = 750, 1500
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    content = cv2.imencode(".jpg", picture)[1].tobytes()
    load_networks()
    tracemalloc.start()
    try:
        steps = trace_number(content, Known())
        next(steps)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert height * width <= held < 1.5 * height * width  # bytes: the grey picture


@pytest.mark.parametrize("angle", [-50, -20, 0, 5, 35])
def test_the_tilt_of_a_line_is_measured(angle: float) -> None:
    level = candidates("01234567", pitch=40)
    along = (level.boxes[:, :2] + level.boxes[:, 2:]) / 2 @ [[1], [0]]
    middles = along * [math.cos(math.radians(angle)), math.sin(math.radians(angle))]
    line = level._replace(boxes=np.hstack([middles - (7, 12), middles + (7, 12)]))
    found = together(line, candidates("9", [0.3], top=400))
    chosen = choose_line(found)
    assert measure_tilt(found, chosen) == pytest.approx(angle, abs=0.5)
    alone = line.take(np.array([3]))
    assert measure_tilt(alone, alone) == 0


@pytest.mark.parametrize(
    "tilt, chances, logits, expected",
    [
        (15, (0.9, 0.8), (9, 3), True),  # more digits, read more surely
        (15, (0.9, 0.8), (3, 9), False),  # slanted digits
        (15, (0.8, 0.9), (9, 3), False),
        (30, (0.9, 0.8), (3, 9), True),  # so much is no slant
    ],
)
def test_a_small_tilt_may_be_the_slant_of_digits(
    tilt: float, chances: tuple[float, float], logits: tuple[float, float], expected: bool
) -> None:
    seen = iter(logits)

    def read(strips: torch.Tensor) -> torch.Tensor:
        answer = torch.zeros(1, BLANK + 1, 1, strips.shape[3] // 2)
        answer[0, 5] = next(seen)
        return answer

    reader = NumberReader(show(), read, show())
    after, before = ((np.zeros((80, 200), np.uint8), candidates("12", [p, p])) for p in chances)
    assert is_better(reader, after, before, tilt) == expected


@pytest.mark.parametrize("angle", [-45, 20, 45])
def test_a_box_of_a_turned_picture_is_where_its_middle_was(angle: float) -> None:
    picture = np.zeros((100, 201), np.uint8)
    picture[30:50, 140:160] = 255
    turned, matrix = turn(picture, angle)
    rows, columns = np.indices(turned.shape) + 0.5
    x, y = (np.average(places, weights=turned) for places in (columns, rows))
    box = x - 4, y - 2, x + 4, y + 2
    to_picture = np.vstack([cv2.invertAffineTransform(matrix), (0, 0, 1)])
    ((left, top, right, bottom),) = map_boxes(np.array([box]), to_picture)
    assert ((left + right) / 2, (top + bottom) / 2) == pytest.approx((150, 40), abs=0.1)
    assert right - left >= 8 and bottom - top >= 4
    boxes = np.array([(1.0, 2.0, 3.0, 4.0), (0.0, 1.0, 5.0, 6.0)])
    assert map_boxes(boxes, np.eye(3)).tolist() == boxes.tolist()


def test_a_letter_or_a_crossed_out_digit_is_a_reason_and_no_digit() -> None:
    found = candidates("123", [0.99, 0.99, 0.05])
    line = choose_line(found)
    assert find_others(found, line, 25, False) == ""
    found.others[2] = 0.9
    assert find_others(found, line, 25, False) == "other signs" and read(found) == "12"
    assert find_others(found, line, 60, False) == ""  # it is small beside the line


def test_a_one_that_is_taller_than_the_digits_may_be_a_slash() -> None:
    for number, grown, chance, reason in (
        ("5122", 4, 0.99, "other signs"),
        ("5122", 2, 0.99, ""),
        ("5722", 4, 0.99, ""),
        ("5122", 4, 0.3, ""),
        ("1522", 4, 0.99, ""),  # no slash is the first sign of a date
    ):
        found = candidates(number, [0.99, chance, 0.99, 0.99])
        place = number.find("1") if "1" in number else 1
        found.boxes[place, [1, 3]] += (-grown, grown)
        line = choose_line(found)
        assert find_others(found, line, 25, False) == reason
        assert find_others(found, line, 25, True) == ""


def test_other_digits_are_a_reason_if_they_are_as_tall() -> None:
    line = candidates("4567")
    assert find_others(together(line, candidates("12", top=40)), line, 25, False) == "several lines"
    assert find_others(together(line, candidates("12", top=40)), line, 60, False) == ""


def test_two_numbers_in_a_line_are_a_reason() -> None:
    apart = together(candidates("123"), candidates("45", left=60 + 30))
    line = choose_line(apart)
    assert read(line) == "12345" and find_others(line, line, 25, False) == "several lines"
    boxes = candidates("12345", pitch=60)  # all gaps are as wide
    assert find_others(boxes, boxes, 25, False) == ""
    assert find_others(boxes.take(np.array([0, 1])), boxes, 25, False) == ""


def test_more_digits_than_a_number_can_have_are_an_error() -> None:
    line = "80121885003464267146" * 2
    picture = np.full((100, 60 * len(line)), 230, np.uint8)
    for place, digit in enumerate(line):
        cv2.putText(picture, digit, (20 + 58 * place, 75), cv2.FONT_HERSHEY_SIMPLEX, 2, 30, 4)
    with pytest.raises(ImageError, match="the line has more than 20 digits"):
        read_number(cv2.imencode(".png", picture)[1].tobytes(), Known())


def encode(picture: np.ndarray) -> bytes:
    return cv2.imencode(".png", picture)[1].tobytes()


def draw_form(lines: list[tuple[int, int, int, int]], thickness: int = 2) -> np.ndarray:
    picture = np.full((80, 300), 235, np.uint8)
    for left, top, right, bottom in lines:
        cv2.line(picture, (left, top), (right, bottom), 60, thickness, cv2.LINE_AA)
    return picture


BOXES = [(10, 10, 290, 10), (10, 70, 290, 70), *((x, 10, x, 70) for x in range(10, 291, 56))]
CROSSES = [(90, 30, 120, 55), (120, 30, 90, 55), (190, 28, 215, 52), (214, 26, 189, 54)]


@pytest.mark.parametrize("known", [Known(), Known(r"\d{3}"), Known.check(None, ["12.5", "7"])])
@pytest.mark.parametrize("lines", [[], BOXES, [(5, 60, 295, 60)]])
def test_nothing_written_is_an_answer(lines: list[tuple[int, int, int, int]], known: Known) -> None:
    reading = read_number(encode(draw_form(lines)), known)
    assert (reading.number, reading.reason, reading.digits) == ("", "empty", [])
    assert 0.8 < reading.confidence <= 1


DASH, UNDER_A_TENTH = [(130, 42, 165, 40)], [(150, 40, 153, 41)]
EQUALS = [(120, 35, 150, 34), (121, 46, 152, 44)]


@pytest.mark.parametrize("known", [Known(), Known("integer"), Known.check(None, ["12.5", "7"])])
@pytest.mark.parametrize("lines", [[], BOXES[:2], [(5, 65, 295, 65)]])
@pytest.mark.parametrize("strokes", [DASH, EQUALS, [(40, 41, 75, 40), (200, 41, 240, 42)]])
def test_ink_without_a_digit_is_not_empty(
    strokes: list[tuple[int, int, int, int]], lines: list[tuple[int, int, int, int]], known: Known
) -> None:
    reading = read_number(encode(draw_form(lines + strokes, 3)), known)
    if reading.number:  # the networks hardly believe it
        assert reading.reason in ("unsure", "other signs") and reading.confidence < 0.5
    else:
        assert (reading.reason, reading.digits) == ("ink, but no digit", [])


def test_marks_that_may_fill_a_field_are_paper_as_specks_are() -> None:
    assert read_number(encode(draw_form(DASH, 3)), Known(fill="-")).reason == "empty"
    assert read_number(encode(draw_form(UNDER_A_TENTH)), Known()).reason == "empty"
    dots = [(x, 60, x + 1, 60) for x in range(20, 280, 6)]
    assert read_number(encode(draw_form(dots)), Known()).reason == "empty"


def test_what_a_blank_shows_is_paper_and_what_it_does_not_show_is_ink() -> None:
    printed = draw_form([(10, 10, 290, 10), (60, 40, 80, 40)], 2)
    assert has_strokes(printed) and not has_strokes(printed, printed)
    shifted = np.roll(printed, (2, -2), (0, 1))
    assert not has_strokes(shifted, printed)
    struck = cv2.line(printed.copy(), (20, 45), (280, 42), 60, 3, cv2.LINE_AA)
    assert has_strokes(struck, printed)


@pytest.mark.parametrize("grey", [60, 205])  # clear ink, and a pale pencil on paper of 235
def test_an_optional_empty_place_is_marked_if_there_may_be_ink(grey: int) -> None:
    printed = draw_form([(10, 10, 290, 10)], 2)
    dash = cv2.line(printed.copy(), (100, 45), (140, 44), grey, 3, cv2.LINE_AA)
    assert has_ink(dash, printed) and not has_ink(np.roll(printed, 1, 0), printed)
    assert not read_field(printed, printed, needs_answer=False).reason
    assert read_field(printed, printed, needs_answer=True).reason == "empty"
    assert read_field(dash, printed, needs_answer=False).reason


@pytest.mark.parametrize("grey", [60, 190, 215, 225])
def test_a_faint_number_is_no_silent_empty_place(grey: int) -> None:
    printed = draw_form([(10, 10, 290, 10)], 2)
    faint = cv2.putText(printed.copy(), "47", (100, 62), FONT, 1.4, grey, 3, cv2.LINE_AA)
    reading = read_field(np.asarray(faint), printed, needs_answer=False)
    assert reading.number == "47" or reading.reason


def read_field(picture: Grey, printed: Grey, needs_answer: bool) -> NumberReading:
    """What is read in a field, beside this part of the blank."""
    steps = trace_readings(picture, Known("integer"), printed)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            readings = replace(end.value, needs_answer=needs_answer)
            best, confidence = readings.numbers[0].number, readings.confidence
            return readings.choose(best, confidence, [], np.eye(3))


def write_digits(*parts: tuple[str, int, int, float]) -> np.ndarray:
    """Digits in plain strokes: each text with its left side, base line and size."""
    picture = np.full((90, 320), 235, np.uint8)
    for text, left, base, size in parts:
        cv2.putText(picture, text, (left, base), FONT, size, 40, 3, cv2.LINE_AA)
    return picture


def draw_strokes(picture: np.ndarray, *strokes: tuple[int, int, int, int]) -> np.ndarray:
    for left, top, right, bottom in strokes:
        cv2.line(picture, (left, top), (right, bottom), 40, 3, cv2.LINE_AA)
    return cv2.GaussianBlur(picture, (0, 0), 0.8)


FONT = cv2.FONT_HERSHEY_SIMPLEX


@pytest.mark.parametrize(
    "pattern", [None, "integer", "decimal", r"\d+(\.5)?", r"\d+\.\d", r"\d+½?"]
)
@pytest.mark.parametrize("whole", ["2", "3", "5", "6", "7", "8", "9", "12"])
def test_a_half_is_read_or_marked(whole: str, pattern: str | None) -> None:
    left = 24 + 32 * len(whole)
    digits = write_digits((whole, 20, 65, 1.5), ("2", left + 18, 74, 0.8))
    one, slash = (left + 4, 44, left + 4, 26), (left + 2, 72, left + 24, 24)
    reading = read_number(encode(draw_strokes(digits[:, :170], one, slash)), Known(pattern))
    is_right = reading.number == f"{whole}½" and pattern in (None, r"\d+½?")
    assert is_right or reading.reason in ("other signs", "unsure", "not allowed")


@pytest.mark.parametrize("pattern", ["integer", r"\d+\.\d"])
def test_a_low_digit_is_marked_also_after_a_sign_that_is_put_in(pattern: str) -> None:
    picture = write_digits(("12", 20, 62, 1.5), ("2", 102, 76, 1.1))[:, :170]
    reading = read_number(encode(picture), Known(pattern))
    assert reading.number in ("122", "12.2") and reading.reason == "other signs"


def test_a_pattern_that_needs_a_fraction_marks_a_number_without_one() -> None:
    for known in (Known.check(pattern=r"\d½"), Known.check(None, ["7½", "8½"])):
        reading = read_number(encode(write_digits(("7", 40, 65, 1.5))), known)
        assert (reading.number, reading.reason) == ("7", "not allowed")


@pytest.mark.parametrize(("old", "new"), [("45", "72"), ("380", "512"), ("26", "8"), ("93", "35")])
def test_a_number_that_is_written_anew_is_read_without_the_one_struck_out(
    old: str, new: str
) -> None:
    end = 20 + cv2.getTextSize(old, FONT, 1.5, 3)[0][0]
    digits = write_digits((old, 20, 62, 1.5), (new, end + 40, 62, 1.5))
    reading = read_number(encode(draw_strokes(digits, (8, 52, end + 10, 42))), Known("integer"))
    assert (reading.number, reading.reason) == (new, "other signs")


def test_a_number_that_is_only_struck_out_is_marked() -> None:
    digits = write_digits(("55", 40, 62, 1.5))
    assert find_strike(digits, find_line(load_networks()[0], digits).line) is None
    struck = draw_strokes(digits, (25, 50, 115, 44))
    assert read_number(encode(struck), Known("integer")).reason == "other signs"


def test_underlines_and_rules_strike_nothing_out() -> None:
    digits = write_digits(("47", 40, 62, 1.5), ("55", 120, 62, 1.5))
    for strokes in ([(30, 72, 200, 68)], [(0, 45, 319, 45)], [(0, 64, 319, 64)]):
        picture = draw_strokes(digits.copy(), *strokes)
        assert find_strike(picture, find_line(load_networks()[0], picture).line) is None


def test_a_page_of_writing_or_a_texture_is_not_empty() -> None:
    page = np.full((700, 700), 250, np.uint8)
    for row in range(70):
        cv2.putText(page, "lorem ipsum dolor sit amet " * 4, (9, 9 + 10 * row), 1, 0.5, 20)
    texture = np.random.default_rng(0).integers(0, 256, (200, 300), np.uint8)
    for picture in (page, texture):
        try:
            assert read_number(encode(picture), Known()).reason not in ("", "empty")
        except ImageError as error:
            assert str(error) in ("no number can be seen", "the line has more than 20 digits")


def test_where_a_digit_is_sure_or_too_much_ink_is_seen_that_is_an_error() -> None:
    blank = np.full((100, 300), 230, np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, blank.shape, np.uint8)
    for picture, chance, other, is_error in (
        (blank, 0.4, 0.1, False),
        (blank, 0.99, 0.1, True),
        (blank, 0.4, 0.9, True),
        (noise, 0.4, 0.1, True),
    ):
        line = candidates("1", [chance])
        line.others[:] = other
        found = FoundLine(picture, np.eye(2, 3), line, line)
        if is_error:
            with pytest.raises(ImageError, match="no number can be seen"):
                measure_emptiness(found, 0.8, "")
        else:
            assert measure_emptiness(found, 0.8, "") == pytest.approx(0.72)
    assert measure_emptiness(FoundLine(blank, np.eye(2, 3), line, line), 0.8, "/") > 0


def test_in_doubt_something_is_written() -> None:
    columns = np.zeros((3, BLANK + 1))
    columns[:, BLANK] = 1
    for blank, number in ((0.35, "3"), (0.9, "")):
        columns[1, [3, 5, BLANK]] = 0.5 * (1 - blank), 0.5 * (1 - blank), blank
        readings = see_columns(candidates("3", [0.5]), columns).weigh()
        assert readings[0].number == number
        assert (dict(readings)[""] > 0.5) == (number == "")
        assert dict(readings)[""] == max(one.chance for one in readings)


def test_marks_that_fill_boxes_are_passed_over() -> None:
    content = encode(draw_form(BOXES + CROSSES, 3))
    filled = read_number(content, Known(fill="X"))
    assert (filled.number, filled.reason) == ("", "empty") and filled.confidence > 0.8
    try:
        assert read_number(content, Known()).confidence < filled.confidence
    except ImageError as error:
        assert str(error) == "no number can be seen"
    small = np.full((48, 128), 235, np.uint8)  # the crosses are a third of it
    for left in (4, 44, 84):
        cv2.rectangle(small, (left, 4), (left + 40, 44), 90, 1)
        cv2.line(small, (left + 2, 6), (left + 38, 42), 50, 3, cv2.LINE_AA)
        cv2.line(small, (left + 2, 42), (left + 38, 6), 50, 3, cv2.LINE_AA)
    assert read_number(encode(cv2.GaussianBlur(small, (0, 0), 0.8)), Known(fill="X")).number == ""
    for value, fill, number in (("--45", "-", "45"), ("12/-", "/-", "12"), ("1-2/", "/", "1-2")):
        assert choose_readings(see_signs(value), Known(fill=fill))[0][0].number == number
    known = Known("decimal", fill="-")
    assert choose_readings(see_signs("-4.5"), known)[0][0].number == "-4.5"


def test_either_network_may_see_what_the_other_does_not() -> None:
    line = candidates("13", pitch=40)
    readings = see(line, candidates("123")).weigh()
    assert readings[0].number == "123" and readings[0].chance < 0.99
    readings = see(line, candidates("13", [0.99, 0.6])).weigh()
    assert readings[0].number == "13" and readings[0].chance > 0.5


def test_a_digit_that_was_not_found_has_a_box_between_the_others() -> None:
    line = candidates("13", pitch=40)
    seen = see(line, candidates("123"))
    # a column is 2 px of the strip: the middles of the digits are in the columns 1, 3 and 5
    seen.to_strip[:] = [[0.2, 0, 1.5], [0, 0.2, 11.5]]
    first, second, third = list_digits(seen, "123", (25, 55), np.diag((10.0, 10, 1)))
    assert first[2:] == (0, 0, 150, 250) and third[2:] == (400, 0, 550, 250)
    assert (second.left + second.right) / 2 == pytest.approx(275, abs=1)


def test_no_box_reaches_beyond_the_picture() -> None:
    line = candidates("13", pitch=40)
    line = line._replace(boxes=line.boxes + np.float32([-3, -2, 3, 2]))
    seen = see(line, candidates("123"))
    seen.to_strip[:] = [[0.2, 0, 1.5], [0, 0.2, 11.5]]
    first, _, third = list_digits(seen, "123", (25, 55), np.diag((2, 51 / 25, 1)))
    assert first[2:] == (0, 0, 36, 51) and third[2:] == (74, 0, 110, 51)


@pytest.mark.parametrize(("width", "height"), [(2801, 2101), (2100, 2099)])
def test_no_box_reaches_beyond_a_picture_that_is_decoded_smaller(width: int, height: int) -> None:
    picture = np.full((height, width), 235, np.uint8)
    cv2.putText(picture, "4711", (200, height + 40), cv2.FONT_HERSHEY_SIMPLEX, 20, 20, 60)
    boxes = [
        one[2:] for one in read_number(cv2.imencode(".png", picture)[1].tobytes(), Known()).digits
    ]
    assert 0.99 * height < max(bottom for *_, bottom in boxes) <= height
    assert all(right <= width for *_, right, _ in boxes)


def test_alternatives_share_what_the_confidence_leaves() -> None:
    readings = [Proposal("12", 0.6), *(Proposal(str(n), 0.05) for n in range(8))]
    others = list_alternatives(readings, 0.7)
    assert len(others) == 5 and "12" not in dict(others)
    assert sum(share for _, share in others) == pytest.approx(0.3 * 5 / 8)
    first, *_ = list_alternatives([Proposal("12", 0.6), Proposal("17", 0.1)], 0.7)
    assert first == ("17", pytest.approx(0.3 / 4))  # the rest is that of numbers without a name


def test_no_alternative_is_more_probable_than_the_answer() -> None:
    readings = [Proposal("380", 0.5), Proposal("386", 0.45), Proposal("385", 0.05)]
    others = list_alternatives(readings, 0.3)
    assert others == [("386", 0.3), ("385", pytest.approx(0.07))]


def test_a_weaker_box_on_the_same_digit_is_dropped() -> None:
    boxes = np.array([[0, 0, 15, 25], [2, 1, 16, 26], [14, 0, 30, 25]], np.float32)
    assert drop_copies(boxes).tolist() == [0, 2]


@pytest.mark.parametrize(
    ("shape", "height", "scales"),  # the height of the digits in px; 0 if none is to be seen
    [
        ((100, 300), 25, [0.48]),
        ((100, 300), 20, [0.48, 1]),
        ((100, 300), 8, [0.48, 1.44, 2]),
        ((100, 300), 0, [0.48, 1, 1.6]),
        ((30, 90), 0, [1.6]),
        ((10, 30), 6, [2.5]),
        ((800, 1000), 0, [0.06, 0.18, 0.54]),
    ],
)
def test_a_closer_look_is_as_close_as_the_digits_need(
    shape: tuple[int, int], height: int, scales: list[float]
) -> None:
    looks: list[float] = []

    def find(picture: Grey, scale: float) -> Candidates:
        looks.append(scale)
        found = candidates("57" if height else "")
        return found._replace(boxes=found.boxes * (height / 25))

    _, line = search(find, np.zeros(shape, np.uint8))
    assert looks == pytest.approx(scales) and len(line.chances) == (2 if height else 0)


@pytest.mark.parametrize(("paper", "pen", "guide"), [(220, 40, 170), (30, 230, 70)])
def test_what_is_much_fainter_than_the_pen_is_less_likely_a_digit(
    paper: int, pen: int, guide: int
) -> None:
    line = candidates("812", [0.6, 0.9, 0.9])
    picture = np.full((40, 80), paper, np.uint8)
    for (left, top, right, bottom), grey in zip(
        line.boxes.astype(int), (guide, pen, pen), strict=True
    ):
        picture[top:bottom, left + 5 : right - 5] = grey
    chances = doubt_faint_ones(picture, line).chances
    assert chances[0] < 0.2 and chances[1:] == pytest.approx([0.9, 0.9], abs=1e-3)


@pytest.mark.parametrize("box", [(-5, -5, 4, 4), (0, 0, 200, 200), (60, 60, 70, 70), (3, 3, 3, 3)])
def test_any_box_has_a_contrast(box: tuple[int, ...]) -> None:
    assert measure_contrast(np.zeros((50, 40), np.uint8), np.array(box, np.float32)) == 0


@pytest.mark.parametrize("left", range(50, 62))
def test_a_thin_stroke_has_its_full_contrast(left: int) -> None:
    picture = np.full((240, 120), 210, np.uint8)
    picture[20:220, left : left + 4] = 30
    assert measure_contrast(picture, np.array((40, 20, 75, 220), np.float32)) == 180


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (37, 20), (160, 200)])
def test_the_contrast_is_that_between_percentiles(shape: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(30, 256, shape, np.uint8)
    low, paper, high = np.percentile(picture, (2, 50, 98), method="nearest")
    contrast = measure_contrast(picture, np.array((0, 0, *shape[::-1]), np.float32))
    assert contrast == pytest.approx(max(paper - low, high - paper), abs=5)


@pytest.mark.parametrize(
    ("shape", "scale", "factor"),
    [((90, 300), 0.48, 2), ((91, 301), 0.34, 2), ((91, 301), 0.33, 3), ((5, 900), 0.05, 5)],
)
def test_a_picture_is_made_coarser_by_a_whole_factor(
    shape: tuple[int, int], scale: float, factor: int
) -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, shape, np.uint8)
    coarse, by = shrink_by_factor(picture, scale)
    assert by == factor and coarse.shape == (shape[0] // factor, shape[1] // factor)
    last = picture[-factor - shape[0] % factor :, -factor - shape[1] % factor :][:factor, :factor]
    assert coarse[-1, -1] == pytest.approx(last.mean(), abs=1)


@pytest.mark.parametrize("scale", [0.6, 1.0, 3.0])
def test_a_picture_that_is_hardly_shrunk_stays(scale: float) -> None:
    picture = np.arange(200, dtype=np.uint8).reshape(10, 20)
    coarse, factor = shrink_by_factor(picture, scale)
    assert factor == 1 and np.array_equal(coarse, picture)


@pytest.mark.parametrize("shape", [(335, 1200), (149, 301), (100, 300)])
def test_a_box_is_where_the_digit_is(shape: tuple[int, int]) -> None:
    top, left = shape[0] - 60, shape[1] - 50  # near the edges at which px may be left out
    picture = np.full(shape, 255, np.uint8)
    picture[top : top + 40, left : left + 30] = 0
    scale = FIRST_LOOK / min(shape)
    height, width = (round(scale * side) for side in shape)

    def detect(images: torch.Tensor) -> torch.Tensor:
        """One candidate, with its box around the middle of the ink."""
        seen = images[0, 0, :height, :width]
        ink = (seen.max() - seen).numpy()
        down, across = ink.sum(1), ink.sum(0)
        y, x = (float(sums @ (np.arange(len(sums)) + 0.5) / sums.sum()) for sums in (down, across))
        row, column = int(y / CELL), int(x / CELL)
        left_edge, top_edge = ((cell + 0.5) * CELL - at for cell, at in ((column, x), (row, y)))
        answer = torch.full((1, 16, *(side // CELL for side in images.shape[2:])), -9.0)
        answer[0, 0, row, column] = 9.0
        edges = (left_edge + 5, top_edge + 5, 5 - left_edge, 5 - top_edge)
        answer[0, -4:, row, column] = torch.tensor(edges) / SIZE_UNIT
        return answer

    (box,) = find_candidates(detect, picture, scale).boxes
    middle = (box[:2] + box[2:]) / 2
    assert middle == pytest.approx((left + 15, top + 20), abs=0.2 / scale)
