"""How well images are read: the figures, their words, and what `evaluate` takes."""

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from digitq.cli import main
from digitq.producer.counts import Counts
from digitq.producer.results import READERS
from digitq.producer.sinks.resumable import FileSink
from digitq.producer.sources.opening import open_sources
from digitq.protocol.chunk import NUMBER_SCHEMA, NUMBER_TRUTH, RESULT_SCHEMA, TRUTH
from digitq.protocol.settings import read_by
from digitq.review.corrections import correct_batch
from digitq.review.scores import ScoreSink, tabulate_scores, wilson
from digitq.summary import report_truth
from tests.cutting import cut_items

NUMBERS_HINT = "with `--read number`, digitq reads whole numbers"
# id, label, confidence, reason, truth
ROWS = [
    ("3/a.png", 3, 1.0, None, 3),
    ("3/b.png", 3, 0.9, None, 3),
    ("3/c.png", 5, 0.6, "unsure", 3),
    ("5/d.png", 5, 0.5, "unsure", 5),
    ("x/e.png", 9, 0.1, "no digit", None),
    ("5/f.png", None, None, "error", 5),
    ("5/g.png", 3, 0.8, None, 5),
]


def make_digits(rows: Sequence[tuple[Any, ...]] = ROWS, has_truth: bool = True) -> pa.RecordBatch:
    schema = RESULT_SCHEMA.append(TRUTH) if has_truth else RESULT_SCHEMA
    return pa.RecordBatch.from_pylist(
        [
            {
                "id": id,
                "label": label,
                "confidence": confidence,
                "probabilities": None if label is None else np.eye(10, dtype=np.float32)[label],
                "error": "damaged" if label is None else None,
                "review": reason is not None,
                "reason": reason,
                "truth": truth,
            }
            for id, label, confidence, reason, truth in rows
        ],
        schema,
    )


def make_numbers(*rows: tuple[str, str, str | None]) -> pa.RecordBatch:
    """Rows of id, number and truth."""
    schema = NUMBER_SCHEMA.append(NUMBER_TRUTH)
    numbers = [
        {"id": id, "number": number, "confidence": 0.8, "review": False, "truth": truth}
        for id, number, truth in rows
    ]
    return pa.RecordBatch.from_pylist(numbers, schema)


def make_sink(batch: pa.RecordBatch) -> ScoreSink:
    sink = ScoreSink("number" if "number" in batch.schema.names else "digit")
    sink.write(batch)
    return sink


def write_results(path: Path, batch: pa.RecordBatch) -> str:
    sink = FileSink(path, {})
    sink.write(batch)
    sink.finish()
    return str(path)


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of `digitq evaluate`."""
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", *map(str, arguments)])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [(8, 10, 0.4901625, 0.9433178), (0, 10, 0, 0.2775328), (10, 10, 0.7224672, 1), (0, 0, 0, 1)],
)
def test_wilson_as_r_has_it(right: int, total: int, low: float, high: float) -> None:
    assert wilson(right, total) == pytest.approx((low, high), abs=1e-6)


def test_the_figures_of_digits() -> None:
    """Of seven images, five have a truth and an answer, and three of these answers are right."""
    figures = make_sink(make_digits()).figures()
    assert (figures["images"], figures["failed"], figures["without_truth"]) == (7, 1, 1)
    names = ("accuracy", "accuracy_not_to_review", "to_review", "wrong_to_review")
    counts = [(figures[name]["count"], figures[name]["of"]) for name in names]
    assert counts == [(3, 5), (2, 3), (2, 5), (1, 2)]
    assert figures["reasons"] == {"unsure": {"answers": 2, "wrong": 1}}
    assert figures["confusion"][3] == [0, 0, 0, 2, 0, 1, 0, 0, 0, 0]
    assert figures["confusion"][5] == [0, 0, 0, 1, 0, 1, 0, 0, 0, 0]
    assert figures["recall"][3] == pytest.approx(2 / 3) and figures["recall"][0] is None
    assert figures["precision"][5] == 0.5
    # Each answer has a bin of its own but 1.0 and 0.9, which do not share one either
    gaps = [0, 0.1, 0.6, 0.5, 0.8]
    assert figures["calibration_error"] == pytest.approx(sum(gaps) / 5, abs=1e-6)
    assert [point["accuracy"]["of"] for point in figures["calibration"]] == [1] * 5
    json.dumps(figures)


def test_answers_of_like_confidence_share_a_bin() -> None:
    rows = [("a", 1, 0.8, None, 1), ("b", 2, 0.84, None, 3), ("c", 4, 0.82, None, 4)]
    figures = make_sink(make_digits(rows)).figures()
    assert figures["calibration_error"] == pytest.approx(0.82 - 2 / 3, abs=1e-6)


def test_the_table_fits_a_terminal() -> None:
    lines = tabulate_scores(make_sink(make_digits()).figures()).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[5].split() == ["3", *"0002010000", "66.67%", "66.67%"]
    assert lines[2].split() == ["0", *"0" * 10, "-", "-"]
    assert lines[12].split() == ["mean", "58.33%", "58.33%"]
    table = "\n".join(lines)
    assert re.search(r"^accuracy +60.00% +5   23.07% to 88.24%$", table, re.MULTILINE)
    assert re.search(r"^calibration error +40.00%$", table, re.MULTILINE)
    assert lines[-1].split() == ["unsure", "2", "1"]


def test_leading_zeros_that_a_spreadsheet_removed_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [("a", "007", "7"), ("b", "0", "00"), ("c", "70", "7"), ("d", "7", "8"), ("e", "1", "1")]
    results = write_results(tmp_path / "results.csv", make_numbers(*rows))
    _, out, err = run(capsys, results)
    assert re.search(r"^accuracy +20.00% +5 ", out, re.MULTILINE)
    told = "only the leading zeros of 2 answers are wrong: a spreadsheet may have removed some"
    assert told in err.splitlines()


def test_values_are_compared_as_they_are_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = {"a": "12.5", "b": "125", "c": "-45", "d": "", "e": "", "f": "12/05/2024"}
    rows = make_numbers(*((id, number, None) for id, number in answers.items()))
    results = write_results(tmp_path / "results.csv", rows)
    table = tmp_path / "truth.csv"
    table.write_text("id,number\na,12.5\nb,12.5\nc,-45\nd,\ne,0\nf,12/05/2024\n")
    status, out, _ = run(capsys, results, "--truth", table, "--json")
    figures = json.loads(out)
    assert (status, figures["failed"]) == (0, 0)
    assert (figures["accuracy"]["count"], figures["accuracy"]["of"]) == (4, 6)
    assert (figures["digits_right"]["count"], figures["digits_right"]["of"]) == (17, 17)


def test_the_figures_of_numbers() -> None:
    rows = [("a", "007", "007"), ("b", "19", "18"), ("c", "1", "12"), ("d", "5", None)]
    figures = make_sink(make_numbers(*rows)).figures()
    assert figures["accuracy"]["share"] == pytest.approx(1 / 3)
    assert (figures["digits_right"]["count"], figures["digits_right"]["of"]) == (4, 5)
    assert figures["calibration_error"] == pytest.approx(0.8 - 1 / 3, abs=1e-6)
    assert "digits, if length right   80.00%           5" in tabulate_scores(figures)


@pytest.mark.parametrize("suffix", READERS)
def test_a_result_file_is_evaluated_by_its_own_truth(
    suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_results(tmp_path / f"results{suffix}", make_digits())
    status, out, err = run(capsys, path, "--json")
    expected = make_sink(make_digits()).figures()
    assert json.loads(out) == {"model": "digit"} | json.loads(json.dumps(expected))
    assert status == 1
    assert err.splitlines() == [
        "no right answer for 1 of 7 images",
        "1 image with an error, such as: damaged",
    ]
    status, out, err = run(capsys, path, "--limit", 2)
    assert (status, err) == (0, "")
    assert re.search(r"^accuracy +100.00% +2 ", out, re.MULTILINE)


def test_a_person_s_answers_are_told_and_no_digit_is_no_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"3/c.png": "3", "x/e.png": None, "5/f.png": None}
    path = write_results(tmp_path / "final.csv", correct_batch(make_digits(), given))
    status, out, err = run(capsys, path, "--json")
    figures = json.loads(out)
    assert (status, figures["failed"]) == (0, 0)
    assert err.splitlines()[1:] == ["3 answers are a person's"]
    assert (figures["accuracy"]["count"], figures["accuracy"]["of"]) == (4, 5)
    assert sum(point["accuracy"]["of"] for point in figures["calibration"]) == 4


def test_a_result_file_is_evaluated_by_corrections_and_by_folders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = write_results(tmp_path / "results.csv", make_digits(ROWS[:5], has_truth=False))
    assert "has no right answers: name them with --truth" in run(capsys, results)[2]
    table = tmp_path / "corrections.csv"
    table.write_text("id,label\n3/a.png,3\n3/c.png,5\nx/e.png,\n3/b.png,12\ngone.png,1\n")
    status, out, err = run(capsys, results, "--truth", table)
    assert status == 0 and re.search(r"^accuracy +100.00% +2 ", out, re.MULTILINE)
    assert err.splitlines() == [
        f"no right answer in {table} for 3 of 5 images; the label of 1 is no digit, such as `12`"
        f"; {NUMBERS_HINT}",
        f"no image for 1 right answer in {table}, such as gone.png; "
        "an image without one is 3/b.png",
    ]
    status, out, err = run(capsys, results, "--truth", "parent")
    assert re.search(r"^accuracy +75.00% +4 ", out, re.MULTILINE)
    assert err == (
        "no right answer for 1 of 5 images: their folders, such as `x`, are not named by a digit\n"
    )
    table.write_text("id,label\nother.png,3\n")
    status, out, err = run(capsys, results, "--truth", table)
    assert (status, out) == (2, "")
    assert (
        err.splitlines()[-1] == f"digitq: {results} can't be evaluated: no image has a right answer"
    )
    failed = write_results(tmp_path / "failed.csv", make_digits(ROWS, has_truth=False))
    assert run(capsys, failed, "--truth", table)[:2] == (2, "")


def test_own_weights_are_no_matter_to_answers_that_are_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cnn.json").touch()
    monkeypatch.setenv("DIGITQ_WEIGHTS", str(tmp_path))
    status, _, err = run(capsys, write_results(tmp_path / "results.csv", make_digits()))
    assert "json, but cnn" not in err and status != 2


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("--model does not go with a result file", ["RESULTS", "--model", "cnn"]),
        ("--weights does not go with a result file", ["RESULTS", "--weights", "DIR"]),
        ("it has no column 'p0'", ["SHORT"]),
        ("one result file can be evaluated at a time", ["RESULTS", "RESULTS"]),
        ("columns of whole numbers", ["TABLE"]),
    ],
)
def test_what_does_not_go_together(
    message: str,
    arguments: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    paths = {
        "RESULTS": write_results(tmp_path / "results.csv", make_digits()),
        "TABLE": str(tmp_path / "table.csv"),
        "SHORT": str(tmp_path / "short.csv"),
        "DIR": str(tmp_path),
    }
    for suffix in ("json", "safetensors"):  # the folder of some weights
        (tmp_path / f"mlp.{suffix}").touch()
    Path(paths["SHORT"]).write_text("id,label,confidence,error\na,1,0.5,\n")
    Path(paths["TABLE"]).write_text("id,label\na,1\n")
    status, out, err = run(capsys, *(paths.get(argument, argument) for argument in arguments))
    assert (status, out) == (2, "") and message in err and len(err.splitlines()) == 1


# Right answers that are missing


def count_missing(folder: Path, model: str, **options: Any) -> tuple[Counts, Any]:
    source = open_sources([str(folder)], **options)
    images = missing = 0
    for chunk in cut_items(source.items, True, model=model, gaps=source.gaps):
        images += chunk.rows
        missing += pa.array(chunk.truth).null_count
    assert missing == source.gaps.missing
    return Counts(images, unlabelled=missing), source.gaps


@pytest.mark.parametrize(
    ("names", "model", "told"),
    [
        (["1/a.png", "2/b.png"], "mlp", ""),
        (["1/a.png", "12/b.png"], "number", ""),
        (["1/a.png", "12/b.png"], "mlp", f"such as `12`, are not named by a digit; {NUMBERS_HINT}"),
        (["scans/a.png", "x/b.png"], "number", "such as `scans`, are not named by a number"),
        (["\udcff/a.png", "1/b.png"], "mlp", r"such as `\xff`, are not named by a digit"),
    ],
)
def test_a_folder_that_is_no_right_answer_is_named(
    names: list[str], model: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"1")
    counts, gaps = count_missing(tmp_path, model, truth_from_parent=True)
    report_truth(counts, read_by(model), "parent", gaps)
    err = capsys.readouterr().err
    assert told in err and bool(err) == bool(told)


def test_a_table_says_which_images_it_lacks_and_which_lack(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).write_bytes(b"1")
    table = tmp_path / "corrections.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("id", "truth"), ("a.png", "007"), ("b.png", ""), ("z", "1")])
    counts, gaps = count_missing(tmp_path, "number", truth_file=table)
    report_truth(counts, "number", "t.csv", gaps)
    assert capsys.readouterr().err.splitlines() == [
        "no right answer in t.csv for 2 of 3 images",
        "no image for 1 right answer in t.csv, such as z; an image without one is b.png",
    ]
    _, gaps = count_missing(tmp_path, "number", truth_file=table, limit=1)
    assert not gaps.unused  # the other images were not looked at
