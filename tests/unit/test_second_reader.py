"""The second reader: what it sees, how it judges, and what is told if it can't be used."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import digitq
from digitq.protocol.asked import UnmetError
from digitq.protocol.asked.form import Form
from digitq.protocol.asked.known import Known
from digitq.protocol.asked.reading import decode_known
from digitq.protocol.errors import UsageError
from digitq.worker.models import second_reader
from digitq.worker.models.card import WEIGHTS_FOLDER, Card, read_card
from digitq.worker.models.lent import describe_weights
from digitq.worker.models.number_networks import NumberReader, load_networks
from digitq.worker.models.second_reader import load_second_reader, use_second_reader
from digitq.worker.sight.numbers.recognition import choose_readings, read_line, read_number
from digitq.worker.sight.numbers.search import FoundLine
from tests.unit.test_numbers import candidates, show
from tests.weights import copy_weights

EXAMPLES = Path(__file__).parents[2] / "examples"
NUMBER_FILE = EXAMPLES / "numbers/41902.png"
FORM_FILE = EXAMPLES / "forms/form.toml"


@pytest.fixture
def anew() -> Iterator[None]:
    """The second reader is loaded anew, and after the test, too."""
    load_second_reader.cache_clear()
    yield
    load_second_reader.cache_clear()


def test_it_reads_a_line_as_the_other_networks_do() -> None:
    with use_second_reader(True):
        reader, card = load_networks()
        reading = read_number(NUMBER_FILE.read_bytes(), Known("integer"))
    assert reader.second and reading.number == "41902" and not reading.reason
    answer = reader.second(torch.zeros(1, 1, 48, 160))
    assert answer.shape[:3] == (1, 21, 1)
    assert answer.exp().sum(1).max() < 1.001
    assert answer.argmax(1).unique().tolist() == [20]  # nothing is written
    alone = load_networks()
    assert alone[0].second is None and alone[1].calibration != card.calibration


@pytest.mark.parametrize("sees", ["1", "7"])
def test_its_probability_counts_beside_that_of_the_others(sees: str) -> None:
    """The columns are in doubt between a 1 and a 7."""
    line = candidates("1")._replace(digits=np.full((1, 10), 0.1, np.float32))
    found = FoundLine(np.full((40, 60), 200, np.uint8), np.eye(2, 3), line, line)
    doubt = show({"1": 0.5, "7": 0.5})
    second = show({sees: 0.9, "17".replace(sees, ""): 0.1})
    reader = NumberReader(show(), doubt, doubt, second)
    (best, other, *_), _, _, seen = choose_readings(read_line(reader, found), Known("integer"))
    assert best.number == sees and best.chance > 0.6 > other.chance
    for automaton in (Known("integer").automaton, Known().automaton):
        alone = replace(seen, second=None).weigh(automaton)[0].number
        for number in "17":
            assert seen.is_agreed(number, automaton) == (number == sees == alone)


def test_it_proposes_what_the_others_do_not_see() -> None:
    line = candidates("1")._replace(digits=np.eye(10, dtype=np.float32)[[1]])
    found = FoundLine(np.full((40, 60), 200, np.uint8), np.eye(2, 3), line, line)
    sure, second = show({"1": 1.0}), show({"1": 1.0}, {"4": 0.999})
    reader = NumberReader(show(), sure, sure, second)
    numbers, *_ = choose_readings(read_line(reader, found), Known("integer"))
    assert "14" in [one.number for one in numbers]
    numbers, *_ = choose_readings(read_line(reader._replace(second=None), found), Known("integer"))
    assert "14" not in [one.number for one in numbers]


def test_agreement_makes_an_answer_surer() -> None:
    card = read_card(WEIGHTS_FOLDER / "number.json").in_use(second_reader=True)
    assert card.calibrate(0.9, is_agreed=True) > card.calibrate(0.9)


def test_it_is_asked_for_with_a_number_or_a_form(tmp_path: Path) -> None:
    asked = digitq.numbers(pattern="integer", second_reader=True)
    assert decode_known(asked.known).second_reader and asked.second_reader
    assert not decode_known(digitq.numbers().known).second_reader
    page = digitq.form(FORM_FILE, second_reader=True)
    assert isinstance(known := decode_known(page.known), Form) and known.second_reader
    text = FORM_FILE.read_text()
    for name in EXAMPLES.joinpath("forms").iterdir():
        (tmp_path / name.name).symlink_to(name)
    (tmp_path / "second.toml").write_text(f"second_reader = true\n{text}")
    written = digitq.form(tmp_path / "second.toml")
    assert written.second_reader and written.known == page.known


def test_a_single_digit_has_no_second_reader(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="reads whole numbers: --read number"):
        digitq.protocol.asked.reading.choose_reading(second_reader=True)


def test_results_name_it_beside_the_weights() -> None:
    alone = describe_weights("number")
    with use_second_reader(True):
        assert describe_weights("number") == f"{alone}+{second_reader.MODEL_SHA256[:8]}"
        assert "+" not in describe_weights("cnn")


@pytest.mark.usefixtures("anew")
def test_a_package_that_is_missing_is_named_with_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    command = r"run `pip install 'digitq\[second-reader\]'`"
    with pytest.raises(UsageError, match=f"rapidocr is not installed: {command}"):
        digitq.reader(digitq.numbers(second_reader=True))
    with pytest.raises(UnmetError, match=f"a worker lacks rapidocr: {command} there"):
        load_second_reader()


@pytest.mark.usefixtures("anew")
def test_another_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(second_reader, "MODEL_SHA256", "0" * 64)
    with pytest.raises(UnmetError, match="is not the model that digitq knows"):
        load_second_reader()


def test_weights_that_were_not_measured_with_it_are_refused(tmp_path: Path) -> None:
    own = copy_weights(tmp_path / "own", "number", second_reader={})
    reading = digitq.numbers(second_reader=True, weights=own)
    with pytest.raises(digitq.DigitqError, match="trained before digitq had a second reader"):
        digitq.reader(reading).classify(NUMBER_FILE)


def test_a_network_that_has_learned_more_marks_for_both_ways() -> None:
    card = Card("number", "", 0, 1, second_reader={"review_below": 0.5, "risks": ((0.5, 0.1),)})
    after = card.mark_below(0.9, 0.8)
    assert (after.review_below, after.in_use(True).review_below) == (0.9, 0.8)
    assert after.in_use(True).risks == ()
