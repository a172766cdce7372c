"""What a report page shows of many rows, its small pictures, and corrections of any format."""

import base64
import csv
import io
import os
import resource
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import openpyxl
import PIL.Image
import pyarrow as pa
import pytest

from digitq.cli import main
from digitq.producer.counts import Counts
from digitq.producer.found_images import FoundImage
from digitq.producer.provenance import Record
from digitq.producer.readers import DIFFER
from digitq.producer.results import open_results
from digitq.producer.sources.truth import read_truths
from digitq.protocol.asked.form import read_form
from digitq.protocol.chunk import (
    FORM_SCHEMA,
    NO_SUCH_ROW,
    NUMBER_SCHEMA,
    NUMBER_TRUTH,
    PROBABILITIES,
    REASONS,
    RESULT_SCHEMA,
    TRUTH,
)
from digitq.protocol.errors import UsageError
from digitq.protocol.formats.csv_text import plain_text
from digitq.protocol.origin import Origin
from digitq.review import page, thumbnails
from digitq.review.corrections import correct_batch
from digitq.review.page import MEANINGS, PageImage, list_images, list_tabs
from digitq.review.page_fields import find_form
from digitq.review.people import OCCURS_TWICE
from digitq.review.survey import (
    MAX_FAILED,
    MAX_IN_CELL,
    MAX_OF_DIGIT,
    MAX_REVIEW,
    MAX_SURE_NUMBERS,
    MAX_WRONG_NUMBERS,
    Survey,
)
from digitq.review.thumbnails import MAX_THUMBNAIL_BYTES, Eye, Eyes, Thumbnail, make_thumbnail
from digitq.worker.learning.own_numbers import match_answers
from tests.drawing import draw_one, encode_image
from tests.unit.test_results import IDS, NUMBERS, SUFFIXES, digit_rows, write


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments)])
    return int(ended.value.code or 0)


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [row for batch in open_results(path).batches() for row in batch.to_pylist()]


def many_rows(batches: int, rows: int = 5000) -> Iterator[pa.RecordBatch]:
    """Rows of which a fifth are to review, and a tenth are wrong."""
    random = np.random.default_rng(1)
    schema = RESULT_SCHEMA.append(TRUTH)
    for number in range(batches):
        confidence = random.random(rows).astype(np.float32)
        label = random.integers(0, 10, rows).astype(np.int8)
        truth = np.where(random.random(rows) < 0.9, label, random.integers(0, 10, rows))
        unsure = confidence < 0.2
        shares = np.full((rows, 10), 0.1, np.float32).reshape(-1)
        columns = [
            pa.array([f"{number}/{row}.png" for row in range(rows)]),
            pa.array(label),
            pa.array(confidence),
            pa.FixedSizeListArray.from_arrays(pa.array(shares), type=PROBABILITIES),
            pa.nulls(rows, pa.string()),
            pa.array(unsure),
            pa.array(np.where(unsure, "unsure", None), pa.string()),
            pa.array(truth.astype(np.int8)),
        ]
        yield pa.record_batch(columns, schema=schema)


def test_a_page_has_room_for_the_least_sure_and_a_sample() -> None:
    whole = pa.Table.from_batches([*many_rows(20)])
    survey, again = (Survey("digit", many_rows(20)) for _ in range(2))
    confidence = np.sort(whole.column("confidence").to_numpy())
    assert survey.counts.images == 100_000 and survey.counts.failed == 0
    assert survey.counts.review == (confidence < np.float32(0.2)).sum() == survey.reasons["unsure"]
    assert survey.scores.figures()["accuracy"]["of"] == 100_000
    assert survey.sure.sum() + survey.unsure.sum() == survey.answers.sum() == 100_000
    groups = survey.groups()
    least_sure = [row["confidence"] for _, row in groups["review"]]
    assert least_sure == confidence[:MAX_REVIEW].tolist()
    assert len(groups["answers"]) == 10 * MAX_OF_DIGIT
    is_seven = [label == 7 for label in whole.column("label").to_pylist()]
    sevens = np.sort(whole.filter(is_seven).column("confidence").to_numpy())
    sevens = sevens[sevens >= np.float32(0.2)][:MAX_OF_DIGIT]
    found = [row["confidence"] for _, row in groups["answers"] if row["label"] == 7]
    assert found == sevens.tolist()
    assert len(groups["wrong"]) == 90 * MAX_IN_CELL
    assert max(number for number, _ in groups["wrong"]) > 90_000  # from all of the file
    for number, row in groups["answers"] + groups["wrong"]:
        assert whole.slice(number, 1).to_pylist() == [row]
    assert again.groups() == groups


def test_the_confidence_beside_a_person_s_answer_does_not_count() -> None:
    (batch,) = many_rows(1, 100)
    network = batch.slice(0, 90)  # a person goes through the last ten, and finds no digit in one
    given = {id: "5" for id in batch.column("id").to_pylist()[90:99]} | {"0/99.png": None}
    before, after = Survey("digit"), Survey("digit")
    before.add(network)
    after.add(correct_batch(batch, given))
    assert (after.sure == before.sure).all() and (after.unsure == before.unsure).all()
    old, new = before.scores.figures(), after.scores.figures()
    assert new["calibration"] == old["calibration"] and new["accuracy"]["of"] == 99
    assert (after.counts.corrected, after.counts.failed, after.errors) == (10, 0, {})
    groups = after.groups()
    assert not groups["failed"] and "0/99.png" in [row["id"] for _, row in groups["answers"]]


def test_each_reason_has_a_meaning() -> None:
    assert {*MEANINGS} == {*REASONS, OCCURS_TWICE, DIFFER} - {"", "error"}


def test_an_empty_number_is_an_answer_of_its_own(tmp_path: Path) -> None:
    """Unlike a missing one, it is right or wrong, and the page can confirm it."""
    rows = [("a", "", ""), ("b", "", "1"), ("c", "1" + "." * 31, ""), ("d", None, "2")]
    batch = pa.RecordBatch.from_pylist(
        [
            {"id": id, "number": number, "confidence": 0.9, "review": True, "truth": truth}
            | {"error": "torn" if number is None else None}
            for id, number, truth in rows
        ],
        NUMBER_SCHEMA.append(NUMBER_TRUTH),
    )
    failed = pa.concat_batches([batch.slice(3)] * 150)
    for has_form, shown in ((False, MAX_FAILED), (True, 150)):  # a refused page is one card
        assert len(Survey("number", [failed], has_form=has_form).groups()["failed"]) == shown
    survey = Survey("number", [batch])
    counts = survey.counts
    assert (counts.failed, counts.labelled, counts.correct, counts.other_zeros) == (1, 3, 1, 0)
    assert [survey.answers[length] for length in (0, 32)] == [2, 1]
    wrong = {image.id for image in list_images(survey) if "wrong" in image.groups}
    assert wrong == {"b", "c"}
    write(tmp_path / "out.csv", batch)
    assert run("report", tmp_path / "out.csv") == 0
    page = (tmp_path / "out.html").read_text()
    assert page.count('data-answer=""') == 2 and page.count("data-answer=") == 3
    assert page.count(' title="confirm">nothing written</button>') == 2


def test_the_page_says_which_wrong_numbers_it_has() -> None:
    rows = [
        {"id": str(n), "number": "1", "confidence": 0.9, "review": False, "truth": "2"}
        for n in range(MAX_WRONG_NUMBERS + 1)
    ]
    right = {"number": "2", "confidence": 0.1, "review": False, "truth": "2"}
    rows += [{"id": f"right{n}", **right} for n in range(MAX_SURE_NUMBERS)]  # they are less sure
    schema = NUMBER_SCHEMA.append(NUMBER_TRUTH)
    survey = Survey("number", [pa.RecordBatch.from_pylist(rows, schema)])
    notes = {tab.group: tab.note for tab in list_tabs(survey, list_images(survey))}
    assert notes["wrong"].startswith("This page has 200 of 201: a random sample. ")


def test_rows_of_tables_are_shown_whole_as_far_as_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {
            "id": f"a.png/marks/{row}/{column}",
            "page": "a.png",
            "field": column,
            "row": row,
            "number": "1",
            "confidence": 0.1 * row,
            "review": row < 4 and column == "c2",
        }
        for row in (1, 2, 3, 4)
        for column in ("c1", "c2", "c3")
    ]
    write(tmp_path / "out.parquet", pa.RecordBatch.from_pylist(rows, FORM_SCHEMA))
    results = open_results(tmp_path / "out.parquet")
    numbered = [*enumerate(row for batch in results.places() for row in batch.to_pylist())]
    to_review = [PageImage(row, n, {"review"}) for n, row in numbered if row["review"]]
    others = [PageImage(row, n, {"answers"}) for n, row in numbered if n in (0, 9)]
    monkeypatch.setattr(page, "MAX_BESIDE", 3)
    shown, left_out = page.complete_lines(to_review + others, results, ())
    assert [image.number for image in shown] == [0, 1, 2, 3, 4, 5, 7, 9] and left_out == 1


def decode(thumbnail: Thumbnail | None) -> tuple[PIL.Image.Image, int]:
    """The small picture, and the length of its file."""
    assert thumbnail
    content = base64.b64decode(thumbnail.uri.partition(",")[2])
    return PIL.Image.open(io.BytesIO(content)), len(content)


def test_a_photo_becomes_small_and_upright() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (750, 1000, 3), np.uint8)
    photo = PIL.Image.fromarray(noise).resize((4000, 3000))  # 12 megapixels
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # on its side
    thumbnail = make_thumbnail(encode_image(photo, "JPEG", exif=exif))
    assert thumbnail and (thumbnail.width, thumbnail.height) == (3000, 4000)
    image, length = decode(thumbnail)
    assert length <= MAX_THUMBNAIL_BYTES and image.height > image.width
    assert image.size == thumbnail.shown and not thumbnail.is_tiny


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "I;16", "I", "F"])
def test_any_kind_of_picture_is_shown(mode: str) -> None:
    plain = draw_one((200, 300))
    if mode == "I;16":
        image = PIL.Image.fromarray(np.asarray(plain, np.uint16) * 200)
    else:
        image = plain.convert(mode)
    format = "TIFF" if mode in ("CMYK", "I", "F") else "PNG"
    shown, _ = decode(make_thumbnail(encode_image(image, format)))
    grey = np.asarray(shown.convert("L").resize((200, 300)), float)
    assert np.abs(grey - np.asarray(plain)).mean() < 12


@pytest.mark.parametrize(
    "content",
    [b"", b"GIF89a", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"\xff\xd8\xff broken"],
)
def test_what_is_no_picture_is_not_shown(content: bytes) -> None:
    assert make_thumbnail(content) is None


def test_what_the_network_saw() -> None:
    with closing(Eye()) as eye:
        (seen,), *others = [eye.show(one) for one in (encode_image(draw_one()), b"broken", b"")]
        assert seen and seen.uri.startswith("data:image/png;base64,") and others == [[None]] * 2
        assert (seen.width, seen.height) == (28, 28)
        assert eye.show(encode_image(draw_one())) == [seen]


def test_one_image_that_ends_the_process_is_no_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import os, sys, digitq.worker.show.surroundings as here; see = here.see_digit;"
        "assert 'torch' not in sys.modules;"  # it takes two seconds
        "here.see_digit = lambda *a: os._exit(1) if a[0] == b'fatal' else see(*a);"
        "here.show_images(sys.stdin.buffer, sys.stdout.buffer)"
    )
    monkeypatch.setattr(thumbnails, "SHOW", [sys.executable, "-c", code])
    one = encode_image(draw_one())
    with closing(Eye()) as eye:
        seen = [eye.show(content) != [None] for content in (b"fatal", one, b"fatal", one)]
    assert seen == [False, True, False, True]


def test_several_processes_look_at_images_at_the_same_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    together = threading.Barrier(2, timeout=60)  # it raises if no second one comes

    def show(eye: Eye, content: bytes, cells: Sequence[str]) -> list[Thumbnail | None]:
        together.wait()
        return [Thumbnail(f"{content!r} {cell}", (1, 1), 1, 1) for cell in cells]

    monkeypatch.setattr(thumbnails, "usable_cores", lambda: 2)
    monkeypatch.setattr(Eye, "show", show)
    images = [FoundImage(str(number), b"%d" % number) for number in range(20)]
    with closing(Eyes(None, len(images))) as eyes:
        shown = [*eyes.look_at(images, lambda image: ["cell"])]
        assert [*eyes.look_at(images[:1], lambda image: [])] == [(images[0], [])]
    assert [image for image, _ in shown] == images
    looks = [[picture.uri for picture in pictures if picture] for _, pictures in shown]
    assert looks == [[f"{image.content!r} cell"] for image in images]


@contextmanager
def little_memory(free: int) -> Iterator[None]:
    """This process may take so many bytes more."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + free, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


@pytest.mark.parametrize("mode", ["P", "I;16"])
def test_a_huge_picture_takes_little_memory(mode: str) -> None:
    content = encode_image(PIL.Image.new(mode, (5000, 9000)), "PNG")  # 45 megapixels
    with little_memory(200_000_000):
        thumbnail = make_thumbnail(content)
    assert thumbnail and thumbnail.shown[1] == 320 and thumbnail.height == 9000


def test_pictures_that_are_gone_or_changed_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "scans"
    folder.mkdir()
    for name in ("kept.png", "changed.png", "gone.png"):
        draw_one().save(folder / name)
    write(tmp_path / "out.csv", digit_rows(["kept.png", "changed.png", "x", "gone.png"]), Origin(
        ("scans",), str(tmp_path)
    ))  # fmt: skip
    (folder / "gone.png").unlink()
    later = (folder / "changed.png").stat().st_mtime + 100
    os.utime(folder / "changed.png", (later, later))
    assert run("report", "out.csv") == 0
    page = (tmp_path / "out.html").read_text()
    assert page.count("<img") == 2
    assert "it may have changed since it was read" in page and "not found" in page
    folder.rename(tmp_path / "elsewhere")
    assert run("report", "out.csv", "elsewhere", "--overwrite") == 0
    assert (tmp_path / "out.html").read_text().count("<img") == 2
    assert run("report", "out.csv", "--overwrite") == 0
    assert "<img" not in (tmp_path / "out.html").read_text()
    assert run("report", "out.csv", "elsewhere", "-o", "shown.xlsx") == 0
    sheet = openpyxl.load_workbook("shown.xlsx").active
    places = [picture.anchor._from for picture in sheet._images]
    assert [(place.col, place.row) for place in places] == [(0, 1), (0, 2)]
    assert [cell.value for cell in sheet["B"]] == ["id", "kept.png", "changed.png", "x", "gone.png"]
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "the page is shown.xlsx: 4 images, 2 pictures",
        "2 pictures: not found",
    ]
    assert run("report", "out.csv", "--overwrite") == 0
    said = capsys.readouterr().err.splitlines()[-2:]
    assert said == [
        "the page is out.html: 4 images, 1 with an error, accuracy 100.00% of 2",
        f"4 pictures: no such file or folder: scans in {tmp_path}: name its SOURCE if it moved",
    ]


@pytest.mark.parametrize(("error", "told"), [("the file is empty", False), (None, True)])
def test_a_picture_that_can_t_be_shown_is_told_unless_its_row_has_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], error: str | None, told: bool
) -> None:
    (tmp_path / "empty.png").touch()
    batch = digit_rows(["empty.png"])
    index = batch.schema.get_field_index("error")
    batch = batch.set_column(index, batch.schema.field(index), pa.array([error], pa.string()))
    write(tmp_path / "out.csv", batch, Origin((str(tmp_path),)))
    assert run("report", tmp_path / "out.csv") == 0
    assert ("empty.png: can't be shown" in capsys.readouterr().err) == told
    assert "no picture:<br>can&#39;t be shown" in (tmp_path / "out.html").read_text()


def test_a_table_without_a_record_has_a_page_without_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "out.csv", digit_rows(IDS))
    (tmp_path / "out.csv.json").unlink()
    assert run("report", tmp_path / "out.csv", "-o", tmp_path / "page.html") == 0
    assert (
        "4 pictures: no SOURCE is known: name it after the result file" in capsys.readouterr().err
    )
    assert "<img" not in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.csv"], "No such file or directory"),
        (
            ["page.html"],
            "page.html is no result file: these end in .csv or .jsonl or .parquet",
        ),
        (["out.csv", "-o", "page.pdf"], "the page page.pdf must end in .html or .xlsx"),
        (
            ["out.csv", "-o", "none/page.html"],
            "page.html: there is no folder none",
        ),
        (["out.csv", "-o", "page.html"], "page.html exists: --overwrite replaces it"),
        (["short.csv"], "short.csv has 2 rows, but its record counts 4: it was cut off or changed"),
        (["out.csv", "nowhere"], "no such file or folder: nowhere"),
    ],
)
def test_a_page_that_can_t_be_made(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("out.csv"), digit_rows([*"abcd"]))
    write(Path("short.csv"), digit_rows([*"abcd"]))
    lines = Path("short.csv").read_text().splitlines(keepends=True)
    Path("short.csv").write_text("".join(lines[:3]))
    Path("page.html").touch()
    assert run("report", *arguments) == 2
    assert message in capsys.readouterr().err
    assert not [*tmp_path.glob("*.partial")]


def test_a_report_needs_a_file_of_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw_one().save(tmp_path / "1.png")
    assert run("classify", tmp_path, "--report", tmp_path / "page.html") == 2
    assert "--report shows a result file: name one with -o OUT" in capsys.readouterr().err


def write_corrections(path: Path, rows: Sequence[tuple[str, str]], column: str = "label") -> Path:
    """As a page saves them."""
    cells = [(f"'{id}" if id[:1] in tuple("=+-@\t\r\n'") else id, answer) for id, answer in rows]
    lines = [f'"{id.replace(chr(34), chr(34) * 2)}",{answer}\r\n' for id, answer in cells]
    path.write_text("".join([f"id,{column}\r\n", *lines]), newline="")
    return path


@pytest.mark.parametrize("to", SUFFIXES)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_any_table_is_corrected(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], suffix: str, to: str
) -> None:
    results, final = tmp_path / f"out{suffix}", tmp_path / f"final{to}"
    batch = digit_rows(IDS)
    write(results, batch)
    given = [(IDS[1], "5"), (IDS[2], "0"), (IDS[0], "")]
    corrections = write_corrections(tmp_path / "corrections.csv", given)
    assert run("correct", results, corrections, "-o", final) == 0
    expected = [row | {"corrected": row["id"] != IDS[3]} for row in batch.to_pylist()]
    expected[0] |= {"label": None, "error": "no digit"}
    expected[1] |= {"label": 5}
    expected[2] |= {"label": 0, "error": None, "review": False, "reason": None}
    assert rows_of(final) == expected
    record = open_results(final).record
    assert record and (record.counts.images, record.counts.failed, record.counts.review) == (
        4,
        0,
        0,
    )
    # Once more: what was corrected before stays so
    again = write_corrections(tmp_path / "again.csv", [(IDS[3], "7")])
    assert run("correct", final, again, "-o", tmp_path / f"last{suffix}") == 0
    capfdbinary.readouterr()
    assert run("correct", results, corrections) == 0
    assert capfdbinary.readouterr().out.count(b",true\n") == 3  # CSV on stdout
    expected[3] |= {"label": 7, "corrected": True}
    assert rows_of(tmp_path / f"last{suffix}") == expected


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_numbers_are_corrected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setitem(sys.modules, "digitq.review.page", None)  # no page, no templates
    results, final = tmp_path / f"out{suffix}", tmp_path / "final.parquet"
    write(results, NUMBERS)
    given = [("none.png", "0042")]
    corrections = write_corrections(tmp_path / "corrections.csv", given, "number")
    assert run("correct", results, corrections, "-o", final) == 0
    first, second = rows_of(final)
    assert (first["number"], first["corrected"]) == ("007", False)
    assert (second["number"], second["corrected"]) == ("0042", True)
    assert second["error"] is None and not second["review"]
    assert (first["digits"] is None) == (suffix == ".csv")


VALUES = ["12.5", "-45", "12/05/2024", "1,5", "50.000", "10:30", "99%", "", "1" * 20 + "." * 12]
VALUES += ["7½", "½", "½" * 20 + "." * 12]


def test_a_fraction_that_is_spelled_out_is_that_fraction(tmp_path: Path) -> None:
    results, corrections = tmp_path / "out.csv", tmp_path / "corrections.csv"
    write(results, NUMBERS)
    write_corrections(corrections, [("n.png", "7 1/2"), ("none.png", "12 ¾")], "number")
    assert run("correct", results, corrections, "-o", tmp_path / "final.csv") == 0
    assert [row["number"] for row in rows_of(tmp_path / "final.csv")] == ["7½", "12¾"]
    assert read_truths(corrections) == {"n.png": "7½", "none.png": "12¾"}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_values_stay_as_they_are_written(tmp_path: Path, suffix: str) -> None:
    """In corrections, in the corrected table, and as right answers. Nothing may be written."""
    ids = [f"{n}.png" for n in range(len(VALUES))]
    rows = [{"id": id, "number": "1", "confidence": 0.5, "review": True} for id in ids]
    write(tmp_path / f"out{suffix}", pa.RecordBatch.from_pylist(rows, NUMBER_SCHEMA))
    corrections, final = tmp_path / "corrections.csv", tmp_path / f"final{suffix}"
    with corrections.open("w", newline="") as file:
        csv.writer(file).writerows([("id", "number"), *zip(ids, VALUES, strict=True)])
    assert run("correct", tmp_path / f"out{suffix}", corrections, "-o", final) == 0
    assert [row["number"] for row in rows_of(final)] == VALUES
    assert {(row["error"], row["review"]) for row in rows_of(final)} == {(None, False)}
    assert read_truths(corrections) == dict(zip(ids, VALUES, strict=True))
    if suffix == ".csv":
        assert read_truths(final) == read_truths(corrections)
    again = tmp_path / "again.csv"
    again.write_text(f"id,number\n{ids[0]},-\n")
    assert run("correct", final, again, "-o", tmp_path / "last.csv") == 2


def test_corrected_results_in_excel_are_right_answers_but_no_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = [f"{n}.png" for n in range(len(VALUES))]
    rows = [{"id": id, "number": "1", "confidence": 0.5, "review": False} for id in ["=1", *ids]]
    results, final = tmp_path / "out.csv", tmp_path / "final.xlsx"
    write(results, pa.RecordBatch.from_pylist(rows, NUMBER_SCHEMA))
    corrections = tmp_path / "corrections.csv"
    with corrections.open("w", newline="") as file:
        csv.writer(file).writerows([("id", "number"), *zip(ids, VALUES, strict=True)])
    assert run("correct", results, corrections, "-o", final) == 0
    assert read_truths(final) == {"=1": "1", **dict(zip(ids, VALUES, strict=True))}
    assert run("evaluate", results, "--truth", final) == 0
    capsys.readouterr()
    for command, *others in (["report"], ["correct", corrections], ["wide"], ["evaluate"]):
        assert run(command, final, *others) == 2
        told = f"{final} is an Excel file: results are read from .csv or .jsonl or .parquet"
        assert told in capsys.readouterr().err


def test_zeros_that_corrections_have_lost_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "out.csv", NUMBERS)
    id = NUMBERS.column("id")[0].as_py()
    corrections = write_corrections(tmp_path / "corrections.csv", [(id, "7")], "number")
    assert run("correct", tmp_path / "out.csv", corrections, "-o", tmp_path / "final.csv") == 0
    told = f"1 correction changed only leading zeros ({id}): a spreadsheet may have removed some"
    assert told in capsys.readouterr().err
    rows = NUMBERS.set_column(1, "number", pa.array(["00", None]))
    write(tmp_path / "zeros.csv", rows)
    for said, count in (("", 0), ("0", 1)):  # nothing written is no lost zero
        write_corrections(corrections, [(id, said)], "number")
        assert run("correct", tmp_path / "zeros.csv", corrections, "-o", tmp_path / "n.csv") == 0
        (tmp_path / "n.csv").unlink()
        assert capsys.readouterr().err.count("leading zeros") == count
    out = tmp_path / "out.csv"
    write_corrections(corrections, [(id, "7")], "number")
    assert run("correct", out, corrections, "-o", out, "--overwrite") == 0
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the first line of corrections.csv must be id,label"),
        ("id;label\na;12\n", "line 2 of corrections.csv has the label '12' for a"),
        ("id,label,confidence\na,1,1\n", "has the answers of a network, not corrections"),
        ("id,number\na,12\n", "must be id,label, as out.csv has a 'label'"),
        ("id,label\n", "corrections.csv has no corrections"),
        (
            "id,label\na,1\nx,2\ny,\nz,3\nw,4\n",
            "corrections.csv is of other results: out.csv does not have 4 ids of it (x, y, z, …)",
        ),
        (
            "id,label\na,ten\n",
            "line 2 of corrections.csv has the label 'ten' for a: "
            "it must be a digit, illegible, or empty if there is none",
        ),
        ("id,label\nb,1\na,12\n", "line 3 of corrections.csv has the label '12' for a"),
        (",,id,label\n\nx,y,a\n", "line 3 of corrections.csv has too few columns"),
        ("id,label\na,1\nb,2\na,3\n", "corrections.csv has two answers for a"),
        ("id,label\n\xff\udcff,1\n", "can't read corrections.csv: it is not in UTF-8"),
    ],
)
def test_corrections_that_are_refused(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("out.csv"), digit_rows([*"abc"]))
    Path("corrections.csv").write_bytes(text.encode(errors="surrogateescape"))
    assert run("correct", "out.csv", "corrections.csv", "-o", "final.csv") == 2
    assert message in capsys.readouterr().err
    assert not [*tmp_path.glob("final*")]


@contextmanager
def full_disk(free: int) -> Iterator[None]:
    """No file may grow beyond so many bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)


def test_ctrl_c_leaves_no_part_of_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "out.csv", digit_rows(["a.png"]))
    monkeypatch.setattr(Path, "replace", Mock(side_effect=KeyboardInterrupt))
    assert run("report", tmp_path / "out.csv") == 130
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "out.csv.json"]


def test_a_full_disk_leaves_the_old_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, final, page = (tmp_path / name for name in ("out.csv", "final.csv", "page.html"))
    write(results, digit_rows([f"{n}.png" for n in range(500)]))
    corrections = write_corrections(tmp_path / "corrections.csv", [("0.png", "5")])
    final.write_text("old")
    page.write_text("old")
    with full_disk(4000):
        assert run("report", results, "-o", page, "--overwrite") == 3
        assert run("correct", results, corrections, "-o", final, "--overwrite") == 3
        assert run("report", results, "-o", tmp_path / "new.xlsx") == 3
    assert final.read_text() == page.read_text() == "old"
    assert not (tmp_path / "page.html.partial").exists()
    assert capsys.readouterr().err.count("File too large") == 3
    with full_disk(0):
        assert run("correct", results, corrections, "-o", tmp_path / "new.csv") == 3
    assert not [*tmp_path.glob("new.*")]
    assert run("correct", results, corrections, "-o", final) == 2  # it exists
    assert run("correct", results, corrections, "-o", final, "--overwrite") == 0
    assert len(rows_of(final)) == 500


@pytest.mark.parametrize(
    ("cell", "id"),
    [("a.png", "a.png"), ("'a.png", "'a.png"), ("''a.png", "'a.png"), ("'=1", "=1"), ("'", "'")],
)
def test_an_apostrophe_before_a_formula_is_no_part_of_an_id(cell: str, id: str) -> None:
    assert plain_text(cell) == id


def test_corrections_are_right_answers_too(tmp_path: Path) -> None:
    path = write_corrections(tmp_path / "corrections.csv", [("=1.png", "5"), ("b.png", "")])
    assert read_truths(path) == {"=1.png": "5"}


@pytest.mark.parametrize(
    ("batch", "column", "counts"),
    [(digit_rows(IDS), "label", (1, 2, 1)), (NUMBERS, "number", (0, 1, 1))],
)
def test_an_illegible_image_is_neither_learned_nor_wrong(
    tmp_path: Path, batch: pa.RecordBatch, column: str, counts: tuple[int, int, int]
) -> None:
    out, final = tmp_path / "out.csv", tmp_path / "final.csv"
    first, second, *_ = batch.column("id").to_pylist()
    batch = batch.select([name for name in batch.schema.names if name != "truth"])
    truths = pa.array(["5"] * batch.num_rows).cast(batch.column(column).type)
    write(out, batch.append_column(pa.field("truth", truths.type), truths))
    rows = [(first, "illegible"), (second, "5")]
    corrections = write_corrections(tmp_path / "corrections.csv", rows, column)
    assert run("correct", out, corrections, "-o", final) == 0
    row = rows_of(final)[0]
    assert (row[column], row["error"], row["review"]) == (None, "illegible", False)
    for truth in (final, Path(f"{final}:{column}")):
        assert first not in read_truths(truth)
    assert read_truths(corrections) == {second: "5"}
    record = open_results(final).record
    assert (
        record and (record.counts.failed, record.counts.labelled, record.counts.correct) == counts
    )


def test_in_a_corrected_table_a_person_s_answer_is_the_right_one(tmp_path: Path) -> None:
    table = tmp_path / "final.csv"
    table.write_text(
        "id,label,confidence,review,truth,corrected\n"
        "a.png,5,0.9,false,6,true\nb.png,4,0.9,false,3,false\nc.png,7,0.9,false,,false\n"
        "d.png,,0.9,false,1,true\ne.png,8,0.4,true,,false\nf.png,8,0.4,true,9,false\n"
    )
    assert read_truths(table) == {"a.png": "5", "b.png": "3", "c.png": "7", "f.png": "9"}
    table.write_text(
        "id,label,confidence,review,corrected\n"
        "a.png,5,0.9,false,true\nb.png,4,0.9,false,false\nc.png,8,0.4,true,false\n"
    )
    assert read_truths(table) == {"a.png": "5", "b.png": "4"}
    table.write_text("id,label,confidence\na.png,5,0.9\n")
    with pytest.raises(UsageError, match="has the answers of a network, not right ones"):
        read_truths(table)


def test_a_form_that_is_gone_or_changed_is_told(tmp_path: Path) -> None:
    form = tmp_path / "form.toml"
    form.write_text('align = "lines"\n[tables.marks]\nrows = 2\ncolumns = ["a"]\n')
    record = Record.build("number", Origin(form=str(form)), Counts(), ())
    found, notes = find_form(record)
    assert found and found.tables[0].rows == 2 and not notes
    os.utime(form, (4e9, 4e9))
    found, (note,) = find_form(record)
    assert found and "may have changed since the pages were read" in note
    form.write_text("rows = 2")
    found, (note,) = find_form(record)
    assert not found and note.startswith("places, rules and names are not shown: ")
    assert not find_form(None)[0] and "not on record" in find_form(None)[1][0]


def test_an_answer_that_breaks_a_rule_with_an_empty_place_is_seen(tmp_path: Path) -> None:
    """A person says that nothing is written where the rule wants a 5: then the rule is broken."""
    form, out = tmp_path / "form.toml", tmp_path / "out.jsonl"
    form.write_text(
        'align = "lines"\n[tables.marks]\nrows = 1\ncolumns = ["a", "b", "c"]\n'
        'length = 1\n[[checks]]\nrule = "a + b == c"\n'
    )
    rows = [
        {
            **{"id": f"1.png/marks/1/{field}", "page": "1.png", "field": field, "row": 1},
            **{"number": number, "confidence": 0.9, "review": not number},
            "reason": None if number else "empty",
        }
        for field, number in (("a", "4"), ("b", ""), ("c", "4"))
    ]
    write(out, pa.RecordBatch.from_pylist(rows, FORM_SCHEMA), Origin(form=str(form)))
    for answers, marked in (
        ([("a", "5")], dict.fromkeys("bc", "check failed")),  # no number of b makes 4
        ([("c", "9")], {"b": "check failed"}),
        ([("c", "9"), ("b", "")], {"a": "check failed"}),
        ([("c", "9"), ("b", "5")], {}),
    ):
        given = [(f"1.png/marks/1/{field}", number) for field, number in answers]
        corrections = write_corrections(tmp_path / "corrections.csv", given, "number")
        final = tmp_path / "final.jsonl"
        assert run("correct", out, corrections, "-o", final, "--overwrite") == 0
        found = {row["field"]: row["reason"] for row in rows_of(final) if row["review"]}
        assert found == marked, answers
    form.write_text(form.read_text().replace('"c"]', '"c", "d"]').replace("== c", "== d"))
    assert run("correct", out, corrections, "-o", final, "--overwrite") == 0  # pages have no d


def test_a_row_that_was_not_found_on_its_page_may_be_answered_cell_by_cell(tmp_path: Path) -> None:
    form, out = tmp_path / "form.toml", tmp_path / "out.jsonl"
    form.write_text(
        'align = "lines"\n[tables.marks]\nrows = "1-2"\nhead = 0\ncolumns = ["a", "b", "c"]\n'
        '[[checks]]\nrule = "a + b == c"\n'
    )
    rows = [
        {
            **{"id": f"1.png/marks/{row}/{field}", "page": "1.png", "field": field, "row": row},
            **{"number": number, "confidence": 0.9 if number else None, "review": not number},
            **{"error": None if number else NO_SUCH_ROW, "reason": None if number else "error"},
        }
        for row, numbers in ((1, "459"), (2, (None, None, None)))
        for field, number in zip("abc", numbers, strict=True)
    ]
    write(out, pa.RecordBatch.from_pylist(rows, FORM_SCHEMA), Origin(form=str(form)))
    for answers, marked in (
        ({"a": "4"}, ["b", "c"]),  # a corrected table is corrected again
        ({"b": "5"}, ["c"]),
        ({"c": "8"}, []),  # no cell is left that nobody has answered
    ):
        given = [(f"1.png/marks/2/{field}", number) for field, number in answers.items()]
        corrections = write_corrections(tmp_path / "corrections.csv", given, "number")
        final = tmp_path / f"{[*answers]}.jsonl"
        assert run("correct", out, corrections, "-o", final) == 0
        found = rows_of(final)
        assert [row["field"] for row in found if row["review"]] == marked
        first = given[0][0]
        assert next(r for r in found if r["id"] == first)["number"] == answers[first[-1]]
        out = final


def test_fields_of_a_rule_that_holds_with_the_corrections_need_no_review(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    form, out, final = (tmp_path / name for name in ("form.toml", "out.jsonl", "final.jsonl"))
    form.write_text(
        'align = "lines"\n[tables.marks]\nrows = 2\ncolumns = ["a", "b", "c"]\n'
        '[[checks]]\nrule = "a + b == c"\n[[checks]]\nrule = "a < 9"\n'
    )
    numbers = {"1.png": [("1", "2", "8"), ("5", "4", "7")], "2.png": [("9", "", "3"), ("1",) * 3]}
    rows = [
        {
            **{"id": f"{page}/marks/{row}/{field}", "page": page, "field": field, "row": row},
            **{"number": number, "confidence": 0.9, "review": True, "reason": "check failed"},
        }
        for page, lines in numbers.items()
        for row, cells in enumerate(lines, 1)
        for field, number in zip("abc", cells, strict=True)
    ]
    write(out, pa.RecordBatch.from_pylist(rows, FORM_SCHEMA), Origin(form=str(form)))
    answers = [("1.png/marks/1/c", "3"), ("1.png/marks/2/c", "8"), ("2.png/marks/1/b", "-6")]
    corrections = write_corrections(tmp_path / "corrections.csv", answers, "number")
    assert run("correct", out, corrections, "-o", final) == 0
    marked = [row["id"] for row in rows_of(final) if row["review"]]
    wrong = ["1.png/marks/2/a", "1.png/marks/2/b", "2.png/marks/1/a"]
    assert marked == wrong + [f"2.png/marks/2/{field}" for field in "abc"]
    # A correction that breaks a rule marks what nobody has looked at, but not one that is illegible
    for answer, broken in (("illegible", []), ("2", ["1.png/marks/1/b"])):
        write_corrections(corrections, [("1.png/marks/1/a", answer)], "number")
        assert run("correct", final, corrections, "-o", tmp_path / f"{answer}.jsonl") == 0
        now = {r["id"]: r["reason"] for r in rows_of(tmp_path / f"{answer}.jsonl") if r["review"]}
        assert [*now] == broken + marked and {*now.values()} == {"check failed"}
    form.unlink()
    capsys.readouterr()
    write_corrections(corrections, [("1.png/marks/1/c", "3")], "number")
    assert run("correct", out, corrections, "-o", final, "--overwrite") == 0
    assert "the form can't be read: its rules are not checked again" in capsys.readouterr().err
    assert len([row for row in rows_of(final) if row["review"]]) == 11


TWO_TABLES = r"""
blank = "blank.png"
[tables.first]
box = [0, 0, 90, 90]
rows = 1
columns = ["c"]
pattern = "[12]"
[tables.second]
box = [0, 100, 90, 190]
rows = 1
columns = ["c"]
pattern = '\d\.\d'
[tables.third]
box = [0, 200, 90, 290]
rows = 1
columns = ["c"]
kind = "mark"
"""


def test_tables_with_a_column_of_one_name_keep_what_is_known_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    form, out = tmp_path / "form.toml", tmp_path / "out.csv"
    draw_one().resize((90, 290)).save(tmp_path / "blank.png")
    form.write_text(TWO_TABLES)
    right = {"first": "2", "second": "4.5", "third": ""}
    rows: list[dict[str, Any]] = [
        {"id": f"0.png/{table}/1/c", "page": "0.png", "table": table, "row": 1, "field": "c"}
        | {"number": "1", "confidence": 0.5, "review": True, "reason": "unsure"}
        for table in right
    ]
    write(out, pa.RecordBatch.from_pylist(rows, FORM_SCHEMA), Origin(form=str(form)))
    answers = [(f"0.png/{table}/1/c", number) for table, number in right.items()]
    given, final = write_corrections(tmp_path / "given.csv", answers, "number"), tmp_path / "f.csv"
    assert run("correct", out, given, "-o", final) == 0
    assert [row["number"] for row in rows_of(final)] == [*right.values()]
    own = [(id, np.zeros((9, 9), np.uint8), number) for id, number in answers]
    matched = [known.pattern for known, _ in match_answers(own, read_form(form)).values()]
    assert matched == ["[12]", r"\d\.\d", None]
    wide = tmp_path / "wide.csv"
    assert run("wide", final, "-o", wide) == 0
    assert wide.read_text().splitlines()[1:] == [
        f'"0.png","{table}",1,"{number}",' for table, number in right.items()
    ]
    assert run("evaluate", out, "--truth", given) == 0
    capsys.readouterr()
    shown = page.make_page(open_results(out), ()).images
    assert [one.keys for one in shown][:2] == ["numeric", "decimal"]
    assert [one.known.options for one in shown] == [(), (), ("1",)]
    write_corrections(given, [(answers[2][0], "7")], "number")
    assert run("correct", out, given, "-o", final, "--overwrite") == 2
    assert "the number '7' for 0.png/third/1/c" in capsys.readouterr().err
