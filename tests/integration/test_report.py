"""The report page in a real browser, with real keys, and the table with its corrections."""

import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pypdfium2
import pytest
from playwright.sync_api import Browser, Page, expect

from digitq.cli import main
from digitq.private.processes import Local
from digitq.producer.provenance import Record, RunPart
from digitq.producer.results import open_results
from digitq.producer.sinks.resumable import FileSink
from digitq.protocol.asked.form import read_form
from digitq.protocol.chunk import FORM_SCHEMA, NUMBER_SCHEMA, RESULT_SCHEMA, TRUTH
from digitq.protocol.origin import Origin
from tests.browser import open_browser, open_profile
from tests.drawing import draw_one, random_digits
from tests.forms import BOXES, draw_blank
from tests.integration.test_forms import FORM, WRITTEN, draw_page

PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
SURE, UNSURE = 40, 30  # rows of the table
ODD_IDS = [
    "=1+1.png",
    "'quoted'.png",
    "'=2.png",
    '"><img src=x onerror=alert(1)>.png',
    "</script><script>alert(2)</script>.png",
    "line\nbreak\r.png",
    "a,b;c.png",
    "__proto__",
    "ünï\u202e.png",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page that may ask nothing of a network, and whose scripts must not fail."""
    device = getattr(request, "param", {})
    context = browser.new_context(offline=True, reduced_motion="reduce", **device)
    page = context.new_page()
    failed: list[str] = []
    page.on("pageerror", lambda error: failed.append(str(error)))
    page.on("dialog", lambda dialog: failed.append(dialog.message))
    page.on("request", lambda asked: failed.append(asked.url) if outside(asked.url) else None)
    yield page
    context.close()
    assert not failed


def reload(page: Page) -> None:
    """Load the page again, until it sees what the browser keeps.

    On a busy machine Chromium now and then gives a page that was reloaded an empty storage, which
    takes nothing either (3 of 192 reloads beside four busy loops). The next load has all of it.
    """
    for _ in range(10):
        page.reload()
        if page.evaluate("localStorage.length"):
            return


def outside(url: str) -> bool:
    return not url.startswith(("file:", "data:", "blob:"))


def digit_row(id: str, label: int | None, confidence: float, truth: int | None) -> dict[str, Any]:
    shares = [(1 - confidence) / 9] * 10
    if label is None:
        answer = {"error": "the file is empty", "review": True, "reason": "error"}
        return {"id": id, **answer, "truth": truth}
    shares[label] = confidence
    row: dict[str, Any] = {"id": id, "label": label, "confidence": confidence, "truth": truth}
    unsure = confidence < 0.9
    return row | {
        "probabilities": shares, "review": unsure, "reason": "unsure" if unsure else None
    }  # fmt: skip


def write_table(
    path: Path, rows: Sequence[dict[str, Any]], folder: Path, form: Path | None = None
) -> None:
    """A result file with a record of a folder of images, a picture for each row or page."""
    folder.mkdir(exist_ok=True)
    is_number = "number" in rows[0]
    schema = NUMBER_SCHEMA if is_number else RESULT_SCHEMA.append(TRUTH)
    schema = FORM_SCHEMA if form else schema
    batch = pa.RecordBatch.from_pylist(list(rows), schema)
    model = "number" if is_number else "cnn"
    origin = Origin((folder.name,), str(folder.parent), form=form and str(form))
    with closing(FileSink(path, {}, overwrite=True)) as sink:
        sink.write(batch)
        record = Record.build(
            model, origin, sink.counts, (RunPart("j", "2026-11-30T10:00:00+00:00"),)
        )
        sink.finish(record.read, record)


def run(*arguments: object, status: int = 0) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments)])
    assert ended.value.code == status


def save(page: Page, folder: Path) -> Path:
    """What the key `s` downloads."""
    with page.expect_download() as download:
        page.keyboard.press("s")
    assert download.value.suggested_filename == "corrections.csv"
    path = folder / "corrections.csv"
    download.value.save_as(path)
    return path


def test_thirty_images_are_corrected_by_keys(page: Page, tmp_path: Path) -> None:
    pictures = tmp_path / "scans"
    pictures.mkdir()
    rows = [digit_row(f"{n}.png", n % 10, 0.99, n % 10) for n in range(SURE)]
    rows += [digit_row(f"u{n}.png", n % 10, 0.4 + n / 100, (n + 1) % 10) for n in range(UNSURE)]
    rows += [digit_row("empty.png", None, 0, 3)]
    for row in rows[:-1]:
        draw_one().save(pictures / row["id"])
    results = tmp_path / "results.csv"
    write_table(results, rows, pictures)
    run("report", results)
    page.goto((tmp_path / "results.html").as_uri())
    expect(page.locator(".tiles")).to_contain_text(re.compile(r"images\s*71"))
    expect(page.locator(".card:visible")).to_have_count(UNSURE + 1)  # one has an error
    first = page.locator("[aria-current]")
    expect(first).to_contain_text("u0.png")  # the least sure one
    expect(first.locator("img")).to_have_count(2)  # its picture, and what the network saw
    for n in range(15):
        if n % 3 == 0:
            page.keyboard.press(str((n + 1) % 10))
        elif n % 3 == 1:
            page.keyboard.press("x")
        page.keyboard.press("Enter")
    expect(page.locator("#count")).to_have_text("15 of 31")
    reload(page)
    expect(page.locator("#count")).to_have_text("15 of 31")
    expect(page.locator("[aria-current]")).to_contain_text("u15.png")
    for _ in range(15):
        page.keyboard.press("7")
        page.keyboard.press("Enter")
    expect(page.locator("[aria-current]")).to_contain_text("empty.png")
    page.keyboard.press("x")
    page.keyboard.press("Enter")
    expect(page.locator("#said")).to_contain_text("last one")
    page.keyboard.press("Backspace")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Backspace")  # u29 is taken back, and is given again
    expect(page.locator("#count")).to_have_text("29 of 31")
    page.keyboard.press("Backspace")
    expect(page.locator("#said")).to_have_text("u29.png: there is nothing to take back")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("8")
    expect(page.locator("#said")).to_have_text("u29.png: 8 instead of 9")
    corrections = save(page, tmp_path)
    assert corrections.read_bytes().startswith(b"id,label\r\nu0.png,1\r\nu1.png,\r\n")

    run("correct", results, corrections, "-o", tmp_path / "final.jsonl")
    final = open_results(tmp_path / "final.jsonl")
    found = [row for batch in final.batches() for row in batch.to_pylist()]
    assert [row["id"] for row in found] == [row["id"] for row in rows]
    assert [row["corrected"] for row in found] == [False] * SURE + [True] * UNSURE + [False]
    assert not any(row["review"] for row in found[:-1]) and found[-1]["review"]
    given = found[SURE:-1]
    assert [row["label"] for row in given[:4]] == [1, None, 2, 4]
    assert [row["error"] for row in given[:3]] == [None, "no digit", None]
    assert [row["label"] for row in given[15:]] == [7] * 14 + [8]
    assert given[0]["confidence"] == pytest.approx(0.4)
    assert final.record and (final.record.counts.failed, final.record.counts.review) == (1, 0)
    run("report", tmp_path / "final.jsonl")
    page.goto((tmp_path / "final.html").as_uri())
    page.locator("[data-group='answers']").click()
    expect(page.locator(".card", has_text="a person's answer")).to_have_count(UNSURE)


@pytest.mark.parametrize("page", [PHONE], indirect=True)
def test_a_phone_is_enough(page: Page, tmp_path: Path) -> None:
    rows = [digit_row(f"u{n}.png", n, 0.4 + n / 100, None) for n in range(4)]
    rows += [digit_row(f"s{n}.png", 7 if n < 5 else 8, 0.99, None) for n in range(10)]
    results, pictures = tmp_path / "results.csv", tmp_path / "scans"
    pictures.mkdir()
    for row in rows:
        draw_one().save(pictures / row["id"])
    write_table(results, rows, pictures)
    run("report", results)
    page.goto((tmp_path / "results.html").as_uri())
    current, said = page.locator("[aria-current]"), page.locator("#said")
    page.locator(".network:visible").first.tap()
    expect(said).to_have_text("u0.png: 0 confirmed")
    expect(current).to_contain_text("u1.png")  # by itself
    expect(current).to_be_in_viewport(ratio=1)
    current.get_by_label("illegible").tap()
    expect(said).to_have_text("u1.png: illegible instead of 1")
    current.get_by_label("no digit").tap()
    second = page.locator(".card", has_text="u2.png")
    second.get_by_label("no digit").tap()
    expect(said).to_have_text("u2.png: taken back")
    sides = page.locator("button:visible, input:visible").evaluate_all(
        "targets => targets.flatMap(one => [one.offsetWidth, one.offsetHeight])"
    )
    assert len(sides) > 80 and min(sides) >= 44  # px: a fingertip
    picture = second.locator(".frame img")
    small = picture.bounding_box()
    picture.tap()
    expect(second).to_have_css("position", "fixed")
    large = picture.bounding_box()
    assert small and large and large["height"] > 2 * small["height"]
    picture.tap()
    expect(second).not_to_have_css("position", "fixed")

    page.locator("[data-group='answers']").tap()
    answers = page.locator(".answers")
    expect(answers.locator("> h3")).to_have_text(["0", "1", "2", "3", "7", "8"])
    expect(answers.nth(4).locator(".card")).to_have_count(5)
    widths = answers.locator(".frame").evaluate_all("all => all.map(one => one.offsetWidth)")
    assert len(widths) == 14 and min(widths) > 30  # px: all are seen
    wrong = answers.locator(".card", has_text="s3.png")
    wrong.tap()
    expect(wrong).to_have_css("position", "fixed")
    wrong.get_by_label("1, ").tap()
    expect(said).to_have_text("s3.png: 1 instead of 7")
    expect(wrong).not_to_have_css("position", "fixed")  # the others are seen again
    expect(wrong.locator(".given")).to_have_text("1")

    page.locator("#search").fill("S3")
    expect(page.locator(".card:visible h3")).to_have_text(["s3.png"])
    found = "1 of the 14 on this page; the table has 14."
    expect(page.locator("[data-note=cell]")).to_have_text(found)
    page.locator("#search").fill("")
    expect(page.locator(".card:visible")).to_have_count(4)
    with page.expect_download() as download:
        page.locator("#save").tap()
    saved = b"id,label\r\nu0.png,0\r\nu1.png,illegible\r\ns3.png,1\r\n"
    assert download.value.path().read_bytes() == saved


@pytest.mark.parametrize("page", [PHONE], indirect=True)
def test_a_phone_has_a_keypad_for_numbers_and_a_keyboard_for_signs(
    page: Page, tmp_path: Path
) -> None:
    write_marks(tmp_path)
    page.goto((tmp_path / "marks.html").as_uri())
    total, other = (page.locator(f".card:visible:has-text('{name}')") for name in ("total", "c1"))
    fields = [card.first.locator("input") for card in (total, other)]
    fields[0].tap()
    for field in fields:
        expect(field).to_have_attribute("inputmode", "numeric")  # the pattern is `integer`
    page.locator("#signs").tap()
    expect(fields[0]).to_be_focused()
    for field in fields:
        expect(field).to_have_attribute("inputmode", "text")
    page.keyboard.type("1/2")
    expect(total.first.locator(".given")).to_have_text("1/2")
    page.locator("#signs").tap()
    expect(fields[0]).to_have_attribute("inputmode", "numeric")
    write_numbers(tmp_path)
    page.goto((tmp_path / "results.html").as_uri())
    expect(page.locator(".card input").first).to_have_attribute("inputmode", "decimal")


def test_another_table_has_corrections_of_its_own(page: Page, tmp_path: Path) -> None:
    for name in ("a", "b"):
        row = digit_row("1.png", 1, 0.5 if name == "a" else 0.6, None)
        write_table(tmp_path / f"{name}.csv", [row], tmp_path / "scans")
        run("report", tmp_path / f"{name}.csv")
    page.goto((tmp_path / "a.html").as_uri())
    page.keyboard.press("Enter")
    expect(page.locator("#count")).to_have_text("1 of 1")
    page.goto((tmp_path / "b.html").as_uri())
    expect(page.locator("#count")).to_have_text("0 of 1")


def test_nothing_in_an_id_is_executed(page: Page, tmp_path: Path) -> None:
    rows = [digit_row(id, 1, 0.5 + n / 100, None) for n, id in enumerate(ODD_IDS)]
    results = tmp_path / "results.csv"
    write_table(results, rows, tmp_path / "scans")
    draw_one().save(tmp_path / "scans" / "other.png")
    run("report", results)
    page.goto((tmp_path / "results.html").as_uri())
    expect(page.locator(".card")).to_have_count(len(rows))
    expect(page.locator(".card").first).to_contain_text("not found")
    for n, _ in enumerate(rows):
        page.keyboard.press(str(n))
        page.keyboard.press("Enter")
    corrections = save(page, tmp_path)
    with open(corrections, newline="") as file:
        cells = [cell for cell, _ in csv.reader(file)]
    assert not [cell for cell in cells if cell[:1] in "=+-@\t\r\n"]
    run("correct", results, corrections, "-o", tmp_path / "final.csv")
    (batch,) = open_results(tmp_path / "final.csv").batches()
    assert batch.column("id").to_pylist() == ODD_IDS
    assert batch.column("label").to_pylist() == [*range(len(ODD_IDS))]


def write_numbers(tmp_path: Path) -> Path:
    """A result file of four numbers, whose page is beside it."""
    box = {"left": 5.0, "top": 10.0, "right": 25.0, "bottom": 40.0, "confidence": 0.9}
    rows: list[dict[str, Any]] = [
        {
            "id": f"{n}.png",
            "number": "007",
            "confidence": 0.5 + n / 10,
            "digits": [{"digit": int(sign), **box} for sign in "007"],
            "alternatives": [{"number": "001", "probability": 0.25}],
            "review": True,
            "reason": "unsure",
        }
        for n in range(4)
    ]
    results = tmp_path / "results.parquet"
    pictures = tmp_path / "fields"
    pictures.mkdir()
    for row in rows:
        draw_one().save(pictures / row["id"])
    write_table(results, rows, pictures)
    run("report", results)
    return results


def test_numbers_are_typed(page: Page, tmp_path: Path) -> None:
    results = write_numbers(tmp_path)
    page.goto((tmp_path / "results.html").as_uri())
    expect(page.locator(".card").first.locator("rect")).to_have_count(3)
    page.keyboard.type("042")
    expect(page.locator(".card input").first).to_have_value("042")
    reload(page)
    expect(page.locator(".card input").first).to_have_value("042")
    expect(page.locator("#count")).to_have_text("1 of 4")  # it needs no Enter
    page.locator(".card input").first.click()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")  # 007 is right
    page.keyboard.type("-12a,55")
    page.keyboard.press("Backspace")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("x")
    expect(page.locator("#count")).to_have_text("4 of 4")
    corrections = save(page, tmp_path)
    expected = b'id,number\r\n0.png,042\r\n1.png,007\r\n2.png,"-12,5"\r\n3.png,\r\n'
    assert corrections.read_bytes() == expected
    run("correct", results, corrections, "-o", tmp_path / "final.csv")
    (batch,) = open_results(tmp_path / "final.csv").batches()
    assert batch.column("number").to_pylist() == ["042", "007", "-12,5", ""]


def test_typed_numbers_need_no_enter(page: Page, tmp_path: Path) -> None:
    write_numbers(tmp_path)
    page.goto((tmp_path / "results.html").as_uri())
    fields, count = page.locator(".card input"), page.locator("#count")
    expect(page.locator("#save")).to_be_disabled()
    page.keyboard.type("42 1/2")
    expect(fields.first).to_have_value("42 1/2")
    expect(page.locator("#save")).to_be_enabled()
    fields.nth(1).click()  # as a tap on a phone, whose keypad has no Enter
    expect(count).to_have_text("1 of 4")
    page.keyboard.type("9")
    for _ in range(4):
        page.keyboard.press("Tab")  # over the three buttons
    expect(fields.nth(2)).to_be_focused()
    page.keyboard.type("5")
    with page.expect_download() as download:
        page.locator("#save").click()
    saved = "id,number\r\n0.png,42½\r\n1.png,9\r\n2.png,5\r\n"
    assert download.value.path().read_bytes() == saved.encode()
    fields.nth(2).click()
    page.keyboard.type("8")
    page.keyboard.press("Backspace")
    page.keyboard.press("Backspace")  # an empty field has no answer
    expect(count).to_have_text("2 of 4")


def write_marks(tmp_path: Path) -> Path:
    """The results of three pages with a form, and beside them what is shown of them.

    `a.png` is upside down, and has an unsure cell in two rows of a table; `b.png` adds up wrongly;
    `c.png` is gone.
    """
    blank, pages = draw_blank(), tmp_path / "pages"
    pages.mkdir()
    cv2.imwrite(str(tmp_path / "blank.png"), blank)
    cv2.imwrite(str(pages / "a.png"), np.rot90(draw_page(blank, WRITTEN), 2))
    cv2.imwrite(str(pages / "b.png"), draw_page(blank, WRITTEN | {"total": "88"}))
    form = tmp_path / "form.toml"
    form.write_text(FORM.replace('"c1", ""', '"c1", "c2"') + '[[checks]]\nrule = "valid > 1"\n')
    rows: list[dict[str, Any]] = []
    for page in ("a.png", "b.png", "c.png"):
        for cell in read_form(form).cells:
            reason = "check failed" if page == "b.png" and cell.field in [*BOXES][1:] else None
            if (page, cell.id) in (("a.png", "marks/2/c2"), ("a.png", "marks/3/c1")):
                reason = "unsure"
            number = WRITTEN.get(cell.field, "7")
            rows += [
                {
                    "id": f"{page}/{cell.id}",
                    "page": page,
                    "field": cell.field,
                    "row": cell.row or None,
                    "number": "88" if cell.field == "total" and page == "b.png" else number,
                    "confidence": {"unsure": 0.4, "check failed": 0.5}.get(str(reason), 0.99),
                    "review": reason is not None,
                    "reason": reason,
                }
            ]
    results = tmp_path / "marks.parquet"
    write_table(results, rows, pages, form)
    run("report", results)
    return results


def test_fields_are_corrected_on_their_pages(page: Page, tmp_path: Path) -> None:
    marks = write_marks(tmp_path)
    page.goto((tmp_path / "marks.html").as_uri())
    expect(page.locator(".tiles")).to_contain_text(re.compile(r"fields\s*48"))
    expect(page.locator(".sheet:visible > h3")).to_have_text(["a.png", "b.png"])
    cards = page.locator(".card:visible")
    expect(page.locator("h4:visible")).to_have_text(["marks/2", "marks/3"])
    expect(cards.locator("h3")).to_have_text(["c1", "c2"] * 2 + ["valid", "invalid", "total"])
    expect(cards.locator(".shot rect")).to_have_count(7)  # each field in its strip
    expect(page.locator(".beside:visible")).to_have_count(2)  # they need no review
    expect(page.locator("#count")).to_have_text("0 of 5")
    left, right = (cards.nth(n).bounding_box() for n in (0, 1))
    assert left and right and left["y"] == right["y"] and left["x"] < right["x"]
    expect(page.locator(".card code")).to_have_text(["24 + 13 = 37, written 88"] * 3)
    page.keyboard.press("Tab")  # the first to review is current
    expect(page.locator(".card[aria-current] input")).to_be_focused()
    page.keyboard.type("34")
    page.keyboard.press("Shift+Tab")
    page.keyboard.type("12")
    page.keyboard.press("Tab")  # the next cell of the row
    page.keyboard.type("3-")  # in place of what was there
    page.keyboard.press("Enter")
    expect(cards.nth(2).locator("input")).to_be_focused()
    page.keyboard.press("Enter")  # all of the row
    for number in ("", "", "37"):
        page.keyboard.type(number)
        page.keyboard.press("Enter")
    expect(page.locator("#count")).to_have_text("5 of 5")
    cards.first.locator(".frame").click()
    expect(cards.first).to_have_css("position", "fixed")
    assert cards.first.bounding_box() == {"x": 0, "y": 0, **(page.viewport_size or {})}
    page.keyboard.press("Escape")
    corrections = save(page, tmp_path)
    run("correct", marks, corrections, "-o", tmp_path / "final.csv")
    run("wide", tmp_path / "final.csv", "-o", tmp_path / "wide.csv")
    with open(tmp_path / "wide.csv", newline="") as file:
        wide = [*csv.DictReader(file)]
    assert len(wide) == 18 and not any(row["review"] for row in wide)
    assert (wide[1]["c1"], wide[1]["c2"], wide[6]["total"]) == ("12", "3-", "37")
    by_person = pc.sum(next(open_results(tmp_path / "final.csv").batches()).column("corrected"))
    assert by_person.as_py() == 7
    expect(page.locator(".sheet", has_text="c.png").locator(".missing")).to_have_count(16)


def test_a_refused_page_is_one_card(page: Page, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    (tmp_path / "pages").mkdir()
    cv2.imwrite(str(tmp_path / "pages" / "a.png"), np.full((400, 300), 255, np.uint8))
    for name, error in (("a.png", "page not aligned"), ("b.png", None)):
        for field in ("x", "y", "z"):
            answer = {"number": None if error else "7", "confidence": None if error else 0.5}
            about = {"review": True, "reason": "error" if error else "unsure", "error": error}
            rows += [{"id": f"{name}/{field}", "page": name, "field": field, **answer, **about}]
    results = tmp_path / "refused.parquet"
    write_table(results, rows, tmp_path / "pages", tmp_path / "form.toml")
    run("report", results)
    page.goto((tmp_path / "refused.html").as_uri())
    expect(page.locator(".sheet:visible")).to_have_count(2)
    card = page.locator("summary")
    expect(card).to_contain_text(re.compile("page not aligned *all 3 fields of this page"))
    expect(card.locator("img")).to_have_count(1)
    expect(page.locator(".card:visible h3")).to_have_text(["x", "y", "z"])  # of the other page
    expect(page.locator("#count")).to_have_text("0 of 6")
    page.keyboard.press("Tab")
    for _ in range(3):
        page.keyboard.press("Enter")
    expect(page.locator("#count")).to_have_text("3 of 6")
    expect(page.locator("details")).to_have_attribute("open", "")  # its turn is last
    fields = page.locator(".refused .card")
    expect(fields.locator("input")).to_have_count(3)
    expect(fields.locator("img")).to_have_count(0)  # the picture is there once
    fields.locator("input").first.fill("12")
    expect(page.locator("#count")).to_have_text("4 of 6")
    card.click()
    expect(page.locator("[aria-current]")).to_have_count(0)  # no key changes what is out of sight


def read_wide(results: Path) -> list[tuple[str, str]]:
    """The columns `checks` and `review` of the wide rows in which one of them is not empty."""
    wide = results.with_name("wide.csv")
    run("wide", results, "-o", wide, "--overwrite")
    with open(wide, newline="") as file:
        rows = [(row["checks"], row["review"]) for row in csv.DictReader(file)]
    return [row for row in rows if any(row)]


def test_a_writer_s_mistake_is_confirmed_once(page: Page, tmp_path: Path) -> None:
    """All fields that the rule binds are shown, also those that need no review alone."""
    cv2.imwrite(str(tmp_path / "blank.png"), draw_blank())
    form = tmp_path / "form.toml"
    form.write_text(f'{FORM}[[checks]]\nrule = "c1 < 9"\n')
    wrong = {"a.png/valid": "", "b.png/marks/2/c1": "12"}
    rows: list[dict[str, Any]] = []
    for name in ("a.png", "b.png"):
        for cell in read_form(form).cells:
            id = f"{name}/{cell.id}"
            number = wrong.get(id, WRITTEN.get(cell.field, "7"))
            rows.append({"id": id, "page": name, "field": cell.field, "row": cell.row or None})
            rows[-1] |= {"number": number, "confidence": 0.99, "review": id in wrong}
            rows[-1] |= {"reason": "check failed" if id in wrong else None}
    marks, final, last = (tmp_path / name for name in ("marks.csv", "final.csv", "last.csv"))
    write_table(marks, rows, tmp_path / "pages", form)
    texts = "empty + 13 = 13, written 37: 24 is missing", "12 < 9 does not hold"
    assert read_wide(marks) == [(texts[0], "valid")] * 6 + [(texts[1], "c1")]
    run("report", marks)
    page.goto((tmp_path / "marks.html").as_uri())
    cards = page.locator(".card:visible")
    expect(cards.locator("h3")).to_have_text(["valid", "invalid", "total", "c1"])
    expect(cards.locator(".rules code")).to_have_text([*texts])
    expect(page.locator("#count")).to_have_text("0 of 2")
    page.keyboard.press("w")
    expect(page.locator("#said")).to_have_text("all of the rule confirmed")
    expect(page.locator(".card.done:visible")).to_have_count(3)
    expect(page.locator("[aria-current] h3")).to_have_text("c1")
    page.get_by_role("button", name="the writer is wrong").nth(1).click()
    expect(page.locator("#count")).to_have_text("2 of 2")
    run("correct", marks, save(page, tmp_path), "-o", final)
    told = [("empty + 13 = 13, written 37 (confirmed)", "")] * 6
    told.append(("12 < 9 does not hold (confirmed)", ""))
    assert read_wide(final) == told
    (tmp_path / "more.csv").write_text("id,number\na.png/student,123\n")
    run("correct", final, tmp_path / "more.csv", "-o", last)
    assert read_wide(last) == told
    (tmp_path / "more.csv").write_text("id,number\na.png/valid,24\n")
    run("correct", final, tmp_path / "more.csv", "-o", last, "--overwrite")
    assert read_wide(last) == told[6:]


def test_two_tabs_keep_each_other_s_answers(browser: Browser, tmp_path: Path) -> None:
    write_numbers(tmp_path)
    with open_profile(browser, tmp_path / "profile") as profile:
        page, other = profile.pages[0], profile.new_page()
        for tab in (page, other):
            tab.goto((tmp_path / "results.html").as_uri())
        page.keyboard.press("Enter")
        expect(other.locator("#count")).to_have_text("1 of 4")
        other.keyboard.press("ArrowDown")
        other.keyboard.press("x")
        expect(page.locator("#count")).to_have_text("2 of 4")
        page.keyboard.type("3")
        page.keyboard.press("Enter")
        reload(page)
        expect(page.locator("#count")).to_have_text("2 of 4")  # "3" took the place of "no digit"
        expect(page.locator(".given").nth(1)).to_have_text("3")


def test_focus_and_paper(page: Page, tmp_path: Path) -> None:
    rows = [digit_row(f"u{n}.png", 1, 0.4 + n / 100, None) for n in range(UNSURE)]
    write_table(tmp_path / "results.csv", rows, tmp_path / "scans")
    run("report", tmp_path / "results.csv")
    page.goto((tmp_path / "results.html").as_uri())
    first = page.locator(".card").first
    expect(first).to_have_accessible_name(re.compile(r"^u0.png 1 .*40\.00% .*unsure"))
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    expect(first).not_to_be_in_viewport()
    page.keyboard.press("3")
    expect(first).to_be_in_viewport()  # it is seen what has changed
    expect(page.locator("#said")).to_have_text("u0.png: 3 instead of 1")
    first.focus()
    page.keyboard.press("Tab")  # the keys do what the buttons of a card do
    assert page.evaluate("document.activeElement.closest('.card')") is None
    paper = pypdfium2.PdfDocument(page.pdf())
    assert "u29.png" in "".join(one.get_textpage().get_text_bounded() for one in paper)
    paper.close()


def test_a_cell_of_the_matrix_opens_its_images(page: Page, tmp_path: Path) -> None:
    rows = [digit_row(f"{n}.png", 9 if n < 6 else 5 if n < 7 else 4, 0.99, 4) for n in range(20)]
    write_table(tmp_path / "results.csv", rows, tmp_path / "scans")
    run("report", tmp_path / "results.csv")
    page.goto((tmp_path / "results.html").as_uri())
    expect(page.locator(".right dd")).to_contain_text("65.00% 95% interval 43.29% to 81.88%")
    answers = page.locator("figure", has_text="Answers").locator("tbody tr")
    expect(answers).to_have_text(["00", "10", "20", "30", "413", "51", "60", "70", "80", "96"])
    bars = answers.locator(".length").evaluate_all(
        "cells => cells.map(cell => parseFloat(getComputedStyle(cell, '::before').width))"
    )
    assert bars[4] > 50 and bars[9] == pytest.approx(bars[4] * 6 / 13, rel=0.01) and bars[0] == 0
    expect(page.get_by_role("row", name="95 to 100% 20", exact=True)).to_be_visible()
    expect(page.get_by_role("img", name="65.0% right of 20 at 99.0%")).to_be_visible()
    expect(page.get_by_role("button", name="4 read as 5: 1 image", exact=True)).to_be_visible()
    page.get_by_role("button", name="4 read as 9: 6 images").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#shown")).to_have_text("4 read as 9")
    shown = page.locator(".card:visible")
    expect(shown).to_have_count(6)
    expect(shown.first).to_be_focused()


def test_classify_and_collect_write_the_page(
    local: Local, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scans, out, page = (tmp_path / name for name in ("scans", "out.csv", "page.html"))
    scans.mkdir()
    draw_one().save(scans / "1.png")
    to_page = ("-o", out, "--report", page, "--broker", local.url)
    run("classify", scans, *to_page)
    assert page.read_text().count('src="data:image/') == 1
    np.save(tmp_path / "digits.npy", random_digits(300))
    run("submit", tmp_path / "digits.npy", "--broker", local.url)
    run("collect", capsys.readouterr().out.strip(), *to_page, "--overwrite")
    text = page.read_text()
    assert text.count("data:image/png") > 100 and "network saw:" not in text  # pixels, as they are
    run("collect", "0123456789ab", *to_page, status=2)
    assert f"{page} exists: --overwrite replaces it" in capsys.readouterr().err


def test_a_sample_is_confirmed_by_one_key_each(
    page: Page, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marks = write_marks(tmp_path)
    run("report", marks, "-o", tmp_path / "drawn.html", "--sample", 20)
    page.goto((tmp_path / "drawn.html").as_uri())
    page.locator("[data-group='sample']").click()
    cards, said = page.locator(".card:visible"), page.locator("#said")
    expect(cards).to_have_count(20)  # without the other cells of their rows
    places = cards.evaluate_all("cards => cards.map((card) => +card.dataset.drawn)")
    assert places == [*range(1, 21)]  # in the order of the draw, not of the pages
    expect(cards.first.locator(".place")).to_have_text(re.compile(r"^[abc]\.png"))
    page.keyboard.press("Enter")
    page.keyboard.type("999")
    for _ in range(19):
        page.keyboard.press("Enter")
    expect(said).to_contain_text("last one")
    expect(page.locator("#count")).to_have_text("20 of 20; 5 more to review")
    page.locator("[data-group='review']").click()
    expect(page.locator(".card:visible .line, .line .card:visible").first).to_be_visible()
    page.keyboard.press("Enter")
    corrections = save(page, tmp_path)
    with open(corrections, newline="") as file:
        places = [row["sample"] for row in csv.DictReader(file)]
    assert places[:20] == [str(place) for place in range(1, 21)] and {*places[20:]} == {""}
    capsys.readouterr()
    run("correct", marks, corrections, "-o", tmp_path / "final.csv")
    assert "1 of 20 looked at was)" in capsys.readouterr().err
