"""`digitq inspect` draws the steps, and prints the answer."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import pytest

from digitq.protocol.chunk import Chunk
from digitq.protocol.host import fonts
from digitq.protocol.settings import settings
from digitq.worker.classify import classify_chunk
from digitq.worker.models.card import WEIGHTS_FOLDER
from digitq.worker.models.model import load_model
from digitq.worker.show.inspection import (
    PANEL_WIDTH,
    Panels,
    draw_steps,
    list_probabilities,
    to_shown,
)
from digitq.worker.sight.limits import Watch
from digitq.worker.sight.normalisation.steps import Step
from tests.drawing import draw_one, draw_tight_ring, encode_image
from tests.inspecting import inspect
from tests.reading import read_digit


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_a_picture_shows_the_steps_and_the_answer(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "one.tiff"
    path.write_bytes(encode_image(draw_one((300, 400), mode=mode), "TIFF"))
    result = inspect(path, "--out", str(tmp_path / "steps.png"), "--model", "cnn")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("one.tiff: 1, ")
    assert len(result.stdout.splitlines()) == 11
    with PIL.Image.open(tmp_path / "steps.png") as picture:
        assert picture.width > 1000 and picture.height > 600
        assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 20


def test_the_picture_s_name_is_the_image_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    draw_one().save("one.png")
    assert inspect(Path("one.png")).exit_code == 0
    assert (tmp_path / "one.inspect.png").is_file()


def test_a_long_name_is_wrapped() -> None:
    panels: Panels = [[("grey", PIL.Image.new("L", (9, 9)))]]
    short, long = (draw_steps(panels, None, name) for name in ("one.png", "a name " * 20))
    assert short.height < long.height < short.height + 50
    assert np.asarray(long)[:, -10:].min() == 255  # no letter is cut off


@pytest.mark.parametrize("files", [fonts.FONT_FILES, ()], ids=["fonts", "no fonts"])
def test_any_name_can_be_drawn(
    files: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fonts, "FONT_FILES", files)
    fonts.load_font.cache_clear()
    path = tmp_path / "Größe 数字.png"
    draw_one().save(path)
    assert inspect(path, "--out", str(tmp_path / "steps.png")).exit_code == 0
    fonts.load_font.cache_clear()
    assert (tmp_path / "steps.png").is_file()


def test_a_large_picture_is_no_bomb(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    PIL.Image.new("1", (9600, 9600), 1).save(tmp_path / "large.png")
    assert inspect(tmp_path / "large.png", "--out", str(tmp_path / "steps.png")).exit_code == 1
    assert not recwarn.list


def test_it_replaces_its_own_pictures_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    draw_one().save("one.png")
    for _ in range(2):
        assert inspect(Path("one.png")).exit_code == 0
    draw_one().save("one.inspect.png")
    before = Path("one.inspect.png").read_bytes()
    assert inspect(Path("one.png")).exit_code == 0
    assert Path("one.inspect.png").read_bytes() == before
    assert inspect(Path("one.png"), "-o", "one.inspect.png").exit_code == 2
    assert Path("one.inspect.png").read_bytes() == before


def test_one_image_s_picture_does_not_replace_another_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "7").mkdir()
    for path in (tmp_path / "one.png", tmp_path / "7" / "one.png"):
        draw_one().save(path)
    for _ in range(2):
        result = inspect(Path("one.png"), "7/one.png")
        assert result.exit_code == 0
        assert result.stderr.splitlines() == [
            "the picture is one.inspect.png",
            "the picture is one-2.inspect.png",
        ]
    assert inspect(Path("7/one.png"), "-o", "one.inspect.png").exit_code == 0
    assert inspect(Path("one.png"), "7/one.png", "-o", "one.inspect.png").exit_code == 2


def test_a_full_disk_leaves_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    draw_one().save("one.png")

    def fill_up(path: Path, content: bytes) -> None:
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fill_up)
    result = inspect(Path("one.png"))
    assert result.exit_code == 3 and "No space left" in result.stderr
    assert os.listdir() == ["one.png"]


def test_ctrl_c_leaves_no_part_of_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    draw_one().save("one.png")
    replace = Path.replace

    def interrupt(path: Path, out: Path) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        replace(path, out)

    monkeypatch.setattr(Path, "replace", interrupt)
    assert inspect(Path("one.png")).exit_code != 0
    assert sorted(os.listdir()) == ["one.inspect.png", "one.png"]


def test_a_closed_stdout_is_no_bad_image(tmp_path: Path) -> None:
    draw_one().save(tmp_path / "one.png")
    command = ["sh", "-c", '"$@" >&-', "sh", sys.executable, "-m", "digitq", "inspect", "one.png"]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (3, "digitq: stdout is closed\n")


UNSURE, ALMOST, SURE = draw_tight_ring(), draw_tight_ring(35, 16), np.array(draw_one((60, 90)))


@pytest.mark.parametrize("image", [UNSURE, ALMOST, SURE], ids=["unsure", "almost sure", "sure"])
def test_the_answer_is_a_worker_s_and_its_other_views_are_drawn(
    image: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Panels] = []

    def note(panels: Panels, *others: Any) -> PIL.Image.Image:
        drawn.append(panels)
        return draw_steps(panels, *others)

    monkeypatch.setattr("digitq.worker.show.inspection.draw_steps", note)
    file = encode_image(PIL.Image.fromarray(image))
    (tmp_path / "digit.png").write_bytes(file)
    result = inspect(tmp_path / "digit.png", "--out", str(tmp_path / "steps.png"))
    batch = pa.record_batch({"id": ["digit"], "image": [file]})
    row = classify_chunk(Chunk(0, batch), "mlp").to_pylist()[0]
    below = load_model("mlp").card.review_below
    review = f", to review: below {below:.2%}" if row["review"] else ""
    first = f"digit.png: {row['label']}, {row['confidence']:.2%} sure by mlp{review}"
    assert result.stdout.splitlines()[0] == first
    assert result.stdout.splitlines()[1:] == list_probabilities(np.array(row["probabilities"]))
    (panels,) = drawn
    titles = [title.partition("\n")[0] for scale in panels for title, _ in scale]
    assert titles[0] == "original"
    assert "seen" in titles and ("softened" in titles) == (image is not SURE)


def test_a_doubt_of_the_first_view_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = {str(n): read_digit(encode_image(draw_one())).image for n in range(9)}
    monkeypatch.setattr("digitq.worker.show.inspection.trace_other_views", lambda content: [other])
    PIL.Image.fromarray(UNSURE).save(tmp_path / "digit.png")
    result = inspect(tmp_path / "digit.png", "--out", str(tmp_path / "steps.png"))
    first = result.stdout.splitlines()[0]
    assert re.fullmatch(
        r"digit.png: 1, 9.* sure by mlp, to review: only [1-7].* sure at first", first
    )


def test_an_image_has_no_more_time_than_a_worker_gives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trace_for_ever(content: bytes) -> Iterator[Step]:
        while content:
            pass
        yield Step("grey", UNSURE)

    monkeypatch.setattr("digitq.worker.show.inspection.watch", Watch(0.2))
    monkeypatch.setattr("digitq.worker.show.inspection.trace_digit", trace_for_ever)
    draw_one().save(tmp_path / "digit.png")
    result = inspect(tmp_path / "digit.png", "--out", str(tmp_path / "steps.png"))
    assert result.exit_code == 1
    assert result.stdout == "digit.png: takes longer than 0.2 s\n"


def test_a_second_digit_is_told(tmp_path: Path) -> None:
    two = PIL.Image.new("L", (400, 120), 255)
    for left in (0, 280):
        two.paste(draw_one((120, 120)), (left, 0))
    two.save(tmp_path / "two.png")
    result = inspect(tmp_path / "two.png", "--out", str(tmp_path / "steps.png"))
    first = result.stdout.splitlines()[0]
    assert first.startswith("two.png: 1, ") and first.endswith(
        ", to review: another shape in the image may be a digit too"
    )


def test_what_is_no_digit_is_told(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    PIL.Image.fromarray(noise).save(tmp_path / "noise.png")
    result = inspect(tmp_path / "noise.png", "--model", "cnn", "--out", str(tmp_path / "steps.png"))
    assert result.stdout.splitlines()[0].endswith(", to review: it does not look like a digit")


def test_what_can_t_be_read_is_said(tmp_path: Path) -> None:
    path = tmp_path / "text.png"
    path.write_bytes(b"text")
    result = inspect(path, "--out", str(tmp_path / "steps.png"))
    assert result.exit_code == 1
    assert result.stdout == "text.png: not an image that can be read\n"
    assert not (tmp_path / "steps.png").exists()


def test_a_blank_image_is_shown_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "blank.png"
    PIL.Image.new("L", (50, 50), 200).save(path)
    result = inspect(path, "--out", str(tmp_path / "steps.png"))
    assert result.exit_code == 1 and "blank: no ink" in result.stdout
    assert (tmp_path / "steps.png").is_file()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gone.png", [], "no such file or folder: gone.png"),
        (
            "one.png",
            ["--out", "/nowhere/steps.png"],
            "can't write /nowhere/steps.png: there is no folder /nowhere",
        ),
        ("one.png", ["--model", "vgg"], "'vgg' is not one of"),
        ("one.png", ["--out", "one.png"], "one.png exists, and digitq has not drawn it"),
        ("one.png", ["--out", "steps.jpg"], "--out steps.jpg must end in .png"),
        ("rows.csv", [], "`digitq report rows.csv` shows results with their images"),
        (
            "one.png",
            ["--weights", str(WEIGHTS_FOLDER), "rows.Parquet"],
            "`digitq report rows.Parquet` shows",
        ),
    ],
)
def test_wrong_usage_is_said(
    name: str, options: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    draw_one().save("one.png")
    result = inspect(Path(name), *options)
    assert result.exit_code == 2 and message in result.stderr


def test_a_file_over_the_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGITQ_IMAGE_BYTES", str(1 << 20))
    settings.cache_clear()
    large = tmp_path / "large.png"
    large.write_bytes(bytes((1 << 20) + 1))
    for path, message in (
        (large, "is larger than 1 MB"),
        (tmp_path, "is a folder: pass the images"),
    ):
        result = inspect(path, "--out", str(tmp_path / "steps.png"))
        assert result.exit_code == 2 and f"{path} {message}" in result.stderr


def test_names_are_shown_in_plain_characters(tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[31m\u202e\n1.png"
    draw_one().save(path)
    out = tmp_path / "\x1b[0m.png"
    result = inspect(path, "--out", str(out))
    assert result.stdout.startswith(r"a\x1b[31m\u202e\n1.png: 1, ")
    assert result.stderr == f"the picture is {tmp_path}/\\x1b[0m.png\n" and out.exists()
    assert r"no such file or folder: no\x1b[31mne.png" in inspect(Path("no\x1b[31mne.png")).stderr


def test_images_are_drawn_as_they_are() -> None:
    grey = np.asarray(draw_one())
    deep = PIL.Image.fromarray(grey.astype(np.uint16) * 257)
    assert np.array_equal(to_shown(deep), grey)
    clear = PIL.Image.new("LA", (3, 2), (9, 0))
    assert np.array_equal(np.asarray(to_shown(clear))[0, 0], (9, 9, 9, 0))


def test_the_picture_shows_each_step_and_each_probability() -> None:
    half = np.zeros((28, 14), np.uint8)
    half[:14] = 255
    panels: Panels = [[("half", PIL.Image.fromarray(half)), ("clear", PIL.Image.new("LA", (9, 9)))]]
    probabilities = np.array([0.5, 0.25, 0.25] + [0.0] * 7, np.float32)
    picture = np.asarray(draw_steps(panels, probabilities, "one.png"))
    first, second = (picture[:, start : start + PANEL_WIDTH] for start in (0, PANEL_WIDTH))
    black = (first == 0).all(2).sum()
    assert 93 * 93 <= black < 93 * 93 + 1000  # half of 186 × 93 px, and the letters
    grey = (second == 0xCC).all(2).sum()  # what is transparent, and pixels of the letters
    assert 164 * 164 <= grey < 164 * 164 + 50
    is_bar = (picture == (0x2B, 0x6C, 0xB0)).all(2).sum(1)
    assert [is_bar.max(), np.median(is_bar[is_bar > 10])] == pytest.approx([485, 243], abs=1)


def test_the_bars_are_as_long_as_the_probabilities() -> None:
    probabilities = np.array([0.5, 0.25, 0.25] + [0.0] * 7, np.float32)
    lines = list_probabilities(probabilities)
    assert lines[0] == "0   50.00%  " + "█" * 20
    assert [line.count("█") for line in lines] == [20, 10, 10] + [0] * 7
