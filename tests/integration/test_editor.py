"""The editor of a form in a real browser, by mouse and keyboard, as a person uses it."""

import os
import re
import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from digitq.cli import main
from digitq.private.processes import find_free_port
from digitq.protocol.asked.form import Form, read_form
from digitq.protocol.asked.form_file import measure_blank
from digitq.protocol.asked.known import TICK
from digitq.protocol.errors import UsageError
from digitq.serving.editor import Editor
from tests.browser import open_browser
from tests.waiting import children_of, freeze, run_digitq, wait_for
from training.synthetic.mark_sheets import LAYOUTS

EXAMPLE = Path(__file__).parents[2] / "examples/forms"
SAVED = "All is saved"
WIDTH = measure_blank(EXAMPLE / "blank.png")[1][0]  # px


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


class Person:
    """Someone at the page of the editor, who points in px of the blank."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.press = page.keyboard.press

    def find(self, x: float, y: float) -> tuple[float, float]:
        box = self.page.locator("#blank img").bounding_box()
        assert box
        scale = box["width"] / WIDTH
        return box["x"] + x * scale, box["y"] + y * scale

    def click(self, x: float, y: float) -> None:
        self.page.mouse.click(*self.find(x, y))

    def drag(self, *corners: tuple[float, float]) -> None:
        (self.page.mouse.move(*self.find(*corners[0])), self.page.mouse.down())
        self.page.mouse.move(*self.find(*corners[1]), steps=3)
        self.page.mouse.up()

    def type(self, text: str) -> None:
        self.page.keyboard.type(text)

    def fill(self, label: str, text: str) -> None:
        """Click on an entry of the selected box, and type over what it has."""
        self.page.locator(".part.selected").get_by_label(label).first.click()
        self.press("Control+A")
        self.type(text)

    def sees(self, text: str | re.Pattern[str]) -> None:
        expect(self.page.locator("#said")).to_have_text(text)

    def button(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()


@contextmanager
def editing(browser: Browser, folder: Path, *arguments: str) -> Iterator[Person]:
    """The editor, as a person has it open. No script may fail."""
    log, failed = folder / "log", list[str]()
    port = str(find_free_port())
    with run_digitq(log, "form", "edit", "--port", port, *arguments) as process:
        wait_for(lambda: "Ctrl-C" in log.read_text() or process.poll() is not None)
        context = browser.new_context(viewport={"width": 1280, "height": 1000})
        page = context.new_page()
        page.on("pageerror", lambda error: failed.append(str(error)))
        page.goto(re.findall(r"http://\S+", log.read_text())[0])
        expect(page.locator("#said")).not_to_be_empty()
        yield Person(page)
        context.close()
    assert not failed


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(EXAMPLE / "blank.png", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def mean(form: Form) -> tuple[object, ...]:
    """What a form asks for, apart from where it is on the page."""
    cells = [(cell.id, cell.known.encode(), cell.optional) for cell in form.cells]
    return cells, form.checks, form.align


def test_a_person_makes_the_mark_sheet_from_its_blank(browser: Browser, folder: Path) -> None:
    with editing(browser, folder, "blank.png", "-o", "form.toml") as person:
        person.sees(SAVED)
        person.click(520, 175)
        person.type("class")
        person.fill("Digits", "4")
        person.click(450, 400)
        person.type("marks")
        person.fill("column 2", "oral")
        for name in ("written", "points"):
            person.press("Tab")
            person.type(name)
        person.fill("Digits", "1-2")
        person.click(560, 615)
        person.type("total")
        person.fill("Digits", "1-3")
        for rule in ("oral + written = points", "sum(points) == totl"):
            person.page.get_by_label("Add a rule").click()
            person.type(rule)
            person.press("Enter")
        person.sees(re.compile("Not saved yet: checks.2.rule: there is no field or column 'totl'"))
        assert "totl" not in (folder / "form.toml").read_text()
        person.page.get_by_label("rule", exact=True).last.click()
        person.press("Control+A")
        person.type("sum(points) == total")
        person.press("Enter")
        person.sees(SAVED)
        expect(person.page.locator("#blank .cell")).to_have_count(15)
        person.page.get_by_label("Try it on a photo").set_input_files(EXAMPLE / "pages/photo.jpg")
        seen = person.page.locator("#seen")
        expect(seen.locator("p")).to_contain_text("photo: all fields are on the page")
        expect(seen.locator("p")).to_contain_text("marks/3/points: 36: check failed")
        assert (
            seen.locator("img").evaluate("one => one.decode().then(() => one.naturalWidth)") > 500
        )
    made, given = (read_form(path / "form.toml") for path in (folder, EXAMPLE))
    assert mean(made) == mean(given)
    for one, other in zip(
        (*made.fields, *made.tables), (*given.fields, *given.tables), strict=True
    ):
        assert one.box == pytest.approx(other.box, abs=2)


def test_edits_leave_what_others_wrote(browser: Browser, folder: Path) -> None:
    text = (EXAMPLE / "form.toml").read_text() + "# the end\n"
    form = folder / "form.toml"
    form.write_text(text)
    with editing(browser, folder, "form.toml") as person:
        person.sees(SAVED)
        person.click(560, 615)
        person.press("Delete")
        person.sees(re.compile("Not saved yet: checks.2.rule: there is no field or column 'total'"))
        assert form.read_text() == text
        person.press("Control+z")
        person.sees(SAVED)
        person.click(560, 615)
        person.press("Shift+ArrowDown")
        person.press("ArrowLeft")
        wait_for(lambda: "box = [499, 600, 619, 650]" in form.read_text())
        person.press("Control+z")
        person.press("Control+z")
        wait_for(lambda: form.read_text() == text)

        person.button("Select all")
        person.page.locator("#blank svg").focus()
        expect(person.page.locator("#blank g.selected")).to_have_count(3)
        person.press("Delete")
        expect(person.page.locator("#blank g")).to_have_count(0)
        person.press("Control+z")
        expect(person.page.locator("#blank g")).to_have_count(3)
        person.click(520, 175)
        person.page.keyboard.down("Shift")
        person.click(560, 615)
        person.page.keyboard.up("Shift")
        expect(person.page.locator("#blank g.selected")).to_have_count(2)
        person.press("Delete")
        expect(person.page.locator("#blank g.fields")).to_have_count(0)
        person.press("Control+z")
        expect(person.page.locator("#blank g.fields")).to_have_count(2)
        person.sees(SAVED)

        person.drag((60, 760), (90, 790))
        person.type("q1")
        person.press("Enter")
        person.page.locator(".part.selected summary").click()
        person.page.once("dialog", lambda dialog: dialog.accept("2"))
        person.button("Repeat to the right")
        wait_for(lambda: "[fields.q3]\nbox = [120, 760, 150, 790]" in form.read_text())
        person.drag((300, 760), (500, 840))
        person.page.get_by_label("what the box is for").last.select_option("bubbles")
        person.fill("Options", "A-B")
        person.fill("Rows", "2")
        person.press("Enter")
        answer = person.page.locator(".part.selected").get_by_label("Without an answer")
        expect(answer.locator(":checked")).to_have_text("Choose …")
        answer.select_option("Must be answered")
        wait_for(lambda: "optional = false" in form.read_text())
        wait_for(lambda: 'options = ["A", "B"]\nrows = 2' in form.read_text())
        person.page.locator(".part.selected summary").click()
        person.page.once("dialog", lambda dialog: dialog.accept("1"))
        person.button("Repeat to the right")
        person.drag((700, 840), (690, 845))
        blocks = "boxes = [[300, 760, 500, 840], [500, 760, 690, 845]]"
        wait_for(lambda: blocks in form.read_text())
        names = [one.names for one in read_form(form).choices]
        assert names == [("field11", "field12"), ("field13", "field14")]
        person.click(450, 400)
        person.page.get_by_label("ticks").locator("visible=true").nth(1).check()
        wait_for(lambda: '{name = "oral",' in form.read_text())
        assert [one.options for one in read_form(form).tables[0].column_known[1:3]] == [TICK, ()]
        assert form.read_text().endswith("# the end\n")

        theirs = form.read_text() + "# theirs\n"
        form.write_text(theirs)
        person.click(75, 775)
        person.press("ArrowUp")
        wait_for(lambda: "box = [60, 759, 90, 789]" in form.read_text())
        person.sees(re.compile("Another program had changed the file"))
        assert form.read_text().endswith("# theirs\n")
        person.press("Control+z")
        wait_for(lambda: form.read_text() == theirs)
        form.write_text(text)
        person.page.evaluate("dispatchEvent(new Event('focus'))")
        expect(person.page.locator("#blank .fields")).to_have_count(2)
    assert form.read_text() == text


def test_a_link_is_edited_where_it_leads(folder: Path) -> None:
    form, link = folder / "kept/form.toml", folder / "form.toml"
    form.parent.mkdir()
    form.write_text((EXAMPLE / "form.toml").read_text())
    link.symlink_to(form)
    editor = Editor(link, None)  # its blank is beside the link
    shown = editor.show()
    assert not shown["problem"]
    shown["parts"][0]["keys"]["length"] = 3
    assert not editor.change(shown["version"], shown["parts"])["problem"]
    assert "length = 3" in form.read_text()
    assert link.is_symlink()
    assert {one.name for one in folder.iterdir()} == {"blank.png", "form.toml", "kept"}


def test_only_files_of_the_form_s_folder_are_read_and_not_quoted(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "secret.csv"
    elsewhere.write_text("id\nsecret-of-the-host\n")
    (folder / "link.csv").symlink_to(elsewhere)
    (folder / "own.csv").write_text("id\nsecret-of-the-host\n")
    os.mkfifo(folder / "pipe")
    editor = Editor(folder / "blank.png", folder / "form.toml")
    shown = editor.show()

    def change(**keys: object) -> str:
        parts = deepcopy(shown["parts"])
        part = next(one for one in parts if one["kind"] == "fields")
        part["keys"] = {"box": part["keys"]["box"], **keys}
        return str(editor.change(editor.show()["version"], parts)["problem"])

    outside = "is outside of the form's folder"
    for name in ("/proc/self/environ", "/dev/zero", "../x.csv", "link.csv", str(elsewhere)):
        assert outside in change(allowed=name) and outside in change(allowed=f"{name}:id"), name
        assert outside in change(allowed=f"{name}:id", show=["id"]), name
    assert "it is a pipe or a device" in change(allowed="pipe")
    for told in (
        change(allowed="own.csv"),
        change(allowed="own.csv:id"),
        change(allowed="own.csv:x"),
    ):
        assert told and "secret" not in told
    assert not change(length=3)
    text = editor.path.read_text().replace('"blank.png"', '"/dev/zero"')
    assert outside in editor.check(text)


def test_it_ends_at_once_while_a_photo_is_read(folder: Path) -> None:
    shutil.copy(EXAMPLE / "form.toml", folder)
    log, port = folder / "log", find_free_port()
    with (
        run_digitq(log, "form", "edit", "form.toml", "--port", str(port)) as process,
        ExitStack() as stack,
    ):
        wait_for(lambda: "Ctrl-C" in log.read_text())
        address = HTTPConnection("127.0.0.1", port, timeout=30)
        stack.callback(address.close)
        query = re.findall(r"token=\S+", log.read_text())[0]
        address.request("POST", f"/photo?{query}", (folder / "blank.png").read_bytes())
        wait_for(lambda: children_of(process.pid))
        for child in children_of(process.pid):
            stack.callback(os.kill, child, signal.SIGKILL)
            freeze(child)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    assert "Traceback" not in log.read_text()


def test_too_many_boxes_are_refused_before_all_else(folder: Path) -> None:
    editor = Editor(folder / "blank.png", folder / "form.toml")
    boxes = [[0, 0, 9, 9]] * 100_000
    part = {"kind": "choices", "name": "q", "was": None, "keys": {"options": ["A"], "boxes": boxes}}
    with pytest.raises(UsageError, match="at most 4000 items") as told:
        editor.change(editor.read(), [part])
    assert len(str(told.value)) < 500


def test_other_bubbles_than_those_of_the_blank_are_told(tmp_path: Path) -> None:
    LAYOUTS["letters"](np.random.default_rng(8)).blank.save(tmp_path / "blank.png")
    editor = Editor(tmp_path / "blank.png", None)
    shown = deepcopy(editor.show())
    (block,) = shown["parts"]
    assert not shown["problem"] and block["keys"]["options"] == [*"ABCDE"]
    block["keys"]["options"] = [*"ABCD"]
    told = editor.change(shown["version"], shown["parts"])["problem"]
    assert "5 bubbles side by side and 8 below each other, not 4 and 8" in told
    block["keys"]["options"] = [*"ABCDE"]
    left, top, right, bottom = block["keys"]["box"]
    block["keys"]["box"] = [left, top / 2, right, bottom]
    block["keys"]["rows"] = 40  # over the words above the bubbles, where reading finds 8 rows
    told = editor.change(editor.read(), shown["parts"])["problem"]
    assert told.startswith(f"choices.{block['name']}: ")
    block["keys"] |= {"box": [0, 0, 90, 90], "rows": 3}
    told = editor.change(editor.read(), shown["parts"])["problem"]
    assert told == f"choices.{block['name']}: the blank shows no bubble at 15 of its 15 places"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["none.png"], "can't read none.png: No such file"),
        (["note.txt"], "can't read note.txt: it is no PNG, JPEG or PDF"),
        (["blank.png", "-o", "form.txt"], "-o is for a BLANK, and ends in .toml"),
        (["form.toml", "-o", "other.toml"], "-o is for a BLANK, and ends in .toml"),
        (["blank.png", "-o", "form.toml"], "form.toml is a form of other.png: name another file"),
        (["none.toml"], "none.toml: No such file or directory; `digitq form new` makes"),
        (["wrong.toml"], "wrong.toml: fields.a.box: it is missing"),
        (["broken.toml"], "broken.toml is not TOML: Expected"),
        (["lines.toml"], "lines.toml has no blank: the editor shows the boxes on one"),
        (["form.toml", "--port", "{port}"], "Address already in use.*: end what is served there"),
    ],
)
def test_what_cannot_be_edited_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], problem: str
) -> None:
    texts = {
        "form.toml": 'blank = "other.png"\n',
        "wrong.toml": "[fields.a]\n",
        "broken.toml": "[fields",
        "lines.toml": 'align = "lines"\n',
        "note.txt": "a note",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit) as end:
        main(["form", "edit", *(one.format(port=taken.getsockname()[1]) for one in arguments)])
    assert end.value.code == 2
    assert re.search(problem, capsys.readouterr().err)
