"""Answer sheets: what is drawn is read with the form's file beside it, without an edit."""

from pathlib import Path

import cv2
import numpy as np
import pypdfium2
import pytest
from PIL import ImageDraw

from benchmarks.marks import read_sheet
from digitq.answer_sheets import AnswerSheet, read_options, write_sheets
from digitq.protocol.asked.form import read_form
from digitq.protocol.errors import UsageError
from digitq.protocol.host import fonts


@pytest.mark.parametrize("is_photo", [False, True])
def test_a_sheet_of_a_class_is_read(is_photo: bool, tmp_path: Path) -> None:
    listed = tmp_path / "class.csv"
    listed.write_text("id,name\n20417,Ada\n20538,Ben\n")
    sheet = AnswerSheet(40, read_options("A-E"), 5)
    write_sheets(tmp_path / "sheet.pdf", sheet, listed)
    form = read_form(tmp_path / "sheet.toml")
    assert len(pypdfium2.PdfDocument(tmp_path / "sheet.pdf")) == 2  # one for each person
    page = sheet.draw("20538", "Ben")
    for at, row in enumerate(sheet.bubbles):
        ImageDraw.Draw(page).ellipse(row[at % 5], 40)
    picture = np.asarray(page.reduce(2))
    if is_photo:
        size = picture.shape[1], picture.shape[0]
        turn = cv2.getRotationMatrix2D((size[0] / 2, size[1] / 2), 2, 0.93)
        picture = cv2.warpAffine(picture, turn, size, borderValue=200).astype(np.uint8)
    answers = read_sheet(form, picture)
    assert [answers[f"q{at + 1}"] for at in range(40)] == [
        ("ABCDE"[at % 5], "") for at in range(40)
    ]
    assert "".join(str(answers[f"n{at}"][0]) for at in range(1, 6)) == "20538"
    assert answers["number"][0] == "20538"


@pytest.mark.parametrize("seed", [0, 18, 21, 22])
def test_a_photo_of_two_sheets_is_refused(seed: int, tmp_path: Path) -> None:
    """Neither is read in silence, also if the other one is farther away."""
    random, pages = np.random.default_rng(seed), list[np.ndarray]()
    sheet, size = AnswerSheet(30, "ABCD", 5), np.array((1950, 2700))
    write_sheets(tmp_path / "sheet.pdf", sheet, None)
    for turns in random.integers(4) + random.choice([0, 2], 2):
        number = f"{random.integers(10**5):05}"
        page = sheet.draw(number, number)
        for row in sheet.bubbles:
            ImageDraw.Draw(page).ellipse(row[random.integers(4)], 60)
        turned = np.rot90(np.asarray(page.reduce(2)), turns)
        pages.append(cv2.copyMakeBorder(turned, *(30,) * 4, cv2.BORDER_CONSTANT, value=150))
    both = (np.vstack if pages[0].shape[1] > pages[0].shape[0] else np.hstack)(pages)
    (high, wide), inset = both.shape, random.uniform(0, 0.2, 4)
    across = inset[0], 1 - inset[1], 1 - inset[2] / 3, inset[3] / 3
    down = *random.uniform(0.02, 0.2, 2), 0.96, 0.97
    corners = np.float32([(0, 0), (wide, 0), (wide, high), (0, high)])
    placed = np.stack([across, down], 1) * size
    matrix = cv2.getPerspectiveTransform(corners, placed.astype(np.float32))
    photo = cv2.warpPerspective(both, matrix, size.tolist(), borderValue=170)
    answers = read_sheet(read_form(tmp_path / "sheet.toml"), cv2.GaussianBlur(photo, (0, 0), 1))
    assert {error for _, error in answers.values()} == {"page not aligned: the form is on it twice"}


def test_names_without_a_letter_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "class.csv").write_text("id,name\n1,Ada\n2,Łukasz\n3,Zoë\n", encoding="utf-8")
    monkeypatch.setattr(fonts, "FONT_FILES", ())
    fonts.load_font.cache_clear()
    sheet = AnswerSheet(2, "AB", 1)
    told = write_sheets(tmp_path / "sheet.pdf", sheet, tmp_path / "class.csv")
    fonts.load_font.cache_clear()
    assert told == ["Łukasz", "Zoë"]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match="at most 60 questions with 5 options fit"):
        AnswerSheet(61, "ABCDE", 5)
    for options in ("A", "A-", "!-)", "E-A", "A-Z"):
        with pytest.raises(UsageError, match="such as A-E"):
            read_options(options)
    assert read_options("1-4") == [*"1234"]
