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
