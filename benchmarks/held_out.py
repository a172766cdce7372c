"""How often numbers of held-out sources are read rightly, marked, and wrong without a mark.

`python -m benchmarks.held_out HANDS... [--limit N] [--only SOURCE]` reads the whole numbers in
folders of real handwriting, whose form `training/hands.py` describes, and those in
`cells/SOURCE/labels.csv` with the columns `path` and `value`: cells with a decimal number, whose
point may be missing. It prints for each source, and each way to read it:
- right, marked `review`, wrong and not marked, in % of the pictures; an error is marked
- sure: rows with a confidence of 99.9 % or more, and how many of them are right
- the mean confidence, and the expected calibration error, of the rows with an answer

With `--second-reader`, a network of another make reads each number, too.

`--kept-out` instead keeps out each source of numbers in turn: the confidence is calibrated with all
others, and its calibration error is measured on this source, and on all readings together.
"""

import argparse
import csv
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from digitq.protocol.asked.known import Known
from digitq.protocol.asked.rules import read_values
from digitq.protocol.asked.values import ALPHABET, NUMERALS, only_digits
from digitq.worker.classify import read_image, read_numbers
from digitq.worker.learning.calibration import (
    NumberPicture,
    calibrate_card,
    calibrated,
    join_answers,
    measure_calibration_error,
    measure_gaps,
    read_pictures,
    write_form,
)
from digitq.worker.models.number_networks import load_networks
from digitq.worker.models.second_reader import use_second_reader
from training.hands import list_sources, load_numbers

SURE = 0.999  # a row with at least this confidence is sure
HEAD = "", "way to read", "images", "right", "marked", "silent", "sure", "right", "conf.", "ECE"


class Item(NamedTuple):
    """A picture, and what is written in it."""

    path: Path
    truth: str


class Way(NamedTuple):
    """A way to read some of a source's pictures."""

    name: str
    known: Callable[[Item], Known]  # what is known of the number in a picture
    is_right: Callable[[str, str], bool]  # whether an answer is right, for the truth
    items: list[Item]


class Read(NamedTuple):
    """The answers to some pictures."""

    is_right: NDArray[np.bool_]  # (N,)
    confidence: NDArray[np.float64]  # (N,); 0 if there is no answer
    reasons: list[str | None]  # why each is to review, by the model's own threshold

    @property
    def is_marked(self) -> NDArray[np.bool_]:
        return np.array([reason is not None for reason in self.reasons])


def list_items(path: Path, column: str) -> list[Item]:
    """The pictures of a file of labels, with what its column says."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [*csv.DictReader(file)]
    items = [Item(path.parent / row["path"], row[column]) for row in rows]
    return [item for item in items if any(sign in NUMERALS for sign in item.truth)]


def has_digits(answer: str, truth: str) -> bool:
    return only_digits(answer) == only_digits(truth)


def has_value(answer: str, truth: str) -> bool:
    """Whether a number such as `12.5`, `12,5` or `12½` may be worth this."""
    return Fraction(truth) in read_values(answer)


def has_value_or_digits(answer: str, truth: str) -> bool:
    """Whether the digits are equal, with or without a 0 after the point."""
    whole = truth.removesuffix(".0")
    return only_digits(answer) in (only_digits(whole), only_digits(f"{float(truth):.1f}"))


def always(known: Known) -> Callable[[Item], Known]:
    return lambda _: known


def list_ways(path: Path) -> Iterator[Way]:
    """How the pictures of a source are read, from its file of labels."""
    if path.parent.parent.name == "cells":
        items = list_items(path, "value")
        decimals = [item for item in items if not float(item.truth).is_integer()]
        for pattern in (None, "integer", r"\d+([.,]\d)?"):
            known = Known.check(pattern=pattern)
            yield Way(pattern or "free", always(known), has_value_or_digits, items)
        yield Way(r"\d+\.\d", always(Known.check(pattern=r"\d+\.\d")), has_value, decimals)
        return
    items = [
        item._replace(truth="".join(sign for sign in item.truth if sign in ALPHABET))
        for item in list_items(path, "text")
    ]
    knows_signs = not all(item.truth.isdecimal() for item in items)
    is_same = str.__eq__ if knows_signs else has_digits
    listed = Known.check(allowed=sorted({item.truth for item in items}))
    yield Way("free", always(Known()), is_same, items)
    yield Way("integer", always(Known.check(pattern="integer")), has_digits, items)
    yield Way("its form", lambda item: Known.check(pattern=write_form(item.truth)), is_same, items)
    yield Way("listed", always(listed), is_same, items)


def read(way: Way, items: Sequence[Item]) -> Read:
    """The answers to some of a way's pictures."""
    rows = list[dict[str, Any]]()
    for path, known in ((item.path, way.known(item)) for item in items):
        batch = pa.record_batch({"id": [path.name], "image": [path.read_bytes()]})
        rows += read_numbers(batch, read_image, known).to_pylist()
    is_right = [
        row["number"] is not None and way.is_right(row["number"], item.truth)
        for row, item in zip(rows, items, strict=True)
    ]
    return judge(is_right, rows)


def judge(is_right: Sequence[bool], rows: Sequence[dict[str, Any]]) -> Read:
    """What counts of result rows."""
    confidence = np.array([row["confidence"] or 0.0 for row in rows])
    return Read(np.array(is_right), confidence, [row["reason"] for row in rows])


def measure(one: Read) -> list[str]:
    """The figures of a way to read, as texts."""
    is_sure = one.confidence >= SURE
    wrong = ~one.is_right & ~one.is_marked
    sure = f"{one.is_right[is_sure].mean():.1%}" if is_sure.any() else "-"
    return [
        str(len(one.is_right)),
        *(f"{share.mean():.1%}" for share in (one.is_right, one.is_marked, wrong)),
        str(is_sure.sum()),
        sure,
        f"{one.confidence[one.confidence > 0].mean():.1%}",
        f"{find_calibration_error(one):.1%}",
    ]


def find_calibration_error(one: Read) -> float:
    """The expected calibration error of the rows with an answer."""
    has_answer = one.confidence > 0
    confidences, is_right = one.confidence[has_answer], one.is_right[has_answer]
    return measure_calibration_error(torch.from_numpy(confidences), torch.from_numpy(is_right))


def keep_out(hands: list[Path]) -> None:
    """Print the calibration error of each source when all others calibrate the confidence."""
    reader, card = load_networks()
    pictures: dict[str, list[NumberPicture]] = {}
    for one in load_numbers(hands, None):
        pictures.setdefault(one.source, []).append(NumberPicture(one.picture, one.text))
    answers = {name: read_pictures(reader, part) for name, part in pictures.items()}
    confidences = []
    for name, own in answers.items():
        others = calibrate_card(card, join_answers(v for k, v in answers.items() if k != name))
        confidences.append(calibrated(others, own))
        print(f"{name:16} {len(own.is_right):7} {measure_gaps(others, own):7.1%}", flush=True)
    read = join_answers(answers.values())
    gaps = measure_calibration_error(
        torch.cat(confidences)[read.chances > 0], read.is_right[read.chances > 0]
    )
    print(f"{'all':16} {len(read.is_right):7} {gaps:7.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, metavar="N", help="about N pictures of each source")
    parser.add_argument("--only", metavar="SOURCE", help="one source")
    parser.add_argument("--kept-out", action="store_true", help="each source in turn")
    parser.add_argument("hands", type=Path, nargs="+", metavar="HANDS")
    parser.add_argument("--second-reader", action="store_true", help="use the second reader")
    options = parser.parse_args()
    with use_second_reader(options.second_reader):
        keep_out(options.hands) if options.kept_out else measure_ways(options)


def measure_ways(options: argparse.Namespace) -> None:
    """Print the figures of each source, and of each way to read it."""
    show = "{:16} {:>16} {:>7} {:>7} {:>7} {:>7} {:>6} {:>7} {:>7} {:>7}".format
    print(show(*HEAD))
    for path in list_sources(options.hands, "*/*/labels.csv"):
        source = path.parent.name
        if options.only in (None, source):
            for way in list_ways(path):
                step = max(1, len(way.items) // options.limit) if options.limit else 1
                one = read(way, way.items[::step])
                print(show(source, way.name, *measure(one)), flush=True)


if __name__ == "__main__":
    main()
