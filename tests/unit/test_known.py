"""What is known of whole numbers beforehand: patterns, lists; they travel as bytes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from digitq.cli import main
from digitq.protocol.asked.known import MAX_ALLOWED, Known, describe_known, read_allowed, read_lines
from digitq.protocol.asked.reading import Reading, choose_reading, digits, numbers
from digitq.protocol.asked.values import accepts, is_written, tidy
from digitq.protocol.errors import UsageError
from digitq.protocol.prediction import NumberPrediction


@pytest.mark.parametrize(
    ("length", "pattern"),
    [
        *[("9", r"\d{9}"), ("3-6", r"\d{3,6}"), (4, r"\d{4}"), (" 1 - 20 ", r"\d{1,20}")],
        ((3, 6), r"\d{3,6}"),
    ],
)
def test_a_length_is_a_pattern_of_digits(length: str | int, pattern: str) -> None:
    assert Known.check(length).pattern == pattern


@pytest.mark.parametrize(
    "length", ["", "0", "21", "6-3", "3-", "-3", "x", "3-6-9", (6, 3), (3, 4, 5), "1.5", "٣"]
)
def test_a_length_that_can_t_be_is_told(length: str) -> None:
    with pytest.raises(UsageError, match="must be like 9 or 3-6, from 1 to 20 digits"):
        Known.check(length, None)


def test_allowed_numbers_are_sorted_and_once_there() -> None:
    known = Known.check(None, ["12", " 007 ", "12", "7\n"])
    assert known.allowed is not None and known.allowed.tolist() == [b"007", b"12", b"7"]
    assert Known.check(allowed=["7", 12, np.int64(7)]).encode() == b"\n12\n7"


def test_only_allowed_numbers_of_the_length_stay() -> None:
    known = Known.check("2-3", ["1", "12", "123", "1234", ""])
    assert known.allowed is not None and known.allowed.tolist() == [b"12", b"123"]


@pytest.mark.parametrize(
    ("allowed", "message"),
    [
        ([], "the list of allowed numbers is empty"),
        (["1", "a"], "line 2 of the allowed numbers is 'a'"),
        (["1", "", "2"], "line 2 of the allowed numbers is ''"),
        (["", " "], "the list of allowed numbers is empty"),
        (["1" * 21], "it must be 1 to 20 digits"),
        (["12.5", "12.5 kg"], "line 2 of the allowed numbers is '12.5 kg'"),
        (["-"], "it must be 1 to 20 digits or ½ ¼ ¾, with .,-./:% at most 32 characters"),
        ([f"{'-' * 32}1"], "at most 32 characters"),
        (["1\n2"], "it must be 1 to 20 digits"),
        ([7.0], "line 1 of the allowed numbers is 7.0: it must be a whole number, or text"),
        ("123", "a list of numbers, not a text"),
        (Path("ids.txt"), "a list of numbers, not a text or a path"),
        (map(str, range(MAX_ALLOWED + 1)), "1,000,001 numbers are allowed: at most 1,000,000"),
    ],
)
def test_a_list_that_can_t_be_is_told(allowed: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Known.check(None, allowed)


def test_a_length_that_no_allowed_number_has() -> None:
    with pytest.raises(UsageError, match="no allowed number has the length 9"):
        Known.check("9", ["12", "345"])


def test_only_allowed_numbers_of_the_pattern_stay() -> None:
    known = Known.check(None, ["12.5", "125", "1.25", "-12.5"], r"\d+\.\d")
    assert known.allowed is not None and known.allowed.tolist() == [b"12.5"]
    with pytest.raises(UsageError, match="no allowed number has the pattern date"):
        Known.check(None, ["12.5"], "date")


VALUES = """
7 12 123 12.5 12,5 .5 5. -45 +3 50.000 3/4 12:30 24:00 9.15.59 40% 1-2
12/05/2024 1.2.24 32/05/2024 12/13/2024 2024-05-12 12-5-24 12/05-24 12052024
"""


@pytest.mark.parametrize(
    ("pattern", "possible"),
    [
        (r"\d+", "7 12 123 12052024"),
        ("integer", "7 12 123 12052024"),
        ("decimal", "7 12 123 12.5 12,5 .5 -45 50.000 12052024"),
        ("date", "12/05/2024 1.2.24 2024-05-12 12-5-24"),
        ("time", "12:30 9.15.59"),
        (r"\d{1,2}\.\d", "12.5"),
        (r"^\d{1,2}[.,]\d$", "12.5 12,5"),
        (r"[+-]?\d{,2}", "7 12 -45 +3"),
        (r"(?:\d{2}\/){2}\d{4}", "12/05/2024 32/05/2024 12/13/2024"),
        (r"[^.,]\d?\%|a", "40%"),
        (r"(\d+-)*\d+|\.\d+", "7 12 123 .5 1-2 2024-05-12 12-5-24 12052024"),
        (r"((\d?){20}:?){2}", "7 12 123 12:30 24:00 12052024"),
        (r"\d*1\d{7}", "12052024"),
    ],
)
def test_a_pattern_says_which_values_are_possible(pattern: str, possible: str) -> None:
    automaton = Known.check(pattern=pattern).automaton
    assert [value for value in VALUES.split() if accepts(automaton, value)] == possible.split()


def test_a_list_is_an_automaton_too() -> None:
    automaton = Known.check(None, ["12.5", "125", "7", "12.50"]).automaton
    tried = [*VALUES.split(), "125", "12.50", "12.", ""]
    assert [one for one in tried if accepts(automaton, one)] == ["7", "12.5", "125", "12.50"]
    assert automaton.signs == "." and Known.check(None, ["12"]).automaton.signs == ""


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("[0-9", "neither a regular expression .unterminated character set at position 0. nor one"),
        (r"\d{99999999999}", "neither a regular expression .the repetition number is too large"),
        ("dates", "needs 'd': a number has only 0123456789½¼¾.,-./:%"),
        (r"\d{2} \d", "needs ' ': a number has only"),
        (r"\d⅓", "needs '⅓': a number has only"),
        (r"\d{21}", "nothing with 1 to 20 digits, and at most 32 characters, matches"),
        (r"\d{100000}", "nothing with 1 to 20 digits"),
        (r"\d(\.){40}", "nothing with 1 to 20 digits, and at most 32 characters, matches"),
        ("[.,-]", "nothing with 1 to 20 digits"),
        ("", "nothing with 1 to 20 digits"),
        (r"(\d)\1", "has a part that is not supported"),
        (r"(?=1)\d", "has a part that is not supported"),
        (r"(((\d{1,20}){1,20}){1,20})", "repeats too many repetitions"),
        ("1" * 201, "at most 200 characters"),
    ],
)
def test_a_pattern_that_can_t_be_is_told(pattern: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Known.check(pattern=pattern)


def test_a_pattern_with_many_ways_takes_no_time() -> None:
    """As a table of all states, these would have millions; with backtracking, they never end."""
    for pattern in (r"\d*2\d{18}", r"(\d{1,20}){1,20}\.", r"(\d*)*\d*-", r"(1|11|111){1,20}:"):
        automaton = Known.check(pattern=pattern).automaton
        assert not accepts(automaton, "1" * 20)


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        (r"\d½", ["7½"]),
        (r"\d+[½¼¾]?", ["7", "7½", "12", "12¾"]),
        ("½|7", ["7", "½"]),
        (r"\d(\.5|½)?", ["7", "7.5", "7½"]),
        (".+", ["7", "7.5", "7½", "12", "12¾", "½"]),
    ],
)
def test_fractions_are_signs_of_patterns_and_lists(pattern: str, wanted: list[str]) -> None:
    values = ["7", "7.5", "7½", "12", "12¾", "½"]
    assert [one for one in values if accepts(Known.check(pattern=pattern).automaton, one)] == wanted
    known = Known.decode(
        Known.check(None, ["12 3/4", "12", "½", "7 ½", "7", "7.5"], pattern).encode()
    )
    assert known.allowed is not None and len(known.allowed) == len(wanted)
    assert [one for one in values if accepts(known.automaton, one)] == wanted


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        (" 7 1/2 ", "7½"),
        ("12 3/4", "12¾"),
        ("3 1⁄4", "3¼"),
        ("7 ½", "7½"),
        ("-7½", "-7½"),
        ("1/2", "1/2"),  # a date, or one of two
        ("7 2/4", "7 2/4"),
        ("7 1/24", "7 1/24"),
        ("17 1/2%", "17½%"),
    ],
)
def test_a_fraction_may_be_spelled_out(typed: str, value: str) -> None:
    assert tidy(typed) == value
    assert is_written(value) == (" " not in value)


@pytest.mark.parametrize("pattern", [None, "date", r"\d+\.\d"])
@pytest.mark.parametrize("allowed", [None, ["001.2", "34.5", "1.1.99"]])
@pytest.mark.parametrize("fill", ["", "X-"])
def test_it_travels_unchanged(pattern: str | None, allowed: list[str] | None, fill: str) -> None:
    known = Known.check(None, allowed, pattern, fill)
    payload = known.encode()
    found = Known.decode(payload)
    assert bool(payload) == bool(pattern or allowed or fill) and found.fill == fill
    assert found.pattern == known.pattern == describe_known(payload)[0]
    listed = [None if one.allowed is None else one.allowed.tolist() for one in (found, known)]
    assert listed[0] == listed[1]
    assert describe_known(payload)[1] == (listed[0] and len(listed[0]))


def test_what_to_read_decides_the_model() -> None:
    assert choose_reading() == digits() == Reading("mlp")
    assert choose_reading(model="cnn") == digits("cnn") == Reading("cnn")
    assert choose_reading(read="number") == numbers() == Reading("number")
    nine = Reading[NumberPrediction]("number", rb'["\\d{9}", ""]')
    assert choose_reading(read="number", length=9) == numbers(length=9) == nine


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "cnn", "read": "number"}, "leave out the model 'cnn'"),
        ({"model": "number"}, "there is no model 'number'"),
        ({"length": "9"}, "a length, a pattern, a fill and allowed numbers need"),
        ({"allowed": ["9"]}, "a length, a pattern, a fill and allowed numbers need"),
        ({"pattern": "date"}, "a length, a pattern, a fill and allowed numbers need"),
        ({"read": "number", "length": "9", "pattern": "date"}, "give one of the two"),
        ({"read": "number", "fill": "x="}, "the fill 'X=' must be some of X, -, /"),
        ({"fill": "X"}, "a length, a pattern, a fill and allowed numbers need"),
        ({"read": "word"}, "must be digit or number"),
    ],
)
def test_what_does_not_go_together(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        choose_reading(**arguments)  # type: ignore[arg-type]


def test_a_file_of_numbers_is_text(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_bytes(b"\xef\xbb\xbf12\r\n007\r\n")
    assert read_lines(tmp_path / "ids.txt") == ["12", "007"]
    (tmp_path / "odd.txt").write_bytes(b"\xff\xfe1")
    with pytest.raises(UsageError, match="it is not in UTF-8"):
        read_lines(tmp_path / "odd.txt")
    with pytest.raises(UsageError, match="No such file"):
        read_lines(tmp_path / "gone.txt")


def test_allowed_numbers_in_a_column(tmp_path: Path) -> None:
    table = tmp_path / "ids.csv"
    table.write_bytes(b"\xef\xbb\xbfname;Student\r\nAda, A.;007\r\n\r\nBob; \r\nCy;12,5\r\nDi\r\n")
    assert [*read_allowed(f"{table}:student")] == ["007", "12,5"]
    (tmp_path / "a:b").write_text("12\n")
    assert read_allowed(f"{tmp_path}/a:b") == ["12"]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("ids.csv:pupil", "has none of these names of columns: pupil; it has name, student"),
        (
            "ids.csv:name",
            "line 2 of ids.csv has 'Ada' in the column name: it must be 1 to 20 digits",
        ),
        ("gone.csv:student", "can't read gone.csv: No such file"),
        ("odd.csv:student", "can't read odd.csv: it is not in UTF-8"),
        ("none.csv:student", "the list of allowed numbers is empty"),
        ("empty.csv:student", "empty.csv is empty, or its first line is"),
        ("gone.csv", "can't read gone.csv: No such file"),
    ],
)
def test_a_column_that_has_no_allowed_numbers(
    where: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ids.csv").write_text("name,student\nAda,007\n")
    Path("odd.csv").write_bytes(b"student\n\xff\n")
    Path("none.csv").write_text("student\n\n")
    Path("empty.csv").touch()
    Path("a.png").touch()
    with pytest.raises(SystemExit) as ended:
        main(["classify", "a.png", "--read", "number", "--allowed", where])
    assert ended.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [{"pattern": 5}, {"fill": ["X"]}])
def test_a_pattern_and_a_fill_are_text(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="must be text"):
        Known.check(**wrong)
