"""Whole sets of images as a SOURCE: .npy, MNIST's own format, and tables of pixels."""

import gzip
import os
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from producer.sources import arrays, tables
from producer.sources.columns import NO_PIXEL
from producer.sources.opening import open_sources
from producer.sources.source import Entry, SourceItem
from producer.sources.tables import MAX_LINE_BYTES, read_blocks
from producer.sources.truth import parse_labels
from protocol.errors import UsageError
from tests.drawing import random_digits
from tests.unit.test_sources import make_table, try_to_read


def write_npy(path: Path, digits: np.ndarray) -> None:
    with open(path, "wb") as file:
        np.save(file, digits)


def write_idx(path: Path, digits: np.ndarray) -> None:
    content = struct.pack(">4i", 2051, len(digits), 28, 28) + digits.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix.lower() == ".gz" else content)


PIXEL_NAMES = [f"pixel{n}" for n in range(784)]
Lines = list[list[object]]


def to_lines(digits: np.ndarray) -> Lines:
    """A line for each image: its label, and its pixels."""
    return [[n % 10, *digit] for n, digit in enumerate(digits.reshape(-1, 784).tolist())]


def write_lines(path: Path, lines: Lines, end: str = "\n") -> str:
    path.write_text(end.join(",".join(map(str, line)) for line in lines) + end, newline="")
    return str(path)


Rows = tuple[list[str], list[bytes | str], list[int | None]]  # ids, pixels or errors, truths


def read_set(path: Path | str) -> Rows:
    return read_pieces(open_sources([str(path)]).items)


def read_pieces(items: Iterable[SourceItem]) -> Rows:
    ids: list[str] = []
    found: list[bytes | str] = []
    truths: list[int | None] = []
    for item in items:
        if isinstance(item, Entry):
            name, error = try_to_read(item)
            ids, found = [*ids, name], [*found, error]
            truths += read_digits([item.truth])
        else:
            ids += item.column("id").to_pylist()
            found += item.column("pixels").to_pylist()
            labelled = "truth" in item.schema.names
            labels = item.column("truth").to_pylist() if labelled else [None] * len(item)
            truths += read_digits(labels)
    return ids, found, truths


def read_digits(labels: list[str | int | None]) -> list[int | None]:
    """The labels as a job of digits has them."""
    texts = [None if label is None else str(label) for label in labels]
    found: list[int | None] = parse_labels(pa.array(texts, pa.string()), pa.int8()).to_pylist()
    return found


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CSV is parsed in blocks of about 100 rows of random digits."""
    monkeypatch.setattr(tables, "CSV_BYTES", 1 << 18)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.npy", write_npy),
        ("FLAT.NPY", lambda path, digits: write_npy(path, digits.reshape(-1, 784))),
        ("columns.npy", lambda path, digits: write_npy(path, np.asfortranarray(digits))),
        ("a-images-idx3-ubyte", write_idx),
        ("A.IDX3-UBYTE.GZ", write_idx),
    ],
)
@pytest.mark.parametrize("count", [3, 103])
def test_sets_of_images(
    name: str,
    write: Callable[[Path, np.ndarray], None],
    count: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(arrays, "PIECE_ROWS", 100)
    digits = random_digits(count)
    write(tmp_path / name, digits)
    assert open_sources([f"{tmp_path}/{name}"]).count() == count
    ids, pixels, truths = read_set(tmp_path / name)
    assert ids == [str(n) for n in range(count)] and set(truths) == {None}
    assert pixels == [digit.tobytes() for digit in digits]


@pytest.mark.parametrize(
    ("change", "labelled", "end"),
    [
        (lambda rows: [["label", *PIXEL_NAMES], *rows], True, "\n"),
        (lambda rows: rows, True, "\n"),
        (lambda rows: [row[1:] for row in rows], False, "\n"),
        (lambda rows: [PIXEL_NAMES, *(row[1:] for row in rows)], False, "\r\n"),
        (lambda rows: [["label", *range(784)], *rows], True, "\n"),
        (lambda rows: [[*PIXEL_NAMES, "Class"], *(row[1:] + row[:1] for row in rows)], True, "\n"),
        (lambda rows: [["", "label", *PIXEL_NAMES], *([9, *row] for row in rows)], True, "\n"),
        (lambda rows: [[f'"{cell}"' for cell in row] for row in rows], True, "\n"),
        (lambda rows: [[*row, ""] for row in rows], True, "\n"),
        (lambda rows: [[], ["label", *PIXEL_NAMES], *rows], True, "\n"),
        (lambda rows: [["\ufefflabel", *PIXEL_NAMES], *rows], True, "\n"),
        (lambda rows: [[f"{row[0]}.0", *row[1:]] for row in rows], True, "\n"),
        (lambda rows: [[f"{row[0]}.png", *row[1:]] for row in rows], False, "\n"),
        (lambda rows: [["", *row[1:]] for row in rows], False, "\n"),
        (lambda rows: [[*row, f"{row[0]}.png"] for row in rows], True, "\n"),
        (lambda rows: [["label", 0, *(f"0.{n}" for n in range(1, 784))], *rows], True, "\n"),
        (lambda rows: [["label", *map(float, range(784))], *rows], True, "\n"),
    ],
    ids=[
        *("Kaggle's", "no names", "no labels", "a test set", "numbers as names", "label last"),
        *("pandas' index", "quoted", "a comma at the end", "an empty line", "byte order mark"),
        *("NumPy's floats", "files' names first", "no label", "files' names last"),
        *("names that pandas made", "floats as names"),
    ],
)
def test_tables_of_pixels(
    change: Callable[[Lines], Lines], labelled: bool, end: str, tmp_path: Path
) -> None:
    digits = random_digits(20)
    path = write_lines(tmp_path / "a.csv", change(to_lines(digits)), end)
    assert open_sources([path]).has_truth == labelled
    ids, pixels, truths = read_set(path)
    assert ids == [str(n) for n in range(20)]
    assert pixels == [digit.tobytes() for digit in digits]
    assert truths == ([n % 10 for n in range(20)] if labelled else [None] * 20)


def test_tables_of_several_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_blocks: None
) -> None:
    monkeypatch.setattr(tables, "PIXEL_ROWS", 200)
    digits = random_digits(250)
    lines = to_lines(digits)
    columns = dict(zip(["label", *PIXEL_NAMES], zip(*lines, strict=True), strict=True))
    for path in (
        make_table(tmp_path, **columns),
        write_lines(tmp_path / "a.csv", [["label", *PIXEL_NAMES], *lines]),
    ):
        ids, pixels, truths = read_set(path)
        assert ids == [str(n) for n in range(len(digits))]
        assert pixels == [digit.tobytes() for digit in digits]
        assert truths == [n % 10 for n in range(len(digits))]


@pytest.mark.parametrize("wrong", ["256", "-1", ""])
def test_a_pixel_that_is_none_is_an_error_of_its_row(wrong: str, tmp_path: Path) -> None:
    digits = random_digits(4)
    lines = to_lines(digits)
    lines[2][300] = wrong
    path = write_lines(tmp_path / "a.csv", [["label", *PIXEL_NAMES], *lines])
    ids, found, truths = read_set(path)
    assert (ids, truths) == (list("0123"), [0, 1, 2, 3])
    whole = [digit.tobytes() for digit in digits]
    assert found == [whole[0], whole[1], NO_PIXEL, whole[3]]


def test_an_odd_row_costs_no_other_its_label(tmp_path: Path) -> None:
    """Labels may be 3.0; a note at the end may be in another encoding."""
    lines = [[f"{line[0]}.0", *line[1:]] for line in to_lines(random_digits(3))]
    lines[1][5] = "x"
    path = Path(write_lines(tmp_path / "a.csv", [["label", *PIXEL_NAMES], *lines]))
    with path.open("ab") as file:
        file.write(b"Fu\xdfnote\n")
    ids, found, truths = read_set(str(path))
    assert ids == list("0123") and [cell == NO_PIXEL for cell in found] == [
        False,
        True,
        False,
        True,
    ]
    assert truths == [int(line[0][0]) for line in lines] + [None]


def test_a_line_without_an_end_is_read_in_parts(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.touch()
    os.truncate(path, 32 << 20)  # zeros, as after a crash of the machine
    sizes = [len(b"".join(lines)) for lines in read_blocks(path, 0)]
    assert sum(sizes) == 32 << 20 and max(sizes) <= tables.CSV_BYTES + MAX_LINE_BYTES


@pytest.mark.parametrize("blank", ["", " "])
def test_lines_without_a_cell_are_no_rows(
    blank: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of them alone there may be a whole block."""
    digits = random_digits(4)
    path = Path(write_lines(tmp_path / "a.csv", to_lines(digits)))
    monkeypatch.setattr(tables, "CSV_BYTES", path.stat().st_size)
    with open(path, "a") as file:
        file.write(f"{blank}\n" * 3)
    assert read_set(path)[1] == [digit.tobytes() for digit in digits]


def test_a_table_that_is_cut_is_told(tmp_path: Path, small_blocks: None) -> None:
    """In the row that it is cut in."""
    digits = random_digits(200)
    path = Path(write_lines(tmp_path / "a.csv", to_lines(digits)))
    os.truncate(path, path.stat().st_size - 500)
    ids, found, _ = read_set(path)
    assert ids == [str(n) for n in range(200)]
    assert found[:-1] == [digit.tobytes() for digit in digits[:-1]] and found[-1] == NO_PIXEL
    os.truncate(path, 5000)
    _, found, _ = read_set(path)
    assert found[-1] == NO_PIXEL and NO_PIXEL not in found[:-1]


@pytest.mark.parametrize("labels", ["a number", "text"])
def test_rows_that_are_broken_are_errors_and_cost_no_other(
    labels: str, tmp_path: Path, small_blocks: None
) -> None:
    digits = random_digits(300)
    lines = to_lines(digits)
    if labels == "text":
        for line in lines:
            line[0] = "no digit" if line[0] == 9 else f"{line[0]}"
    broken: Lines = [["x", *lines[0][1:]], [*lines[0][:-1], "1.5"], lines[0][:-5], [*lines[0], 1]]
    broken += [[*lines[0][:9], "", *lines[0][10:]], [""] * len(lines[0])]
    broken += [[*lines[0][:-1], cell] for cell in ("9" * 20, "\u2028", "x" * 200_000)]
    for number, line in zip(range(50, 140, 10), broken, strict=True):
        lines[number] = line
    lines[290] = [f'"{lines[290][0]}', *lines[290][1:]]
    ids, found, truths = read_set(write_lines(tmp_path / "a.csv", [["Y", *PIXEL_NAMES], *lines]))
    assert ids == [str(n) for n in range(len(digits))]
    expected: list[object] = [digit.tobytes() for digit in digits]
    expected[50] = digits[0].tobytes()  # only its label is none
    expected[60:140:10] = [NO_PIXEL] * 8
    expected[290] = NO_PIXEL
    assert found == expected
    nothing = {50, *(n for n in range(len(digits)) if labels == "text" and n % 10 == 9)}
    for number in {*range(len(digits))} - {*range(50, 140, 10), 290}:
        assert truths[number] == (None if number in nothing else number % 10)


@pytest.mark.parametrize(
    "names",
    [
        ["id", *PIXEL_NAMES],
        ["Id", "label", *PIXEL_NAMES],
        ["number", "label", *PIXEL_NAMES],
        sorted(PIXEL_NAMES),
        [f"{n}_of_784" for n in range(784)],
        ["id", *(f"{n}_of_784" for n in range(784))],
        ["Unnamed: 0", *(f"{n}_of_784" for n in range(784))],
        ["__index_level_0__", *(f"{n}_of_784" for n in range(784))],
    ],
)
def test_which_columns_are_pixels(names: list[str], tmp_path: Path) -> None:
    digits = random_digits(3)
    places = {name: place for place, name in enumerate(PIXEL_NAMES)} | {
        f"{n}_of_784": n for n in range(784)
    }
    rows = [
        [digit.ravel()[places[name]] if name in places else 7 for name in names] for digit in digits
    ]
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    for path in (
        write_lines(tmp_path / "a.csv", [names, *rows]),
        make_table(tmp_path, **columns),
    ):
        _, found, truths = read_set(path)
        assert found == [digit.tobytes() for digit in digits]
        assert truths == [7 if "label" in names else None] * 3


def test_a_set_that_is_cut_is_told(tmp_path: Path) -> None:
    digits = random_digits(3)
    for name in ("idx3-ubyte", "idx3-ubyte.gz"):
        write_idx(tmp_path / name, digits)
    os.truncate(tmp_path / "idx3-ubyte", 16 + 2 * 784 + 5)
    content = (tmp_path / "idx3-ubyte.gz").read_bytes()
    (tmp_path / "idx3-ubyte.gz").write_bytes(content[:-100])
    for name in ("idx3-ubyte", "idx3-ubyte.gz"):
        ids, found, _ = read_set(tmp_path / name)
        assert (ids, found[:2]) == (list("012"), [digit.tobytes() for digit in digits[:2]])
        assert found[2] == "the file is damaged from here on: 1 image missing"


def test_an_array_that_is_cut_while_it_is_read_costs_what_is_gone(tmp_path: Path) -> None:
    digits = random_digits(20)  # of which several pages are cut off: mapped, they would be fatal
    write_npy(tmp_path / "a.npy", digits)
    items = open_sources([str(tmp_path / "a.npy")]).items
    os.truncate(tmp_path / "a.npy", (tmp_path / "a.npy").stat().st_size - 18 * 784)
    _, found, _ = read_pieces(items)
    assert found[:2] == [digit.tobytes() for digit in digits[:2]]
    assert found[2] == "the file is damaged from here on: 18 images missing"


@pytest.mark.parametrize("wrong", ["256", "NA", "7.5", "9" * 5000])
@pytest.mark.parametrize("row", [0, 1])
def test_an_odd_cell_is_its_row_s_error_where_nothing_is_named(
    row: int, wrong: str, tmp_path: Path
) -> None:
    digits = random_digits(3)
    lines = to_lines(digits)
    lines[row][9] = wrong
    expected: list[bytes | str] = [digit.tobytes() for digit in digits]
    expected[row] = NO_PIXEL
    _, found, truths = read_set(write_lines(tmp_path / "a.csv", lines))
    assert found == expected and truths == [0, 1, 2]


def test_names_with_long_numbers_are_no_places(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.csv", [[f"a{'1' * 5000}", "label", "b"], [0, 1, 2]])
    with pytest.raises(UsageError, match="has no 784 columns of whole numbers"):
        open_sources([path])


def write_npz(path: Path) -> None:
    with open(path, "wb") as file:
        np.savez(file, random_digits(1))


NUMBERS: dict[str, Any] = dict.fromkeys(PIXEL_NAMES, [0])


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("a.npy", lambda path: write_npy(path, np.zeros((2, 28, 28))), r"float64\(2, 28, 28\)"),
        ("a.npy", lambda path: write_npy(path, np.zeros((2, 3, 28, 28), "B")), "3, 28, 28"),
        ("a.npy", lambda path: write_npy(path, random_digits(0)), "no image in"),
        ("a.npy", lambda path: path.write_bytes(b"x"), "can't read"),
        (
            "a.npy",
            lambda path: path.write_bytes(b"\x93NUMPY\1\0\x10\0{'descr': (((((((("),
            "can't read",
        ),
        ("a.npy", write_npz, "several arrays"),
        ("idx3-ubyte", lambda path: path.write_bytes(bytes(50)), "not a file of 28×28 images"),
        (
            "idx3-ubyte",
            lambda path: path.write_bytes(struct.pack(">4i", 2051, 1, 14, 56) + bytes(784)),
            "not a file of 28×28 images",
        ),
        ("idx3-ubyte.gz", lambda path: path.write_bytes(b"x"), "can't read"),
        ("a.csv", lambda path: path.write_text("id,label\n1.png,3\n"), "columns: id, label"),
        ("a.csv", lambda path: path.write_text(""), "can't read"),
        ("a.csv", lambda path: path.write_bytes(bytes(1 << 20)), "can't read"),
        ("a.csv", lambda path: write_lines(path, [range(10**6), range(9)]), "over 8,192 columns"),
        (
            "a.csv",
            lambda path: write_lines(path, [[f"x{n}x" for n in range(785)], [0] * 785]),
            "name the label column `label`",
        ),
        (
            "a.csv",
            lambda path: write_lines(path, [[*range(785)], [0] * 785]),
            "name the label column `label`",
        ),
        (
            "a.csv",
            lambda path: write_lines(path, [PIXEL_NAMES, [*[0] * 3, *["1.5"] * 781]]),
            f"a column {PIXEL_NAMES[3]} with values that are not whole numbers",
        ),
        (
            "a.csv",
            lambda path: path.write_text(";".join(PIXEL_NAMES) + "\n" + ";".join("0" * 784)),
            "separated by commas; its columns: [^ ]{41}$",
        ),
        (
            "a.csv",
            lambda path: write_lines(path, [PIXEL_NAMES, *[[100] * 784] * 1400], "\r"),
            r"ends its lines with \\r alone",
        ),
        (
            "a.csv",
            lambda path: write_lines(path, [["label", "label", *PIXEL_NAMES], [0] * 786]),
            "several columns that may be labels: label, label",
        ),
        (
            "made.parquet",
            lambda path: make_table(path.parent, y=[0], digit=[0], **NUMBERS),
            "several columns that may be labels: y, digit",
        ),
    ],
)
def test_sets_that_are_none(
    name: str, write: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    write(tmp_path / name)
    with pytest.raises(UsageError, match=message):
        open_sources([f"{tmp_path}/{name}"])


def test_an_odd_cell_in_the_first_rows_is_its_row_s_error(tmp_path: Path) -> None:
    digits = random_digits(3)
    lines = to_lines(digits)
    lines[1][9] = "7.5"
    _, found, truths = read_set(write_lines(tmp_path / "a.csv", [["label", *PIXEL_NAMES], *lines]))
    assert found == [digits[0].tobytes(), NO_PIXEL, digits[2].tobytes()] and truths == [0, 1, 2]


def test_each_line_is_a_row_whatever_is_quoted(tmp_path: Path) -> None:
    """A cell of several lines costs its row, and no other."""
    digits = random_digits(50)
    names: list[object] = ["label", *PIXEL_NAMES, "note"]
    rows = [[*line, f'"a ""{n}"", b"'] for n, line in enumerate(to_lines(digits))]
    rows[20][-1] = '"a\nb"'
    ids, found, truths = read_set(write_lines(tmp_path / "a.csv", [names, *rows]))
    assert ids == [str(n) for n in range(51)]
    expected: list[bytes | str] = [digit.tobytes() for digit in digits]
    assert found == [*expected[:21], NO_PIXEL, *expected[21:]]
    assert truths == [*(n % 10 for n in range(21)), None, *(n % 10 for n in range(21, 50))]


@pytest.mark.parametrize("count", [50, 300])
@pytest.mark.parametrize("row", [5, -10])
def test_a_stray_quote_costs_no_row(
    count: int, row: int, tmp_path: Path, small_blocks: None
) -> None:
    """At the start of a cell, it would make one of all that follows."""
    digits = random_digits(count)
    lines = to_lines(digits)
    notes = ["fine"] * count
    notes[row] = '"x'
    rows = [[*line, note] for line, note in zip(lines, notes, strict=True)]
    path = write_lines(tmp_path / "a.csv", [["label", *PIXEL_NAMES, "note"], *rows])
    assert read_set(path)[1] == [digit.tobytes() for digit in digits]
