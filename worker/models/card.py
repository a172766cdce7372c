"""The card of a model: where its weights come from, and what was measured of them."""

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from protocol.errors import DigitqError
from protocol.settings import settings
from worker.models.network import CLASSES

WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class Card:
    """What is known about a model's weights; `weights/NAME.json` holds one."""

    name: str
    architecture: str
    mean: float  # of grey values scaled to 0..1
    std: float
    labels: tuple[str, ...] = tuple(str(digit) for digit in range(CLASSES))
    seed: int = 0
    command: str | None = None  # the command that made the weights
    validation_accuracy: float | None = None  # on the training images held back to choose by
    test_accuracy: float | None = None  # measured once, after choosing
    test_calibration_error: float | None = None  # of its confidences, 0..1
    temperature: float = 1.0  # logits are divided by it, so that confidence is accuracy
    review_below: float = 1.0  # a confidence under which a person should look at the answer
    sha256: str | None = None  # of the weights file

    def write(self, path: Path) -> None:
        """Write the card as JSON."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


def read_card(path: Path) -> Card:
    """Read a card that `Card.write` wrote. Raises `DigitqError` where it isn't one."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        return Card(**{**fields, "labels": tuple(fields["labels"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DigitqError(
            f"{path} isn't a model card ({error}); install digitq again or train the model again"
        ) from error


def card_path(name: str) -> Path:
    """Where a model's card is: in `DIGITQ_WEIGHTS` where it has one, else digitq's own. Raises
    `UsageError` where it has none at all."""
    own = settings().own_weights()
    path = own / f"{name}.json" if own else None
    return path if path and path.exists() else WEIGHTS / f"{name}.json"


def fingerprint(name: str) -> str:
    """The SHA-256 of a model's card, which has that of its weights; nothing where there is none."""
    with suppress(DigitqError, OSError):
        return hashlib.sha256(card_path(name).read_bytes()).hexdigest()
    return ""
