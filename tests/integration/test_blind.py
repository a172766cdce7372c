"""Two people read blind in browsers: no answer reaches them, and what differs is decided."""

import json
import re
import signal
from pathlib import Path

import cv2
import pytest
from playwright.sync_api import Browser, Page, Response, WebSocket, expect

from digitq.private.processes import find_free_port
from tests.drawing import draw_one
from tests.forms import draw_blank
from tests.integration.test_report import PHONE, browser, run, write_table  # noqa: F401 (a fixture)
from tests.integration.test_review import reviewing
from tests.unit.test_compare import marks_of
from tests.unit.test_reports import rows_of
from tests.waiting import wait_for

ANSWERS = ["8437261905", "5519283746", "6620193847", "7731204958", "9942315069"]
SECRETS = [*ANSWERS, "1122334455", "occurs", "unsure", "0.4242", "42.42", "page not", "secret"]


class Reader:
    """A person's browser, and all that it has received."""

    def __init__(self, browser: Browser, link: str, **device: object) -> None:  # noqa: F811
        self.context = browser.new_context(reduced_motion="reduce", **device)
        self.page = self.context.new_page()
        self.received: list[str] = []
        self.page.on("response", self._keep)
        self.page.on("websocket", self._listen)
        self.failed: list[str] = []
        self.page.on("pageerror", lambda error: self.failed.append(str(error)))
        self.page.goto(link)

    def _keep(self, response: Response) -> None:
        if response.request.method == "GET" and not response.url.startswith("data:"):
            self.received.append(response.text())

    def _listen(self, socket: WebSocket) -> None:
        socket.on("framereceived", lambda frame: self.received.append(str(frame)))

    def begin(self, initials: str) -> Page:
        self.page.locator("#who input").fill(initials)
        self.page.get_by_role("button", name="Begin").click()
        return self.page

    def enter(self, initials: str) -> Page:
        """Begin with initials that are allowed."""
        expect(self.page.locator(".card:visible")).to_have_count(0)
        page = self.begin(initials)
        expect(page.locator("[aria-current]")).to_be_visible()
        return page

    def read(self, numbers: dict[int, str]) -> None:
        """Type what is on these cards, named by their places."""
        for place, number in numbers.items():
            card = self.page.locator(".card").nth(place)
            card.locator("input").fill(number)
            expect(card.locator(".given")).to_have_text(number)
        expect(self.page.locator("#save")).to_have_text("saved")

    def close(self) -> None:
        self.context.close()
        assert not self.failed


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Numbers of five images whose names say their answers; the first four are marked."""
    rows = [
        {
            "id": f"secret-{answer}.png",
            "number": answer if at != 3 else None,
            "confidence": 0.4242,
            "digits": [],
            "alternatives": [{"number": "1122334455", "probability": 0.4242}],
            "review": at < 4,
            "reason": "error" if at == 3 else "unsure" if at < 3 else None,
            "error": "secret" if at == 3 else None,
        }
        for at, answer in enumerate(ANSWERS)
    ]
    pictures, path = tmp_path / "scans", tmp_path / "results.jsonl"
    pictures.mkdir()
    for row in rows:
        draw_one().save(pictures / str(row["id"]))
    write_table(path, rows, pictures)
    return path


def blind_file(results: Path, initials: str) -> Path:
    return results.with_name(f"results.blind-{initials}.csv")


def test_two_people_read_blind_and_a_third_decides(results: Path, browser: Browser) -> None:  # noqa: F811
    with reviewing(results, "--blind", "--all") as server:
        anna, ben = Reader(browser, server.link), Reader(browser, server.link, **PHONE)
        for refused in ("../x", "<b>AB</b>", "", "-"):
            anna.begin(refused)
            expect(anna.page.locator("#who input:invalid")).to_have_count(1)
        anna.begin("digitq")
        expect(anna.page.locator("#who .warning")).to_contain_text("1 to 20 letters and digits")
        for bad in ("../x", "<b>AB</b>", "", "a" * 21, "a/b", "a.b"):  # a page that checks nothing
            asked = "(bad) => (initials = bad, initials || (initials = ' '), connect())"
            anna.page.evaluate("part('#who .warning').textContent = ''")
            anna.page.evaluate(asked, bad)
            expect(anna.page.locator("#who .warning")).to_contain_text("1 to 20 letters")
        anna.enter("AB")
        expect(anna.page.locator(".card:visible")).to_have_count(5)
        anna.read({0: ANSWERS[0], 1: "5519283747", 2: ANSWERS[2], 3: "3", 4: ANSWERS[4]})
        ben.enter("CD")
        ben.read({0: ANSWERS[0] + ".0", 1: ANSWERS[1], 3: "3", 4: ANSWERS[4]})
        ben.page.locator(".card").nth(2).get_by_role("button", name="illegible").tap()
        expect(ben.page.locator("#count")).to_have_text("5 of 5: all done")
        expect(ben.page.locator("#save")).to_have_text("saved")
        again = Reader(browser, server.link)
        again.enter("AB")
        expect(again.page.locator("#count")).to_have_text("5 of 5: all done")
        expect(again.page.locator(".card .given").first).to_have_text("✓")
        again.page.locator(".card").nth(4).locator("input").fill("4")
        expect(again.page.locator("#save")).to_have_text("saved")
        anna.page.keyboard.press("ArrowUp")
        for one in (anna, ben, again):
            received = "\n".join(one.received)
            assert '"done"' in received and len(one.received) > 3
            assert not [secret for secret in (*SECRETS, "5519283747") if secret in received]
            shown = re.sub(r"<(style|script)>.*?</\1>", "", received, flags=re.DOTALL)
            assert not re.search(r'data-answer|"answers"|class="seen"|<rect|%', shown)
            one.close()
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(30) == 0
        assert "5 answers in" in server.said and "Traceback" not in server.said
    assert sorted(one.name for one in results.parent.glob("*.csv")) == [
        blind_file(results, initials).name for initials in ("AB", "CD")
    ]
    names = [f"secret-{answer}" for answer in ANSWERS]
    marks = marks_of(results)
    assert [marks[name][:2] for name in names] == [
        (False, None),
        (True, "two readings"),
        (True, "two readings"),
        (True, "error"),
        (True, "two readings"),
    ]
    assert marks[names[1]][2] == {"digitq": ANSWERS[1], "AB": "5519283747", "CD": ANSWERS[1]}
    with reviewing(results) as server:
        eve = Reader(browser, server.link)
        expect(eve.page.locator("#count")).to_have_text("0 of 4")
        card = eve.page.locator(".card", has_text=names[1])
        card.locator(".readings button", has_text="CD").click()
        expect(eve.page.locator("#save")).to_have_text("saved")
        expect(card.locator(".readings button", has_text="AB")).to_contain_text("5519283747")
        eve.close()
    corrections, final = results.with_suffix(".corrections.csv"), results.with_name("final.csv")
    run("correct", results, corrections, "-o", final)
    decided = rows_of(final)[1]
    assert (decided["number"], decided["review"], decided["corrected"]) == (ANSWERS[1], False, True)
    assert json.loads(decided["readings"]) == marks[names[1]][2]
    assert marks_of(final)[names[2]] == marks[names[2]]
    run("report", final)
    text = re.sub(r"<.*?>", " ", final.with_suffix(".html").read_text())
    found = re.search(r"Readers\s+rows .*?in favour(.*)", text, re.DOTALL)
    assert (found[1] if found else "").split()[:25] == [
        *("digitq", "4", "4", "1", "25.00%", "1", "1", "100.00%"),
        *("AB", "5", "5", "2", "40.00%", "1", "0", "0.00%"),
        *("CD", "5", "5", "2", "40.00%", "1", "1", "100.00%"),
        "model",
    ]


def test_what_is_not_saved_outlives_the_server(tmp_path: Path, browser: Browser) -> None:  # noqa: F811
    """A form with questions, whose rows have other names in the page."""
    cv2.imwrite(str(tmp_path / "blank.png"), draw_blank())
    form, results = tmp_path / "form.toml", tmp_path / "results.csv"
    form.write_text(
        'blank = "blank.png"\n[choices.q]\noptions = ["A", "B"]\nrows = 2\n'
        "box = [100, 100, 200, 200]\n"
    )
    rows = [
        {"id": f"{page}/{field}", "page": page, "field": field, "number": "A", "confidence": 0.5}
        | {"review": page == "b.png", "reason": "two marks" if page == "b.png" else None}
        for page in ("a.png", "b.png")
        for field in ("q1", "q2")
    ]
    write_table(results, rows, tmp_path / "pages", form)
    port = find_free_port()
    with reviewing(results, "--blind", port=port) as server:
        anna = Reader(browser, server.link)
        page = anna.enter("é_1")
        expect(page.locator(".card:visible")).to_have_count(2)
        expect(page.locator(".sheet > h3")).to_have_text("page 1")
        page.keyboard.press("a")
        saved = blind_file(results, "é_1")
        wait_for(lambda: saved.exists() and '"A"' in saved.read_text())
        page.context.set_offline(True)
        expect(page.locator("#trouble")).to_contain_text("no connection")
        page.keyboard.press("b")
        page.keyboard.press("ArrowUp")
        page.keyboard.press("b")
        expect(page.locator("#save")).to_have_text("2 not saved yet")
        server.process.kill()
        server.process.wait()
        assert '"b.png/q1","A"' in saved.read_text() and "q2" not in saved.read_text()
    with reviewing(results, "--blind", port=port) as server:
        page.context.set_offline(False)
        page.goto(server.link)
        assert "b.png" not in page.content()
        anna.enter("é_1")
        expect(page.locator("#save")).to_have_text("saved")
        assert [line.split(",")[1] for line in saved.read_text().splitlines()[1:]] == ['"B"', '"B"']
        page.keyboard.press("Backspace")
        wait_for(lambda: len(saved.read_text().splitlines()) == 2)
        anna.close()
    assert {id: mark[:2] for id, mark in marks_of(results).items()} == {
        "a.png/q1": (False, None),
        "a.png/q2": (False, None),
        "b.png/q1": (True, "two marks"),
        "b.png/q2": (True, "two readings"),
    }
