"""What is known of whole numbers beforehand: it is checked, and travels as bytes."""

from pathlib import Path

import pytest

from digitq.cli import main
from producer.sources.truth import read_allowed
from protocol.errors import UsageError
from protocol.known import MAX_ALLOWED, Known, read_lines
from protocol.reading import Reading, choose_reading


@pytest.mark.parametrize(
    ("length", "lengths"), [("9", (9, 9)), ("3-6", (3, 6)), (4, (4, 4)), (" 1 - 20 ", (1, 20))]
)
def test_a_length_is_a_number_or_a_range(length: str | int, lengths: tuple[int, int]) -> None:
    assert Known.check(length, None).lengths == lengths


@pytest.mark.parametrize("length", ["", "0", "21", "6-3", "3-", "-3", "x", "3-6-9", "1.5", "٣"])
def test_a_length_that_can_t_be_is_told(length: str) -> None:
    with pytest.raises(UsageError, match="must be like 9 or 3-6, from 1 to 20 digits"):
        Known.check(length, None)


def test_allowed_numbers_are_sorted_and_once_there() -> None:
    known = Known.check(None, ["12", " 007 ", "12", "7\n"])
    assert known.allowed is not None and known.allowed.tolist() == [b"007", b"12", b"7"]


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
        (["1\n2"], "it must be 1 to 20 digits"),
        ([7], "line 1 of the allowed numbers is 7"),
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


@pytest.mark.parametrize("length", [None, "3-6"])
@pytest.mark.parametrize("allowed", [None, ["0012", "345"]])
def test_it_travels_unchanged(length: str | None, allowed: list[str] | None) -> None:
    known = Known.check(length, allowed)
    payload = known.encode()
    found = Known.decode(payload)
    assert bool(payload) == bool(length or allowed)
    assert found.lengths == known.lengths
    listed = [None if one.allowed is None else one.allowed.tolist() for one in (found, known)]
    assert listed[0] == listed[1]


def test_what_to_read_decides_the_model() -> None:
    assert choose_reading() == Reading("mlp")
    assert choose_reading("cnn") == Reading("cnn")
    assert choose_reading(read="number") == Reading("number")
    assert choose_reading(read="number", length=9) == Reading("number", b"9-9")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "cnn", "read": "number"}, "leave out the model 'cnn'"),
        ({"model": "number"}, "there is no model 'number'"),
        ({"length": "9"}, "a length and allowed numbers need"),
        ({"allowed": ["9"]}, "a length and allowed numbers need"),
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
    assert read_allowed(f"{table}:student") == ["007", "12,5"]
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
