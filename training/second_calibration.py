"""Calibrates `number` together with the second reader, which learns nothing itself."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from digitq.protocol.settings import NUMBER
from digitq.worker.learning.calibration import NumberPicture, calibrate_card, read_pictures
from digitq.worker.models.card import card_path, read_card
from digitq.worker.models.number_networks import load_own_networks
from digitq.worker.models.second_reader import load_second_reader
from training.hands import load_numbers


def calibrate_second_reader(judges: Sequence[Path], out: Path) -> None:
    """Write the card of `number` with the calibration that holds if the second reader is in use,
    from the real numbers of `judges`. `benchmarks.risks` chooses the threshold for `review`."""
    reader, _ = load_own_networks()
    numbers = (NumberPicture(one.picture, one.text) for one in load_numbers(judges, None))
    answers = read_pictures(reader._replace(second=load_second_reader()), numbers)
    card = read_card(card_path(NUMBER))
    together = calibrate_card(card, answers)
    second = {
        "calibration": together.calibration,
        "review_below": together.review_below,
        "risks": (),
    }
    replace(card, second_reader=second).write(out / f"{NUMBER}.json")
