"""Points of printed answer sheets: from their pictures to the table, before and after review."""

import csv
import re
from pathlib import Path

import cv2
import numpy as np
from PIL import ImageDraw
from playwright.sync_api import Page, expect

from digitq.answer_sheets import AnswerSheet, write_sheets
from digitq.private.processes import Local
from tests.integration.test_commands import Ask, ask  # noqa: F401 (a fixture)
from tests.integration.test_report import browser, page  # noqa: F401 (fixtures)


def draw_sheet(sheet: AnswerSheet, number: str, answers: str, at: Path) -> None:
    """A sheet on which these letters are filled for each question, with / between questions."""
    drawn = sheet.draw(number)
    for row, letters in zip(sheet.bubbles, answers.split("/"), strict=True):
        for letter in letters:
            ImageDraw.Draw(drawn).ellipse(row["ABCDE".index(letter)], 40)
    cv2.imwrite(str(at), np.asarray(drawn.reduce(2)))


def read_points(wide: Path) -> list[tuple[str, str, str]]:
    with wide.open() as file:
        return [(row["points"], row["undecided"], row["review"]) for row in csv.DictReader(file)]


def test_answer_sheets_get_points(
    local: Local,
    tmp_path: Path,
    ask: Ask,  # noqa: F811
    page: Page,  # noqa: F811
) -> None:
    sheet, pages, out = AnswerSheet(5, "ABCDE", 2), tmp_path / "pages", tmp_path / "out.csv"
    write_sheets(tmp_path / "sheet.pdf", sheet, None)
    pages.mkdir()
    draw_sheet(sheet, "17", "A/B/C/D/E", pages / "a.png")
    draw_sheet(sheet, "18", "B/B//AD/E", pages / "b.png")
    cv2.imwrite(str(pages / "c.png"), np.full((1754, 1240), 255, np.uint8))
    form, key = tmp_path / "sheet.toml", tmp_path / "key.csv"
    own = '[key]\nwrong = -0.25\nseveral = -0.5\n[key.answers]\nq1 = "E"\n'
    form.write_text(f"{form.read_text()}\n{own}")
    key.write_text("field,answer,right\nq1,A,\nq2,B|C,2\nq3,C,\nq4,D,\n")
    command = ("classify", pages, "--form", form, "-o", out, "--broker", local.url, "--key", key)
    assert ask(*command)[0] == 2
    status, _, err = ask(*command, "--wide", "--report", out.with_suffix(".html"))
    assert status == 1, err
    assert err.count("1 question has no right answer in the key: q5\n") == 1
    found = read_points(tmp_path / "out-wide.csv")
    assert [one[:2] for one in found] == [("5", "0"), ("1.75", "1"), ("", "4")]
    assert "q4" in found[1][2].split(", ")
    page.goto(out.with_suffix(".html").as_uri())
    points = page.locator("#charts")
    expect(points).to_contain_text("1 page decided, with 5.00 points on average; 2 undecided.")
    expect(points.locator("tr", has_text=re.compile("^q1"))).to_contain_text("B (1)")
    sent = ask("submit", pages, "--form", form, "--broker", local.url)[1].strip()
    again = ("collect", sent, "-o", tmp_path / "again.csv", "--broker", local.url, "--key", key)
    assert ask(*again)[0] == 2
    assert ask(*again, "--wide")[0] == 1
    assert read_points(tmp_path / "again-wide.csv") == found
    (tmp_path / "given.csv").write_text("id,number\nb.png/q4,two marks\n")
    final = tmp_path / "final.csv"
    assert ask("correct", out, tmp_path / "given.csv", "-o", final)[0] == 0
    assert ask("wide", final, "--key", key, "-o", tmp_path / "wide.csv")[0] == 0
    assert [one[:2] for one in read_points(tmp_path / "wide.csv")][1] == ("1.25", "0")
    assert ask("wide", final, "-o", tmp_path / "own.csv")[0] == 0
    assert [one[:2] for one in read_points(tmp_path / "own.csv")] == [
        *[("-0.25", "0")] * 2,
        ("", "1"),
    ]
    assert ask("report", final, "--key", key, "-o", tmp_path / "final.html")[0] == 0
    page.goto((tmp_path / "final.html").as_uri())
    expect(points).to_contain_text("2 pages decided, with 3.12 points on average; 1 undecided.")
