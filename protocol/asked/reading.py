"""What is read in images, as a value: `digits()`, `numbers()` or `form()`."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Generic, Self, TypeAlias, cast

import pyarrow as pa
from typing_extensions import TypeVar

from digitq.protocol.asked.form import FORM_MAGIC, Cell, Form, read_form
from digitq.protocol.asked.known import Known, describe_known
from digitq.protocol.asked.own_network import OwnNetwork, find_own_network
from digitq.protocol.asked.risk import choose_risk, describe_way
from digitq.protocol.errors import DigitqError, UsageError
from digitq.protocol.prediction import Answer, NumberPrediction, Prediction, to_answers
from digitq.protocol.settings import (
    MODELS,
    NUMBER,
    WHATS,
    FolderLike,
    What,
    find_weights,
    read_by,
    settings,
)
from digitq.protocol.text import in_one_line

SECOND_PACKAGE = "rapidocr"  # brings the model of the second reader
INSTALL_SECOND = "run `pip install 'digitq[second-reader]'`"
FormLike: TypeAlias = str | os.PathLike[str] | Form  # a form, or its file
# A call that names no reading reads digits
AnswerT = TypeVar("AnswerT", bound=Answer, covariant=True, default=Prediction)


@dataclass(frozen=True)
class Reading(Generic[AnswerT]):
    """How images are read, and the type of an image's answer: a `Prediction`, a `NumberPrediction`,
    or a dictionary of these if the image is a page with a form."""

    model: str
    # What is known and asked, or the form, encoded; empty for nothing. It may have megabytes
    known: bytes = field(default=b"", repr=False)
    form_name: str | None = None  # the form's file
    risk: float | None = None  # so much may be wrong among the answers that are not marked
    like: str | None = None  # the corrected results of which the risk was measured
    second_reader: bool = False  # whether a network of another make must read numbers, too
    # The network that must answer, if it is a person's own; its name is in what is known
    network: OwnNetwork | None = field(default=None, repr=False)
    # Whether anybody has chosen the model
    is_named: bool = field(default=True, compare=False, repr=False)

    @property
    def what(self) -> What:
        return read_by(self.model)

    @property
    def form(self) -> Form | None:
        """The form that the pages have; None if each image is one digit or number."""
        return decode_form(self.known) if self.known.startswith(FORM_MAGIC) else None

    @property
    def row(self) -> str:
        """What a row of the results answers: an image, or a field of a page."""
        return "field" if self.form else "image"

    def count_rows(self, images: int | None) -> int | None:
        """How many rows so many images have; None if the number is unknown."""
        return None if images is None else images * self.rows_of_image

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The places of each page; nothing without a form."""
        return self.form.cells if self.form else ()

    @property
    def rows_of_image(self) -> int:
        """How many rows the results have for each image."""
        return max(1, len(self.cells))

    def to_answers(self, rows: pa.RecordBatch) -> Sequence[AnswerT]:
        """The answers of whole images, from their rows of the results."""
        return cast(Sequence[AnswerT], to_answers(rows))

    def with_network(self, network: OwnNetwork | None) -> Self:
        """The same reading by this network, or by that of the workers."""
        name = network.name if network else None
        known = replace(decode_known(self.known), network=name).encode()
        return replace(self, known=known, network=network)

    def check_here(self, has_broker: bool = False) -> None:
        """Raises `UsageError` if nobody has chosen the model and `DIGITQ_WEIGHTS` does not have it:
        nobody would see that digitq's own network is used; and if the second reader is not
        installed. A broker's workers have weights and packages of their own."""
        if self.second_reader and not has_broker and find_spec(SECOND_PACKAGE) is None:
            raise UsageError(f"{SECOND_PACKAGE} is not installed: {INSTALL_SECOND}")
        is_chosen = self.is_named or self.network is not None or has_broker
        if not is_chosen and (folder := settings().weights):
            find_weights(folder, self.model)


@lru_cache(maxsize=2)
def decode_form(payload: bytes) -> Form:
    return Form.decode(payload)


def decode_known(payload: bytes) -> Known | Form:
    """What is known beforehand, from the bytes that travel with a job. Raises `DigitqError`."""
    try:
        return Form.decode(payload) if payload.startswith(FORM_MAGIC) else Known.decode(payload)
    except (ValueError, TypeError) as error:
        reason = in_one_line(str(error).partition("\n")[0])
        raise DigitqError(
            "update this worker or the submitter, whichever is older: what is known of the numbers "
            f"is of another version of digitq, or damaged ({reason})"
        ) from None


def digits(
    model: str | None = None,
    *,
    weights: FolderLike | None = None,
    risk: float | str | None = None,
    like: str | os.PathLike[str] | None = None,
) -> Reading[Prediction]:
    """The digit in each image is read, with the network `mlp`, `cnn` or `random`; by default that
    of `DIGITQ_MODEL`, else `mlp`.

    `weights` is a folder of `digitq train`, whose network must answer. It travels with the job.

    With a `risk`, such as `0.005` or `"0.5%"`, so many answers are marked that at most this share
    of the others is wrong, on images like those that the model was measured with; or `like` those
    of a file that `digitq correct` wrote after a look at a random sample.

    Raises `UsageError` for an unknown model, and as `ask`.
    """
    name = model or settings().model
    if name not in MODELS:
        raise UsageError(f"there is no model {name!r}; there are: {', '.join(MODELS)}")
    is_named = bool(model or weights) or "model" in settings().model_fields_set
    return ask(read_with(name, is_named), weights, risk, like)


@lru_cache(maxsize=8)  # a single call without a reading takes no time for it
def read_with(model: str, is_named: bool) -> Reading[Prediction]:
    """The reading of digits with this model."""
    return Reading(model, is_named=is_named)


def numbers(
    *,
    length: str | int | tuple[int, int] | None = None,
    pattern: str | None = None,
    allowed: Iterable[str | int] | None = None,
    fill: str | None = None,
    weights: FolderLike | None = None,
    risk: float | str | None = None,
    like: str | os.PathLike[str] | None = None,
    second_reader: bool = False,
) -> Reading[NumberPrediction]:
    """The whole number in each image is read, as it is written.

    It helps to know its `length`, such as `9`, `"3-6"` or `(3, 6)`; its `pattern`, a regular
    expression such as `r"\\d+\\.\\d"`, or `integer`, `decimal`, `date` or `time`; or the numbers
    that are `allowed`, up to a million. `fill` names marks that fill unused boxes, such as `"X-"`.
    `weights`, `risk` and `like` are those of `digits`. With a `second_reader`, a network of another
    make reads each number, too, which needs the extra `second-reader` where the worker runs.

    Raises `UsageError` as `Known.check` and `ask`.
    """
    known = Known.check(length, allowed, pattern, fill)
    return ask(Reading(NUMBER, known.encode()), weights, risk, like, second_reader)


def form(
    file: FormLike,
    *,
    weights: FolderLike | None = None,
    risk: float | str | None = None,
    like: str | os.PathLike[str] | None = None,
    second_reader: bool = False,
) -> Reading[dict[str, NumberPrediction]]:
    """Each image is a page with this form, given as the path of its file: the number in each field
    is read. An answer has one for each field, by its name, such as `student`, or `marks/4/c1` in a
    table. `weights`, `risk` and `like` are those of `digits`, and `second_reader` is that of
    `numbers`; a risk is of numbers, not of ticks.

    Raises `UsageError` as `read_form` and `ask`.
    """
    page_form = file if isinstance(file, Form) else read_form(Path(file))
    name = "a form in Python" if isinstance(file, Form) else os.path.abspath(file)
    reading: Reading[Any] = Reading(NUMBER, page_form.encode(), name)
    return ask(reading, weights, risk, like, second_reader or page_form.second_reader)


def ask(
    reading: Reading[AnswerT],
    weights: FolderLike | None,
    risk: float | str | None,
    like: str | os.PathLike[str] | None,
    second_reader: bool = False,
) -> Reading[AnswerT]:
    """The reading with the networks that must answer, and with what is asked of the answers that
    are not marked. Raises as `find_own_network` and `choose_risk`, and `UsageError` for a risk if
    the form has no numbers."""
    if second_reader:
        known = replace(decode_known(reading.known), second_reader=True).encode()
        reading = replace(reading, known=known, second_reader=True)
    if weights is not None:
        reading = reading.with_network(find_own_network(weights, reading.model))
    if risk is None and like is None:
        return reading
    asked = decode_known(reading.known)
    if reading.form and all(cell.known.options for cell in reading.cells):
        raise UsageError(
            "a risk holds for numbers, and the form has none: it weighs no ticks, so leave it out"
        )
    way = describe_way(*describe_known(b"" if reading.form else reading.known), bool(reading.form))
    chosen = choose_risk(risk, like, reading.model, way)
    where = None if like is None else os.path.abspath(like)
    known = replace(asked, risk=chosen).encode()
    return replace(reading, known=known, risk=chosen.share, like=where)


def check_reading(reading: Reading[AnswerT] | None) -> Reading[AnswerT]:
    """The reading, by default that of digits. Raises `UsageError` for anything else."""
    if reading is None:
        return cast(Reading[AnswerT], digits())
    if not isinstance(reading, Reading):
        raise UsageError(
            f'{reading!r} does not say what to read: give digits(), such as digits("cnn"), '
            "numbers() or form()"
        )
    return reading


def choose_reading(
    *,
    model: str | None = None,
    read: str = "digit",
    page_form: Form | None = None,
    length: str | int | tuple[int, int] | None = None,
    pattern: str | None = None,
    allowed: Iterable[str | int] | None = None,
    fill: str | None = None,
    risk: float | str | None = None,
    like: str | os.PathLike[str] | None = None,
    second_reader: bool = False,
) -> Reading[Any]:
    """The reading that the options of a command or the arguments of a message name.

    Raises `UsageError` for what does not go together, and as `digits`, `numbers` and `form`.
    """
    if read not in WHATS:
        raise UsageError(f"`read` is {read!r}: it must be {' or '.join(WHATS)}")
    is_any_known = any(one is not None for one in (length, pattern, allowed, fill))
    if page_form is not None and is_any_known:
        raise UsageError(
            "a form says what is known of each field: leave out length, pattern, allowed and fill"
        )
    reads_numbers = read == "number" or page_form is not None
    if reads_numbers and model is not None:
        raise UsageError(
            f"whole numbers have a network of their own: leave out the model {model!r}"
        )
    asked: dict[str, Any] = {"risk": risk, "like": like, "second_reader": second_reader}
    if page_form is not None:
        return form(page_form, **asked)
    if reads_numbers:
        return numbers(length=length, pattern=pattern, allowed=allowed, fill=fill, **asked)
    if second_reader:
        raise UsageError(
            'the second reader reads whole numbers: --read number or --form, or read="number"'
        )
    if is_any_known:
        raise UsageError(
            "a length, a pattern, a fill and allowed numbers need whole numbers: --read number, or "
            'read="number"'
        )
    return digits(model, risk=risk, like=like)
