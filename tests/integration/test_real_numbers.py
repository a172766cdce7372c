"""Whole numbers read by real workers, from files to rows."""

import csv
import json
import subprocess
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest

import digitq
from digitq import Client
from digitq.private.processes import Local
from digitq.producer.sources.opening import open_sources
from digitq.protocol.asked.known import Known
from digitq.worker.dataset import load_mnist
from digitq.worker.sight.numbers.line_strip import turn
from digitq.worker.sight.numbers.recognition import read_number
from tests.inspecting import inspect
from tests.waiting import DIGITQ


def run(*arguments: object, text: str = "") -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a command."""
    command = [*DIGITQ, *map(str, arguments)]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


@cache
def pick_digits() -> list[np.ndarray]:
    """The second image of each digit in MNIST's sample."""
    images, labels = (tensor.numpy() for tensor in load_mnist("sample"))
    return [images[np.flatnonzero(labels == digit)[1]] for digit in range(10)]


def write_number(number: str) -> np.ndarray:
    """Digits of MNIST's sample side by side, dark on light."""
    line = 255 - np.pad(np.hstack([pick_digits()[int(digit)] for digit in number]), 12)
    return cv2.resize(line, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)


def write_sign(sign: str) -> np.ndarray:
    """A printed sign that is a little taller than the digits, with space around it."""
    space = np.full((104, 50 + 42 * len(sign)), 255, np.uint8)
    cv2.putText(space, sign, (16, 68), cv2.FONT_HERSHEY_DUPLEX, 1.9, 0, 3, cv2.LINE_AA)
    return space


@pytest.mark.parametrize(
    ("before", "after", "least"), [("$", "", 18), ("", "-", 18), ("", "/-", 5), ("$", "/-", 0)]
)
def test_signs_of_an_amount_are_no_digits(before: str, after: str, least: int) -> None:
    """A printed slash may be taken for a 1, but then the number is marked."""
    rng, right, missed = np.random.default_rng(0), 0, 0
    for _ in range(20):
        number = "".join(map(str, rng.integers(0, 10, 4)))
        line = write_number(number)[:, 24:-24]
        picture = np.hstack([write_sign(before), line, write_sign(after)])
        reading = read_number(cv2.imencode(".png", picture)[1].tobytes(), Known("integer"))
        right += reading.number == number
        missed += reading.number != number and not reading.reason
    assert right >= least and missed <= 3


def test_a_date_is_not_taken_for_a_longer_number() -> None:
    rng, missed = np.random.default_rng(0), 0
    slash = np.full((104, 40), 255, np.uint8)
    cv2.line(slash, (30, 25), (9, 77), 0, 4, cv2.LINE_AA)  # 1.4 times as tall as a digit
    for _ in range(20):
        parts = [write_number(str(number))[:, 24:-24] for number in rng.integers(10, 100, 3)]
        picture = np.hstack([parts[0], slash, parts[1], slash, parts[2]])
        content = cv2.imencode(".png", np.pad(picture, 24, mode="edge"))[1].tobytes()
        reading = read_number(content, Known())
        missed += not reading.reason and len(reading.number) > 6
    assert missed <= 2


@pytest.mark.parametrize("is_cut", [False, True])
def test_a_tilted_number_is_read_and_its_digits_are_where_they_are(is_cut: bool) -> None:
    """Also if the picture is cut off close to the ink."""
    rng, right = np.random.default_rng(0), 0
    for angle in np.linspace(-45, 45, 20):
        number = "".join(map(str, rng.integers(0, 10, 4)))
        picture, matrix = turn(write_number(number), angle)
        if is_cut:
            left, top, width, height = cv2.boundingRect(255 - picture)
            picture = picture[top : top + height, left : left + width]
            matrix[:, 2] -= left, top
        reading = read_number(cv2.imencode(".png", picture)[1].tobytes(), Known())
        if reading.number == number:
            right += 1
            boxes = np.array([digit[2:] for digit in reading.digits])
            across = 24 + 28 * 2 * (np.arange(4) + 0.5)  # middles in the level picture
            middles = matrix @ [across, np.full(4, 24 + 28), np.ones(4)]
            assert np.abs((boxes[:, :2] + boxes[:, 2:]) / 2 - middles.T).max() < 14
    assert right >= 14


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "fields").mkdir()
    for number in ("007", "41902", "86"):
        PIL.Image.fromarray(write_number(number)).save(tmp_path / "fields" / f"{number}.png")
    PIL.Image.new("L", (300, 100), 255).save(tmp_path / "fields" / "blank.png")
    (tmp_path / "fields" / "torn.png").write_bytes(b"")
    return tmp_path / "fields"


def test_a_folder_of_numbers(local: Local, folder: Path, tmp_path: Path) -> None:
    broker = ("--broker", local.url)
    status, out, err = run("classify", folder, "--read", "number", *broker)
    rows = list(csv.DictReader(out.splitlines()))
    assert status == 1, err
    assert [*rows[0]] == ["id", "number", "confidence", "error", "review", "reason"]
    assert [row["number"] for row in rows] == ["007", "86", "41902", "", ""]
    assert [row["error"] for row in rows[3:]] == ["", "the file is empty"]
    assert rows[3]["reason"] == "empty" and float(rows[3]["confidence"]) > 0.99
    out_file, allowed = tmp_path / "rows.jsonl", tmp_path / "allowed.txt"
    allowed.write_text("86\n9\n")
    run("classify", folder, "--read", "number", "-o", out_file, "--allowed", allowed, *broker)
    last = [json.loads(line) for line in out_file.read_text().splitlines()][1]
    assert last["number"] == "86" and last["confidence"] > 0.9
    (eight, six) = last["digits"]
    assert (eight["digit"], six["digit"]) == (8, 6)
    assert 24 <= eight["left"] < eight["right"] <= six["left"] + 8 < 130


def test_a_pattern_says_what_is_wanted(local: Local, folder: Path) -> None:
    """A point that must be there is put in; a number that has no place for it stays as it is."""
    options = ("--read", "number", "--pattern", r"\d+\.\d{2}", "--broker", local.url)
    _, out, _ = run("classify", folder, *options)
    rows = [(row["number"], row["reason"]) for row in csv.DictReader(out.splitlines())]
    assert rows[0][0] == "0.07" and rows[2][0] == "419.02"
    assert rows[1] == ("86", "not allowed")


def test_a_single_call(local: Local, folder: Path) -> None:
    answer = Client(local.url).classify(str(folder / "41902.png"), digitq.numbers(length=5))
    assert answer.number == "41902" and len(answer.digits or ()) == 5


def test_inspect_draws_the_boxes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = inspect(folder / "86.png", "--read", "number")
    assert result.exit_code == 0 and result.stdout.startswith("86.png: 86, ")
    with PIL.Image.open("86.inspect.png") as picture:
        is_red = (np.asarray(picture) == (255, 0, 0)).all(2)
    lines = np.flatnonzero(is_red.sum(0) > 0.3 * len(is_red))
    assert (np.diff(lines) > 2).sum() == 3  # the four sides of two boxes
    result = inspect(folder / "blank.png", "--read", "number")
    assert result.exit_code == 0 and result.stdout.startswith("blank.png: nothing, ")
    bad = ["--read", "number", "--model", "cnn"]
    assert inspect(folder / "86.png", *bad).exit_code == 2


def test_inspect_takes_what_is_known(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (folder / "ids.txt").write_text("86\n68\n")

    result = inspect("86.png", "--read", "number", "--length", "1")
    assert result.stdout.splitlines()[0].endswith(", to review: not allowed")
    result = inspect("86.png", "--read", "number", "--length", "2", "--allowed", "ids.txt")
    assert result.exit_code == 0 and result.stdout.startswith("86.png: 86, 99.")
    for options, message in (
        (["--length", "2"], "need whole numbers: --read number"),
        (["--read", "number", "--length", "0"], "must be like 9 or 3-6"),
        (["--read", "number", "--allowed", "none.txt"], "can't read none.txt"),
    ):
        result = inspect("86.png", *options)
        assert result.exit_code == 2 and message in result.stderr


def test_what_is_not_a_number(local: Local, tmp_path: Path) -> None:
    """Each is an error or an answer to review, in time."""
    rng = np.random.default_rng(0)
    bars = np.repeat(rng.integers(0, 2, 150, np.uint8) * 255, 2)
    pictures = {
        "strip": np.full((1, 10_000), 200, np.uint8),
        "noise": rng.integers(0, 256, (200, 300), np.uint8),
        "barcode": np.tile(bars, (120, 1)),
        "form": cv2.copyMakeBorder(
            np.full((90, 90), 255, np.uint8), 4, 4, 4, 4, cv2.BORDER_CONSTANT
        ),
    }
    for name, picture in pictures.items():
        PIL.Image.fromarray(picture).save(tmp_path / f"{name}.png")
    paths = [tmp_path / f"{name}.png" for name in pictures]
    source = open_sources([*map(str, paths)])
    table = Client(local.url).submit_source(source, digitq.numbers()).table()
    for error, review in zip(
        *(table.column(name).to_pylist() for name in ("error", "review")), strict=True
    ):
        assert review and (error is None or "number" in error)
