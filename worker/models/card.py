"""The card of a model: how its weights were made, and what was measured on them."""

import hashlib
import json
import math
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from digitq.protocol.asked import UnmetError
from digitq.protocol.asked.risk import Curve, Risk, find_threshold
from digitq.protocol.chunk import CLASSES
from digitq.protocol.errors import DigitqError
from digitq.protocol.settings import settings

WEIGHTS_FOLDER = Path(__file__).parent / "weights"
NEVER_SURER = 1e-6  # a probability counts as if it were at least this far from 0 and 1


@dataclass(frozen=True)
class Card:
    """What is known about a model's weights, as `weights/NAME.json` has it."""

    name: str
    architecture: str
    mean: float  # the mean of the training set's grey values, scaled to 0..1
    std: float  # their standard deviation
    labels: tuple[str, ...] = tuple(str(digit) for digit in range(CLASSES))
    seed: int = 0
    command: str | None = None  # the command that made the weights
    sources: dict[str, float] = field(default_factory=dict)  # what was learned, and its share
    validation_accuracy: float | None = None  # measured on the images that chose the epoch
    test_accuracy: float | None = None  # measured once, after that choice
    test_calibration_error: float | None = None  # expected calibration error, 0..1
    shorter_runs: str | None = None  # a shorter training's command, and its accuracy over seeds
    temperature: float = 1.0  # divides the logits, so that confidence matches accuracy
    # what each of `list_features` adds to the log-odds that a number is right
    calibration: dict[str, float] = field(default_factory=lambda: {"chance": 1.0})
    review_below: float = 1.0  # an answer of lower confidence is to be reviewed
    # What may be wrong above which confidence, on real hands that nobody trained with
    risks: Curve = ()
    # What differs with the second reader: `calibration`, `review_below` and `risks`
    second_reader: dict[str, Any] = field(default_factory=dict)
    sha256: str | None = None  # the SHA-256 of the weights file
    own_images: int = 0  # how many images of a user's own were learned
    own_held_back: int = 0  # how many were not, to measure the accuracy
    own_left_out: dict[str, int] = field(default_factory=dict)  # how many others, by the reason
    own_accuracy_before: float | None = None  # on those held back, before the others were learned
    own_accuracy: float | None = None  # on the same images, after the others were learned
    own_to_review_before: float | None = None  # the share of those held back that is to review
    own_to_review: float | None = None
    # The share of those held back that is wrong and not to review
    own_unmarked_errors_before: float | None = None
    own_unmarked_errors: float | None = None
    # The share of rehearsed images held back that is wrong and not to review
    rehearsed_unmarked_errors_before: float | None = None
    rehearsed_unmarked_errors: float | None = None

    def in_use(self, second_reader: bool) -> Self:
        """The card as it holds with the second reader, or without it. Raises `UnmetError` if nobody
        has measured what confidence means with the second reader."""
        if not second_reader:
            return self
        if not self.second_reader:
            raise UnmetError(
                "these weights were trained before digitq had a second reader: leave it out, or "
                "train them again"
            )
        return replace(self, **self.second_reader)

    @property
    def thresholds(self) -> tuple[float, float]:
        """The thresholds for `review`: of the network alone, and with the second reader."""
        return self.review_below, self.second_reader.get("review_below", 1.0)

    def mark_below(self, alone: float, with_second_reader: float) -> Self:
        """The card of a network that has learned more: with these thresholds for `review`, of its
        answers alone and with the second reader. What was measured of risks holds no longer."""
        second = self.second_reader
        if second:
            second = {**second, "review_below": with_second_reader, "risks": ()}
        return replace(self, review_below=alone, second_reader=second, risks=())

    def find_threshold(self, risk: Risk | None) -> float:
        """The confidence below which answers are to be reviewed, so that no more than the risk is
        wrong among the others. Raises `UnmetError`."""
        if risk is None:
            return self.review_below
        return find_threshold(self.find_curve(risk), risk.share, self.name)

    def find_curve(self, risk: Risk) -> Curve:
        """What may be wrong above which confidence: as a person has found, or on real hands."""
        return risk.curve or self.risks

    def calibrate(
        self, chance: float, is_length_known: bool = False, is_agreed: bool = False
    ) -> float:
        """The probability that a number is right, from that of its reading (J. Platt, 1999)."""
        features = list_features(chance, is_length_known, is_agreed)
        odds = sum(self.calibration.get(name, 0.0) * value for name, value in features.items())
        return 1 / (1 + math.exp(-odds))

    def write(self, path: Path) -> None:
        """Write the card as JSON."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


def list_features(chance: float, is_length_known: bool, is_agreed: bool) -> dict[str, float]:
    """What the confidence of a number depends on, by name.

    - chance: the log-odds of its probability among all numbers that are possible
    - length known: 1 if its count of digits was known, and so no other length takes a part of that
      probability, which is then too high more often
    - chance if length known: the log-odds once more in this case
    - agreed: 1 if the second reader alone reads it, and the others without it
    - offset: always 1
    """
    odds = min(max(chance, NEVER_SURER), 1 - NEVER_SURER)
    logit, known = math.log(odds / (1 - odds)), float(is_length_known)
    return {
        "chance": logit,
        "length known": known,
        "chance if length known": known * logit,
        "agreed": float(is_agreed),
        "offset": 1.0,
    }


def parse_card(content: bytes, where: str) -> Card:
    """The card that `Card.write` wrote. Raises `DigitqError` if it isn't one; `where` says whose it
    is."""
    try:
        return Card(**json.loads(content))
    except (ValueError, TypeError) as error:
        raise DigitqError(
            f"{where} isn't a model card ({error}): install digitq again or train the model again"
        ) from error


def read_card(path: Path) -> Card:
    """Read a card. Raises `DigitqError` if it isn't one."""
    try:
        return parse_card(path.read_bytes(), str(path))
    except OSError as error:
        raise DigitqError(f"{path} can't be read ({error}): install digitq again") from error


def card_path(name: str) -> Path:
    """The path of a model's card: in `DIGITQ_WEIGHTS` if that folder has it, else digitq's own.

    Raises `UsageError` if the folder has no card of any model.
    """
    return settings().own_card(name) or WEIGHTS_FOLDER / f"{name}.json"


def hash_card(name: str) -> str:
    """The SHA-256 of a model's card, which contains that of its weights; "" without a card."""
    with suppress(DigitqError, OSError):
        return hashlib.sha256(card_path(name).read_bytes()).hexdigest()
    return ""
