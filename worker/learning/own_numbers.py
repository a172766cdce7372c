"""Goes on training `number` with one's own numbers.

The detector stays as it is, and cuts out the line of each number. The network of columns learns
these lines beside rendered ones.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pyarrow as pa
import torch

from protocol.chunk import Chunk, kind_of
from protocol.errors import UsageError
from protocol.host.cores import usable_cores
from worker.classify import Outcome, as_file, read_image, read_images
from worker.learning.calibration import (
    Answers,
    NumberPicture,
    calibrate_card,
    measure_gaps,
    measure_share,
    read_pictures,
)
from worker.learning.column_batches import (
    NO_BOXES,
    LearnedStrip,
    NumberRecipe,
    Rng,
    StripBatch,
    batch_strips,
    cut_inexactly,
    draw_batches,
    measure_losses,
    vary,
)
from worker.learning.columns import Columns, fold
from worker.learning.learner import Learner
from worker.learning.own import Trained, leave_out, read_own
from worker.models.number import NumberReader, make_reader, read_number_weights, take_weights
from worker.sight.decoding.any_file import read_picture
from worker.sight.normalisation.colours import to_grey
from worker.sight.numbers.finding import equalise
from worker.sight.numbers.recognition import DECODED_SIDE, list_digits, look
from worker.sight.numbers.search import CLEAR
from worker.sight.types import Grey, ImageError

RECIPE = NumberRecipe(epochs=4, learning_rate=5e-4, warm_up_steps=20, ema_decay=0.98)
OWN_SHARE = 0.5  # this many own numbers are learned for each rehearsed one
MAX_MISSED = 1  # the detector may see this many digits more or fewer than the number has
MISCOUNTED = "the detector misses two digits or more, or sees as many too many"
REHEARSAL_FILE = Path(__file__).parent / "rehearsal.arrow"


class Rehearsal(NamedTuple):
    """Rendered numbers, so that the network does not forget them while it learns others."""

    strips: list[LearnedStrip]
    pictures: list[NumberPicture]


def load_rehearsal() -> Rehearsal:
    """The strips and whole pictures of the file, which `python -m training rehearsal` made.

    Its Arrow table has `image`, a WebP picture of grey values; `number`; and `middles`, where the
    middle of each digit is in a strip, in px. A row without `middles` is a whole picture.
    """
    strips, pictures = [], []
    with pa.ipc.open_file(REHEARSAL_FILE) as file:
        rows = file.read_all().to_pylist()
    for row in rows:
        number, content = row["number"], np.frombuffer(row["image"], np.uint8)
        grey = np.asarray(cv2.imdecode(content, cv2.IMREAD_GRAYSCALE), np.uint8)
        if row["middles"] is None:
            pictures.append(NumberPicture(grey, number))
        else:
            middles = np.array(row["middles"], np.float64)
            strips.append(LearnedStrip(equalise(grey), middles, number))
    return Rehearsal(strips, pictures)


def read_own_pictures(batch: pa.RecordBatch) -> list[Outcome[Grey]]:
    """The picture in each image, or its error."""
    kind = kind_of(batch)

    def reader(content: bytes) -> Iterator[Grey]:
        yield to_grey(read_picture(as_file(content, kind), DECODED_SIDE))

    return read_images(batch, reader, read_image)


def place_digits(reader: NumberReader, own: NumberPicture) -> NumberPicture | None:
    """The picture with the box of each digit; None if the detector sees too few or too many."""
    try:
        seen = look(reader, own.picture)
    except ImageError:
        return None
    count = int((seen.line.chances >= CLEAR).sum())
    if abs(count - len(own.number)) > MAX_MISSED:
        return None
    height, width = own.picture.shape
    found = list_digits(seen, own.number, (width, height), (width, height))
    return own._replace(boxes=np.array([digit[2:] for digit in found], np.float32))


def learn_columns(
    columns: Columns,
    own: Sequence[NumberPicture],
    rehearsed: Sequence[LearnedStrip],
    seed: int,
    recipe: NumberRecipe,
) -> Columns:
    """Train the network of columns with own pictures, which have boxes, beside rehearsed strips."""

    def make_batches(strips: Sequence[LearnedStrip], rng: Rng) -> list[StripBatch]:
        chosen = rng.integers(len(own), size=round(OWN_SHARE * len(strips)))
        cut = (
            cut_inexactly(picture, digits, text, digits if text.isdecimal() else NO_BOXES, rng)
            for picture, text, digits in (own[row] for row in chosen.tolist())
        )
        return batch_strips([vary(strip, rng) for strip in (*strips, *cut)], rng)

    optimiser = torch.optim.AdamW(
        columns.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
    )
    learner = Learner(columns, measure_losses, recipe, [optimiser])
    torch.set_num_threads(usable_cores())
    learned: Columns = learner.train(partial(draw_batches, rehearsed, make_batches, seed))
    torch.set_num_threads(1)
    return fold(learned)


def train_own_numbers(chunks: Iterable[Chunk], seed: int, epochs: int | None) -> Trained:
    """Go on training the columns of `number`."""
    torch.set_num_threads(1)
    weights, before = read_number_weights()
    own, held_back, left_out = read_own(chunks, read_own_pictures, "number", seed)
    reader = make_reader(weights)
    placed = [(id, place_digits(reader, NumberPicture(*shown))) for id, *shown in own]
    learned = [one for _, one in placed if one]
    left_out |= leave_out([id for id, one in placed if not one], MISCOUNTED)
    if not learned:
        raise UsageError("in no image the detector sees as many digits as the right answer has")
    rehearsal = load_rehearsal()
    sets = [NumberPicture(*shown) for _, *shown in held_back], rehearsal.pictures
    own_before, rehearsed_before = (
        measure_share(read_pictures(reader, part).is_right) for part in sets
    )
    recipe = replace(RECIPE, epochs=epochs or RECIPE.epochs)
    torch.manual_seed(seed)
    columns = fold(Columns())
    old = take_weights(weights, "columns")
    columns.load_state_dict({name: torch.from_numpy(value) for name, value in old.items()})
    columns = learn_columns(columns, learned, rehearsal.strips, seed, recipe)
    print("calibrating and testing …", file=sys.stderr)
    new = {f"columns.{name}": value.numpy() for name, value in columns.state_dict().items()}
    weights = weights | new
    read = [read_pictures(make_reader(weights), part) for part in sets]
    both = Answers(*(torch.cat(parts) for parts in zip(*read, strict=True)))
    own_after, rehearsed_after = (measure_share(answers.is_right) for answers in read)
    card = calibrate_card(before, both)
    card = replace(
        card,
        validation_accuracy=measure_share(both.is_right),
        test_accuracy=rehearsed_after,
        test_calibration_error=measure_gaps(card, both),
        own_images=len(learned),
        own_held_back=len(held_back),
        own_left_out=left_out,
        own_accuracy_before=own_before,
        own_accuracy=own_after,
    )
    others = f"{len(rehearsal.pictures)} rendered numbers", rehearsed_before, rehearsed_after
    tensors = {name: torch.from_numpy(value) for name, value in weights.items()}
    return Trained(before, card, tensors, others)
