"""Whole sets of images as a SOURCE: .npy, MNIST's own format, and tables of pixels."""

import gzip
import os
import re
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from digitq.producer.sources import arrays, csv_files, image_tables
from digitq.producer.sources.opening import open_sources
from digitq.producer.sources.source import Entry, SourceItem
from digitq.producer.sources.table_rows import NO_PIXEL
from digitq.producer.sources.truth import parse_labels
from digitq.protocol.errors import UsageError
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
    monkeypatch.setattr(csv_files, "CSV_BLOCK_BYTES", 1 << 18)


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


NAMES: list[object] = ["label", *PIXEL_NAMES]


@pytest.mark.parametrize(
    ("change", "labelled", "end"),
    [
        (lambda rows: [NAMES, *rows], True, "\n"),
        (lambda rows: [NAMES, *rows], True, "\r"),
        (lambda rows: [PIXEL_NAMES, *(row[1:] for row in rows)], False, "\r\n"),
        (lambda rows: [["label", *range(784)], *rows], True, "\n"),
        (lambda rows: [[*PIXEL_NAMES, "Class"], *(row[1:] + row[:1] for row in rows)], True, "\n"),
        (lambda rows: [["", "label", *PIXEL_NAMES], *([9, *row] for row in rows)], True, "\n"),
        (lambda rows: [[f'"{cell}"' for cell in row] for row in [NAMES, *rows]], True, "\n"),
        (lambda rows: [[*row, ""] for row in [NAMES, *rows]], True, "\n"),
        (lambda rows: [[], NAMES, *rows], True, "\n"),
        (lambda rows: [["\ufefflabel", *PIXEL_NAMES], *rows], True, "\n"),
        (lambda rows: [NAMES, *([f"{row[0]}.0", *row[1:]] for row in rows)], True, "\n"),
        (lambda rows: [[*NAMES, "note"], *([*row, "a, b".join('""')] for row in rows)], True, "\n"),
        (lambda rows: [["label", 0, *(f"0.{n}" for n in range(1, 784))], *rows], True, "\n"),
        (lambda rows: [["label", *map(float, range(784))], *rows], True, "\n"),
    ],
    ids=[
        *("Kaggle's", "old Macs'", "a test set", "numbers as names", "label last"),
        *("pandas' index", "quoted", "a comma at the end", "an empty line", "byte order mark"),
        *("NumPy's floats", "notes", "names that pandas made", "floats as names"),
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
    monkeypatch.setattr(image_tables, "PIXEL_ROWS", 200)
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


@pytest.mark.parametrize("row", [5, 250])
@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({9: "7.5"}, "has '7.5' in the column pixel8: no whole number"),
        ({9: "x" * 5000}, "has 'x{40}' in the column pixel8: no whole number"),
        ({9: "9" * 20}, "has '9{20}' in the column pixel8: no whole number"),
        ({784: "1,2"}, "has 788 cells, but the first line has 787"),
    ],
    ids=["a fraction", "text", "too large", "too long"],
)
def test_a_broken_row_is_named(
    cells: dict[int, str], reason: str, row: int, tmp_path: Path, small_blocks: None
) -> None:
    """At once if it is one of the first rows, else after the rows before it."""
    digits = random_digits(300)
    lines = to_lines(digits)
    for place, cell in cells.items():
        lines[row][place] = cell
    notes = (["", "", *line] for line in lines)  # columns that are not read may have one name
    path = write_lines(tmp_path / "a.csv", [["note", "note", *NAMES], *notes])
    if row == 5:
        with pytest.raises(UsageError, match=reason if "column pixel8" not in reason else "pixel8"):
            open_sources([path])
        return
    ids, found, truths = read_set(path)
    whole = len(ids) - 1
    assert whole > 100 and ids == [str(n) for n in range(whole + 1)]
    assert found[:-1] == [digit.tobytes() for digit in digits[:whole]]
    assert truths[:-1] == [n % 10 for n in range(whole)]
    expected = f"the file is damaged from here on: line {row + 2} {reason}$"
    assert re.search(expected, str(found[-1]))


def test_a_row_without_a_cell_or_a_digit_for_its_label_costs_no_other(tmp_path: Path) -> None:
    digits = random_digits(4)
    lines = to_lines(digits)
    lines[1][0], lines[2] = "x", [""] * 785
    ids, found, truths = read_set(write_lines(tmp_path / "a.csv", [NAMES, *lines, [], []]))
    whole = [digit.tobytes() for digit in digits]
    assert (ids, truths) == (list("0123"), [0, None, None, 3])
    assert found == [whole[0], whole[1], NO_PIXEL, whole[3]]


def test_a_quote_that_is_not_closed_hides_no_rows(tmp_path: Path, small_blocks: None) -> None:
    """In the last cell of a row, it would make one of all rows that follow."""
    digits = random_digits(300)
    rows = [[*line, "fine"] for line in to_lines(digits)]
    rows[-10][-1] = '"x'
    path = write_lines(tmp_path / "a.csv", [[*NAMES, "note"], *rows])
    assert "a cell in the column note has several lines: is a quote open?" in str(
        read_set(path)[1][-1]
    )


def test_a_table_that_is_cut_is_told(tmp_path: Path, small_blocks: None) -> None:
    digits = random_digits(300)
    path = Path(write_lines(tmp_path / "a.csv", [NAMES, *to_lines(digits)]))
    os.truncate(path, path.stat().st_size - 500)
    ids, found, _ = read_set(path)
    assert len(ids) > 100 and "line 301 has" in str(found[-1])
    with open(path, "wb") as file:
        file.truncate(32 << 20)  # zeros, as after a crash of the machine
    with pytest.raises(UsageError, match="can't read"):
        open_sources([path])


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
    before_end = []
    with pytest.raises(UsageError, match="was written while it was read"):
        for item in items:
            before_end.append(item)
    _, found, _ = read_pieces(before_end)
    assert found[:2] == [digit.tobytes() for digit in digits[:2]]
    assert found[2] == "the file is damaged from here on: 18 images missing"


def test_names_with_long_numbers_are_no_places(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.csv", [[f"a{'1' * 5000}", "label", "b"], [0, 1, 2]])
    with pytest.raises(UsageError, match="no 784 columns of whole numbers"):
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
        ("a.npy", lambda path: path.write_bytes(b"x"), "not one array in NumPy's format"),
        (
            "a.npy",
            lambda path: path.write_bytes(b"\x93NUMPY\1\0\x10\0{'descr': (((((((("),
            "can't read",
        ),
        ("a.npy", write_npz, "not one array in NumPy's format"),
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
            f"a column {PIXEL_NAMES[3]} that is not of whole numbers",
        ),
        (
            "a.csv",
            lambda path: write_lines(path, to_lines(random_digits(3))),
            "must name the columns",
        ),
        ("a.csv", lambda path: write_lines(path, [NAMES]), "it has no rows"),
        (
            "a.csv",
            lambda path: write_lines(path, [["label", "label", *PIXEL_NAMES], [0] * 786]),
            "several columns label",
        ),
    ],
)
def test_sets_that_are_none(
    name: str, write: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    write(tmp_path / name)
    with pytest.raises(UsageError, match=message):
        open_sources([f"{tmp_path}/{name}"])
