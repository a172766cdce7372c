"""Pages with a form, from their pictures to a table with a column for each field."""

import asyncio
import csv
import io
import json
import os
import pty
import re
import signal
import subprocess
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import digitq
from digitq import Client
from digitq.private.processes import Local
from digitq.protocol.asked.form import read_form
from digitq.summary import open_sink
from digitq.worker.sight.forms.page_reading import SEVERAL_PAGES
from digitq.worker.sight.forms.proposal import count_rows
from tests.forms import BOXES, FONT, ROWS, TABLE, draw_blank, draw_words
from tests.inspecting import run_here
from tests.integration.test_commands import Ask, ask  # noqa: F401 (a fixture)
from tests.unit.test_ruled_rows import draw_page as draw_table
from tests.waiting import DIGITQ, children_of, freeze, wait_for
from training.synthetic.mark_sheets import LAYOUTS, fill_in

FORM = f"""
blank = "blank.png"
[fields.student]
box = {[*BOXES["student"]]}
length = "3-6"
[fields.valid]
box = {[*BOXES["valid"]]}
pattern = 'integer'
[fields.invalid]
box = {[*BOXES["invalid"]]}
pattern = 'integer'
[fields.total]
box = {[*BOXES["total"]]}
pattern = 'integer'
[tables.marks]
box = {[TABLE[0], ROWS[1], *TABLE[2:]]}
rows = 6
columns = ["", "c1", "", ""]
pattern = 'integer'
[[checks]]
rule = "valid + invalid == total"
"""
WRITTEN = {"student": "31275", "valid": "24", "invalid": "13", "total": "37"}


def draw_page(blank: np.ndarray, written: dict[str, str]) -> np.ndarray:
    page = blank.copy()
    for name, number in written.items():
        left, _, _, bottom = BOXES[name]
        cv2.putText(page, number, (int(left) + 9, int(bottom) - 8), FONT, 1, 40, 2, cv2.LINE_AA)
    return page


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the form, and with pages: a good one upside down, one that adds up wrongly, and
    one without the form."""
    folder = tmp_path_factory.mktemp("scans")
    blank = draw_blank()
    letter = np.full_like(blank, 255)
    for line in range(20):
        draw_words(letter, 900 + line, 90, 100 + 40 * line)
    pages = {
        "a": np.rot90(draw_page(blank, WRITTEN), 2),
        "b": draw_page(blank, WRITTEN | {"total": "88"}),
        "c": letter,
    }
    (folder / "pages").mkdir()
    for name, page in pages.items():
        cv2.imwrite(str(folder / "pages" / f"{name}.png"), page)
    cv2.imwrite(str(folder / "blank.png"), blank)
    (folder / "form.toml").write_text(FORM)
    rows = [f"a.png,{name},,{number}\n" for name, number in WRITTEN.items()]
    (folder / "truth.csv").write_text("page,field,row,number\n" + "".join(rows))
    return folder


def test_pages_become_a_table(local: Local, scans: Path, tmp_path: Path, ask: Ask) -> None:  # noqa: F811
    out = tmp_path / "marks.csv"
    status, _, err = ask(
        *("classify", scans / "pages", "--form", scans / "form.toml", "-o", out, "--wide"),
        *("--truth", scans / "truth.csv", "--broker", local.url),
    )
    assert status == 1 and "30 fields, 10 with an error" in err, err
    assert "accuracy 100.00% of 4" in err and "-wide.csv: 18 rows" in err
    rows = {row["id"]: row for row in csv.DictReader(out.read_text().splitlines())}
    assert len(rows) == 30
    assert {rows[f"a.png/{name}"]["number"] for name in WRITTEN} == {*WRITTEN.values()}
    assert rows["a.png/marks/2/c1"]["number"] == ""
    assert (
        rows["b.png/total"] | {"page": "b.png", "field": "total", "row": ""} == rows["b.png/total"]
    )
    reasons = [rows[f"b.png/{name}"]["reason"] for name in WRITTEN]
    assert reasons[1:] == ["check failed"] * 3 and reasons[0] != "check failed"
    errors = {row["error"] for id, row in rows.items() if id.startswith("c.png/")}
    assert len(errors) == 1 and errors.pop().startswith("page not aligned")
    wide = [*csv.DictReader((tmp_path / "marks-wide.csv").read_text().splitlines())]
    assert len(wide) == 18 and [*wide[0]][-3:] == ["c1", "checks", "review"]
    assert {row["checks"] for row in wide} == {"", "24 + 13 = 37, written 88"}
    assert {**wide[0]} | WRITTEN == wide[0]
    status, text, _ = ask("wide", out)
    assert status == 0 and text == (tmp_path / "marks-wide.csv").read_text()
    done = ask("classify", scans / "pages", "--form", scans / "form.toml", "-o", out, "--wide")
    assert done[0] == 2 and "marks-wide.csv exists: --overwrite replaces it" in done[2]


def test_a_process_that_is_killed_costs_no_page(local: Local, client: Client, scans: Path) -> None:
    """All processes of the worker end while at least one is at a chunk of pages."""
    page, form = scans / "pages" / "b.png", scans / "form.toml"
    expected = [one.number for one in client.classify(page, digitq.form(form)).values()]
    worker = local._processes["worker1"].pid
    job = client.submit([page] * 12, digitq.form(form), detached=True)

    def stand_still_at_a_chunk() -> bool:
        freeze(*children_of(worker))
        if client.ledger.running_chunks([job.id]):
            return True
        for child in children_of(worker):
            os.kill(child, signal.SIGCONT)
        return False

    wait_for(stand_still_at_a_chunk)
    for child in children_of(worker):
        os.kill(child, signal.SIGKILL)
    table = job.table()
    assert table.column("number").to_pylist() == expected * 12
    assert job.progress().most_attempts > 1


@pytest.fixture(scope="module")
def open_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a form whose table may have one to nine rows, and pages with three or five."""
    folder = tmp_path_factory.mktemp("tables")
    (folder / "pages").mkdir()
    (folder / "form.toml").write_text(
        'align = "lines"\n[tables.marks]\nrows = "1-9"\nhead = 0\npattern = \'\\d{1,3}\'\n'
        'columns = ["", "c1", "c2", "c3"]\n'
    )
    for number in range(4):
        page = draw_table(3 + number % 2 * 2)
        cv2.imwrite(str(folder / "pages" / f"{number}.png"), page)
    return folder


IDS = [
    f"{page}.png/marks/{row}/c{column}"
    for page in range(4)
    for row in range(1, 4 + page % 2 * 2)
    for column in (1, 2, 3)
]


def test_a_run_that_is_killed_goes_on_although_pages_lack_rows(
    local: Local,
    open_tables: Path,
    tmp_path: Path,
    ask: Ask,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DIGITQ_CHUNK_ROWS", "1")  # a chunk has a page
    form, quiet, out = open_tables / "form.toml", tmp_path / "quiet.csv", tmp_path / "out.csv"
    words = ["classify", open_tables / "pages", "--form", form, "--broker", local.url, "-o"]
    status, _, err = ask(*words, quiet)
    assert status == 0 and f"{len(IDS)} fields" in err, err
    assert [row["id"] for row in csv.DictReader(quiet.read_text().splitlines())] == IDS
    partial, journal = (tmp_path / f"out.csv.partial{end}" for end in ("", ".run"))
    command = subprocess.Popen([*DIGITQ, *map(str, words), out], stderr=subprocess.PIPE)
    # Rows that are written, but not noted yet, would be written again: nothing to continue
    wait_for(lambda: journal.exists() and journal.read_bytes().count(b"\n") > 1)
    command.kill()
    command.communicate()
    assert partial.exists()
    status, _, err = ask(*words, out)
    assert status == 0 and out.read_bytes() == quiet.read_bytes()
    assert re.search(r"continuing .* after (9|24|33) fields", err), err
    record = json.loads((tmp_path / "out.csv.json").read_text())["counts"]
    assert (record["images"], record["absent"]) == (len(IDS), 4 * 27 - len(IDS))


def test_results_that_are_collected_lack_the_rows_that_pages_lack(
    client: Client,
    open_tables: Path,
    tmp_path: Path,
    ask: Ask,  # noqa: F811
) -> None:
    """Also if the collector was interrupted, and in Python."""
    reading = digitq.form(open_tables / "form.toml")
    pages = sorted((open_tables / "pages").iterdir())
    job = client.submit(open_tables / "pages", reading, detached=True)
    out = tmp_path / "out.csv"
    with closing(open_sink(str(out), {"job": job.id}, False)) as sink:
        sink.begin(job.id)
        sink.write(next(job.results()))
        assert 0 < sink.counts.images < sink.counts.done
    status, _, err = ask("collect", job.id, "-o", out, "--broker", client.url)
    assert status == 0 and f"{len(IDS)} fields" in err, err
    assert [row["id"] for row in csv.DictReader(out.read_text().splitlines())] == IDS
    assert job.table()["id"].to_pylist() == IDS
    answers = digitq.classify(pages[:2], reading, client=client)
    assert [*map(len, answers)] == [9, 15] == [len(answers[0]), len(answers[1])]
    assert [*client.classify(pages[1], reading)] == [*answers[1]]

    async def collect() -> list[str]:
        return [id async for batch in job.results_async() for id in batch["id"].to_pylist()]

    assert asyncio.run(collect()) == IDS


def test_a_file_with_several_pages_is_not_read_in_part(client: Client, scans: Path) -> None:
    page = Image.open(scans / "pages" / "b.png")
    file = io.BytesIO()
    page.save(file, "TIFF", save_all=True, append_images=[page])
    fields = client.classify(file.getvalue(), digitq.form(scans / "form.toml"))
    assert {one.error for one in fields.values()} == {SEVERAL_PAGES}


def test_one_page_gives_its_fields(client: Client, scans: Path) -> None:
    fields = client.classify(scans / "pages" / "b.png", digitq.form(scans / "form.toml"))
    assert [*fields][:5] == [*WRITTEN, "marks/1/c1"] and len(fields) == 10
    assert fields["student"].number == "31275" and fields["total"].number == "88"
    left, top, right, bottom = BOXES["student"]
    digits = fields["student"].digits or ()
    assert all(left < one.left < one.right < right for one in digits)
    assert all(top < (one.top + one.bottom) / 2 < bottom for one in digits)
    job = client.submit([scans / "pages" / "b.png"], digitq.form(scans / "form.toml"))
    assert job.table().column("number").to_pylist() == [one.number for one in fields.values()]


def test_a_page_is_inspected(
    scans: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The blank says how many rows its table has."""
    out, form = tmp_path / "b.inspect.png", tmp_path / "form.toml"
    text = FORM.replace('"blank.png"', f"'{scans / 'blank.png'}'").replace("rows = 6\n", "")
    form.write_text(text)
    monkeypatch.chdir(tmp_path)
    done = run_here("inspect", scans / "pages" / "b.png", "--form", form, "--out", out)
    first, *lines = done.stdout.splitlines()
    assert (done.exit_code, first) == (0, "b.png: 10 fields, 3 to review"), done.stderr
    assert "the table marks has 6 rows in blank.png\n" in capfd.readouterr().err
    assert re.match("total: 88, .* sure, to review: check failed", lines[3])
    assert (cv2.imread(str(out)) == (0, 0, 255)).all(2).any()  # red boxes


def run_form(*arguments: str | Path, folder: Path) -> "subprocess.CompletedProcess[str]":
    command = [*DIGITQ, "form", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder)


def test_a_form_is_proposed(scans: Path, tmp_path: Path) -> None:
    out = tmp_path / "new.toml"
    done = run_form("new", scans / "blank.png", "-o", out, folder=tmp_path)
    assert done.returncode == 0 and "new.toml has 4 fields, 1 table" in done.stderr, done.stderr
    form = read_form(out)
    for field, box in zip(form.fields, BOXES.values(), strict=True):
        assert field.box == pytest.approx(box, abs=2)
        boxes = round((box[2] - box[0]) / (box[3] - box[1]))
        assert field.known.pattern == rf"\d{{1,{boxes}}}"
    (table,) = form.tables
    assert table.box == pytest.approx([TABLE[0], ROWS[1], *TABLE[2:]], abs=2)
    assert (table.rows, table.columns) == (6, ("c1", "c2", "c3", "c4"))
    again = run_form("new", scans / "blank.png", "-o", out, folder=tmp_path)
    assert again.returncode == 2 and "new.toml exists: --overwrite replaces it" in again.stderr
    cv2.imwrite(str(tmp_path / "white.png"), np.full((900, 700), 255, np.uint8))
    white = run_form("new", "white.png", "-o", out, "--overwrite", folder=tmp_path)
    assert white.returncode == 2 and "no bubbles are found in white.png" in white.stderr
    assert read_form(out).fields


@pytest.mark.parametrize(
    ("typed", "flags", "wanted"),
    [
        (b"n\n", [], False),
        (b"\n", [], True),
        (None, [], True),
        (None, ["--must-be-answered"], False),
    ],
)
def test_whether_a_question_may_stay_empty_is_asked(
    typed: bytes | None, flags: list[str], wanted: bool, tmp_path: Path
) -> None:
    """At a terminal, unless an option says it."""
    LAYOUTS["letters"](np.random.default_rng(8)).blank.save(tmp_path / "blank.png")
    command = [*DIGITQ, "form", "new", "blank.png", "-o", "f.toml", *flags]
    person, terminal = pty.openpty()
    os.write(person, typed or b"")
    given = terminal if typed else subprocess.DEVNULL
    done = subprocess.run(command, stdin=given, capture_output=True, text=True, cwd=tmp_path)
    os.close(person)
    os.close(terminal)
    assert done.returncode == 0, done.stderr
    assert ("may a question stay without a mark?" in done.stderr) == bool(typed)
    assert {one.optional for one in read_form(tmp_path / "f.toml").choices} == {wanted}


def test_rows_are_counted_in_the_blank(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blank, box = scans / "blank.png", (TABLE[0], ROWS[1], *TABLE[2:])
    assert count_rows("marks", blank, box, 4) == 6 == count_rows("marks", blank, None, 4)
    assert count_rows("marks", blank, box, 3) == 0 == count_rows("marks", blank, (0, 0, 99, 99), 4)
    assert capsys.readouterr().err == "the table marks has 6 rows in blank.png\n" * 2


def test_a_form_is_drawn(scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = run_here("form", "show", scans / "form.toml")
    assert (done.exit_code, done.stdout) == (0, "form.toml: all fields are on the page\n")
    assert done.stderr == "the picture is form.inspect.png\n"
    red = (cv2.imread(str(tmp_path / "form.inspect.png")) == (0, 0, 208)).all(2)
    for left, top, right, bottom in BOXES.values():
        edge = red[int(top) - 2 : int(top) + 3, int(left) : int(right)]
        assert (
            edge.any(0).mean() > 0.9
            and not red[int(top) + 9 : int(bottom) - 8, int(left) + 9].any()
        )
    page = cv2.imread(str(scans / "pages" / "b.png"))
    cv2.imwrite(str(tmp_path / "cut.png"), page[: int(BOXES["total"][1])])
    cut = run_here("form", "show", scans / "form.toml", "cut.png", "-o", "out.png")
    assert cut.exit_code == 1 and cut.stdout.startswith("cut.png: not on the page: total, marks/1")
    assert cut.stderr == "the picture is out.png\n" and (tmp_path / "out.png").is_file()
    other = run_here("form", "show", scans / "form.toml", scans / "pages" / "c.png")
    assert other.exit_code == 1 and other.stdout.startswith("c.png: page not aligned: ")
    assert other.stderr == "the picture is c.inspect.png\n"
    tried = (cv2.imread(str(tmp_path / "c.inspect.png")) == (192, 0, 192)).all(2)
    assert tried[:60].any()  # the reason
    assert tried[60:].any(0).mean() > 0.3 < tried[60:].any(1).mean()  # the outline


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--wide"], "--wide writes the fields of pages: name their form with --form"),
        (["--form", "form.toml", "--wide"], "name one with -o OUT"),
        (["--form", "form.toml", "--truth", "parent"], "a folder's name is no truth"),
        (["--form", "form.toml", "--length", "3"], "leave out length"),
        (["--form", "form.toml", "--read", "digit"], "leave out --read digit"),
        (["--form", "none.toml"], "none.toml: No such file or directory; `digitq form new` makes"),
        (["--form", "blank.png"], "blank.png: it is not in UTF-8; `digitq form new` makes"),
    ],
)
def test_what_does_not_go_with_a_form_is_told(
    options: list[str],
    message: str,
    scans: Path,
    monkeypatch: pytest.MonkeyPatch,
    ask: Ask,  # noqa: F811
) -> None:
    monkeypatch.chdir(scans)
    status, _, err = ask("classify", "pages", *options)
    assert status == 2 and message in err


def test_questions_become_columns(local: Local, tmp_path: Path, ask: Ask) -> None:  # noqa: F811
    """A rule gives points for an answer, and a person's answer is one of the options."""
    rng = np.random.default_rng(5)
    sheet = LAYOUTS["letters"](rng)
    sheet.blank.save(tmp_path / "blank.png")
    toml = sheet.toml.replace("[choices.q]", "[choices.q]\noptional = false")
    (tmp_path / "form.toml").write_text(f'blank = "blank.png"\n{toml}')
    pages = tmp_path / "pages"
    pages.mkdir()
    fill_in(sheet, rng).save(pages / "page.png")
    out, truth = tmp_path / "marks.jsonl", tmp_path / "truth.csv"
    right = {one.id: one.truth or "" for one in sheet.questions}
    rows = [f"page.png/{id},{answer}\n" for id, answer in right.items()]
    truth.write_text("id,number\n" + "".join(rows))
    status, _, err = ask(
        *("classify", pages, "--form", tmp_path / "form.toml", "-o", out),
        *("--wide", "--truth", truth, "--broker", local.url),
    )
    assert status == 0 and "accuracy 100.00% of 8" in err, err
    (wide,) = map(json.loads, (tmp_path / "marks-wide.jsonl").read_text().splitlines())
    assert {**wide} | right == {**wide}
    given, other = tmp_path / "given.csv", "A" if right["q2"] != "A" else "B"
    given.write_text("id,number\npage.png/q1,F\n")
    status, _, err = ask("correct", out, given, "-o", tmp_path / "no.csv")
    assert (
        status == 2
        and "'F' for page.png/q1: it must be one of A, B, C, D, E, illegible, two marks, or" in err
    )
    given.write_text(f"id,number\npage.png/q1,\npage.png/q2,{other}\npage.png/q3,two marks\n")
    status, _, err = ask("correct", out, given, "-o", tmp_path / "final.csv")
    assert status == 0, err
    rows = (tmp_path / "final.csv").read_text().splitlines()
    final = {one["field"]: one for one in csv.DictReader(rows)}
    assert (final["q1"]["number"], final["q2"]["number"]) == ("", other)
    assert (final["q3"]["number"], final["q3"]["error"]) == ("", "two marks")
    assert ask("evaluate", tmp_path / "final.csv", "--truth", truth)[0] == 0
