"""The served page in real browsers: several people, a phone, and what goes wrong meanwhile."""

import csv
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
from PIL import ImageDraw
from playwright.sync_api import Browser, Locator, Page, expect

from digitq.answer_sheets import AnswerSheet, write_sheets
from digitq.private.processes import find_free_port
from digitq.producer.results import open_results
from digitq.protocol.asked.form import read_form
from digitq.protocol.errors import UsageError
from digitq.serving.whole_page import WholePages
from tests.browser import open_browser
from tests.drawing import draw_one
from tests.forms import draw_blank
from tests.integration.test_report import PHONE, digit_row, run, write_marks, write_table
from tests.waiting import run_digitq, wait_for

Person = Callable[..., Page]
ANSWER_ON = """() => {
  answering = setInterval(() => {
    const card = all[Math.floor(6 * Math.random())];
    give(card, String(Math.floor(10 * Math.random())));
  }, 5);
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture
def person(browser: Browser) -> Iterator[Person]:
    """Opens a link in a browser of its own. No script may fail, and nothing else be asked for."""
    contexts, failed = [], []

    def open_link(link: str, **device: object) -> Page:
        contexts.append(browser.new_context(reduced_motion="reduce", **device))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: failed.append(str(error)))
        outside = re.compile(f"(?!data:|{re.escape(link.partition('?')[0])})")
        page.on("request", lambda ask: outside.match(ask.url) and failed.append(ask.url))
        page.goto(link)
        expect(page.locator("#save")).to_have_text("saved")
        return page

    yield open_link
    for context in contexts:
        context.close()
    assert not failed


class Server:
    """`digitq review`, while it runs."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process, self.log = process, log
        wait_for(lambda: "Ctrl-C" in self.said or process.poll() is not None)
        self.link = re.findall(r"http://\S+", self.said)[0]

    @property
    def said(self) -> str:
        return self.log.read_text()


@contextmanager
def reviewing(results: Path, *options: str, port: int = 0) -> Iterator[Server]:
    log = results.with_suffix(".log")
    options = "--port", str(port or find_free_port()), *options
    with run_digitq(log, "review", str(results), *options) as process:
        yield Server(process, log)


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """Results of six images that are to review: u0.png to u5.png."""
    rows = [digit_row(f"u{n}.png", n, 0.4 + n / 100, None) for n in range(6)]
    results, pictures = tmp_path / "results.csv", tmp_path / "scans"
    pictures.mkdir()
    for row in rows:
        draw_one().save(pictures / row["id"])
    write_table(results, rows, pictures)
    return results


def answer_file(results: Path) -> Path:
    return results.with_suffix(".corrections.csv")


def read_saved(results: Path) -> dict[str, str]:
    path = answer_file(results)
    if not path.exists():
        return {}
    with open(path, newline="") as file:
        return {row[0]: row[1] for row in [*csv.reader(file)][1:]}


def card(page: Page, id: str) -> Locator:
    return page.locator(".card", has=page.get_by_role("heading", name=id, exact=True))


def test_two_answer_at_once_and_a_killed_server_goes_on(digits: Path, person: Person) -> None:
    port = find_free_port()
    with reviewing(digits, port=port) as server:
        anna, ben = person(server.link), person(server.link)
        anna.keyboard.press("7")
        expect(card(ben, "u0.png").locator(".given")).to_have_text("7")
        assert read_saved(digits) == {"u0.png": "7"}
        ben.context.set_offline(True)
        expect(ben.locator("#trouble")).to_contain_text("no connection")
        card(ben, "u1.png").get_by_label("1, ").click()
        card(ben, "u2.png").get_by_label("2, ").click()
        expect(ben.locator("#save")).to_have_text("2 not saved yet")
        card(anna, "u1.png").get_by_label("9, ").click()
        expect(anna.locator("#save")).to_have_text("saved")
        ben.context.set_offline(False)
        expect(ben.locator("#save")).to_have_text("1 to settle")
        contest = card(ben, "u1.png").locator(".contest")
        expect(contest).to_contain_text("another person answered 9; yours: 1")
        assert read_saved(digits) == {"u0.png": "7", "u1.png": "9", "u2.png": "2"}
        ben.locator("#save").click()
        expect(ben.locator(".card:visible")).to_have_count(1)
        contest.get_by_text("take mine").click()
        expect(contest).to_be_hidden()
        expect(card(anna, "u1.png").locator(".given")).to_have_text("✓")
        anna.evaluate(ANSWER_ON)
        wait_for(lambda: len(read_saved(digits)) == 6)
        server.process.kill()
        server.process.wait()
        there = read_saved(digits)
        expect(anna.locator("#trouble")).to_contain_text("no connection")
        anna.evaluate("clearInterval(answering)")
        kept = {id: one["answer"] for id, one in anna.evaluate("[...unsaved]")}
        assert there | kept == dict(anna.evaluate("[...given]"))
    with reviewing(digits, port=port) as server:
        expect(anna.locator("#trouble")).to_contain_text("open its new link")
        card(anna, "u3.png").get_by_label("illegible").click()
        anna.goto(server.link)
        wait_for(lambda: read_saved(digits) == there | kept | {"u3.png": "illegible"})
        expect(anna.locator("#save")).to_have_text("saved")
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(30) == 0
        assert "6 answers in" in server.said and "Traceback" not in server.said
    run("correct", digits, answer_file(digits), "-o", digits.with_name("final.csv"))
    (batch,) = open_results(digits.with_name("final.csv")).batches()
    assert batch.column("corrected").to_pylist() == [True] * 6


def test_a_late_reply_is_not_one_to_a_later_answer(digits: Path, person: Person) -> None:
    with reviewing(digits) as server:
        anna = person(server.link)
        anna.keyboard.press("7")
        expect(anna.locator("#save")).to_have_text("saved")
        server.process.send_signal(signal.SIGSTOP)
        anna.evaluate("new Promise((done) => (give(all[0], '5'), setTimeout(done, 50)))")
        anna.evaluate("new Promise((done) => (give(all[0], '6'), setTimeout(done, 50)))")
        anna.evaluate("give(all[0], '5', true)")  # not sent at once, since it is typed
        server.process.send_signal(signal.SIGCONT)
        expect(anna.locator("#save")).to_have_text("saved")
        assert read_saved(digits) == {"u0.png": "5"}


def test_two_people_share_what_is_to_review(digits: Path, person: Person) -> None:
    with reviewing(digits) as server:
        anna, ben = person(server.link), person(server.link)
        current = "[aria-current]"
        expect(anna.locator(current)).to_contain_text("u0.png")
        expect(ben.locator(current)).to_contain_text("u1.png")
        expect(card(ben, "u0.png")).to_have_class(re.compile("theirs"))
        expect(card(anna, "u1.png")).to_have_class(re.compile("theirs"))
        for page, other, id in [
            (anna, ben, "u2"),
            (ben, anna, "u3"),
            (ben, anna, "u4"),
            (anna, ben, "u5"),
        ]:
            page.keyboard.press("Enter")
            expect(page.locator(current)).to_contain_text(f"{id}.png")
            expect(page.locator("#save")).to_have_text("saved")
            expect(card(other, f"{id}.png")).to_have_class(re.compile("theirs"))
        ben.keyboard.press("Enter")
        expect(ben.locator(current)).to_contain_text("u5.png")  # none is left that is free
        anna.context.close()
        expect(ben.locator(".theirs")).to_have_count(0)


def test_letters_go_on_and_each_person_has_a_page(tmp_path: Path, person: Person) -> None:
    cv2.imwrite(str(tmp_path / "blank.png"), draw_blank())
    form, results = tmp_path / "form.toml", tmp_path / "results.csv"
    form.write_text(
        'blank = "blank.png"\n[choices.q]\noptions = ["A", "B"]\nrows = 2\n'
        "box = [100, 100, 200, 200]\n"
    )
    rows = [
        {"page": page, "field": field, "number": "A", "confidence": 0.5, "review": True}
        | {"id": f"{page}/{field}", "reason": "two marks"}
        for page in ("a.png", "b.png")
        for field in ("q1", "q2")
    ]
    write_table(results, rows, tmp_path / "pages", form)
    with reviewing(results) as server:
        anna, ben = person(server.link), person(server.link)
        expect(ben.locator(".sheet:has([aria-current]) > h3")).to_have_text("b.png")
        anna.keyboard.press("b")
        expect(anna.locator("[aria-current] h3")).to_have_text("q2")
        anna.locator("[aria-current]").get_by_text("two marks", exact=True).last.click()
        expect(anna.locator("#count")).to_have_text("2 of 4")
        expect(anna.locator("#save")).to_have_text("saved")
        assert read_saved(results) == {"a.png/q1": "B", "a.png/q2": "two marks"}
        ben.keyboard.press("x")
        expect(ben.locator("[aria-current] h3")).to_have_text("q2")
        ben.keyboard.press("i")
        expect(ben.locator("#count")).to_have_text("4 of 4: all done")
        expect(ben.locator("#save")).to_have_text("saved")
        assert read_saved(results).items() >= {"b.png/q1": "", "b.png/q2": "illegible"}.items()


def test_the_whole_page_is_beside_its_cards(tmp_path: Path, person: Person) -> None:
    with reviewing(write_marks(tmp_path)) as server:
        anna = person(server.link, viewport={"width": 1300, "height": 900})
        whole = anna.locator("#whole img")
        expect(whole).to_be_hidden()
        anna.get_by_role("button", name="Whole page").click()
        expect(whole).to_have_attribute("src", re.compile("^data:image/jpeg"))
        first = whole.get_attribute("src")
        left, right = anna.locator("[aria-current]").bounding_box(), whole.bounding_box()
        assert left and right and left["x"] + left["width"] < right["x"]
        anna.locator('.sheet:has(> h3 > bdi:text-is("b.png")) .card:visible').first.focus()
        expect(whole).not_to_have_attribute("src", first or "")
        strange = server.link.replace("/?", "/page?id=../../etc/passwd&")
        assert anna.request.get(strange).text() == ""
        assert anna.request.get(strange.partition("&token")[0]).status == 403


def test_a_refused_page_is_read_where_a_person_shows_the_form(
    tmp_path: Path, person: Person
) -> None:
    sheet, pages, results = (
        AnswerSheet(20, "ABCDE", 2),
        tmp_path / "pages",
        tmp_path / "results.csv",
    )
    write_sheets(tmp_path / "sheet.pdf", sheet, None)
    drawn = sheet.draw("17")
    for at, row in enumerate(sheet.bubbles):
        ImageDraw.Draw(drawn).ellipse(row[at % 5], 40)
    upside_down = np.rot90(np.asarray(drawn.reduce(2)), 2)
    size, (high, wide) = (2600, 1900), upside_down.shape
    corners = np.array([(120, 90), (1250, 110), (1230, 1800), (150, 1740)], np.float32)
    whole = np.array([(0, 0), (wide, 0), (wide, high), (0, high)], np.float32)
    photo = np.full(size[::-1], 120, np.uint8)
    for right in (0, 1240):  # two sheets are on it
        matrix = cv2.getPerspectiveTransform(whole, corners + np.float32((right, 0)))
        cv2.warpPerspective(upside_down, matrix, size, photo, borderMode=cv2.BORDER_TRANSPARENT)
    pages.mkdir()
    cv2.imwrite(str(pages / "a.jpg"), photo)
    form = tmp_path / "sheet.toml"
    rows = [
        {"id": f"a.jpg/{cell.id}", "page": "a.jpg", "field": cell.id, "confidence": None}
        | {"review": True, "reason": "error", "error": "page not aligned"}
        for cell in read_form(form).cells
    ]
    write_table(results, rows, pages, form)
    with reviewing(results) as server:
        anna = person(server.link, viewport={"width": 1300, "height": 900})
        ben = person(server.link)
        expect(ben.locator(".refused")).to_have_count(1)
        expect(ben.get_by_role("button", name="To review")).to_have_text("To review 23")
        anna.get_by_role("button", name="Show where the form is").click()
        svg = anna.locator("#whole svg")
        expect(svg.locator(".corner")).to_have_count(4)
        told = anna.locator("#whole strong")
        anna.get_by_role("button", name="Read it again").click()
        expect(told).to_have_text(re.compile("page not aligned: .* twice"), timeout=60_000)
        box = svg.bounding_box()
        assert box
        starts = [(0.05, 0.05), (0.95, 0.05), (0.95, 0.95), (0.05, 0.95)]
        for start, end in zip(starts, (corners / size).tolist(), strict=True):
            places = [
                (box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in (start, end)
            ]
            anna.mouse.move(*places[0])
            anna.mouse.down()
            anna.mouse.move(*places[1], steps=4)
            anna.mouse.up()
        for _ in range(2):
            anna.get_by_role("button", name="Turn").click()
        anna.get_by_role("button", name="Read it again").click()
        for page in (anna, ben):
            expect(page.locator(".refused")).to_have_count(0, timeout=60_000)
    found = {
        row["field"]: row for batch in open_results(results).batches() for row in batch.to_pylist()
    }
    assert len(found) == len(rows)
    assert [found[f"q{at + 1}"]["number"] for at in range(20)] == [*"ABCDE" * 4]
    assert [found[name]["number"] for name in ("n1", "n2", "number")] == ["1", "7", "17"]
    assert not any(row["error"] for row in found.values())
    answer_file(results).write_text("id,number\na.jpg/q1,A\n")
    run("correct", results, answer_file(results), "-o", tmp_path / "final.csv")
    final = [
        row for part in open_results(tmp_path / "final.csv").batches() for row in part.to_pylist()
    ]
    assert [row["number"] for row in final] == [row["number"] for row in found.values()]
    write_table(results, rows, pages, form)  # another run: what was read again is of an earlier one
    assert not open_results(results).again


def test_no_page_is_read_again_once_a_sample_is_drawn() -> None:
    """More rows would be unmarked, and other ones drawn."""
    desk = Mock(file=Mock(drawn={"a.png/q1": 1}))
    with pytest.raises(UsageError, match="a random sample is drawn from the rows"):
        WholePages(desk, Mock(), []).read("b.png", b"", [])


def test_a_double_click_is_one_answer(digits: Path, person: Person) -> None:
    with reviewing(digits) as server:
        anna = person(server.link)
        card(anna, "u0.png").locator(".network").click(click_count=2)
        expect(anna.locator("#count")).to_have_text("1 of 6")
        expect(anna.locator("#save")).to_have_text("saved")
        assert read_saved(digits) == {"u0.png": "0"}


def test_one_file_has_one_page(digits: Path) -> None:
    with reviewing(digits) as server:
        log = digits.with_name("second.log")
        with run_digitq(log, "review", str(digits), "--port", str(find_free_port())) as second:
            assert second.wait(60) == 2
        assert "another digitq serves" in log.read_text() and str(digits) in log.read_text()
        server.process.kill()
        server.process.wait()
    with reviewing(digits):  # a lock ends with its process
        pass


def test_the_file_may_be_changed_or_broken_by_hand(digits: Path, person: Person) -> None:
    path = answer_file(digits)
    with reviewing(digits) as server:
        anna = person(server.link)
        anna.keyboard.press("7")
        expect(anna.locator("#save")).to_have_text("saved")
        path.chmod(0o604)
        path.write_text("id;label\nu0.png;8\nu1.png;illegible\n")  # as a spreadsheet may write it
        expect(card(anna, "u0.png").locator(".given")).to_have_text("8")
        expect(card(anna, "u1.png").locator(".given")).to_have_text("illegible")
        path.write_text("id,label\nu0.png,eight\n")
        expect(anna.locator("#trouble")).to_contain_text("'eight' for u0.png: it must be a digit")
        card(anna, "u2.png").get_by_label("2, ").click()
        expect(anna.locator("#save")).to_have_text("1 not saved yet")
        assert path.read_text() == "id,label\nu0.png,eight\n"
        path.write_text("id,label\nu0.png,6\n")
        expect(anna.locator("#save")).to_have_text("saved")
        expect(anna.locator("#trouble")).to_be_empty()
        expect(card(anna, "u0.png").locator(".given")).to_have_text("6")
        expect(card(anna, "u1.png")).not_to_have_class(re.compile("done"))
        assert read_saved(digits) == {"u0.png": "6", "u2.png": "2"}
        assert path.stat().st_mode & 0o777 == 0o604
        path.unlink()
        wait_for(lambda: read_saved(digits) == {"u0.png": "6", "u2.png": "2"})
        write_table(digits, [digit_row("u0.png", 1, 0.5, None)], digits.with_name("scans"))
        expect(anna.locator("#trouble")).to_contain_text("has other results now")
        card(anna, "u3.png").get_by_label("3, ").click()
        expect(anna.locator("#save")).to_have_text("1 not saved yet")
        assert read_saved(digits) == {"u0.png": "6", "u2.png": "2"}
        assert "answers are not saved" in server.said
    os.utime(path, (0, 0))
    run("review", digits, status=2)  # its answers are of earlier results


def test_a_form_is_judged_with_each_answer(tmp_path: Path, person: Person) -> None:
    results = write_marks(tmp_path)
    os.utime(tmp_path / "form.toml", (2e9, 2e9))
    with reviewing(results) as server:
        assert "form.toml may have changed since the pages were read" in server.said
        anna, ben = person(server.link), person(server.link, **PHONE)
        total = card(anna, "total")
        expect(total.locator(".rules code")).to_have_text("24 + 13 = 37, written 88")
        card(ben, "total").locator("input").focus()
        total.locator("input").fill("28")
        expect(card(ben, "total").locator("input")).to_have_value("28")
        expect(card(ben, "valid").locator(".rules code")).to_have_text("24 + 13 = 37, written 28")
        field = card(ben, "total").locator("input")
        expect(field).to_have_attribute("inputmode", "numeric")
        field.tap()
        field.press("Backspace")
        field.press("Backspace")
        ben.keyboard.type("37")  # on its keypad
        ben.keyboard.press("Enter")
        for page in (anna, ben):
            for name in ("valid", "invalid", "total"):
                rules = card(page, name).locator(".rules code")
                expect(rules).to_have_text("✓ valid + invalid == total")
        assert read_saved(results) == {"b.png/total": "37"}
        total.locator("input").fill("38")
        card(ben, "valid").get_by_role("button", name="the writer is wrong").tap()
        written = {"b.png/valid": "24", "b.png/invalid": "13", "b.png/total": "38"}
        wait_for(lambda: read_saved(results) == written)
        for page in (anna, ben):  # it is settled: nothing is left to confirm
            rules = card(page, "invalid").locator(".rules")
            expect(rules).to_have_text("24 + 13 = 37, written 38 (confirmed)")
        port = server.link.partition("/?")[0].rpartition(":")[2]
        run("review", results, "--port", port, status=2)  # it is served


def test_a_phone_taps_through_what_is_doubtful(digits: Path, person: Person) -> None:
    with reviewing(digits, "--host", "0.0.0.0", "--sample", "1") as server:
        assert re.search("█{20}", server.said)
        phone = person(server.link, **PHONE)
        for n in range(6):
            current = phone.locator("[aria-current]")
            expect(current).to_contain_text(f"u{n}.png")
            current.locator(".network").tap()
            expect(phone.locator("[aria-current]")).to_be_in_viewport(ratio=1)
        expect(phone.locator("#said")).to_contain_text("That was the last one")
        expect(phone.locator("#count")).to_have_text("6 of 6: all done")
        expect(phone.locator("#save")).to_have_text("saved")
        assert read_saved(digits) == {f"u{n}.png": str(n) for n in range(6)}
        assert "results.corrections.csv" in phone.locator("footer").inner_text()
        sides = phone.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert sides[0] <= sides[1]


def test_a_missing_extra_is_named(
    digits: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("digitq.terminal.find_spec", lambda name: None)
    run("review", digits, status=2)
    assert "pip install 'digitq[review]'" in capsys.readouterr().err
