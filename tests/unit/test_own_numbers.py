"""Going on with one's own numbers."""

import json
import math
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.numpy import load_file

from digitq.protocol.asked.known import Known
from digitq.protocol.asked.values import ILLEGIBLE
from digitq.protocol.chunk import (
    CLASSES,
    FILES_SCHEMA,
    FORM_SCHEMA,
    NUMBER_TRUTH,
    Chunk,
    write_chunk,
)
from digitq.protocol.errors import UsageError
from digitq.protocol.origin import Origin
from digitq.worker.learning import own_numbers
from digitq.worker.learning.calibration import Judged
from digitq.worker.learning.column_batches import (
    NO_BOXES,
    LearnedStrip,
    NumberRecipe,
    batch_strips,
    measure_losses,
)
from digitq.worker.learning.columns import Columns
from digitq.worker.learning.learner import Learner
from digitq.worker.learning.number_examples import (
    PlacedNumber,
    RealNumber,
    Scene,
    cut_number,
    place_number,
)
from digitq.worker.learning.own import Trained
from digitq.worker.learning.own_numbers import (
    MISCOUNTED,
    NUMBER_ROUNDS,
    REHEARSAL_FILE,
    SURER,
    load_rehearsal,
    match_answers,
    mix_strips,
    raise_odds,
    read_surely,
)
from digitq.worker.models.card import read_card
from digitq.worker.models.number_networks import (
    BLANK,
    COLUMNS_SIZE,
    EXPERT_SIZE,
    OTHER,
    Weights,
    load_networks,
    read_number_weights,
)
from digitq.worker.picture import Grey
from digitq.worker.subcommands import train
from tests.forms import BOXES, FONT, draw_blank
from tests.unit.test_reports import run, write_corrections
from tests.unit.test_results import write
from tests.waiting import DIGITQ

NOTHING_KNOWN = Known()
PAPER = np.full((40, 90), 200, np.uint8)
rehearsal = cache(load_rehearsal)


def learned() -> list[Scene]:
    """The rendered scenes that the networks learn again beside one's own."""
    return rehearsal()[0]


def clear() -> list[Scene]:
    """Those that are held back, without the doubtful ones."""
    return [scene for scene in rehearsal()[1] if not scene.doubt]


def test_what_is_rehearsed_can_be_learned() -> None:
    assert REHEARSAL_FILE.stat().st_size < 4e6
    assert len(learned()) > 1_000 and len(clear()) > 250
    for scene in learned():
        assert len(scene.signs) == len(scene.boxes) >= len(scene.number)
        assert [*map(str, scene.signs[: len(scene.number)])] == [*scene.number]
        assert len(scene.text) == len(scene.text_boxes)
        assert "".join(filter(str.isdecimal, scene.text)) == scene.number
    for what in (
        [scene for scene in learned() if scene.text != scene.number],
        [scene for scene in learned() if OTHER in scene.signs],
    ):
        assert len(what) > 100


def place(scene: Scene, text: str, knows_signs: bool = True) -> PlacedNumber | None:
    return place_number(load_networks()[0], RealNumber(scene.picture, text, knows_signs, ""))


def test_a_number_with_a_fraction_is_learned() -> None:
    whole = [scene for scene in clear() if scene.text == scene.number][:15]
    placed = [place(scene, f"{scene.text}½") for scene in whole]
    found = [one for one in placed if one]
    assert len(found) > 7 and not any(one.is_exact for one in found)
    strip = cut_number(found[0], np.random.default_rng(0), EXPERT_SIZE)
    assert strip.text.endswith("½")


def test_the_digits_of_a_known_number_are_found() -> None:
    whole = [scene for scene in clear() if scene.text == scene.number][:15]
    found = [(scene, place(scene, scene.text)) for scene in whole]
    exact = [(scene, one) for scene, one in found if one and one.is_exact]
    assert len(exact) >= 7
    for scene, one in exact:
        off = (one.digits - scene.boxes[: len(scene.number)]).reshape(-1, 2, 2).mean(1)
        heights = one.digits[:, 3] - one.digits[:, 1]
        assert (np.abs(off).max(1) < 0.4 * heights).all()
    scene, one = exact[0]
    signs = place(scene, f"-{scene.text}.")  # the detector sees no signs
    assert signs and signs.is_exact and np.array_equal(signs.digits, one.digits)
    near = place(scene, scene.text + "1")
    assert near and not near.is_exact
    assert place(scene, scene.text + "123") is None
    assert place(scene, "") is None


def test_own_numbers_are_among_what_is_learned() -> None:
    own = [one for one in (place(scene, scene.text) for scene in clear()[:9]) if one]
    kept = [scene for scene in learned() if not scene.doubt][:10]
    batches = mix_strips(own, COLUMNS_SIZE, 0.5, kept, np.random.default_rng(0))
    assert sum(len(batch.images) for batch in batches) > 11


def run_own(
    pictures: Sequence[Grey],
    numbers: Sequence[str | None],
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    known: Known = NOTHING_KNOWN,
) -> Result:
    """The worker's part of `digitq train number`, for an epoch beside few rehearsed scenes."""
    few = learned()[:80], clear()[:20]
    monkeypatch.setattr(own_numbers, "load_rehearsal", lambda: few)
    images = [cv2.imencode(".png", one)[1].tobytes() for one in pictures] + [b"no picture"]
    names = [f"{place}.png" for place in range(len(images))]
    columns = [names, images, pa.nulls(len(names), pa.string())]
    batch = pa.record_batch(columns, pa.schema([*FILES_SCHEMA][:3]))
    truth = pa.array([*numbers, numbers[0]], NUMBER_TRUTH.type)
    task: dict[str, Any] = {"name": "number", "out": str(out), "seed": 2, "epochs": 1}
    task |= {"command": "new", "use": "--read number"}
    with TemporaryFile() as file, TemporaryFile() as known_file:
        write_chunk(file, Chunk(0, batch, truth))
        known_file.write(known.encode())
        for name, one in {"images": file, "known": known_file}.items():
            one.seek(0)
            task[name] = os.dup(one.fileno())
        return CliRunner().invoke(train, [json.dumps(task)])


def test_networks_that_are_no_better_are_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def learn(weights: Weights, *_: Any) -> Weights:
        return weights

    monkeypatch.setattr(own_numbers, "learn_lines", learn)
    own = clear()[20:45]
    pictures, numbers = [one.picture for one in own], [one.number for one in own]
    result = run_own(pictures, numbers, tmp_path / "new", monkeypatch)
    assert result.exit_code == 1
    assert "no better than before, so nothing is written" in result.stderr.splitlines()[-1]
    assert not (tmp_path / "new").exists()


def test_numbers_without_a_right_answer_are_chosen_by_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is known of them holds, and right answers come before them."""
    chosen: list[list[str]] = []

    def learn(weights: Weights, own: Sequence[PlacedNumber], *_: Any) -> Weights:
        chosen.append([one.real.text for one in own])
        return weights

    monkeypatch.setattr(own_numbers, "learn_lines", learn)
    own = clear()[20:170]
    pictures, numbers = [one.picture for one in own], [one.number for one in own]
    known = Known.check(pattern="integer")
    none: list[str | None] = [None] * len(own)
    result = run_own(pictures, none, tmp_path / "new", monkeypatch, known)
    assert result.exit_code == 1
    assert "fewer are needed" in result.stderr.splitlines()[-1]
    assert len(chosen) == len(NUMBER_ROUNDS)
    assert 0.5 * len(own) < len(chosen[0]) < len(chosen[1]) < 0.95 * len(own)
    wrong = [one for one in chosen[0] if one not in numbers]
    assert len(wrong) < 0.1 * len(chosen[0])
    few = run_own(pictures[:50], none[:50], tmp_path / "new", monkeypatch, known)
    assert "are sure: at least 60 are needed, so nothing is written" in few.stderr

    chosen.clear()
    given = [*["7" * len(one) for one in numbers[:30]], *none[30:]]
    result = run_own(pictures, given, tmp_path / "new", monkeypatch, known)
    assert "held back" in result.stderr and "your 6 images held back" in result.stderr
    assert len([one for one in chosen[0] if {*one} == {"7"}]) > 12


def test_what_all_networks_read_comes_first() -> None:
    networks = load_networks()
    answers = [read_surely(networks, one.picture, Known(), None) for one in clear()[:60]]
    right = [answer.number == one.text for answer, one in zip(answers, clear(), strict=False)]
    confirmed = [one.is_confirmed for one in answers]
    assert 20 < sum(confirmed) < 60
    share = np.mean([one for one, is_it in zip(right, confirmed, strict=True) if is_it])
    assert share > np.mean(right)
    assert min(one.sureness for one in answers if one.is_confirmed) > 1
    unsure = next(row for row, one in enumerate(answers) if one.confidence and one.sureness < 1)
    said = read_surely(networks, clear()[unsure].picture, Known(), answers[unsure].number)
    assert said.is_confirmed


def test_the_threshold_rises_once_networks_have_taught_themselves() -> None:
    assert 0.925 < raise_odds(0.925) < 1
    assert raise_odds(0.5) == pytest.approx(SURER / (1 + SURER), abs=1e-4)


def test_signs_that_no_right_answer_has_are_passed_over_in_what_is_held_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_numbers, "learn_lines", lambda weights, *_: weights)
    scenes = with_signs(lambda text: True)
    pictures, numbers = [one.picture for one in scenes], [one.number for one in scenes]
    shown, only_digits = measure_before(pictures, numbers, tmp_path, monkeypatch)
    assert "images are read with --pattern integer" in shown
    shown, as_written = measure_before(
        pictures, [one.text for one in scenes], tmp_path, monkeypatch
    )
    assert "--pattern integer" not in shown
    assert only_digits >= max(50, as_written)


def with_signs(is_chosen: Callable[[str], Any]) -> list[Scene]:
    """Scenes whose number has a sign, and is chosen."""
    scenes = [one for one in learned() if not one.doubt and one.text != one.number]
    return [one for one in scenes if is_chosen(one.text)][:25]


def measure_before(
    pictures: Sequence[Grey],
    numbers: Sequence[str],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    known: Known = NOTHING_KNOWN,
) -> tuple[str, float]:
    """What the command printed, and which share of those held back is right before, in %."""
    shown = run_own(pictures, numbers, folder / "new", monkeypatch, known).stderr
    row = next(line for line in shown.splitlines() if line.startswith("your "))
    return shown, float(row.partition("held back")[2].partition("%")[0])


def test_what_is_held_back_is_read_with_the_pattern_also_if_answers_are_digits_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signs are put in, or may be: an answer is right if its digits are."""
    monkeypatch.setattr(own_numbers, "learn_lines", lambda weights, *_: weights)
    scenes = with_signs(re.compile(r"\d+[.]\d+").fullmatch)
    pictures, numbers = [one.picture for one in scenes], [one.number for one in scenes]
    for pattern in (r"\d+\.\d+", r"\d+(\.\d+)?"):
        known = Known.check(pattern=pattern)
        shown, share = measure_before(pictures, numbers, tmp_path, monkeypatch, known)
        assert "--pattern integer" not in shown
        assert share >= 50


@pytest.mark.parametrize(
    ("answers", "pattern", "expected"),
    [
        ("17.2 28", None, (None, True)),
        ("172 28", None, ("integer", False)),
        ("172 28", r"\d+\.\d", (r"\d+\.\d", False)),
        ("17.2 2.8", r"\d+\.\d", (r"\d+\.\d", False)),
        ("17.2 28", r"\d+([.,]\d)?", (r"\d+([.,]\d)?", True)),
        ("172 28", r"\d+([.,]\d)?", (r"\d+([.,]\d)?", False)),
    ],
)
def test_signs_are_learned_if_answers_have_them_and_the_pattern_does_not_say_where(
    answers: str, pattern: str | None, expected: tuple[str | None, bool]
) -> None:
    own = [(text, PAPER, text) for text in answers.split()]
    matched = match_answers(own, Known.check(pattern=pattern)).values()
    assert {(known.pattern, knows_signs) for known, knows_signs in matched} == {expected}


@pytest.mark.parametrize(
    ("answers", "ways", "message"),
    [
        ("17.2 28", {"pattern": r"\d+\.\d"}, r"with the pattern \d+\.\d: 28.png (28); correct"),
        ("172 2", {"pattern": r"\d+\.\d"}, r"with the pattern \d+\.\d: 2.png (2); correct"),
        ("17.2", {"pattern": "integer"}, "with the pattern integer: 17.2.png (17.2)"),
        ("12 34", {"allowed": ["12", "56"]}, "with the list of allowed numbers: 34.png (34)"),
    ],
)
def test_a_right_answer_that_can_t_be_read_with_what_is_known(
    answers: str, ways: dict[str, Any], message: str
) -> None:
    own = [(f"{text}.png", PAPER, text) for text in answers.split()]
    with pytest.raises(UsageError, match=re.escape(f"1 right answer can't be read {message}")):
        match_answers(own, Known.check(**ways))


def test_the_command_hands_the_pattern_over(tmp_path: Path) -> None:
    rows = ["id,number"]
    for scene in [one for one in clear() if len(one.number) <= 6][:20]:
        cv2.imwrite(str(tmp_path / f"{len(rows)}.png"), scene.picture)
        rows.append(f"{len(rows)}.png,{scene.number}")
    (tmp_path / "truth.csv").write_text("\n".join([*rows[:-1], "20.png,1234567"]))
    done = subprocess.run(
        [*DIGITQ, "train", "number", "--data", tmp_path, "--truth", tmp_path / "truth.csv"]
        + ["--pattern", r"\d{,6}", "--out", tmp_path / "new"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert r"can't be read with the pattern \d{,6}: 20.png (1234567)" in done.stderr


def test_a_sign_that_is_passed_over_is_not_unlearned() -> None:
    """What a column shows that is no digit is shared by signs and blank about as before.

    A sign that is not seen at all does not become ever less likely.
    """
    torch.manual_seed(0)
    logits = torch.nn.Parameter(torch.randn(2, BLANK + 1, 1, 30))
    with torch.no_grad():
        logits[:, CLASSES] -= 40
    network = torch.nn.Module()
    network.forward = lambda images: logits  # type: ignore[method-assign]
    strip = LearnedStrip(
        np.zeros((COLUMNS_SIZE.height, 60), np.float32), NO_BOXES[:, 0], "172", False
    )
    (batch,) = batch_strips([strip, strip], np.random.default_rng(0))
    before = logits.detach().clone()
    optimiser = torch.optim.SGD([logits], 3.0)
    losses = []
    for _ in range(15):
        loss = measure_losses(network, batch)[0]
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert losses[-1] < 0.7 * losses[0]
    shares = [one[:, CLASSES:].softmax(1) for one in (before, logits.detach())]
    assert torch.allclose(*shares, atol=0.06)
    assert torch.allclose(before[:, CLASSES], logits[:, CLASSES], atol=1e-3)


def test_a_batch_of_own_numbers_alone_has_a_finite_loss() -> None:
    """Where their signs are is not known, and an empty text teaches nothing."""
    torch.manual_seed(0)
    network = Columns()
    values = np.zeros((COLUMNS_SIZE.height, 60), np.float32)
    strips = [LearnedStrip(values, NO_BOXES[:, 0], text, False) for text in ("17", "")]
    (batch,) = batch_strips(strips, np.random.default_rng(0))
    losses = torch.stack(measure_losses(network, batch))
    assert losses.isfinite().all()
    assert len(batch.lengths) == 1
    losses.sum().backward()  # type: ignore[no-untyped-call]
    for parameter in network.parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all()


def test_a_loss_that_is_not_finite_ends_the_training(capsys: pytest.CaptureFixture[str]) -> None:
    """The weights before it are kept, and one line says so."""
    network = torch.nn.Linear(1, 1)
    optimiser = torch.optim.SGD(network.parameters(), 0.1)

    def measure(network: torch.nn.Module, factor: float) -> tuple[torch.Tensor]:
        return (factor * network(torch.ones(1)).sum(),)

    learner = Learner(network, measure, NumberRecipe(epochs=3), [optimiser])
    learned = learner.train(lambda epoch: [(0.0, 1.0), (0.5, math.nan if epoch == 1 else 1.0)])
    assert all(one.isfinite().all() for one in learned.parameters())
    *_, last = capsys.readouterr().err.splitlines()
    assert last == (
        "epoch 2: the loss or its gradient in step 2 is not finite; "
        "the training ends with the weights before it"
    )


def test_corrected_fields_of_pages_are_learned_page_by_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The command that `correct` prints learns what a person gave, and answers without a mark."""
    blank, written, rows = draw_blank(), {}, list[dict[str, Any]]()
    (tmp_path / "pages").mkdir()
    cv2.imwrite(str(tmp_path / "blank.png"), blank)
    for page in range(7):
        drawn = blank.copy()
        for place, (name, (left, _, _, bottom)) in enumerate(BOXES.items()):
            id, number = f"{page}.png/{name}", str(1234 + 97 * page + 1000 * place)[:4]
            at = int(left) + 9, int(bottom) - 8
            cv2.putText(drawn, number, at, FONT, 1, 40, 2, cv2.LINE_AA)
            written[id] = number
            rows.append({"id": id, "page": f"{page}.png", "field": name, "number": "1111"})
            rows[-1] |= {"confidence": 0.5, "review": True, "reason": "unsure"}
        for name, answer in (("ok", "1"), ("q", "B2")):
            place = {"id": f"{page}.png/{name}", "page": f"{page}.png", "field": name}
            rows.append(place | {"number": answer, "confidence": 0.9, "review": False})
        cv2.imwrite(str(tmp_path / "pages" / f"{page}.png"), drawn)
    left, top, right, bottom = BOXES["invalid"]
    form = [f"[fields.{name}]\nbox = {[*box]}\nlength = 4\n" for name, box in BOXES.items()]
    below = [left, top + 200, right, bottom + 200]
    form.append(f"[fields.ok]\nbox = {below}\nkind = 'mark'\n")
    form.append(
        f"[choices.q]\nbox = {[left, top + 300, right, bottom + 300]}\noptions = ['A1', 'B2']\n"
    )
    (tmp_path / "form.toml").write_text('blank = "blank.png"\n' + "".join(form))
    rows[0] |= {"number": written.pop("0.png/student"), "review": False, "reason": None}  # is sure
    del written["1.png/student"]  # nobody has looked at it
    written |= {"2.png/student": ILLEGIBLE, "3.png/student": "12345", "4.png/student": ""}
    origin = Origin(("pages",), str(tmp_path), form=str(tmp_path / "form.toml"))
    write(tmp_path / "r.csv", pa.RecordBatch.from_pylist(rows, FORM_SCHEMA), origin)
    corrections = write_corrections(tmp_path / "c.csv", [*written.items()], "number")
    monkeypatch.chdir(tmp_path)
    run("correct", "r.csv", corrections, "-o", "final.csv")
    told = capfd.readouterr().err.splitlines()[-1]
    command = "digitq train number --data pages --form form.toml --truth final.csv --out mine"
    assert told == f"to learn from these answers: {command}"
    monkeypatch.chdir(tmp_path / "pages")
    run("correct", "../r.csv", corrections, "-o", "../final.csv", "--overwrite")
    elsewhere = capfd.readouterr().err.splitlines()[-1]
    assert elsewhere == f"to learn from these answers: cd {tmp_path} && {command}"
    monkeypatch.chdir(tmp_path)

    learned_numbers = list[str]()

    def learn(weights: Weights, own: Sequence[PlacedNumber], *_: Any) -> Weights:
        learned_numbers.extend(one.real.text for one in own)
        return weights

    def exec_module(broker: None, module: str, *arguments: str) -> None:
        task = json.loads(arguments[1])
        task |= {name: os.dup(task[name]) for name in ("images", "known")}
        print(CliRunner().invoke(train, [json.dumps(task)]).stderr.rstrip(), file=sys.stderr)

    monkeypatch.setattr(own_numbers, "load_rehearsal", lambda: (learned()[:9], clear()[:9]))
    monkeypatch.setattr(own_numbers, "learn_lines", learn)
    monkeypatch.setattr("digitq.commands.train.exec_module", exec_module)
    run(*shlex.split(command)[1:])
    lines = capfd.readouterr().err.splitlines()
    refused = "3.png/student (the form does not allow 12345)"
    assert lines[0].startswith("39 fields with a right answer")
    assert lines[1] == f"1 image left out (can't be read): {refused}"
    assert lines[2].startswith("3 images left out (no right answer): 1.png/student, ")
    assert "which are all of 2 of 7 folders or pages: 1.png, 2.png" in lines[3]
    assert "no better than before" in lines[-1] and not (tmp_path / "mine").exists()
    assert {*learned_numbers} == {
        number
        for id, number in {**written, "0.png/student": "1234"}.items()
        if not id.startswith(("1.png", "2.png")) and len(number) == 4
    }


@pytest.mark.slow
def test_own_numbers_are_learned_beside_rendered_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers in mirror writing: the detector finds most of them, but few are read."""
    train_own = own_numbers.train_own_numbers

    def train_better(*arguments: Any) -> Trained:  # so little makes nothing better
        trained = train_own(*arguments)
        nothing = torch.zeros(len(trained.held_back))
        return trained._replace(own=trained.own._replace(before=Judged(nothing, nothing > 0)))

    monkeypatch.setattr(own_numbers, "train_own_numbers", train_better)
    own = [one for one in clear()[20:] if len(one.number) < 6][:60]
    pictures = [np.ascontiguousarray(one.picture[:, ::-1]) for one in own]
    result = run_own(pictures, [one.number[::-1] for one in own], tmp_path, monkeypatch)
    assert result.exit_code == 0, result.output
    card = read_card(tmp_path / "number.json")
    assert [*card.own_left_out] == ["can't be read", MISCOUNTED]
    assert card.own_left_out["can't be read"] == 1
    for reason, count in card.own_left_out.items():
        assert f"{count} image{'s' * (count > 1)} left out ({reason})" in result.stderr
    assert (card.own_images + card.own_left_out[MISCOUNTED], card.own_held_back) == (48, 12)
    assert card.command and card.command.endswith("; new")
    before, old = read_number_weights()
    assert card.review_below >= old.review_below  # nor is anything else calibrated anew
    assert card.calibration == old.calibration
    weights = load_file(tmp_path / "number.safetensors")
    assert weights.keys() == before.keys()
    for name, value in weights.items():
        is_learned = name.startswith(("columns", "expert"))
        assert np.isfinite(value).all() and np.array_equal(value, before[name]) != is_learned
